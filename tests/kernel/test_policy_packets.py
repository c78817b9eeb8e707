"""The kernel does what the judge says, for random groups, with real packets.

CALICO_FUZZ_RULE_SETS sets how many rule sets are tried.
"""

import os
import secrets
import select
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from ipaddress import ip_address, ip_network
from random import Random

import pytest
from tests.endpoints import endpoint
from tests.kernel.data_path import HostBed, host_bed
from tests.kernel.netns import Netns, in_netns, link
from tests.kernel.packets import frame
from tests.policy_cases import Corners, packet_of

from calico.model.groups import Groups
from calico.model.ids import Address
from calico.model.records import ICMP, Endpoint
from calico.policy.evaluate import Direction, Packet, evaluate

RULE_SETS = int(os.environ.get("CALICO_FUZZ_RULE_SETS", "150"))
PACKETS = 12  # for each rule set and direction
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
        wire.send(frame(packet, macs, 1024 + self.sent % 60000, mark))
        return mark

    def arrivals(self, verdicts: dict[bytes, bool], direction: Direction) -> set[bytes]:
        """Return the marks that arrive, once all that should have, and it is quiet."""
        ingress = direction is Direction.INGRESS
        ends = [self.near] if ingress else [self.peer, self.fabric]
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


@pytest.fixture
def wires() -> Iterator[Wires]:
    with host_bed() as bed:
        near, peer = bed.plug(NEAR), bed.plug(PEER)
        fabric = bed.stack.enter_context(Netns("fabric"))
        link(bed.host, "up0", fabric, "up0", macs=("02:00:00:00:00:01", FABRIC_MAC))
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
    for address in (packet.source, packet.destination):
        if not _is_unicast(address):
            return False
    if packet.version == 6 and packet.protocol in {0, 43, 44, 60}:
        return False  # an extension header, not a protocol
    if packet.protocol == ICMP[packet.version]:
        return not stateful or packet.icmp_type in NEW_ICMP[packet.version]
    return packet.protocol not in {1, 58}  # ICMP of the other family is broken


def _is_unicast(address: Address) -> bool:
    if address.version == 6:
        return address in ROUTED6
    first = address.packed[0]
    return 0 < first < 224 and first not in {127, 169, 192}


def try_packets(
    wires: Wires, corners: Corners, groups: Groups, near: Endpoint, direction: Direction
) -> None:
    """Send packets at the edges of the rules; what arrives is what the judge allows."""
    wires.bed.host.run(["conntrack", "-F"])
    stateful = all(policy.stateful for policy in groups.policies.values())
    packets: dict[bytes, Packet] = {}
    verdicts: dict[bytes, bool] = {}
    for _ in range(PACKETS):
        version, transport, far = corners.packet(groups, near.groups, direction)
        own = next(a for a in near.addresses if a.version == version)
        far = far or corners.random.choice(CORNERS[version])
        packet = packet_of(transport, far, own, direction)
        if far in NEVER or not sendable(packet, stateful=stateful):
            continue
        mark = wires.send(packet, direction)
        packets[mark] = packet
        verdicts[mark] = evaluate(groups, near.groups, direction, packet).allowed
    arrived = wires.arrivals(verdicts, direction)
    for mark, allowed in verdicts.items():
        assert (mark in arrived) is allowed, (direction, packets[mark], near, groups)


def test_s16_the_kernel_agrees_with_the_judge(wires: Wires) -> None:
    for seed in range(RULE_SETS):
        random = Random(seed)
        corners = Corners(random, CORNERS)
        groups = corners.groups()
        if seed % 2:
            groups = replace(
                groups,
                policies={
                    name: replace(policy, stateful=False)
                    for name, policy in groups.policies.items()
                },
            )
        near = replace(NEAR, groups=corners.of_port())
        wires.bed.groups = groups
        outcome = wires.bed.serve(near, PEER)
        assert outcome.problems == (), seed
        for direction in Direction:
            try_packets(wires, corners, groups, near, direction)
    assert wires.bed.changes(near, PEER) == []
