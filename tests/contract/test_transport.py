"""The transport under gRPC's own clients: calls, their ends, certificates, many streams, and readers that are slow."""

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace

import grpc
import grpc.aio
import pytest
from cryptography import x509

from controller.authority.certificate_authority import CertificateAuthority
from controller.authority.root_store import load_or_create_root
from controller.serving_certificate import LIFETIME, ServingCertificate
from controller.transport.calls import Call, serve_one
from controller.transport.server import Server, TransportSettings
from mesh.identity import DEFAULT_TRUST_DOMAIN
from mesh.kit.errors import FatalError, InvalidInputError
from tests.support.waiting import until

STREAM, ONE, BUG = "/test.Service/Stream", "/test.Service/One", "/test.Service/Bug"
LIMIT = 100_000
PATIENCE_SECONDS = 20.0
Stream = grpc.aio.StreamStreamCall[bytes, bytes]


@dataclass(slots=True)
class Service:
    """Echoes, and keeps the calls that are open."""

    open: list[Call] = field(default_factory=list)
    ended: list[str] = field(default_factory=list)

    async def stream(self, call: Call) -> None:
        self.open.append(call)
        try:
            while (message := await call.read()) is not None:
                await call.write([message, b"!"])
        finally:
            self.open.remove(call)
            self.ended.append(call.peer)

    async def one(self, message: bytes, call: Call) -> bytes:
        return message + (call.find_header("x-name") or "nobody").encode()

    async def bug(self, _call: Call) -> None:
        raise ValueError("of ours")


@pytest.fixture
def service() -> Service:
    return Service()


@asynccontextmanager
async def serving(
    service: Service, certificate: tuple[bytes, bytes] | None = None
) -> AsyncIterator[tuple[Server, int]]:
    handlers: dict[str, Callable[[Call], Awaitable[None]]] = {
        STREAM: service.stream,
        ONE: serve_one(service.one),
        BUG: service.bug,
    }
    server = Server(handlers, TransportSettings(LIMIT, threads=2))
    if certificate:
        server.set_certificate(certificate)
    port = server.listen("127.0.0.1", 0)
    async with asyncio.timeout(60), server.serving():
        try:
            yield server, port
        finally:
            await server.stop(0)


@asynccontextmanager
async def connected(port: int, *options: tuple[str, int]) -> AsyncIterator[grpc.aio.Channel]:
    async with grpc.aio.insecure_channel(
        f"127.0.0.1:{port}", [("grpc.use_local_subchannel_pool", 1), *options]
    ) as made:
        yield made


def open_stream(channel: grpc.aio.Channel) -> Stream:
    return channel.stream_stream(STREAM, None, None)(None, timeout=PATIENCE_SECONDS)


async def say(stream: Stream, message: bytes) -> object:
    await stream.write(message)
    return await stream.read()


async def find_code(answer: Awaitable[object]) -> grpc.StatusCode:
    with pytest.raises(grpc.aio.AioRpcError) as found:
        await answer
    return found.value.code()


async def test_messages_of_any_size_go_both_ways(service: Service) -> None:
    async with serving(service) as (_, port), connected(port) as channel:
        stream = open_stream(channel)
        for message in (b"", b"a", b"b" * 20_000, b"c" * LIMIT):
            assert await say(stream, message) == message + b"!"
        await stream.done_writing()
        assert not isinstance(await stream.read(), bytes)
        assert await stream.code() is grpc.StatusCode.OK


async def test_a_method_with_one_message_each_way(service: Service) -> None:
    async with serving(service) as (_, port), connected(port) as channel:
        call = channel.unary_unary(ONE, None, None)
        assert await call(b"I am ", metadata=(("x-name", "somebody"),), timeout=PATIENCE_SECONDS) == b"I am somebody"
        assert await call(b"I am ", timeout=PATIENCE_SECONDS) == b"I am nobody"


async def test_what_is_not_taken_is_refused_by_its_status(service: Service) -> None:
    async with serving(service) as (_, port), connected(port) as channel:
        unknown = channel.unary_unary("/test.Service/Unknown", None, None)
        assert await find_code(unknown(b"", timeout=PATIENCE_SECONDS)) is grpc.StatusCode.UNIMPLEMENTED
        one = channel.unary_unary(ONE, None, None)
        too_large = one(bytes(LIMIT + 1), timeout=PATIENCE_SECONDS)
        assert await find_code(too_large) is grpc.StatusCode.RESOURCE_EXHAUSTED
        compressed = one(bytes(2_000), compression=grpc.Compression.Gzip, timeout=PATIENCE_SECONDS)
        assert await find_code(compressed) is grpc.StatusCode.UNIMPLEMENTED


async def test_a_bug_ends_its_call_only(service: Service, caplog: pytest.LogCaptureFixture) -> None:
    async with serving(service) as (_, port), connected(port) as channel:
        other = open_stream(channel)
        await say(other, b"before")
        assert (
            await find_code(channel.unary_unary(BUG, None, None)(b"", timeout=PATIENCE_SECONDS))
            is grpc.StatusCode.INTERNAL
        )
        assert await say(other, b"after") == b"after!"
        assert "of ours" in caplog.text


async def test_a_client_that_goes_ends_its_handler(service: Service) -> None:
    async with serving(service) as (_, port):
        async with connected(port) as channel:
            cancelled, other = open_stream(channel), open_stream(channel)
            for each in (cancelled, other):
                await say(each, b"a")
            cancelled.cancel()
            await until(lambda: len(service.open) == 1)
        await until(lambda: not service.open)


async def test_a_connection_that_is_reset_ends_its_handler(service: Service) -> None:
    async with serving(service) as (_, port):
        pair = socket.create_connection(("127.0.0.1", port))
        head = b"".join(
            bytes([0, len(name)]) + name + bytes([len(value)]) + value
            for name, value in [
                (b":method", b"POST"),
                (b":scheme", b"http"),
                (b":path", STREAM.encode()),
                (b"content-type", b"application/grpc"),
            ]
        )
        pair.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0]))
        pair.sendall(len(head).to_bytes(3, "big") + bytes([1, 4, 0, 0, 0, 1]) + head)
        await until(lambda: len(service.open) == 1)
        pair.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        pair.close()
        await until(lambda: not service.open)


async def test_a_thousand_streams_are_told_in_one_call(service: Service) -> None:
    async with serving(service) as (server, port), connected(port) as channel:
        streams = [open_stream(channel) for _ in range(1_000)]
        for each in streams:
            await each.write(b"")
        await asyncio.gather(*(each.read() for each in streams))
        payload = b"the same " * 1_000
        server.send_all([(call, [str(number).encode(), payload]) for number, call in enumerate(service.open)])
        answers = await asyncio.gather(*(each.read() for each in streams))
        assert set(answers) == {str(number).encode() + payload for number in range(1_000)}
        for each in streams:
            each.cancel()
        await until(lambda: not service.open)
        server.send_all([(open_call, [b"late"]) for open_call in service.open])


async def test_a_slow_reader_waits_alone(service: Service) -> None:
    block = bytes(8 * 1024 * 1024)
    options = [("grpc.max_receive_message_length", -1)]
    async with serving(service) as (server, port), connected(port, *options) as one, connected(port, *options) as two:
        slow = open_stream(one)
        await say(slow, b"")
        [slow_call] = service.open
        server.send_all([(slow_call, [block])] * 4)
        assert not slow_call.is_writable
        fast = open_stream(two)
        await say(fast, b"")
        [fast_call] = [call for call in service.open if call is not slow_call]
        server.send_all([(slow_call, [b"end"]), (fast_call, [block])])
        assert await fast.read() == block
        await fast_call.wait_until_writable()
        assert not slow_call.is_writable
        assert [await slow.read() for _ in range(5)] == [block] * 4 + [b"end"]
        await slow_call.wait_until_writable()


async def test_calls_may_end_before_the_server_does_and_are_cut_off_then(service: Service) -> None:
    async with serving(service) as (server, port), connected(port) as channel:
        stream, held = open_stream(channel), open_stream(channel)
        for each in (stream, held):
            await say(each, b"a")
        stopping = asyncio.gather(server.stop(0.5))
        await stream.done_writing()
        assert await stream.code() is grpc.StatusCode.OK
        await stopping
        assert await held.code() is grpc.StatusCode.UNAVAILABLE


# Listening ------------------------------------------------------------------------------------------------------------


async def test_a_port_that_is_taken_ends_the_start(service: Service) -> None:
    async with serving(service) as (_, port):
        other = Server({}, TransportSettings(LIMIT))
        with pytest.raises(FatalError, match="is another controller running"):
            other.listen("127.0.0.1", port)
        await other.stop(0)


async def test_a_name_is_listened_on_at_all_of_its_addresses(service: Service) -> None:
    addresses = {str(each[4][0]) for each in socket.getaddrinfo("localhost", 0, type=socket.SOCK_STREAM)}
    async with serving(service) as (server, _):
        port = server.listen("localhost", 0)
        for address in addresses:
            socket.create_connection((address, port)).close()


# Certificates ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def authority(tmp_path: Path) -> CertificateAuthority:
    return CertificateAuthority(load_or_create_root(tmp_path, DEFAULT_TRUST_DOMAIN, datetime.now(UTC)).signer)


@pytest.fixture
def certificate(authority: CertificateAuthority) -> ServingCertificate:
    return ServingCertificate(authority, ["localhost"], lambda _: None)


async def look(authority: CertificateAuthority, port: int, versions: Sequence[ssl.TLSVersion] = ()) -> int:
    """The serial number of the certificate that is shown to a client that checks it."""
    context = ssl.create_default_context(cadata=authority.root_pem)
    context.set_alpn_protocols(["h2"])
    for version in versions:
        context.minimum_version = context.maximum_version = version
    _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context, server_hostname="localhost")
    connection = writer.get_extra_info("ssl_object")
    assert connection.selected_alpn_protocol() == "h2"
    writer.close()
    return x509.load_der_x509_certificate(connection.getpeercert(binary_form=True)).serial_number


async def test_certificates_are_replaced_while_calls_go_on(
    service: Service, authority: CertificateAuthority, certificate: ServingCertificate
) -> None:
    credentials = grpc.ssl_channel_credentials(authority.root_pem.encode())
    async with serving(service, certificate.issue()) as (server, port):
        first = await look(authority, port)
        async with grpc.aio.secure_channel(f"localhost:{port}", credentials) as channel:
            stream = open_stream(channel)
            await say(stream, b"before")
            server.set_certificate(certificate.issue())
            second = await look(authority, port)
            assert second != first
            assert await say(stream, b"after") == b"after!"
        with pytest.raises(InvalidInputError):
            server.set_certificate((b"no key", b"no chain"))
        assert await look(authority, port) == second


async def test_a_certificate_is_renewed_at_half_of_its_life(
    authority: CertificateAuthority, certificate: ServingCertificate, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 1_000.0
    monkeypatch.setattr("controller.serving_certificate.time", SimpleNamespace(monotonic=lambda: now))
    certificate.issue()
    taken: list[tuple[bytes, bytes]] = []
    renewing = certificate.renew(taken.append, check_seconds=0)
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(renewing, name="renew")
        now += LIFETIME.total_seconds() / 2 - 1
        for _ in range(5):
            await asyncio.sleep(0)
        assert not taken
        now += 1
        await until(lambda: len(taken) == 1)
        task.cancel()


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_both_versions_of_tls_are_spoken(
    service: Service, authority: CertificateAuthority, certificate: ServingCertificate, version: ssl.TLSVersion
) -> None:
    async with serving(service, certificate.issue()) as (_, port):
        assert await look(authority, port, [version])


async def test_a_stranger_who_speaks_no_tls_harms_nobody(
    service: Service, authority: CertificateAuthority, certificate: ServingCertificate
) -> None:
    async with serving(service, certificate.issue()) as (_, port):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET / HTTP/1.1\r\n\r\n" * 100)
        await reader.read()
        writer.close()
        assert await look(authority, port)
