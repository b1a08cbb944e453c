"""Recording the underlay as pcap: every frame between the nodes, and between nodes and controller, exactly once.

A frame is taken where it enters the underlay: at the bridge's port that a node sent it into, or at the bridge itself
when the supervisor's side sent it. The kernel does the choosing (a socket filter) and the keeping (a ring that we map),
so that bursts are not lost while Python writes. Works without rights outside the lab. Sources: packet(7), the kernel's
packet_mmap.rst and filter.rst; the file's form: draft-ietf-opsawg-pcap.
"""

import ctypes
import mmap
import os
import select
import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass

_SOL_PACKET = 263
_PACKET_RX_RING, _PACKET_STATISTICS, _PACKET_VERSION = 5, 6, 10
_TPACKET_V3 = 2
_ETH_P_ALL = 3
_SO_ATTACH_FILTER = 26

BLOCK_BYTES = 1 << 20
BLOCKS = 32
"""32 MiB: a quarter of a second of 1 Gbit/s, more than Python is ever away."""

RETIRE_MILLISECONDS = 10
"""How long the kernel keeps a block that is not full; also how long after the last frame we must wait for it."""

_SNAP_BYTES = 0x40000
"""Larger than any frame, also those that veth passes on unsegmented (64 KiB)."""

_BLOCK_HEAD = struct.Struct("=IIIII")
"""version, offset of private data, status, number of frames, offset of the first frame."""

_STATUS_OFFSET = 8
_OWNED_BY_USER = 1

_FRAME_HEAD = struct.Struct("=IIIIIIH")
"""Offset of the next frame, seconds, nanoseconds, captured length, length, status, offset of the frame's bytes."""

_PCAP_HEAD = struct.pack("=IHHiIII", 0xA1B23C4D, 2, 4, 0, 0, _SNAP_BYTES, 1)
"""Nanosecond timestamps, version 2.4, UTC, link type Ethernet."""

_PCAP_RECORD = struct.Struct("=IIII")


@dataclass(frozen=True, slots=True)
class Recorded:
    """What a capture wrote; `dropped_frames` came faster than they could be written."""

    frames: int
    dropped_frames: int


class UnderlayCapture:
    """A ring that fills from the moment it is made. Make it in the supervisor's network namespace."""

    def __init__(self, bridge: str) -> None:
        # The filter goes first: making the ring throws away what came before it, unfiltered.
        self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_ETH_P_ALL))
        try:
            _attach_filter(self._socket, build_filter(socket.if_nametoindex(bridge), socket.if_nametoindex("lo")))
            self._socket.setsockopt(_SOL_PACKET, _PACKET_VERSION, _TPACKET_V3)
            ring = (BLOCK_BYTES, BLOCKS, BLOCK_BYTES, BLOCKS, RETIRE_MILLISECONDS, 0, 0)
            self._socket.setsockopt(_SOL_PACKET, _PACKET_RX_RING, struct.pack("=7I", *ring))
            self._ring = mmap.mmap(self._socket.fileno(), BLOCK_BYTES * BLOCKS)
        except BaseException:
            self._socket.close()
            raise

    def record(self, output: int, stop: int) -> Recorded:
        """Write frames to `output` until the other end of the pipe `stop` is closed, and those that came before that.

        Blocks; closes everything, both descriptors included. Raises OSError when it cannot write.
        """
        try:
            _write(output, _PCAP_HEAD)
            poll = select.poll()
            poll.register(self._socket, select.POLLIN)
            poll.register(stop, select.POLLIN)
            frames = 0
            block = 0
            while True:
                ready = dict(poll.poll())
                if stop in ready:
                    # What the kernel still holds back becomes readable within this time.
                    select.select([], [], [], 3 * RETIRE_MILLISECONDS / 1000)
                while records := self._take(block):
                    _write(output, b"".join(records))
                    frames += len(records)
                    block = (block + 1) % BLOCKS
                if stop in ready:
                    return Recorded(frames, self._count_dropped())
        finally:
            os.close(output)
            os.close(stop)
            self._ring.close()
            self._socket.close()

    def _take(self, block: int) -> list[bytes]:
        """A block's frames as pcap records, none when it is not ours yet; it is given back to the kernel."""
        start = block * BLOCK_BYTES
        _, _, status, count, first = _BLOCK_HEAD.unpack_from(self._ring, start)
        if not status & _OWNED_BY_USER:
            return []
        records = list(self._frames(start + first, count))
        struct.pack_into("=I", self._ring, start + _STATUS_OFFSET, 0)
        return records

    def _frames(self, position: int, count: int) -> Iterator[bytes]:
        for _ in range(count):
            following, seconds, nanoseconds, captured, length, _, offset = _FRAME_HEAD.unpack_from(self._ring, position)
            begin = position + offset
            yield _PCAP_RECORD.pack(seconds, nanoseconds, captured, length) + self._ring[begin : begin + captured]
            position += following

    def _count_dropped(self) -> int:
        # frames, drops, and how often the queue was frozen (struct tpacket_stats_v3).
        _, dropped, _ = struct.unpack("=3I", self._socket.getsockopt(_SOL_PACKET, _PACKET_STATISTICS, 12))
        return int(dropped)


def build_filter(bridge_index: int, loopback_index: int) -> bytes:
    """A classic BPF program that keeps each frame once: where it enters the underlay."""
    load, equal, give = 0x20, 0x15, 0x06  # BPF_LD|BPF_W|BPF_ABS, BPF_JMP|BPF_JEQ|BPF_K, BPF_RET|BPF_K
    packet_type, interface = 0xFFFFF004, 0xFFFFF008  # SKF_AD_OFF + SKF_AD_PKTTYPE, SKF_AD_IFINDEX
    outgoing = 4  # PACKET_OUTGOING
    program = [
        (load, 0, 0, packet_type),
        (equal, 4, 0, outgoing),  # to "sent by us"
        (load, 0, 0, interface),
        (equal, 5, 0, bridge_index),  # seen at its port already
        (equal, 4, 0, loopback_index),
        (give, 0, 0, _SNAP_BYTES),
        (load, 0, 0, interface),  # sent by us
        (equal, 0, 1, bridge_index),
        (give, 0, 0, _SNAP_BYTES),
        (give, 0, 0, 0),
    ]
    return b"".join(struct.pack("=HBBI", *instruction) for instruction in program)


def _attach_filter(sniffer: socket.socket, program: bytes) -> None:
    instructions = ctypes.create_string_buffer(program, len(program))
    # struct sock_fprog: a count and a pointer, aligned natively.
    sniffer.setsockopt(
        socket.SOL_SOCKET, _SO_ATTACH_FILTER, struct.pack("@HP", len(program) // 8, ctypes.addressof(instructions))
    )


def _write(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]
