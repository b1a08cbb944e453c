"""The real controller as a process, and clients that speak its two gRPC services over TLS."""

import hashlib
import os
import queue
import re
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType

import grpc
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from envoy.service.discovery.v3 import discovery_pb2
from google.protobuf.struct_pb2 import Struct

from controller.kinds.gateway_api import GATEWAY_LABEL
from mesh.wire.authorization_pb2 import Authorization
from mesh.wire.citadel_pb2 import IstioCertificateRequest, IstioCertificateResponse
from mesh.wire.workload_pb2 import Address

REPOSITORY = Path(__file__).resolve().parents[2]
ADDRESS = "type.googleapis.com/istio.workload.Address"
AUTHORIZATION = "type.googleapis.com/istio.security.Authorization"
# Generous: the tests share two cores with others. What must be fast says so itself.
PATIENCE_SECONDS = 20.0


class ControllerProcess:
    """`python -m controller` on free ports, with its directories under `root`."""

    def __init__(self, root: Path) -> None:
        self.config = root / "config"
        self.state = root / "state"
        self.tokens = root / "tokens"
        self.config.mkdir(exist_ok=True)
        self.write_tokens({"node-1": "token-1", "node-2": "token-2"})
        self._process: subprocess.Popen[str] | None = None
        self._reader: threading.Thread | None = None
        self.log: list[str] = []
        self._ready = threading.Event()

    def write_tokens(self, tokens: Mapping[str, str], mode: int = 0o600) -> None:
        lines = [f"{node} {hashlib.sha256(token.encode()).hexdigest()}\n" for node, token in tokens.items()]
        draft = self.tokens.with_suffix(".new")
        draft.write_text("".join(lines))
        draft.chmod(mode)
        draft.rename(self.tokens)

    def write(self, name: str, text: str) -> None:
        """Replace a file of the configuration by rename, as the lab does."""
        draft = self.config / f".{name}.new"
        draft.write_text(text)
        draft.rename(self.config / name)

    def read(self, name: str) -> str:
        """A file of the configuration."""
        return (self.config / name).read_text()

    def remove(self, name: str) -> None:
        (self.config / name).unlink()

    def start(self, **settings: str) -> "ControllerProcess":
        """Start it, with `settings` of its own, and wait until it is ready. Raises AssertionError with its log when it
        ends instead."""
        self.launch(**settings)
        self.wait_until_ready()
        return self

    @property
    def pid(self) -> int:
        assert self._process
        return self._process.pid

    def wait_until_ready(self, seconds: float = PATIENCE_SECONDS) -> None:
        assert self._process
        assert self._ready.wait(seconds), "".join(self.log)
        assert self._process.poll() is None, "".join(self.log)

    def launch(self, **settings: str) -> None:
        """Start it, and do not wait."""
        self._ready.clear()
        self.log = []
        environment = {
            "PATH": os.environ["PATH"],  # noqa: TID251  # the child gets nothing else of ours
            "PYTHONPATH": str(REPOSITORY),
            "AMBIT_CONFIG_DIR": str(self.config),
            "AMBIT_STATE_DIR": str(self.state),
            "AMBIT_NODE_TOKENS": str(self.tokens),
            "AMBIT_LISTEN": "127.0.0.1:0",
            "AMBIT_ADMIN_LISTEN": "127.0.0.1:0",
            "AMBIT_WEBHOOK_LISTEN": "127.0.0.1:0",
            **settings,
        }
        command = [sys.executable, "-m", "controller"]
        self._process = subprocess.Popen(
            command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        self._reader = threading.Thread(target=self._read_log, name="controller log", daemon=True)
        self._reader.start()

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Send a signal and wait for the end; gives the exit status."""
        assert self._process
        assert self._reader
        self._process.send_signal(number)
        status = self._process.wait(PATIENCE_SECONDS)
        self._reader.join(PATIENCE_SECONDS)
        assert self._process.stdout
        self._process.stdout.close()
        self._process = None
        return status

    def run_to_end(self, **settings: str) -> tuple[int, str]:
        """Start it where it is expected to refuse; gives its exit status and log."""
        try:
            self.start(**settings)
        except AssertionError:
            pass
        assert self._process
        return self.stop(), "".join(self.log)

    def address(self, who: str) -> str:
        """The address it listens on for `agents` or `admin`."""
        found = re.search(rf"listening for {who} address=(\S+)", "".join(self.log))
        assert found, self.log
        return found.group(1)

    def fetch(self, path: str) -> str:
        with urllib.request.urlopen(f"http://{self.address('admin')}{path}", timeout=PATIENCE_SECONDS) as answer:
            text: str = answer.read().decode()
            return text

    def wait_for_log(self, text: str) -> str:
        """The first line of the log that contains `text`, which may still have to come."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while time.monotonic() < deadline:
            for line in list(self.log):
                if text in line:
                    return line
            time.sleep(0.01)
        raise AssertionError(f"{text!r} not in:\n{''.join(self.log)}")

    def connect(self, trusted: Path | None = None) -> grpc.Channel:
        """A channel that trusts the mesh's root, or the certificates in a file."""
        roots = (trusted or self.state / "root-cert.pem").read_bytes()
        options = [("grpc.max_receive_message_length", -1)]
        return grpc.secure_channel(self.address("agents"), grpc.ssl_channel_credentials(roots), options)

    def _read_log(self) -> None:
        assert self._process
        assert self._process.stdout
        for line in self._process.stdout:
            self.log.append(line)
            if "controller is ready" in line:
                self._ready.set()
        self._ready.set()

    def __enter__(self) -> "ControllerProcess":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        if self._process is not None:
            self.stop(signal.SIGKILL if kind else signal.SIGTERM)


class DeltaStream:
    """A delta xDS client over a real channel. It acknowledges nothing by itself.

    It may say that it is a Gateway's, or with the labels `ingress` an ingress gateway's of `istio-system`.
    """

    def __init__(
        self,
        channel: grpc.Channel,
        token: str | None,
        node: str = "node-1",
        gateway: str = "",
        ingress: Mapping[str, str] | None = None,
    ) -> None:
        self._node = node
        self._gateway = gateway
        self._ingress = ingress
        self._has_sent = False
        self._requests: queue.Queue[discovery_pb2.DeltaDiscoveryRequest | None] = queue.Queue()
        self._responses: queue.Queue[discovery_pb2.DeltaDiscoveryResponse | grpc.RpcError | None] = queue.Queue()
        call = channel.stream_stream(
            "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources",
            discovery_pb2.DeltaDiscoveryRequest.SerializeToString,
            discovery_pb2.DeltaDiscoveryResponse.FromString,
        )
        metadata = _build_metadata(token)
        self._call = call(self._pump(), metadata=metadata)
        self._thread = threading.Thread(target=self._read, name="delta stream", daemon=True)
        self._thread.start()

    def send(self, type_url: str, **fields: object) -> None:
        """Send a request; the first carries the node."""
        message = discovery_pb2.DeltaDiscoveryRequest(type_url=type_url, **fields)
        if not self._has_sent:
            self._has_sent = True
            kind = "ztunnel" if self._ingress is None else "router"
            message.node.id = f"{kind}~127.0.0.1~{kind}.{self._node}~istio-system.svc.cluster.local"
            message.node.metadata.CopyFrom(build_node_metadata(self._node, self._gateway))
            if self._ingress is not None:
                message.node.metadata.update({"NAMESPACE": "istio-system", "LABELS": dict(self._ingress)})
        self._requests.put(message)

    def acknowledge(self, response: discovery_pb2.DeltaDiscoveryResponse) -> None:
        self.send(response.type_url, response_nonce=response.nonce)

    def refuse(self, response: discovery_pb2.DeltaDiscoveryResponse, why: str) -> None:
        message = discovery_pb2.DeltaDiscoveryRequest(type_url=response.type_url, response_nonce=response.nonce)
        message.error_detail.message = why
        self._requests.put(message)

    def receive(self, seconds: float = PATIENCE_SECONDS) -> discovery_pb2.DeltaDiscoveryResponse:
        """The next response. Raises the call's RpcError when the stream has ended."""
        item = self._responses.get(timeout=seconds)
        if isinstance(item, grpc.RpcError):
            raise item
        assert item is not None, "the stream has ended"
        return item

    def receive_and_acknowledge(self, seconds: float = PATIENCE_SECONDS) -> discovery_pb2.DeltaDiscoveryResponse:
        response = self.receive(seconds)
        self.acknowledge(response)
        return response

    def close(self) -> None:
        self._requests.put(None)
        self._call.cancel()  # type: ignore[no-untyped-call]  # the stubs leave it untyped
        self._thread.join(PATIENCE_SECONDS)

    def _pump(self) -> Iterator[discovery_pb2.DeltaDiscoveryRequest]:
        while (message := self._requests.get()) is not None:
            yield message

    def _read(self) -> None:
        try:
            for response in self._call:
                self._responses.put(response)
            self._responses.put(None)
        except grpc.RpcError as error:
            self._responses.put(error)


def build_node_metadata(node: str, gateway: str = "") -> Struct:
    """What a client on a node says of itself; as a proxy of a Gateway (`namespace/name`), where it is one."""
    namespace, _, name = gateway.partition("/")
    metadata = Struct()
    metadata.update({"NODE_NAME": node, "NAMESPACE": namespace})
    if name:
        metadata.update({"LABELS": {GATEWAY_LABEL: name}})
    return metadata


def build_csr(key: ec.EllipticCurvePrivateKey, san: str) -> str:
    names = x509.SubjectAlternativeName([x509.UniformResourceIdentifier(san)])
    builder = x509.CertificateSigningRequestBuilder(x509.Name([])).add_extension(names, critical=True)
    return builder.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM).decode()


def create_certificate(
    channel: grpc.Channel, token: str | None, csr: str, identity: str, seconds: int = 0
) -> IstioCertificateResponse:
    """Ask for a certificate, as a node's agent does on a pod's behalf."""
    call = channel.unary_unary(
        "/istio.v1.auth.IstioCertificateService/CreateCertificate",
        IstioCertificateRequest.SerializeToString,
        IstioCertificateResponse.FromString,
    )
    metadata = Struct()
    metadata.update({"ImpersonatedIdentity": identity})
    request = IstioCertificateRequest(csr=csr, validity_duration=seconds, metadata=metadata)
    headers = _build_metadata(token)
    answer: IstioCertificateResponse = call(request, metadata=headers, timeout=PATIENCE_SECONDS)
    return answer


def _build_metadata(token: str | None) -> tuple[tuple[str, str | bytes], ...]:
    return (("authorization", f"Bearer {token}"),) if token else ()


def addresses_of(response: discovery_pb2.DeltaDiscoveryResponse) -> dict[str, Address]:
    """The Address resources of a response, by name."""
    assert response.type_url == ADDRESS
    return {each.name: Address.FromString(each.resource.value) for each in response.resources}


def authorizations_of(response: discovery_pb2.DeltaDiscoveryResponse) -> dict[str, Authorization]:
    """The Authorization resources of a response, by name."""
    assert response.type_url == AUTHORIZATION
    return {each.name: Authorization.FromString(each.resource.value) for each in response.resources}
