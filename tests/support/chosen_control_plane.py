"""A control plane that says what a test wants: the controller's own xDS server, fed by hand, and a CA that signs all.

    python chosen_control_plane.py STATE-FOLDER ADDRESS      prints one JSON object when it listens: {"port": N}

Then each line on stdin is an order, answered with one line when every client has taken it:
`{"updated": {TYPE: {NAME: BASE64}}, "removed": {TYPE: [NAME]}}` gives `{"refused": [{"node", "type", "error"}]}`.
TYPE is `address` or `authorization`, BASE64 the serialised resource. `{"reconnect": true}` ends every stream, and is
answered when as many clients are back and know what there is. It ends with its stdin.

A process of its own, because gRPC's threads do not survive the fork in which an isolated test runs. A node's token is
its name; any identity is signed for any node.
"""

import asyncio
import base64
import json
import sys
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import cast

from google.protobuf.message import Message

from controller.app import MAX_REQUEST_BYTES
from controller.authority.certificate_authority import CertificateAuthority, read_clock
from controller.authority.certificate_requests import parse_request
from controller.authority.plugged_in import load_signer, read_files
from controller.authority.root_store import RootStoreError, load_or_create_root
from controller.authority.signing_service import IDENTITY_FIELD, METHOD_NAME, SERVICE_NAME
from controller.callers import Authentication
from controller.metrics import ControllerMetrics
from controller.serve.discovery_service import DiscoveryService
from controller.serve.hub import Hub
from controller.serve.resources import ADDRESS_TYPE, AUTHORIZATION_TYPE, ResourceChanges, build_resource
from controller.serve.session import SessionLimits
from controller.serving_certificate import ServingCertificate
from controller.transport.calls import Call, Handler, serve_one
from controller.transport.server import Server, TransportSettings
from mesh.identity import DEFAULT_TRUST_DOMAIN, SpiffeIdentity
from mesh.wire.authorization_pb2 import Authorization
from mesh.wire.citadel_pb2 import IstioCertificateRequest, IstioCertificateResponse
from mesh.wire.workload_pb2 import Address

KINDS: dict[str, tuple[str, Callable[[bytes], Message]]] = {
    "address": (ADDRESS_TYPE, Address.FromString),
    "authorization": (AUTHORIZATION_TYPE, Authorization.FromString),
}
POLL_SECONDS = 0.005


def read_token(header: str | None) -> str | None:
    return header.removeprefix("Bearer ") if header else None


async def authenticate(header: str | None) -> str | None:
    return read_token(header)


class AnySigning:
    """Certificates for whatever is asked for, by the root in a folder, or by the authority in its folder `cacerts`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._authority = read_root(folder)

    def build_handlers(self) -> dict[str, Handler]:
        return {f"/{SERVICE_NAME}/{METHOD_NAME}": serve_one(self._create)}

    async def _create(self, data: bytes, _call: Call) -> bytes:
        request = IstioCertificateRequest.FromString(data)
        identity = SpiffeIdentity.parse(request.metadata.fields[IDENTITY_FIELD].string_value)
        lifetime = timedelta(seconds=request.validity_duration)
        key = parse_request(request.csr)
        self._read_plugged_in()
        chain = self._authority.sign_workload(key, identity, lifetime, read_clock())
        return IstioCertificateResponse(cert_chain=chain).SerializeToString()

    def _read_plugged_in(self) -> None:
        """Sign with what is in the folder now; while a test is half through writing it, with what was before."""
        folder = self._folder / "cacerts"
        with suppress(RootStoreError):
            if files := read_files(folder):
                self._authority = CertificateAuthority(load_signer(folder, files, read_clock()))


def read_root(folder: Path) -> CertificateAuthority:
    return CertificateAuthority(load_or_create_root(folder, DEFAULT_TRUST_DOMAIN, read_clock()).signer)


def read_changes(order: dict[str, dict[str, dict[str, str] | list[str]]]) -> dict[str, ResourceChanges]:
    changes = {}
    for kind, (type_url, parse) in KINDS.items():
        updated = cast(dict[str, str], order["updated"].get(kind, {}))
        changes[type_url] = ResourceChanges(
            {name: build_resource(type_url, name, parse(base64.b64decode(text))) for name, text in updated.items()},
            frozenset(order["removed"].get(kind, ())),
        )
    return changes


def has_pending(hub: Hub) -> bool:
    states = [state for client in hub.clients for state in client.session.types.values()]
    wanted = [state.subscription for state in states]
    return any(state.in_flight for state in states) or any(one.has_updates or one.has_removals for one in wanted)


async def become_true(condition: Callable[[], bool]) -> None:
    while not condition():  # noqa: ASYNC110  # the hub has no event for it, and needs none
        await asyncio.sleep(POLL_SECONDS)


async def reconnect(hub: Hub) -> None:
    count = len(hub.clients)
    hub.close()
    await become_true(lambda: not hub.clients)
    hub.is_closing = False
    await become_true(lambda: sum(len(one.session.types) == len(KINDS) for one in hub.clients) == count)


async def carry_out(hub: Hub, line: bytes) -> dict[str, list[dict[str, str]]]:
    order = json.loads(line)
    if order.get("reconnect"):
        await reconnect(hub)
    else:
        hub.publish(read_changes(order), hub.version + 1)
    await become_true(lambda: not has_pending(hub))
    return {
        "refused": [
            {"node": client.node, "type": type_url, "error": state.last_error}
            for client in hub.clients
            for type_url, state in client.session.types.items()
            if state.last_error
        ]
    }


async def serve(folder: Path, address: str) -> None:
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    authority = read_root(folder)
    metrics = ControllerMetrics()
    hub = Hub(metrics, SessionLimits())
    discovery = DiscoveryService(hub, Authentication(authenticate, read_token), metrics)
    handlers = {**discovery.build_handlers(), **AnySigning(folder).build_handlers()}
    server = Server(handlers, TransportSettings(MAX_REQUEST_BYTES))
    server.set_certificate(ServingCertificate(authority, [address], metrics.serving_expiry.note).issue())
    port = server.listen(address, 0)
    async with server.serving():
        await take_orders(hub, port)
        hub.close()
        await server.stop(0)


async def take_orders(hub: Hub, port: int) -> None:
    reader = asyncio.StreamReader(limit=1 << 26)
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    say({"port": port})
    while line := await reader.readline():
        say(await carry_out(hub, line))


def say(answer: object) -> None:
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    asyncio.run(serve(Path(sys.argv[1]), sys.argv[2]))
