"""The kernel does what the operator's judge says, with real packets.

CALICO_FUZZ_POLICY_SETS sets how many sets of policies are tried.
"""

import os
from collections.abc import Iterator
from dataclasses import replace
from random import Random

import pytest
from tests.kernel.wires import CORNERS, NEAR, NEVER, PEER, Wires, sendable, wired
from tests.operator_cases import OperatorCorners
from tests.policy_cases import NAMES, Corners

from calico.model.groups import Groups
from calico.model.operator_world import OperatorWorld
from calico.model.records import Endpoint
from calico.policy.evaluate import Direction, Packet
from calico.policy.operator import judge_port

POLICY_SETS = int(os.environ.get("CALICO_FUZZ_POLICY_SETS", "120"))
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
    stateful = near.port_security and all(
        policy.stateful for policy in bed.groups.policies.values()
    )
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
