"""Claims to an address: ARP and neighbour discovery, and whether a host answers them.

A host answers who asks from an address of its own. So a missing answer shows that what
was said is not believed, where the same question from the true address is answered.
"""

import struct
import time
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address

from calico.verify.parallel import eventually
from calico.verify.probes.capture import Capture, Frame
from calico.verify.probes.echo import Stack
from calico.verify.probes.frames import transmit
from calico.verify.probes.shots import ICMP6, Shot, ethernet, frame, mac

_ARP, _IPV4 = 0x0806, 0x0800
_BROADCAST = "ff:ff:ff:ff:ff:ff"
_SOLICIT, _ADVERTISE = 135, 136
_PATIENCE = 0.5
_HOP_LIMIT = 255  # RFC 4861, 7.1.1: anything less came through a router


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """Who says it is: the frame's MAC, the MAC in what is said, and the address."""

    ethernet: str
    mac: str
    address: IPv4Address | IPv6Address


def asked(claim: Claim, wanted: IPv4Address | IPv6Address, host_mac: str) -> bytes:
    """Return a question for an address, from whoever the claim says."""
    if isinstance(claim.address, IPv4Address):
        sender = mac(claim.mac) + claim.address.packed
        body = struct.pack("!HHBBH", 1, _IPV4, 6, 4, 1) + sender
        body += bytes(6) + wanted.packed
        return ethernet(claim.ethernet, _BROADCAST, _ARP, body)
    option = struct.pack("!BB", 1, 1) + mac(claim.mac)
    return _discovery(claim, wanted, _SOLICIT, wanted.packed + option, host_mac)


def announced(claim: Claim, to: IPv4Address | IPv6Address, host_mac: str) -> bytes:
    """Return an unasked announcement that the claim's address is at its MAC."""
    if isinstance(claim.address, IPv4Address):
        sender = mac(claim.mac) + claim.address.packed
        body = struct.pack("!HHBBH", 1, _IPV4, 6, 4, 2) + sender + sender
        return ethernet(claim.ethernet, host_mac, _ARP, body)
    option = struct.pack("!BB", 2, 1) + mac(claim.mac)
    return _discovery(claim, to, _ADVERTISE, claim.address.packed + option, host_mac)


def _discovery(
    claim: Claim,
    to: IPv4Address | IPv6Address,
    kind: int,
    body: bytes,
    host_mac: str,
) -> bytes:
    """Return a neighbour discovery message; its reserved word is a shot's tail."""
    # The override flag, or zeros: a shot has them as its number and sequence.
    flags = 0x2000 if kind == _ADVERTISE else 0
    shot = Shot(
        source=claim.address,
        destination=to,
        protocol=ICMP6,
        icmp=(kind, 0),
        number=flags,
        sequence=0,
        hop_limit=_HOP_LIMIT,
        payload=body,
    )
    return frame(shot, claim.ethernet, host_mac)


def is_answered(
    place: Stack, interface: str, question: bytes, wanted: IPv4Address | IPv6Address
) -> bool:
    """Ask, and tell whether the address's owner or its proxy answers."""
    with Capture(place, interface) as capture:
        deadline = time.monotonic() + _PATIENCE
        transmit(place, interface, [question])
        left = deadline - time.monotonic()
        return eventually(
            lambda: any(_tells(f, wanted) for f in capture.take()), left, 0.02
        )


def _tells(seen: Frame, wanted: IPv4Address | IPv6Address) -> bool:
    octets = seen.octets
    if seen.outgoing:
        return False
    if isinstance(wanted, IPv4Address):
        arp = seen.ethertype == _ARP and octets[20:22] == b"\0\2"
        return arp and octets[28:32] == wanted.packed
    # No extension headers: Ethernet, IPv6, then ICMPv6 with the target at eight.
    advert = seen.protocol() == ICMP6 and octets[54:55] == bytes([_ADVERTISE])
    return advert and octets[62:78] == wanted.packed
