"""Whether a frame from a tap says that the instance runs behind it now.

Only the port's own MAC with one of its own addresses does (P38): a gratuitous ARP for
another address may be anybody's, a virtual router's for one. What an instance or its
hypervisor sends first differs: ARP, a neighbour advertisement, a data packet of either
family, or, from QEMU, a reverse ARP request, which has a MAC and no address.
"""

from collections.abc import Callable
from ipaddress import IPv4Address, IPv6Address

from calico.model.records import Endpoint
from calico.plan.host import link_local

_HEADER = 14  # octets of an Ethernet header
_ETHERNET_IPV4 = b"\x00\x01\x08\x00\x06\x04"  # what an ARP packet is about
_ICMPV6, _SOLICITATION, _ADVERTISEMENT = 58, 135, 136


def announces(frame: bytes, endpoint: Endpoint) -> bool:
    """Return whether an Ethernet frame is the endpoint's, sent by its instance."""
    mac = bytes.fromhex(endpoint.mac.replace(":", ""))
    judge = _JUDGES.get(frame[12:14])
    if judge is None or frame[6:12] != mac:
        return False
    return judge(frame[_HEADER:], mac, endpoint)


def _arp(packet: bytes, mac: bytes, endpoint: Endpoint) -> bool:
    return (
        len(packet) >= 28
        and packet[:6] == _ETHERNET_IPV4
        and packet[8:14] == mac
        and IPv4Address(packet[14:18]) in endpoint.addresses
    )


def _reverse_arp(packet: bytes, mac: bytes, _: Endpoint) -> bool:
    return len(packet) >= 28 and packet[8:14] == mac


def _ipv4(packet: bytes, _: bytes, endpoint: Endpoint) -> bool:
    return len(packet) >= 20 and IPv4Address(packet[12:16]) in endpoint.addresses


def _ipv6(packet: bytes, _: bytes, endpoint: Endpoint) -> bool:
    if len(packet) < 40:
        return False
    source = IPv6Address(packet[8:24])
    if source in endpoint.addresses or source == link_local(endpoint.mac):
        return True
    about_itself = packet[6] == _ICMPV6 and packet[40:41] in {
        bytes([_SOLICITATION]),
        bytes([_ADVERTISEMENT]),
    }
    return (
        about_itself
        and len(packet) >= 64
        and (IPv6Address(packet[48:64]) in endpoint.addresses)
    )


_Judge = Callable[[bytes, bytes, Endpoint], bool]
_JUDGES: dict[bytes, _Judge] = {
    b"\x08\x06": _arp,
    b"\x80\x35": _reverse_arp,
    b"\x08\x00": _ipv4,
    b"\x86\xdd": _ipv6,
}
