"""The other peer: HAProxies that carry TCP over mutual TLS 1.3, one in the client's pod and one in the server's.

    app ── connect 127.0.0.1:7000 ─▶ HAProxy ══ mTLS 1.3 ══▶ far:17000 HAProxy ─▶ 127.0.0.1:7000, the app on far

Nothing is redirected: the client speaks to its own HAProxy, which spares the pair what a mesh has to do. Both have two
threads, the keys that the Envoys have, and one log line a connection.
"""

from collections.abc import Sequence
from pathlib import Path

from ambit.lab.control import Json
from bench.certificates import MutualTlsFiles

TLS_PORT_OFFSET = 10_000
"""A server's port, plus this, is where its HAProxy takes TLS."""

THREADS = 2
MOST_CONNECTIONS = 8000
"""Of one process; it takes two descriptors for each."""

_GLOBAL = f"""\
global
    nbthread {THREADS}
    maxconn {MOST_CONNECTIONS}
    log stdout format raw local0
    ssl-default-bind-options ssl-min-ver TLSv1.3
    ssl-default-server-options ssl-min-ver TLSv1.3
defaults
    mode tcp
    log global
    option tcplog
    timeout connect 5s
    timeout client 1h
    timeout server 1h
"""


def write_certificates(folder: Path, tls: MutualTlsFiles) -> str:
    """The options of a TLS socket; HAProxy wants certificate and key in one file."""
    both = folder / "haproxy.pem"
    both.touch(mode=0o600)
    both.write_text(tls.certificate.read_text() + tls.key.read_text())
    return f"ssl crt {both} ca-file {tls.authority} verify required"


def write_server_configuration(folder: Path, tls: str, ports: Sequence[int]) -> Path:
    """For the server's pod."""
    sections = [
        f"listen server-{port}\n    bind :{port + TLS_PORT_OFFSET} {tls}\n    server app 127.0.0.1:{port}\n"
        for port in ports
    ]
    return _write(folder / "haproxy-server.cfg", sections)


def write_client_configuration(folder: Path, tls: str, ports: Sequence[int], server: str) -> Path:
    """For the client's pod; `server` is the address of the server's."""
    sections = [
        f"listen client-{port}\n    bind 127.0.0.1:{port}\n    server far {server}:{port + TLS_PORT_OFFSET} {tls}\n"
        for port in ports
    ]
    return _write(folder / "haproxy-client.cfg", sections)


def haproxy_container(configuration: Path) -> dict[str, Json]:
    """The container that is a HAProxy."""
    return {"name": "haproxy", "command": ["haproxy", "-db", "-f", str(configuration)]}


def _write(path: Path, sections: Sequence[str]) -> Path:
    path.write_text("\n".join([_GLOBAL, *sections]))
    return path
