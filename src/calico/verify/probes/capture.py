"""Packet captures through AF_PACKET sockets, on one interface or on a whole stack."""

import contextlib
import ipaddress
import select
import socket
import struct
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

from calico.verify.cloud import Address
from calico.verify.probes.echo import Stack

ETH_P_ALL = 3
_OUTGOING = 4  # linux/if_packet.h PACKET_OUTGOING
_BUFFER = 8 << 20
_SO_RCVBUFFORCE = 33
_IPV4, _IPV6 = 0x0800, 0x86DD


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """A frame as it was on the wire; `outgoing` as the captured stack sent it."""

    interface: str
    outgoing: bool
    octets: bytes

    @property
    def source(self) -> str:
        """The Ethernet source address."""
        return self.octets[6:12].hex(":")

    @property
    def ethertype(self) -> int:
        """The Ethernet type."""
        return int.from_bytes(self.octets[12:14], "big")

    def addresses(self) -> tuple[Address, Address] | None:
        """Return the outermost IP header's source and destination, if it is IP."""
        packet = self.octets[14:]
        if self.ethertype == _IPV4 and len(packet) >= 20:
            source, destination = struct.unpack_from("!4s4s", packet, 12)
            return ipaddress.IPv4Address(source), ipaddress.IPv4Address(destination)
        if self.ethertype == _IPV6 and len(packet) >= 40:
            source, destination = struct.unpack_from("!16s16s", packet, 8)
            return ipaddress.IPv6Address(source), ipaddress.IPv6Address(destination)
        return None

    def protocol(self) -> int | None:
        """Return the outermost IP header's protocol (or next header), if it is IP."""
        at = {_IPV4: 23, _IPV6: 20}.get(self.ethertype)
        return None if at is None or len(self.octets) <= at else self.octets[at]

    def __str__(self) -> str:
        ends = self.addresses()
        what = f"{ends[0]} > {ends[1]}" if ends else f"type 0x{self.ethertype:04x}"
        return f"{what} from {self.source} on {self.interface}"


class Capture:
    """Collects the frames of a stack from construction until it is closed.

    In: the stack, and an interface or None for all of them. The kernel keeps frames in
    the socket's buffer; `frames` takes out what has come.
    """

    def __init__(self, place: Stack, interface: str | None = None) -> None:
        self._socket = place.inside(lambda: _open(interface))
        self._frames: list[Frame] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self._socket.close()

    def fileno(self) -> int:
        """Return what a selector waits for."""
        return self._socket.fileno()

    def frames(self) -> list[Frame]:
        """Return all frames so far, in order."""
        self.take()
        return list(self._frames)

    def take(self) -> list[Frame]:
        """Return the frames that have come since the last time that any were asked."""
        before = len(self._frames)
        with contextlib.suppress(BlockingIOError):
            while True:
                octets, where = self._socket.recvfrom(65535)
                self._frames.append(
                    Frame(
                        interface=where[0],
                        outgoing=where[2] == _OUTGOING,
                        octets=octets,
                    )
                )
        return self._frames[before:]

    def wait(self, wanted: Callable[[Frame], bool], within: float) -> Frame | None:
        """Return the first frame that is wanted, at once if it has come already."""
        deadline = time.monotonic() + within
        poll = select.poll()
        poll.register(self._socket, select.POLLIN)
        while True:
            for frame in self.frames():
                if wanted(frame):
                    return frame
            left = deadline - time.monotonic()
            if left <= 0:
                return None
            poll.poll(left * 1000)

    def marked(self, marker: bytes) -> list[Frame]:
        """Return the frames that contain a marker anywhere, tunnelled ones too."""
        return [frame for frame in self.frames() if marker in frame.octets]


def _open(interface: str | None) -> socket.socket:
    sock = socket.socket(
        socket.AF_PACKET,
        socket.SOCK_RAW,
        socket.htons(ETH_P_ALL if not interface else 0),
    )
    sock.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _BUFFER)
    if interface:
        # Protocol 0 until here: nothing of other interfaces gets into the buffer.
        sock.bind((interface, ETH_P_ALL))
    sock.setblocking(False)
    return sock
