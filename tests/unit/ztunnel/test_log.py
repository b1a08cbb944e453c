"""Which log settings are refused, and how."""

import pytest

import dataplane
from mesh.kit.errors import InvalidInputError


@pytest.mark.parametrize(
    ("levels", "form", "said"),
    [
        pytest.param("info", "xml", 'LOG_FORMAT: "xml" is no log format; write plain or json', id="format"),
        pytest.param("info,access=loud", "plain", 'RUST_LOG: "access=loud" is no log level', id="level"),
        pytest.param("access[x]=info", "json", 'RUST_LOG: "access[x]=info" is no log level', id="span"),
    ],
)
def test_senseless_settings_are_refused(levels: str, form: str, said: str) -> None:
    with pytest.raises(InvalidInputError) as refused:
        dataplane.start_log(levels, form)
    assert said in str(refused.value)
