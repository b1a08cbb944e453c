"""Requests over TLS as curl makes them, to a port of this machine."""

import json
import subprocess
from pathlib import Path


def ask_over_tls(root: Path, port: int, host: str, *options: str) -> str:
    """What curl says of a request to a host: `STATUS HTTP-VERSION SERVER`, or `refused EXIT-STATUS`.

    `root` is the file with whom it believes.
    """
    written = "\n%{http_code} %{http_version}"
    command = ["curl", "--silent", "--max-time", "5", "--cacert", str(root), "--write-out", written]
    resolve = ["--resolve", f"{host}:{port}:127.0.0.1"]
    url = f"https://{host}:{port}/"
    done = subprocess.run([*command, *resolve, *options, url], capture_output=True, text=True, check=False)
    if done.returncode:
        return f"refused {done.returncode}"
    body, _, status = done.stdout.rpartition("\n")
    server = json.loads(body)["server"] if body.startswith("{") else ""
    return f"{status} {server}".strip()
