"""A mesh in a state of the test's choosing: real namespaces, redirect rules and ztunnels, told whatever the test wants.

For what the controller cannot produce: waypoints, gateways, other networks, odd resources. For an `isolated` test:

    @isolated
    def test_something() -> None:
        with chosen_mesh() as mesh:
            client, server = mesh.add_pod("client"), mesh.add_pod("server")
            mesh.tell(client.workload(), server.workload(), service("web", "203.0.113.1", {80: 8080}))
            ztunnel = mesh.start_ztunnel()
            server.serve(8080)
            assert client.ask(server.address, 8080).server == "server"
            ztunnel.wait_for_line(lambda line: line.direction == "inbound")

The test's own namespace is the network that all pods and nodes are wired to, by one bridge.
"""

import base64
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path
from typing import TypeVar

from pyroute2 import IPRoute

from ambit.demo.access_log import AccessLine, read_access_lines
from ambit.demo.polling import wait_for
from cni.kernel.namespaces import NetworkNamespace, run_in_namespace
from cni.kernel.pods import apply_pod_rules
from cni.kernel.rules import PodSettings, build_rules
from mesh import ports
from mesh.wire import workload_pb2 as pb
from mesh.wire import zds_pb2
from mesh.wire.authorization_pb2 import Authorization
from tests.support.chosen_resources import name_resource
from tests.support.mesh import Sample, parse_metrics
from tests.support.pod_network import make_namespace
from tests.support.processes import end_process

REPOSITORY = Path(__file__).resolve().parents[2]
CONTROL_PLANE = Path(__file__).parent / "chosen_control_plane.py"
NODE = "node-1"
"""Where pods are unless told otherwise."""
PATIENCE_SECONDS = 15.0
"""For what normally takes milliseconds."""

# Documentation ranges (RFC 5737, RFC 3849).
IPV4_PREFIX, IPV6_PREFIX = "192.0.2.", "2001:db8::"
ROUTER_IPV4, ROUTER_IPV6 = f"{IPV4_PREFIX}1", f"{IPV6_PREFIX}1"
ROUTER_HARDWARE_ADDRESS = "02:00:c0:00:02:01"
MAX_PACKET_BYTES = 1024
LOOPBACK_INDEX = 1

Result = TypeVar("Result")


# What is in the mesh --------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Answer:
    """What a client got: who answered, from which address it seemed to come, and what was said. Or an error's name."""

    server: str = ""
    client: str = ""
    text: str = ""
    error: str = ""


@dataclass(frozen=True, slots=True)
class Host:
    """A pod or a node: a namespace with an address of each version."""

    name: str
    inside: NetworkNamespace
    addresses: tuple[str, str]

    @property
    def address(self) -> str:
        return self.addresses[0]

    def run(self, function: Callable[[], Result]) -> Result:
        """Run `function` with its sockets inside."""
        return run_in_namespace(self.inside, function)

    def command(self, *command: str) -> list[str]:
        """The command, so that it runs inside, and dies with the test."""
        place = f"--net=/proc/{os.getpid()}/fd/{self.inside.fileno()}"
        program = find_program(command[0]) or command[0]
        return ["setpriv", "--pdeathsig", "KILL", "nsenter", place, "--", program, *command[1:]]

    def execute(self, *command: str, stdin: str = "") -> str:
        """Run a program inside to its end; returns what it printed."""
        done = subprocess.run(
            self.command(*command), input=stdin, capture_output=True, text=True, check=False, timeout=30
        )
        assert done.returncode == 0, f"{command[0]} ended with {done.returncode}: {done.stderr}"
        return done.stdout

    def connect(self, host: str, port: int) -> socket.socket:
        """A connection from inside."""
        return self.run(lambda: socket.create_connection((host, port), PATIENCE_SECONDS))

    def ask(self, host: str, port: int, text: str = "hello") -> Answer:
        """Ask a `serve` of somebody else."""
        try:
            with self.connect(host, port) as connection:
                connection.sendall(f"{text}\n".encode())
                return read_answer(connection)
        except OSError as error:
            return Answer(error=type(error).__name__)

    def serve(self, port: int, address: str = "::") -> socket.socket:
        """Answer `ask`, until the test ends or the listener is closed; then echo what comes, to the end."""
        listener = self.run(lambda: listen(address, port))
        threading.Thread(target=_serve, args=(listener, self.name), name=f"serve {self.name}", daemon=True).start()
        return listener


@dataclass(frozen=True, slots=True)
class Pod(Host):
    """A pod whose traffic a ztunnel carries."""

    namespace: str
    account: str
    node: str

    @property
    def uid(self) -> str:
        return f"Kubernetes//Pod/{self.namespace}/{self.name}"

    @property
    def identity(self) -> str:
        return f"spiffe://cluster.local/ns/{self.namespace}/sa/{self.account}"

    def workload(self, network: str = "") -> pb.Workload:
        """What xDS would say of the pod; tests change it as they like."""
        return pb.Workload(
            uid=self.uid,
            name=self.name,
            namespace=self.namespace,
            addresses=[ip_address(address).packed for address in self.addresses],
            network=network,
            tunnel_protocol=pb.HBONE,
            service_account=self.account,
            node=self.node,
            canonical_name=self.name,
            canonical_revision="latest",
            workload_type=pb.DEPLOYMENT,
            workload_name=self.name,
            cluster_id="Kubernetes",
        )


@dataclass(slots=True)
class Ztunnel:
    """A running ztunnel and its node."""

    host: Host
    log_file: Path
    process: "subprocess.Popen[bytes]"
    enrolment: socket.socket

    def log(self) -> str:
        return self.log_file.read_text()

    def access_lines(self) -> list[AccessLine]:
        return list(read_access_lines(self.log()))

    def wait_for_line(self, matches: Callable[[AccessLine], bool], after: int = 0) -> AccessLine:
        """The first access line that matches, of those after the first `after`; fails when none comes."""
        found = wait_for(
            lambda: next((line for line in self.access_lines()[after:] if matches(line)), None), PATIENCE_SECONDS
        )
        assert found, self.log()
        return found

    def wait_for_log(self, text: str) -> str:
        """The first log line that contains `text`; fails when none comes."""
        found = wait_for(
            lambda: next((line for line in self.log().splitlines() if text in line), None), PATIENCE_SECONDS
        )
        assert found, f"{text!r} is not in:\n{self.log()}"
        return found

    def fetch(self, path: str, port: int) -> str:
        """A page of its servers, seen from its node."""
        done = self.host.execute("curl", "--silent", "--show-error", "--fail", f"http://127.0.0.1:{port}{path}")
        return done

    def metrics(self) -> list[Sample]:
        return parse_metrics(self.fetch("/metrics", ports.ZTUNNEL_METRICS_PORT))

    def stop(self) -> None:
        self.enrolment.close()
        self.process.terminate()
        self.process.wait(PATIENCE_SECONDS)


# The mesh -------------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class ChosenMesh:
    """Pods, ztunnels, and the control plane that tells them what the test says."""

    folder: Path
    control_plane: "subprocess.Popen[str]"
    port: int
    stack: ExitStack
    pods: list[Pod] = field(default_factory=list)
    hosts: int = 0

    @property
    def authority(self) -> Path:
        """The folder of the root's key and certificate (tests.support.mesh_certificates.read_authority)."""
        return self.folder / "state"

    # What there is

    def add_host(self, name: str) -> Host:
        """A machine on the network that is in no mesh."""
        inside, addresses = self._wire()
        return Host(name, inside, addresses)

    def add_proxy(self, name: str, namespace: str = "test", account: str = "", node: str = NODE) -> Pod:
        """A pod that is not captured: it runs a waypoint or a gateway of its own."""
        inside, addresses = self._wire()
        return Pod(name, inside, addresses, namespace, account or name, node)

    def add_pod(
        self, name: str, namespace: str = "test", account: str = "", node: str = NODE, dns: bool = False
    ) -> Pod:
        """A pod with its redirect rules, whose account has its name unless told otherwise (for later ztunnels).

        With `dns` they redirect DNS as well.
        """
        pod = self.add_proxy(name, namespace, account, node)
        apply_pod_rules(pod.inside, build_rules(PodSettings(dns_capture=dns)))
        self.pods.append(pod)
        return pod

    def start_ztunnel(self, node: str = NODE, **environment: str) -> Ztunnel:
        """A ztunnel with all pods of `node`, ready. `environment` are settings of its own."""
        host = self.add_host(node)
        folder = self.folder / node
        folder.mkdir()
        (folder / "token").write_text(node)
        server = self.stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET))
        server.bind(str(folder / "zds.sock"))
        server.listen()
        server.settimeout(PATIENCE_SECONDS)
        log_file = folder / "ztunnel.log"
        given = self._environment(node, folder) | environment
        command = [sys.executable, "-m", "ztunnel"]
        with log_file.open("wb") as log:
            process = subprocess.Popen(host.command(*command), env=given, stdout=log, stderr=log, cwd=REPOSITORY)
        self.stack.callback(_end, process)
        try:
            connection, _ = server.accept()
        except TimeoutError as error:
            raise AssertionError(log_file.read_text()) from error
        self.stack.enter_context(connection)
        connection.settimeout(PATIENCE_SECONDS)
        assert connection.recv(MAX_PACKET_BYTES), "ztunnel said no hello"
        ztunnel = Ztunnel(host, log_file, process, connection)
        for pod in self.pods:
            if pod.node == node:
                self.enrol(ztunnel, pod)
        _request(connection, zds_pb2.WorkloadRequest(snapshot_sent=zds_pb2.SnapshotSent()))
        return ztunnel

    def enrol(self, ztunnel: Ztunnel, pod: Pod) -> None:
        """Hand a pod's namespace over."""
        info = zds_pb2.WorkloadInfo(name=pod.name, namespace=pod.namespace, service_account=pod.account)
        add = zds_pb2.AddWorkload(uid=pod.uid, workload_info=info)
        _request(ztunnel.enrolment, zds_pb2.WorkloadRequest(add=add), [pod.inside.fileno()])

    def run(self, host: Host, *command: str, name: str = "") -> Path:
        """Start a program beside a pod or node, until the test ends; returns its log file."""
        log_file = self.folder / f"{name or Path(command[0]).name}-{host.name}.log"
        with log_file.open("wb") as log:
            process = subprocess.Popen(host.command(*command), stdout=log, stderr=log, stdin=subprocess.DEVNULL)
        self.stack.callback(_end, process)
        return log_file

    # What is said of it

    def tell(self, *resources: pb.Workload | pb.Service | Authorization) -> None:
        """Serve these resources from now on; returns when every ztunnel has taken them. Refused ones fail the test."""
        refused = self.offer(*resources)
        assert not refused, refused

    def offer(self, *resources: pb.Workload | pb.Service | Authorization) -> list[dict[str, str]]:
        """The same; returns what ztunnels refused."""
        updated: dict[str, dict[str, str]] = {"address": {}, "authorization": {}}
        for resource in resources:
            match resource:
                case pb.Workload():
                    kind, message = "address", pb.Address(workload=resource).SerializeToString()
                case pb.Service():
                    kind, message = "address", pb.Address(service=resource).SerializeToString()
                case _:
                    kind, message = "authorization", resource.SerializeToString()
            updated[kind][name_resource(resource)] = base64.b64encode(message).decode()
        return self._order({"updated": updated, "removed": {}})

    def forget(self, *resources: pb.Workload | pb.Service | Authorization) -> None:
        """Serve these no longer."""
        removed: dict[str, list[str]] = {"address": [], "authorization": []}
        for resource in resources:
            removed["authorization" if isinstance(resource, Authorization) else "address"].append(
                name_resource(resource)
            )
        self._order({"updated": {}, "removed": removed})

    def reconnect(self) -> None:
        """End every ztunnel's stream; returns when all are back and know what there is."""
        self._order({"reconnect": True})

    def _order(self, order: dict[str, object]) -> list[dict[str, str]]:
        assert self.control_plane.stdin
        assert self.control_plane.stdout
        self.control_plane.stdin.write(json.dumps(order) + "\n")
        self.control_plane.stdin.flush()
        line = self.control_plane.stdout.readline()
        assert line, "the control plane has ended"
        refused: list[dict[str, str]] = json.loads(line)["refused"]
        return refused

    def _environment(self, node: str, folder: Path) -> dict[str, str]:
        address = f"https://{ROUTER_IPV4}:{self.port}"
        root = str(self.authority / "root-cert.pem")
        return {
            "PATH": os.defpath,
            "PYTHONPATH": str(REPOSITORY),
            "XDS_ADDRESS": address,
            "CA_ADDRESS": address,
            "XDS_ROOT_CA": root,
            "CA_ROOT_CA": root,
            "AUTH_TOKEN": str(folder / "token"),
            "NODE_NAME": node,
            "INPOD_UDS": str(folder / "zds.sock"),
        }

    def _wire(self) -> tuple[NetworkNamespace, tuple[str, str]]:
        """A new namespace on the bridge, with the next addresses."""
        self.hosts += 1
        inside = self.stack.enter_context(make_namespace())
        addresses = (f"{IPV4_PREFIX}{self.hosts + 9}", f"{IPV6_PREFIX}{self.hosts + 9}")
        run_in_namespace(inside, _use_addresses_at_once)
        with IPRoute() as here:
            name = f"to-{self.hosts}"
            here.link("add", ifname=name, kind="veth", peer={"ifname": "eth0", "net_ns_fd": inside.fileno()})
            (bridge,) = here.link_lookup(ifname="underlay")
            (index,) = here.link_lookup(ifname=name)
            here.link("set", index=index, master=bridge, state="up")
        run_in_namespace(inside, lambda: _configure(addresses))
        return inside, addresses


@contextmanager
def chosen_mesh() -> Iterator[ChosenMesh]:
    """An empty mesh, in the calling thread's network namespace. Everything ends with it."""
    _use_addresses_at_once()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="chosen-", dir="/tmp")))
        with IPRoute() as here:
            here.link("set", index=LOOPBACK_INDEX, state="up")
            here.link("add", ifname="underlay", kind="bridge")
            (index,) = here.link_lookup(ifname="underlay")
            # Said, because a bridge otherwise takes the lowest address of its ports, another one when hosts are added:
            # who has said something before would go on sending to a router that is no more.
            here.link("set", index=index, address=ROUTER_HARDWARE_ADDRESS)
            here.addr("add", index=index, address=ROUTER_IPV4, prefixlen=24)
            here.addr("add", index=index, address=ROUTER_IPV6, prefixlen=64)
            here.link("set", index=index, state="up")
        # -P: the program's own folder must not decide what is imported.
        command = [sys.executable, "-P", str(CONTROL_PLANE), str(folder / "state"), ROUTER_IPV4]
        process = subprocess.Popen(
            ["setpriv", "--pdeathsig", "KILL", *command],
            env={"PATH": os.defpath, "PYTHONPATH": str(REPOSITORY)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        stack.callback(_end, process)
        assert process.stdout
        line = process.stdout.readline()
        assert line, "the control plane did not start"
        yield ChosenMesh(folder, process, json.loads(line)["port"], stack)


def find_program(name: str) -> str | None:
    """Where a program is; Debian keeps servers in places that are not on an ordinary user's PATH."""
    return shutil.which(name) or shutil.which(name, path="/usr/sbin:/sbin")


def read_answer(connection: socket.socket) -> Answer:
    """What a `serve` says: one line."""
    line = b""
    while not line.endswith(b"\n"):
        part = connection.recv(4096)
        if not part:
            return Answer(error="closed")
        line += part
    return Answer(*line.decode().rstrip("\n").split(" ", 2))


def listen(address: str, port: int) -> socket.socket:
    """A listener; `::` takes IPv4 too."""
    if ":" not in address:
        return socket.create_server((address, port), backlog=128)
    return socket.create_server((address, port), family=socket.AF_INET6, backlog=128, dualstack_ipv6=address == "::")


def _serve(listener: socket.socket, name: str) -> None:
    while True:
        try:
            connection, peer = listener.accept()
        except OSError:
            return
        threading.Thread(target=_answer, args=(connection, name, peer[0]), name=f"answer {name}", daemon=True).start()


def _answer(connection: socket.socket, name: str, client: str) -> None:
    with connection:
        try:
            line = b""
            while not line.endswith(b"\n") and (part := connection.recv(4096)):
                line += part
            if line:
                client = client.removeprefix("::ffff:")
                connection.sendall(f"{name} {client} {line.decode(errors='replace').rstrip()}\n".encode())
            while data := connection.recv(65536):
                connection.sendall(data)
        except OSError:
            pass  # the client is gone


def _request(connection: socket.socket, request: zds_pb2.WorkloadRequest, descriptors: Sequence[int] = ()) -> None:
    socket.send_fds(connection, [request.SerializeToString()], list(descriptors))
    answer = zds_pb2.WorkloadResponse.FromString(connection.recv(MAX_PACKET_BYTES))
    assert not answer.ack.error, answer.ack.error


def _configure(addresses: tuple[str, str]) -> None:
    with IPRoute() as here:
        here.link("set", index=1, state="up")
        (index,) = here.link_lookup(ifname="eth0")
        here.link("set", index=index, state="up")
        for address, length, router in zip(addresses, (24, 64), (ROUTER_IPV4, ROUTER_IPV6), strict=True):
            here.addr("add", index=index, address=address, prefixlen=length)
            family = socket.AF_INET6 if ":" in address else socket.AF_INET
            here.route("add", dst="::/0" if ":" in address else "default", gateway=router, family=family)


def _use_addresses_at_once() -> None:
    """No duplicate address detection: an address that is being probed for cannot be used for seconds."""
    for scope in ("all", "default"):
        Path(f"/proc/sys/net/ipv6/conf/{scope}/accept_dad").write_text("0")


def _end(process: "subprocess.Popen[bytes] | subprocess.Popen[str]") -> None:
    end_process(process)
    for stream in (process.stdin, process.stdout):
        if stream is not None:
            stream.close()
