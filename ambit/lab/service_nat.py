"""Service addresses for pods outside the mesh: address translation on the node, as kube-proxy does it.

This is the lab's cluster network, not the mesh: what is enrolled never gets here with a service's address. For each
route one nftables rule per endpoint, of which one is chosen at random: with n endpoints the first is taken in one of n
cases, else the second in one of n - 1, and so on. A pod that reaches itself by its service gets the node as its source,
because it would drop packets from itself.

The messages are written here, attribute by attribute: there are a dozen, and the kernel answers while it is being sent
to. Source: linux/netfilter/nf_tables.h, nfnetlink.h, netlink.h.
"""

import errno
import os
import socket
import struct
from collections.abc import Iterable, Sequence

from ambit.lab.addresses import Address
from ambit.lab.service_routes import Endpoint, ServiceRoute

TABLE = "ambit-lab-services"

_NETLINK_NETFILTER = 12
_NLM_F_REQUEST, _NLM_F_CREATE, _NLM_F_APPEND = 0x1, 0x400, 0x800
_NLMSG_ERROR = 2
_NFPROTO_INET = 1
_SUBSYSTEM = 10 << 8
_BATCH_BEGIN, _BATCH_END = 0x10, 0x11
_NEW_TABLE, _DELETE_TABLE, _NEW_CHAIN, _NEW_RULE = 0, 2, 3, 6
_NESTED = 0x8000

_PREROUTING, _POSTROUTING = 0, 4
_DESTINATION_NAT_PRIORITY, _SOURCE_NAT_PRIORITY = -100, 100

_META_NFPROTO, _META_L4PROTO = 15, 16
_NETWORK_HEADER, _TRANSPORT_HEADER = 1, 2
_RANDOM = 1
_DNAT = 1
_REGISTER, _PORT_REGISTER = 1, 2
_PROTOCOL_NUMBERS = {"TCP": 6, "UDP": 17}

_SEND_BUFFER_BYTES = 4 << 20
"""A transaction is one datagram; the kernel grants as much of this as it allows (net.core.wmem_max)."""


def apply_service_routes(routes: Sequence[ServiceRoute]) -> None:
    """Replace the translation of the calling thread's network namespace in one transaction; raises OSError."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _NETLINK_NETFILTER) as kernel:
        kernel.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER_BYTES)
        kernel.bind((0, 0))
        kernel.setblocking(False)
        kernel.send(build_transaction(routes))
        _raise_refusal(kernel)


def build_transaction(routes: Sequence[ServiceRoute]) -> bytes:
    """The netlink messages that leave exactly `routes` in the table; without any, no table."""
    table = _text(1, TABLE)
    messages = [
        _message(_SUBSYSTEM | _NEW_TABLE, _NLM_F_CREATE, table),  # so that deleting it is no error
        _message(_SUBSYSTEM | _DELETE_TABLE, 0, table),
    ]
    if routes:
        messages.append(_message(_SUBSYSTEM | _NEW_TABLE, _NLM_F_CREATE, table))
        messages.append(_build_chain("services", _PREROUTING, _DESTINATION_NAT_PRIORITY))
        messages.append(_build_chain("hairpins", _POSTROUTING, _SOURCE_NAT_PRIORITY))
        messages += [rule for route in routes for rule in _build_route(route)]
        addresses = {endpoint.address: None for route in routes for endpoint in route.endpoints}
        messages += [_build_hairpin(address) for address in addresses]
    return b"".join([_batch_mark(_BATCH_BEGIN), *messages, _batch_mark(_BATCH_END)])


def _build_chain(name: str, hook: int, priority: int) -> bytes:
    hooked = _nest(4, _number(1, hook), _number(2, priority))
    return _message(_SUBSYSTEM | _NEW_CHAIN, _NLM_F_CREATE, _text(1, TABLE), _text(3, name), hooked, _text(7, "nat"))


def _build_route(route: ServiceRoute) -> Iterable[bytes]:
    for index, endpoint in enumerate(route.endpoints):
        left = len(route.endpoints) - index
        yield _build_rule(
            "services",
            *_match_family(route.address),
            *_match(_load_meta(_META_L4PROTO), bytes([_PROTOCOL_NUMBERS[route.protocol]])),
            *_match_address(route.address, is_source=False),
            *_match(_load_payload(_TRANSPORT_HEADER, 2, 2), route.port.to_bytes(2, "big")),
            *(_match(_load_random_below(left), bytes(4)) if left > 1 else ()),
            *_translate_to(endpoint),
        )


def _build_hairpin(address: Address) -> bytes:
    return _build_rule(
        "hairpins",
        *_match_family(address),
        *_match_address(address, is_source=True),
        *_match_address(address, is_source=False),
        _expression("masq"),
    )


def _build_rule(chain: str, *expressions: bytes) -> bytes:
    parts = (_text(1, TABLE), _text(2, chain), _nest(4, *expressions))
    return _message(_SUBSYSTEM | _NEW_RULE, _NLM_F_CREATE | _NLM_F_APPEND, *parts)


# ---------------------------------------------------------------------------------------------------------- expressions


def _match(load: bytes, value: bytes) -> tuple[bytes, bytes]:
    """Load something into the register, and go on only if it equals `value`."""
    return load, _expression("cmp", _number(1, _REGISTER), _number(2, 0), _nest(3, _attribute(1, value)))


def _match_family(address: Address) -> tuple[bytes, bytes]:
    return _match(_load_meta(_META_NFPROTO), bytes([_family(address)]))


def _match_address(address: Address, *, is_source: bool) -> tuple[bytes, bytes]:
    offsets = {4: (12, 16), 6: (8, 24)}[address.version]
    return _match(_load_payload(_NETWORK_HEADER, offsets[not is_source], len(address.packed)), address.packed)


def _translate_to(endpoint: Endpoint) -> tuple[bytes, bytes, bytes]:
    return (
        _load_constant(_REGISTER, endpoint.address.packed),
        _load_constant(_PORT_REGISTER, endpoint.port.to_bytes(2, "big")),
        _expression(
            "nat",
            *(_number(1, _DNAT), _number(2, _family(endpoint.address))),
            *(_number(3, _REGISTER), _number(4, _REGISTER), _number(5, _PORT_REGISTER), _number(6, _PORT_REGISTER)),
        ),
    )


def _load_meta(key: int) -> bytes:
    return _expression("meta", _number(1, _REGISTER), _number(2, key))


def _load_payload(header: int, offset: int, length: int) -> bytes:
    place = (_number(2, header), _number(3, offset), _number(4, length))
    return _expression("payload", _number(1, _REGISTER), *place)


def _load_random_below(modulus: int) -> bytes:
    return _expression("numgen", _number(1, _REGISTER), _number(2, modulus), _number(3, _RANDOM), _number(4, 0))


def _load_constant(register: int, value: bytes) -> bytes:
    return _expression("immediate", _number(1, register), _nest(2, _attribute(1, value)))


def _expression(name: str, *attributes: bytes) -> bytes:
    return _nest(1, _text(1, name), _nest(2, *attributes))


def _family(address: Address) -> int:
    return socket.AF_INET if address.version == 4 else socket.AF_INET6


# -------------------------------------------------------------------------------------------------------------- netlink


def _attribute(kind: int, value: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(value), kind) + value + bytes(-len(value) % 4)


def _nest(kind: int, *attributes: bytes) -> bytes:
    return _attribute(kind | _NESTED, b"".join(attributes))


def _text(kind: int, value: str) -> bytes:
    return _attribute(kind, value.encode() + b"\0")


def _number(kind: int, value: int) -> bytes:
    return _attribute(kind, value.to_bytes(4, "big", signed=value < 0))


def _message(kind: int, flags: int, *attributes: bytes) -> bytes:
    body = struct.pack("=BBH", _NFPROTO_INET, 0, 0) + b"".join(attributes)
    return struct.pack("=IHHII", 16 + len(body), kind, _NLM_F_REQUEST | flags, 1, 0) + body


def _batch_mark(kind: int) -> bytes:
    body = struct.pack("=BB", socket.AF_UNSPEC, 0) + (_SUBSYSTEM >> 8).to_bytes(2, "big")
    return struct.pack("=IHHII", 16 + len(body), kind, _NLM_F_REQUEST, 1, 0) + body


def _raise_refusal(kernel: socket.socket) -> None:
    """Raise the first error that the kernel has answered; it answers nothing to what it accepts."""
    try:
        answer = kernel.recv(1 << 16)
    except BlockingIOError:
        return
    _, kind, _, _, _, code = struct.unpack_from("=IHHIIi", answer)
    if kind == _NLMSG_ERROR and code:
        hint = "; is the kernel's nft_nat module there?" if -code in (errno.ENOENT, errno.EOPNOTSUPP) else ""
        raise OSError(-code, f"service addresses cannot be translated: {os.strerror(-code)}{hint}")
