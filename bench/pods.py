"""A lab under measurement: started from documents, loads run in its pods, its processes looked at."""

import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ambit.lab.client import Lab, Source
from bench.effort import report_progress
from bench.report import BenchError
from bench.setups import Document, as_source, build_lab, python_program

SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
"""Where Debian keeps nft and nginx, which is not on an ordinary user's PATH."""

MEBIBYTE = 1 << 20


@dataclass(frozen=True, slots=True)
class Memory:
    """A process's memory: PSS divides shared pages among their users, RSS counts them in full."""

    pss_mebibytes: float
    rss_mebibytes: float


@dataclass(frozen=True, slots=True)
class BenchLab:
    """A running lab, and the addresses of its pods."""

    lab: Lab

    def address(self, namespace: str, pod: str) -> str:
        """A pod's IPv4 address."""
        return self.lab.status().pod(pod, namespace).addresses[0]

    def run(self, namespace: str, pod: str, command: Sequence[str], timeout_seconds: float) -> str:
        """Run a program in a pod and return what it wrote; raises BenchError when it fails."""
        result = self.lab.exec(pod, *command, namespace=namespace, timeout=timeout_seconds)
        if result.returncode != 0:
            said = (result.stderr.strip() or result.stdout.strip())[-2000:]
            raise BenchError(f"{' '.join(command)} in pod {namespace}/{pod} exited with {result.returncode}: {said}")
        return result.stdout

    def run_program(
        self, namespace: str, pod: str, program: str, *arguments: str, timeout_seconds: float = 30
    ) -> dict[str, float]:
        """Run one of bench/programs in a pod and return the object that it printed; raises BenchError."""
        text = self.run(namespace, pod, python_program(program, *arguments), timeout_seconds)
        found = json.loads(text)
        return {str(name): float(value) for name, value in found.items()}

    def apply(self, source: Source) -> None:
        """Apply documents and wait until their pods work; raises BenchError when they do not."""
        _require_no_warnings(self.lab.apply(source).warnings)

    def process_memory(self, name: str) -> Memory:
        """What a process of the mesh takes, as `ztunnel/node-1`; raises BenchError when it is down."""
        try:
            return parse_memory(Path(f"/proc/{self._pid(name)}/smaps_rollup").read_text())
        except OSError as error:
            raise BenchError(f"cannot read the memory of {name}: {error}") from error

    def process_descriptors(self, name: str) -> int:
        """How many descriptors a process of the mesh has open; raises BenchError when it is down."""
        try:
            return len(os.listdir(f"/proc/{self._pid(name)}/fd"))
        except OSError as error:
            raise BenchError(f"cannot count the descriptors of {name}: {error}") from error

    def envoy_memory(self, namespace: str, pod: str) -> Memory:
        """What a pod's Envoy takes; raises BenchError when there is none."""
        found = self.run_program(namespace, pod, "memory", "envoy")
        if not found["count"]:
            raise BenchError(f"no Envoy runs in pod {namespace}/{pod}: {self.lab.logs(pod, namespace)[-2000:]}")
        return Memory(found["pss_bytes"] / MEBIBYTE, found["rss_bytes"] / MEBIBYTE)

    def _pid(self, name: str) -> int:
        pid = self.lab.status().process(name).pid
        if pid is None:
            raise BenchError(f"{name} is not running; its log: {self.lab.logs(name)[-2000:]}")
        return pid


def parse_memory(smaps_rollup: str) -> Memory:
    """Read the text of a process's smaps_rollup (proc(5))."""
    fields = dict(line.split()[:2] for line in smaps_rollup.splitlines()[1:])
    return Memory(int(fields["Pss:"]) / 1024, int(fields["Rss:"]) / 1024)


@contextmanager
def running_lab(
    name: str,
    documents: Sequence[Document],
    programs: Sequence[str],
    ztunnel_environment: Mapping[str, str] | None = None,
) -> Iterator[BenchLab]:
    """A lab of these documents that works, down again at the end; raises BenchError saying what is missing."""
    require_programs(programs)
    report_progress(f"starting lab {name}")
    source = as_source([build_lab(name, ztunnel_environment), *documents])
    with Lab.up([source], name=name, progress=report_progress) as lab:
        _require_no_warnings(lab.warnings)
        yield BenchLab(lab)


def _require_no_warnings(warnings: Sequence[str]) -> None:
    if warnings:
        raise BenchError(f"the lab does not work, so nothing is measured: {'; '.join(warnings)}")


def require_programs(names: Sequence[str]) -> None:
    """Raise BenchError naming the Debian packages of the programs that are not installed."""
    packages = {"nft": "nftables", "nginx": "nginx-light"}
    missing = [packages.get(name, name) for name in names if shutil.which(name, path=SYSTEM_PATH) is None]
    if missing:
        raise BenchError(f"missing: apt-get install --no-install-recommends {' '.join(missing)}")


def write_nginx_configuration(folder: Path) -> Path:
    """A server that answers everything at once, the same bytes each time, and writes nothing but its pid file.

    nginx unlinks that when it ends: as root, /dev/null there would cost the machine its /dev/null.
    """
    path = folder / "nginx.conf"
    paths = "\n".join(
        f"    {kind}_temp_path {folder}/{kind};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    path.write_text(
        f"""\
daemon off;
user root;
worker_processes 1;
pid {folder}/nginx.pid;
error_log stderr warn;
events {{ worker_connections 8192; }}
http {{
    access_log off;
    keepalive_requests 1000000000;
{paths}
    server {{
        listen 8080 backlog=4096;
        location / {{ return 200 "ok"; }}
    }}
}}
"""
    )
    return path
