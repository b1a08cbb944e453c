"""Objects as files of the lab."""

from pathlib import Path

from ambit.lab.objects import ObjectStore
from controller.kinds.meta import ObjectKey


def test_objects_are_for_their_owner_only(tmp_path: Path) -> None:
    """They may be Secrets."""
    store = ObjectStore(tmp_path)
    for data in ("1", "2"):
        store.put(ObjectKey("", "Secret", "demo", "a"), {"data": {"tls.key": data}})
        [file] = tmp_path.iterdir()
        assert oct(file.stat().st_mode & 0o777) == "0o600"
