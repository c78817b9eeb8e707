"""Frames that the instance of `endpoint(2)` sends of itself, and others that it may."""

import struct
from ipaddress import ip_address

from tests.endpoints import endpoint

ONE = endpoint(2)
OWN_MAC, OTHER_MAC = ONE.mac, "fa:16:3e:00:00:99"
OWN4, OWN6 = "10.65.0.2", "2001:db8:65::2"
OWN_LINK_LOCAL = "fe80::f816:3eff:fe00:2"


def ethernet(kind: int, payload: bytes, mac: str = OWN_MAC) -> bytes:
    return b"\xff" * 6 + octets(mac) + struct.pack(">H", kind) + payload


def octets(mac: str) -> bytes:
    return bytes.fromhex(mac.replace(":", ""))


def arp(
    sender: str = OWN4, mac: str = OWN_MAC, source: str = OWN_MAC, kind: int = 0x0806
) -> bytes:
    ends = octets(mac) + ip_address(sender).packed + bytes(6) + ip_address(OWN4).packed
    return ethernet(kind, struct.pack(">HHBBH", 1, 0x0800, 6, 4, 1) + ends, source)


def ipv4(source: str = OWN4, mac: str = OWN_MAC) -> bytes:
    header = b"\x45" + bytes(11) + ip_address(source).packed + bytes(4)
    return ethernet(0x0800, header, mac)


def ipv6(
    source: str = OWN6, mac: str = OWN_MAC, target: str = "", kind: int = 136
) -> bytes:
    about = bytes([kind]) + bytes(7) + ip_address(target).packed if target else b""
    header = b"\x60" + bytes(5) + b"\x3a\xff" + ip_address(source).packed + bytes(16)
    return ethernet(0x86DD, header + about, mac)


OWN = {
    "gratuitous ARP": arp(),
    "reverse ARP of the hypervisor": arp("0.0.0.0", kind=0x8035),
    "IPv4": ipv4(),
    "IPv6": ipv6(),
    "neighbour advertisement": ipv6(target=OWN6),
    "advertisement from link-local": ipv6(OWN_LINK_LOCAL, target=OWN6),
    "duplicate address detection": ipv6("::", target=OWN6, kind=135),
}
FOREIGN = {
    "ARP for another address": arp("10.65.0.3"),
    "ARP with another sender": arp(mac=OTHER_MAC),
    "ARP from another MAC": arp(source=OTHER_MAC),
    "ARP probe": arp("0.0.0.0"),
    "reverse ARP of another": arp(mac=OTHER_MAC, kind=0x8035),
    "IPv4 from another address": ipv4("10.65.0.3"),
    "IPv4 from another MAC": ipv4(mac=OTHER_MAC),
    "DHCP request": ipv4("0.0.0.0"),
    "IPv6 from another address": ipv6("2001:db8:65::3"),
    "IPv6 from another MAC": ipv6(mac=OTHER_MAC),
    "link-local of another": ipv6("fe80::1"),
    "advertisement of another address": ipv6("fe80::1", target="2001:db8:65::3"),
    "another ICMPv6 type about it": ipv6("::", target=OWN6, kind=134),
    "unknown protocol": ethernet(0x88CC, bytes(60)),
}
