"""The lab's name server: what CoreDNS is to a cluster.

It knows the services of the lab, as Kubernetes' DNS specification names them, and nothing else: a lab has no way out.
Pods of the mesh ask their ztunnel, which answers for the mesh and asks here for the rest.
"""

import asyncio
from collections.abc import Callable, Iterable, Sequence
from typing import cast

import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.opcode
import dns.rcode
import dns.rdatatype
import dns.rrset

from ambit.lab.addresses import Address

CLUSTER_DOMAIN = "cluster.local"
PORT = 53

_TTL_SECONDS = 5
"""What CoreDNS says for Kubernetes' names."""

_SERVICES = dns.name.from_text(f"svc.{CLUSTER_DOMAIN}.")
_VERSIONS = {dns.rdatatype.A: 4, dns.rdatatype.AAAA: 6}
_SMALLEST_DATAGRAM = 512

FindService = Callable[[str, str], Sequence[Address] | None]
"""The addresses behind a service, by namespace and name; None when there is no such service."""


def answer(query: bytes, find: FindService) -> dns.message.Message | None:
    """The answer to a query on the wire; None when it is none."""
    try:
        asked = dns.message.from_wire(query)
    except dns.exception.DNSException:
        return None
    if asked.flags & dns.flags.QR:
        return None
    response = dns.message.make_response(asked)
    if asked.opcode() != dns.opcode.QUERY or len(asked.question) != 1:
        response.set_rcode(dns.rcode.NOTIMP)
        return response
    response.flags |= dns.flags.AA
    question = asked.question[0]
    addresses = _addresses_of(question.name, find)
    if addresses is None:
        response.set_rcode(dns.rcode.NXDOMAIN)
        return response
    texts = [str(address) for address in addresses if address.version == _VERSIONS.get(question.rdtype)]
    if texts:
        response.answer.append(dns.rrset.from_text_list(question.name, _TTL_SECONDS, "IN", question.rdtype, texts))
    return response


def _addresses_of(name: dns.name.Name, find: FindService) -> Sequence[Address] | None:
    if not name.is_subdomain(_SERVICES):
        return None
    labels = [label.decode("ascii", "replace").lower() for label in name.relativize(_SERVICES).labels]
    if len(labels) != 2:
        return None
    service, namespace = labels
    return find(namespace, service)


class ClusterDns:
    """Serves over UDP and TCP; `find` is asked anew for each query."""

    def __init__(self, find: FindService) -> None:
        self._find = find

    async def start(self, addresses: Iterable[Address]) -> None:
        """Listen at each address, for as long as the event loop runs; raises OSError."""
        loop = asyncio.get_running_loop()
        for address in addresses:
            await loop.create_datagram_endpoint(lambda: _Datagrams(self._find), local_addr=(str(address), PORT))
            await asyncio.start_server(self._serve, str(address), PORT)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                size = int.from_bytes(await reader.readexactly(2), "big")
                response = answer(await reader.readexactly(size), self._find)
                if response is None:
                    return
                writer.write(response.to_wire(prepend_length=True))
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass  # the client is done
        finally:
            writer.close()


class _Datagrams(asyncio.DatagramProtocol):
    def __init__(self, find: FindService) -> None:
        self._find = find
        self._transport: asyncio.DatagramTransport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # Asyncio's own is no subclass of it.
        self._transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        response = answer(data, self._find)
        if response is not None:
            room = max(response.request_payload, _SMALLEST_DATAGRAM)
            self._transport.sendto(response.to_wire(max_size=room, prefer_truncation=True), addr)
