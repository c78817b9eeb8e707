"""What one instance could send another only if they shared a link.

Other ethertypes, L2 broadcast, frames to the peer's own MAC, link-local multicast and
IP broadcast, each marked, so that a capture elsewhere shows which one got through.
"""

import socket
import struct
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address

from calico.verify.probes.echo import Stack
from calico.verify.probes.ping import checksum

_BROADCAST = "ff:ff:ff:ff:ff:ff"
_EXPERIMENTAL = 0x88B5  # IEEE 802, local experimental ethertype 1
_IPV4, _IPV6, _ARP, _LLDP = 0x0800, 0x86DD, 0x0806, 0x88CC
_SOURCE_PORT, _TARGET_PORT = 9, 9  # discard
_SOLICITATION, _SOURCE_OPTION, _UNKNOWN_OPTION = 135, 1, 253


@dataclass(frozen=True, slots=True, kw_only=True)
class Sender:
    """The sending instance's own addresses on its interface."""

    interface: str
    mac: str
    ipv4: IPv4Address
    ipv6: IPv6Address


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """Whom the frames are meant for: its addresses, and its subnet's for broadcast."""

    mac: str
    gateway_mac: str
    ipv4: IPv4Address
    ipv6: IPv6Address
    subnet4: IPv4Network


def trespasses(sender: Sender, target: Target, mark: bytes) -> dict[str, bytes]:
    """Return frames by what they are; none may ever arrive at another instance.

    Each carries its `mark_of`, except for ARP, which has no room: its source MAC tells.
    """
    limited, directed = IPv4Address("255.255.255.255"), target.subnet4.broadcast_address
    group4, group6 = IPv4Address("224.0.0.251"), IPv6Address("ff02::1")
    bodies = {
        "other ethertype to all": (_BROADCAST, _EXPERIMENTAL, None),
        "other ethertype to the peer's MAC": (target.mac, _EXPERIMENTAL, None),
        "LLDP": ("01:80:c2:00:00:0e", _LLDP, None),
        "IPv4 to the peer's MAC": (target.mac, _IPV4, target.ipv4),
        "IPv6 to the peer's MAC": (target.mac, _IPV6, target.ipv6),
        "IPv4 in an L2 broadcast": (_BROADCAST, _IPV4, target.ipv4),
        "IPv6 in an L2 broadcast": (_BROADCAST, _IPV6, target.ipv6),
        "limited broadcast": (_BROADCAST, _IPV4, limited),
        "directed broadcast": (_BROADCAST, _IPV4, directed),
        "limited broadcast through the host": (target.gateway_mac, _IPV4, limited),
        "directed broadcast through the host": (target.gateway_mac, _IPV4, directed),
        "link-local multicast IPv4": ("01:00:5e:00:00:fb", _IPV4, group4),
        "link-local multicast IPv6": ("33:33:00:00:00:01", _IPV6, group6),
        "link-local multicast IPv4 to the host": (target.gateway_mac, _IPV4, group4),
        "link-local multicast IPv6 to the host": (target.gateway_mac, _IPV6, group6),
    }
    frames = {
        name: _ethernet(mac, sender.mac, ethertype)
        + _body(sender, destination, mark_of(mark, name))
        for name, (mac, ethertype, destination) in bodies.items()
    }
    name = "neighbour solicitation for the peer"
    frames[name] = _solicitation(sender, target.ipv6, mark_of(mark, name))
    frames["ARP request for the peer"] = _arp(sender, target.ipv4)
    return frames


def mark_of(mark: bytes, name: str) -> bytes:
    """Return what a frame of that name carries: no other contains it."""
    return mark + b" " + name.encode() + b";"


def transmit(place: Stack, interface: str, frames: list[bytes]) -> None:
    """Send raw frames out of an interface of a stack."""
    sock = place.inside(lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW))
    with sock:
        sock.bind((interface, 0))
        for frame in frames:
            sock.send(frame)


def _ethernet(destination: str, source: str, ethertype: int) -> bytes:
    return _octets(destination) + _octets(source) + struct.pack("!H", ethertype)


def _octets(mac: str) -> bytes:
    return bytes.fromhex(mac.replace(":", ""))


def _body(
    sender: Sender, destination: IPv4Address | IPv6Address | None, mark: bytes
) -> bytes:
    if destination is None:
        return mark.ljust(64, b".")
    if isinstance(destination, IPv4Address):
        return _udp4(sender.ipv4, destination, mark)
    return _udp6(sender.ipv6, destination, mark)


def _udp4(source: IPv4Address, destination: IPv4Address, payload: bytes) -> bytes:
    # A UDP checksum of 0 means none over IPv4 (RFC 768).
    udp = (
        struct.pack("!HHHH", _SOURCE_PORT, _TARGET_PORT, 8 + len(payload), 0) + payload
    )
    header = struct.pack(
        "!BBHHHBBH4s4s",
        *(0x45, 0, 20 + len(udp), 0, 0, 64, socket.IPPROTO_UDP, 0),
        source.packed,
        destination.packed,
    )
    header = header[:10] + struct.pack("!H", checksum(header)) + header[12:]
    return header + udp


def _udp6(source: IPv6Address, destination: IPv6Address, payload: bytes) -> bytes:
    udp = struct.pack("!HHHH", _SOURCE_PORT, _TARGET_PORT, 8 + len(payload), 0)
    return _ipv6((source, destination), (socket.IPPROTO_UDP, 6), udp + payload)


def _ipv6(
    ends: tuple[IPv6Address, IPv6Address], kind: tuple[int, int], body: bytes
) -> bytes:
    """Return a packet; `kind` is its protocol, and where its checksum stands.

    The hop limit is what neighbour discovery wants (RFC 4861, 7.1.1).
    """
    protocol, at = kind
    addresses = ends[0].packed + ends[1].packed
    pseudo = addresses + struct.pack("!IxxxB", len(body), protocol)
    summed = struct.pack("!H", checksum(pseudo + body) or 0xFFFF)
    header = struct.pack("!IHBB", 6 << 28, len(body), protocol, 255)
    return header + addresses + body[:at] + summed + body[at + 2 :]


def _solicitation(sender: Sender, wanted: IPv6Address, mark: bytes) -> bytes:
    """Ask whose an address is; the mark is in an option for experiments (RFC 4727)."""
    last = wanted.packed[-3:]
    group = IPv6Address(IPv6Address("ff02::1:ff00:0").packed[:-3] + last)
    mark = mark.ljust(-(-(len(mark) + 2) // 8) * 8 - 2, b".")
    body = struct.pack("!BBHI", _SOLICITATION, 0, 0, 0) + wanted.packed
    body += struct.pack("!BB", _SOURCE_OPTION, 1) + _octets(sender.mac)
    body += struct.pack("!BB", _UNKNOWN_OPTION, (len(mark) + 2) // 8) + mark
    packet = _ipv6((sender.ipv6, group), (socket.IPPROTO_ICMPV6, 2), body)
    return _ethernet(f"33:33:ff:{last.hex(':')}", sender.mac, _IPV6) + packet


def _arp(sender: Sender, wanted: IPv4Address) -> bytes:
    return (
        _ethernet(_BROADCAST, sender.mac, _ARP)
        + struct.pack("!HHBBH", 1, _IPV4, 6, 4, 1)
        + _octets(sender.mac)
        + sender.ipv4.packed
        + b"\0" * 6
        + wanted.packed
    )
