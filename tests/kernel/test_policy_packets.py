"""The kernel does what the judge says, for random groups, with real packets.

CALICO_FUZZ_RULE_SETS sets how many rule sets are tried.
"""

import os
from collections.abc import Iterator
from dataclasses import replace
from random import Random

import pytest
from tests.kernel.wires import CORNERS, NEAR, NEVER, PEER, Wires, sendable, wired
from tests.policy_cases import Corners, packet_of

from calico.model.groups import Groups
from calico.model.records import Endpoint
from calico.policy.evaluate import Direction, Packet, evaluate

RULE_SETS = int(os.environ.get("CALICO_FUZZ_RULE_SETS", "150"))
PACKETS = 12  # for each rule set and direction


@pytest.fixture
def wires() -> Iterator[Wires]:
    with wired() as found:
        yield found


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


@pytest.mark.timeout(3600)
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
