"""The kernel does what the operator's judge says, with real packets.

CALICO_FUZZ_POLICY_SETS sets how many sets of policies are tried.
"""

import os
import secrets
import socket
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from ipaddress import ip_address, ip_network
from random import Random

import pytest
from tests.endpoints import HOST
from tests.kernel.netns import in_netns
from tests.kernel.packets import frame
from tests.kernel.wires import (
    CORNERS,
    FABRIC_MAC,
    NEAR,
    NEVER,
    PEER,
    UPLINK_MAC,
    Wires,
    arrivals,
    is_carried,
    is_routed,
    sendable,
    wired,
)
from tests.operator_cases import OperatorCorners
from tests.policy_cases import NAMES, Corners

from calico.model.groups import Groups
from calico.model.operator import Failsafe, FailsafePort, HostEndpoint
from calico.model.operator_world import NO_OPERATOR, OperatorWorld
from calico.model.records import Endpoint
from calico.plan.policy import stateless_groups
from calico.policy.evaluate import Direction, Packet
from calico.policy.operator import guarding, judge_host, judge_port

POLICY_SETS = int(os.environ.get("CALICO_FUZZ_POLICY_SETS", "75"))
HOST_SETS = POLICY_SETS // 2
PACKETS = 16  # for each set and direction


@pytest.fixture
def wires() -> Iterator[Wires]:
    with wired() as found:
        yield found


def expected(
    operator: OperatorWorld,
    groups: Groups,
    near: Endpoint,
    direction: Direction,
    packet: Packet,
) -> bool:
    """Return the judge's word on both ends that are this host's."""
    ends = [(near, direction)]
    if direction is Direction.INGRESS:
        ends.append((PEER, Direction.EGRESS))
    elif packet.destination in PEER.addresses:
        ends.append((PEER, Direction.INGRESS))
    return all(
        judge_port(operator, groups, endpoint, way, packet).allowed
        for endpoint, way in ends
    )


def try_packets(
    wires: Wires, corners: OperatorCorners, near: Endpoint, direction: Direction
) -> int:
    """Send packets at the edges of rules; return how many were not let through."""
    bed = wires.bed
    bed.host.run(["conntrack", "-F"])
    stateless = stateless_groups(bed.groups)
    stateful = near.port_security and stateless.isdisjoint(near.groups)
    packets: dict[bytes, Packet] = {}
    verdicts: dict[bytes, bool] = {}
    for _ in range(PACKETS):
        packet = corners.packet(bed.operator, direction, near.addresses)
        far = packet.remote(direction)
        # What was sent before could be of a connection that was answered.
        if far in NEVER or packet in packets.values():
            continue
        if not sendable(packet, stateful=stateful):
            continue
        mark = wires.send(packet, direction)
        packets[mark] = packet
        verdicts[mark] = expected(bed.operator, bed.groups, near, direction, packet)
    arrived = wires.arrivals(verdicts, direction)
    for mark, allowed in verdicts.items():
        assert (mark in arrived) is allowed, (
            direction,
            packets[mark],
            near,
            bed.operator,
            bed.groups,
        )
    return sum(not allowed for allowed in verdicts.values())


def test_p01_the_kernel_agrees_with_the_judge_of_operators(wires: Wires) -> None:
    denied = 0
    for seed in range(POLICY_SETS):
        random = Random(seed)
        corners = OperatorCorners(random, CORNERS)
        groups = Corners(random, CORNERS).groups()
        near = replace(
            NEAR,
            groups=frozenset(random.sample(NAMES, random.choice((0, 1, 2)))),
            port_security=random.random() < 0.8,
        )
        if seed % 3 == 0:
            policies = {
                name: replace(policy, stateful=False)
                for name, policy in groups.policies.items()
            }
            groups = replace(groups, policies=policies)
        wires.bed.groups = groups
        wires.bed.operator = OperatorWorld(
            policies=corners.policies(),
            labels={NEAR.port: corners.labels(), PEER.port: corners.labels()},
            selectable=corners.selectable(),
        )
        outcome = wires.bed.serve(near, PEER)
        assert outcome.problems == (), seed
        for direction in Direction:
            denied += try_packets(wires, corners, near, direction)
    assert wires.bed.changes(near, PEER) == []
    assert denied > POLICY_SETS, "too few packets at the edges of anything"


HOST4, HOST6 = ip_address("192.0.2.1"), ip_address("2001:db8:ffff::1")
FARS = {
    4: tuple(ip_address(f"10.9.9.{n}") for n in (8, 9, 12)),
    6: tuple(ip_address(f"2001:db8:65::{n}") for n in (8, 9, 12)),
}
FAILSAFE = Failsafe(
    inbound=(FailsafePort(protocol=6, port=80),),
    outbound=(
        FailsafePort(protocol=17, port=79, net=ip_network("10.9.9.8/31")),
        FailsafePort(protocol=17, port=79, net=ip_network("::/0")),
    ),
)
PROTOCOLS = {4: (1, 6, 17, 47, 132), 6: (58, 6, 17, 47, 132)}
FAMILY = {4: socket.AF_INET, 6: socket.AF_INET6}


@dataclass(kw_only=True)
class OwnWires:
    """What the host itself takes and sends, and the fabric beyond its uplink.

    Raw sockets are handed what has passed the filter.
    """

    wires: Wires
    takers: list[socket.socket]
    senders: dict[int, socket.socket]

    def send(self, packet: Packet, direction: Direction) -> bytes:
        mark = secrets.token_bytes(4)
        number = 7 if packet.source_port is None else packet.source_port
        whole = frame(packet, (FABRIC_MAC, UPLINK_MAC), number, mark)
        if direction is Direction.INGRESS:
            self.wires.fabric.send(whole)
        else:
            target = (str(packet.destination), 0)
            with suppress(PermissionError):  # what its sender is told of a drop
                self.senders[packet.version].sendto(whole[14:], target)
        return mark

    def ends(self, direction: Direction) -> list[socket.socket]:
        ingress = direction is Direction.INGRESS
        return self.takers if ingress else [self.wires.fabric]


@pytest.fixture
def own_wires(wires: Wires) -> Iterator[OwnWires]:
    with ExitStack() as stack, in_netns(wires.bed.host):
        takers = [
            stack.enter_context(socket.socket(FAMILY[v], socket.SOCK_RAW, protocol))
            for v, protocols in PROTOCOLS.items()
            for protocol in protocols
        ]
        senders = {
            version: stack.enter_context(
                socket.socket(family, socket.SOCK_RAW, socket.IPPROTO_RAW)
            )
            for version, family in FAMILY.items()
        }
        yield OwnWires(wires=wires, takers=takers, senders=senders)


def try_own_packets(
    own: OwnWires, corners: OperatorCorners, direction: Direction
) -> int:
    """Send the host's own packets; return how many were not let through."""
    bed = own.wires.bed
    subject = guarding(bed.operator.host_endpoints, "up0")
    assert subject is not None
    bed.host.run(["conntrack", "-F"])
    packets: dict[bytes, Packet] = {}
    verdicts: dict[bytes, bool] = {}
    for _ in range(PACKETS):
        packet = corners.packet(bed.operator, direction, (HOST4, HOST6))
        far = packet.remote(direction)
        if packet in packets.values() or far in NEVER or not is_routed(far):
            continue
        if not is_carried(packet, stateful=False):
            continue
        judged = judge_host(bed.operator, bed.groups, subject, direction, packet)
        mark = own.send(packet, direction)
        packets[mark], verdicts[mark] = packet, judged.allowed
    arrived = arrivals(own.ends(direction), verdicts)
    for mark, allowed in verdicts.items():
        assert (mark in arrived) is allowed, (direction, packets[mark], bed.operator)
    return sum(not allowed for allowed in verdicts.values())


def test_the_kernel_agrees_with_the_judge_of_host_endpoints(
    own_wires: OwnWires,
) -> None:
    bed = own_wires.wires.bed
    denied = 0
    for seed in range(HOST_SETS):
        random = Random(seed)
        corners = OperatorCorners(random, FARS)
        subject = HostEndpoint(
            name="uplink",
            host=HOST,
            interface=random.choice((None, "up0")),
            labels=corners.labels(),
            default_allow=random.random() < 0.5,
        )
        # What is about one interface goes before what is about any.
        elsewhere = None if subject.interface else "up1"
        other = replace(
            subject, name="another", interface=elsewhere, labels=corners.labels()
        )
        bed.operator = OperatorWorld(
            policies=corners.policies(),
            host_endpoints=(other, subject),
            selectable=corners.selectable(),
            failsafe=FAILSAFE,
        )
        assert bed.serve(NEAR, PEER).problems == (), seed
        for direction in Direction:
            denied += try_own_packets(own_wires, corners, direction)
    assert bed.changes(NEAR, PEER) == []
    assert denied > HOST_SETS, "too few packets at the edges of anything"
    bed.operator = NO_OPERATOR
    assert bed.serve(NEAR, PEER).problems == ()
    assert bed.changes(NEAR, PEER) == []
