"""Raw sockets around a host: packets go in on one side, and what comes out is seen."""

import secrets
import select
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from ipaddress import ip_address, ip_network

from tests.endpoints import endpoint
from tests.kernel.data_path import HostBed, host_bed
from tests.kernel.netns import Netns, in_netns, link
from tests.kernel.packets import frame

from calico.model.ids import Address
from calico.model.records import ICMP
from calico.policy.evaluate import Direction, Packet

UPLINK_MAC = "02:00:00:00:00:01"
FABRIC_MAC = "02:00:00:00:00:02"
PEER = replace(endpoint(3), port_security=False, groups=frozenset())
NEAR = endpoint(2)
CORNERS = {
    4: tuple(ip_address(a) for a in ("10.65.0.3", "10.65.0.8", "10.9.9.9")),
    6: tuple(ip_address(f"2001:db8:65::{n}") for n in (3, 8, 9)),
}
ROUTED6 = ip_network("2001:db8:65::/64")
# Its own, the gateway's, and what the host never forwards to.
HOSTS_OWN = ("10.65.0.1", "10.65.0.255", "2001:db8:65::", "2001:db8:65::1")
NEVER = {*NEAR.addresses, *map(ip_address, HOSTS_OWN)}
# Others begin no connection (nf_conntrack_proto_icmp.c, valid_new).
NEW_ICMP = {4: {8, 13, 15, 17}, 6: {128, 139}}


@dataclass(kw_only=True)
class Wires:
    """Raw sockets on the port under test, on a peer's port, and on the fabric."""

    bed: HostBed
    near: socket.socket
    peer: socket.socket
    fabric: socket.socket
    sent: int = 0

    def send(self, packet: Packet, direction: Direction) -> bytes:
        """Send a packet to the port under test, or from it; return its mark."""
        self.sent += 1
        mark = secrets.token_bytes(4)
        sender = PEER if direction is Direction.INGRESS else NEAR
        wire = self.peer if direction is Direction.INGRESS else self.near
        macs = (sender.mac, "fe" + sender.mac[2:])
        number = packet.source_port
        if number is None:
            number = 1024 + self.sent % 60000
        wire.send(frame(packet, macs, number, mark))
        return mark

    def arrivals(self, verdicts: dict[bytes, bool], direction: Direction) -> set[bytes]:
        """Return the marks that arrive, once all that should have, and it is quiet."""
        ingress = direction is Direction.INGRESS
        ends = [self.near] if ingress else [self.peer, self.fabric]
        return arrivals(ends, verdicts)


def arrivals(ends: list[socket.socket], verdicts: dict[bytes, bool]) -> set[bytes]:
    """Return the marks that arrive, once all that should have, and it is quiet."""
    expected = {mark for mark, allowed in verdicts.items() if allowed}
    arrived: set[bytes] = set()
    deadline = time.monotonic() + 2
    while time.monotonic() < deadline:
        patience = 0.01 if expected <= arrived else 0.2
        ready, _, _ = select.select(ends, [], [], patience)
        if not ready and expected <= arrived:
            break
        for wire in ready:
            received = wire.recv(2048)
            arrived |= {mark for mark in verdicts if mark in received}
    return arrived


def raw_socket(namespace: Netns, interface: str) -> socket.socket:
    with in_netns(namespace):
        wire = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
        wire.bind((interface, 0))
    return wire


@contextmanager
def wired() -> Iterator[Wires]:
    """Give a host that serves both ports, with a fabric behind its uplink."""
    with host_bed() as bed:
        near, peer = bed.plug(NEAR), bed.plug(PEER)
        fabric = bed.stack.enter_context(Netns("fabric"))
        link(bed.host, "up0", fabric, "up0", macs=(UPLINK_MAC, FABRIC_MAC))
        for address, router in (
            ("192.0.2.1/24", "192.0.2.2"),
            ("2001:db8:ffff::1/64", "2001:db8:ffff::2"),
        ):
            flags = ["nodad"] if ":" in address else []
            bed.host.ip("addr", "add", address, "dev", "up0", *flags)
            bed.host.ip("neigh", "add", router, "lladdr", FABRIC_MAC, "dev", "up0")
            bed.host.ip("route", "add", "default", "via", router)
        assert bed.serve(NEAR, PEER).problems == ()
        opened = [
            raw_socket(near, "eth0"),
            raw_socket(peer, "eth0"),
            raw_socket(fabric, "up0"),
        ]
        try:
            yield Wires(bed=bed, near=opened[0], peer=opened[1], fabric=opened[2])
        finally:
            for wire in opened:
                wire.close()


def sendable(packet: Packet, *, stateful: bool) -> bool:
    """Tell whether a packet is one that the kernel would forward at all."""
    ends = (packet.source, packet.destination)
    return all(map(is_routed, ends)) and is_carried(packet, stateful=stateful)


def is_carried(packet: Packet, *, stateful: bool) -> bool:
    """Tell whether the kernel would take what is in a packet for what it says."""
    if packet.version == 6 and packet.protocol in {0, 43, 44, 60}:
        return False  # an extension header, not a protocol
    if packet.protocol == ICMP[packet.version]:
        return not stateful or packet.icmp_type in NEW_ICMP[packet.version]
    return packet.protocol not in {1, 58}  # ICMP of the other family is broken


def is_routed(address: Address) -> bool:
    """Tell whether there is a way to an address, and nothing special about it."""
    if address.version == 6:
        return address in ROUTED6
    first = address.packed[0]
    return 0 < first < 224 and first not in {127, 169, 192}
