"""The beginning of a packet: who talks to whom."""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address

from calico.model.ids import Address
from calico.model.records import ICMP, PORT_PROTOCOLS

# Extension headers that another header follows (RFC 8200).
_OPTIONS, _FRAGMENT = frozenset({0, 43, 60}), 44
_UDP_LITE = 136


@dataclass(frozen=True, slots=True, kw_only=True)
class Headers:
    """What the headers of an IP packet say, as far as they were there to read.

    Ports for protocols that have them; type and code for ICMP.
    """

    source: Address
    destination: Address
    protocol: int
    ports: tuple[int, int] | None = None
    icmp: tuple[int, int] | None = None


def read_headers(packet: bytes) -> Headers | None:
    """Return the headers of a packet whose end may lack; None if it is not IP.

    A later fragment has no ports.
    """
    version = packet[0] >> 4 if packet else 0
    if version == 4 and len(packet) >= 20:
        first = not struct.unpack_from(">H", packet, 6)[0] & 0x1FFF
        rest = packet[(packet[0] & 0xF) * 4 :]
        source, destination = IPv4Address(packet[12:16]), IPv4Address(packet[16:20])
        return _above(source, destination, packet[9], rest if first else b"")
    if version == 6 and len(packet) >= 40:
        *_, (protocol, rest) = _chain(packet[6], packet[40:])
        source6, destination6 = IPv6Address(packet[8:24]), IPv6Address(packet[24:40])
        return _above(source6, destination6, protocol, rest)
    return None


def _above(
    source: Address, destination: Address, protocol: int, rest: bytes
) -> Headers:
    ports = icmp = None
    if protocol in PORT_PROTOCOLS | {_UDP_LITE} and len(rest) >= 4:
        ports = struct.unpack_from(">HH", rest)
    if protocol == ICMP[source.version] and len(rest) >= 2:
        icmp = rest[0], rest[1]
    return Headers(
        source=source,
        destination=destination,
        protocol=protocol,
        ports=ports,
        icmp=icmp,
    )


def _chain(protocol: int, rest: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield IPv6's headers, one after the other: protocol, and what it says."""
    yield protocol, rest
    while len(rest) >= 8 and (protocol in _OPTIONS or protocol == _FRAGMENT):
        length = 8 if protocol == _FRAGMENT else (rest[1] + 1) * 8
        later = protocol == _FRAGMENT and struct.unpack_from(">H", rest, 2)[0] >> 3
        protocol, rest = rest[0], b"" if later else rest[length:]
        yield protocol, rest
