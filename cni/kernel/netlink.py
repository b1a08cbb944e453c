"""Requests to the kernel over a netlink socket of the calling thread's network namespace: every one acknowledged.

pyroute2 encodes and decodes the messages; sending them is done here, because its own sockets each run an event loop of
their own, and its nftables commit does not read what the kernel answers. The kernel handles a request while it is being
sent, so its answers are there when `send` returns, and nothing here ever waits.
"""

import errno
import os
import socket
import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol, Self

from mesh.kit.errors import AmbitError

# linux/netlink.h
NLM_F_REQUEST = 0x1
NLM_F_ACK = 0x4
NLM_F_DUMP_INTERRUPTED = 0x10
NLM_F_DUMP = 0x300
NLM_F_REPLACE = 0x100
NLM_F_EXCL = 0x200
NLM_F_CREATE = 0x400
NLM_F_APPEND = 0x800
_NLM_F_ACK_TLVS = 0x200
_NLMSG_ERROR = 2
_NLMSG_DONE = 3
_SOL_NETLINK = 270
_NETLINK_CAP_ACK = 10
_NETLINK_EXT_ACK = 11
_NLMSGERR_ATTR_MSG = 1

_HEADER = struct.Struct("=IHHII")  # length, type, flags, sequence number, port
_ATTRIBUTE = struct.Struct("=HH")  # length, type
_ERROR = struct.Struct("=i")

# Room for the answers to one transaction: a few hundred acknowledgements, accounted at about 1 KiB each.
_RECEIVE_BUFFER_BYTES = 1 << 20
# One datagram of a dump: the kernel fills at most 32 KiB.
_DATAGRAM_BYTES = 1 << 16
# A dump is inconsistent when something changed meanwhile; a pod's namespace has one writer, us.
_MAX_DUMP_ATTEMPTS = 5


_NEXT_STEPS = {
    errno.EPERM: "the agent needs CAP_NET_ADMIN in the pod's namespace",
    errno.ENETDOWN: "bring the pod's lo up first",
    errno.EOPNOTSUPP: "the node's kernel lacks a module: nf_tables, nft_redir, nft_ct, nf_nat",
    errno.EPROTONOSUPPORT: "the node's kernel lacks a module: nfnetlink, nf_tables",
}


class Message(Protocol):
    """What is used of pyroute2's message classes: a dict of header fields and attributes, and its bytes."""

    data: bytearray

    def encode(self) -> None: ...
    def __getitem__(self, key: str) -> dict[str, int]: ...
    def __setitem__(self, key: str, value: object) -> None: ...


class KernelRefusedError(AmbitError):
    """The kernel said no to a request. `code` is its errno."""

    reason = "kernel_refused"

    def __init__(self, what: str, code: int, detail: str = "") -> None:
        self.code = code
        because = f" ({detail})" if detail else ""
        hint = f"; {_NEXT_STEPS[code]}" if code in _NEXT_STEPS else ""
        super().__init__(f"{what}: {os.strerror(code)}{because}{hint}")


class NoAnswerError(AmbitError):
    """The kernel did not acknowledge a request, which it always does: a bug of ours, or of the kernel."""

    reason = "kernel_no_answer"

    def __init__(self, what: str) -> None:
        super().__init__(f"{what}: the kernel neither confirmed nor refused it")


class NetlinkSocket:
    """One netlink conversation in the network namespace of the thread that opens it."""

    def __init__(self, protocol: int) -> None:
        """Raises KernelRefusedError: this kernel has no such protocol."""
        with _refusals("open a netlink socket"):
            self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, protocol)
        self._socket.setsockopt(_SOL_NETLINK, _NETLINK_CAP_ACK, 1)
        self._socket.setsockopt(_SOL_NETLINK, _NETLINK_EXT_ACK, 1)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BUFFER_BYTES)
        self._socket.setblocking(False)
        self._sequence = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *failure: object) -> None:
        self._socket.close()

    def send(self, messages: Sequence[Message]) -> list[int]:
        """Send `messages` as one datagram; return their sequence numbers."""
        datagram = b"".join(self._encode(message) for message in messages)
        with _refusals("send to the kernel"):
            self._socket.sendto(datagram, (0, 0))
        return list(range(self._sequence - len(messages) + 1, self._sequence + 1))

    def read_acknowledgements(self) -> dict[int, tuple[int, str]]:
        """All that the kernel has answered so far: errno (0 is success) and its explanation, by sequence number."""
        answers: dict[int, tuple[int, str]] = {}
        while (datagram := self._receive()) is not None:
            for kind, flags, sequence, body in _split(datagram):
                if kind == _NLMSG_ERROR:
                    answers.setdefault(sequence, _parse_error(flags, body))
        return answers

    def request(self, what: str, message: Message, ignored: frozenset[int] = frozenset()) -> None:
        """Send one request and read its acknowledgement.

        Raises KernelRefusedError naming `what`, unless its errno is one of `ignored`.
        """
        message["header"]["flags"] |= NLM_F_REQUEST | NLM_F_ACK
        (sequence,) = self.send([message])
        answer = self.read_acknowledgements().get(sequence)
        if answer is None:
            raise NoAnswerError(what)
        if answer[0] and answer[0] not in ignored:
            raise KernelRefusedError(what, *answer)

    def dump(self, what: str, message: Message) -> list[bytes]:
        """Ask for a list; return its messages, each with its header. Raises KernelRefusedError naming `what`."""
        message["header"]["flags"] |= NLM_F_REQUEST | NLM_F_DUMP
        for _ in range(_MAX_DUMP_ATTEMPTS):
            self.send([message])
            replies, is_consistent = self._read_dump(what)
            if is_consistent:
                return replies
        raise KernelRefusedError(what, errno.EINTR, "it changed while it was being read, again and again")

    def _read_dump(self, what: str) -> tuple[list[bytes], bool]:
        replies: list[bytes] = []
        is_consistent = True
        while (datagram := self._receive()) is not None:
            for kind, flags, _, body in _split(datagram):
                is_consistent = is_consistent and not flags & NLM_F_DUMP_INTERRUPTED
                if kind == _NLMSG_DONE:
                    if code := -_ERROR.unpack_from(body)[0]:
                        raise KernelRefusedError(what, code)
                    return replies, is_consistent
                if kind == _NLMSG_ERROR:
                    raise KernelRefusedError(what, *_parse_error(flags, body))
                replies.append(_HEADER.pack(_HEADER.size + len(body), kind, flags, 0, 0) + body)
        raise NoAnswerError(what)

    def _encode(self, message: Message) -> bytes:
        self._sequence += 1
        message["header"]["sequence_number"] = self._sequence
        message.data = bytearray()
        message.encode()
        return bytes(message.data)

    def _receive(self) -> bytes | None:
        try:
            with _refusals("read the kernel's answer"):
                return self._socket.recv(_DATAGRAM_BYTES)
        except BlockingIOError:
            return None


@contextmanager
def _refusals(what: str) -> Iterator[None]:
    try:
        yield
    except BlockingIOError:
        raise
    except OSError as error:
        raise KernelRefusedError(what, error.errno or 0) from error


def _split(datagram: bytes) -> Iterator[tuple[int, int, int, bytes]]:
    """The messages in a datagram: type, flags, sequence number, body."""
    offset = 0
    while offset + _HEADER.size <= len(datagram):
        length, kind, flags, sequence, _ = _HEADER.unpack_from(datagram, offset)
        if length < _HEADER.size:
            return
        yield kind, flags, sequence, datagram[offset + _HEADER.size : offset + length]
        offset += (length + 3) & ~3


def _parse_error(flags: int, body: bytes) -> tuple[int, str]:
    """errno and explanation of an NLMSG_ERROR: the code, the request's header, then attributes (linux/netlink.h)."""
    code = -_ERROR.unpack_from(body)[0]
    offset = _ERROR.size + _HEADER.size
    while flags & _NLM_F_ACK_TLVS and offset + _ATTRIBUTE.size <= len(body):
        length, kind = _ATTRIBUTE.unpack_from(body, offset)
        if length < _ATTRIBUTE.size:
            break
        if kind == _NLMSGERR_ATTR_MSG:
            return code, body[offset + _ATTRIBUTE.size : offset + length].rstrip(b"\0").decode(errors="replace")
        offset += (length + 3) & ~3
    return code, ""
