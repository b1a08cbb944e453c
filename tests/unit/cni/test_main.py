import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[3]


@pytest.mark.parametrize(
    ("arguments", "environment", "status", "message"),
    [
        ([], {}, 2, "usage: python -m cni agent"),
        (["plugin"], {}, 2, "usage: python -m cni agent"),
        (["agent"], {}, 1, "NODE_NAME is not set"),
        (["agent"], {"NODE_NAME": "n", "AMBIT_LOG_LEVEL": "loud"}, 1, "AMBIT_LOG_LEVEL='loud'"),
        (["agent"], {"NODE_NAME": "n", "ZTUNNEL_UDS_ADDRESS": "/dev/null/zds.sock"}, 1, "/dev/null/zds.sock"),
    ],
    ids=["nothing to do", "not there yet", "no node", "no such level", "no such folder"],
)
def test_what_keeps_the_agent_from_starting_is_named(
    tmp_path: Path, arguments: list[str], environment: dict[str, str], status: int, message: str
) -> None:
    variables = {"AMBIT_AGENT_SOCKET": str(tmp_path / "agent.sock"), "PYTHONPATH": str(REPOSITORY)} | environment
    command = [sys.executable, "-m", "cni", *arguments]
    ended = subprocess.run(command, env=variables, capture_output=True, text=True, timeout=30)
    assert ended.returncode == status
    assert message in ended.stdout
    assert "Traceback" not in ended.stdout + ended.stderr
