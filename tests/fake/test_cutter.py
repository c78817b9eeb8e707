"""Connections are judged when policy changed, and not otherwise."""

from dataclasses import replace

from tests.endpoints import HOST, endpoint
from tests.policies import OPEN, OPEN_GROUPS, OPEN_POLICY
from tests.unit.hosts import world

from calico.agent.cutter import Cutter
from calico.agent.keeper import Keeper
from calico.config import AgentSettings
from calico.model.groups import Groups
from calico.policy.evaluate import Packet
from calico.system.fake_connections import FakeConnections
from calico.system.fake_kernel import FakeKernel

A, B = endpoint(2), endpoint(3)
PACKET = Packet(source=A.addresses[0], destination=B.addresses[0], protocol=6, port=80)
SHUT = Groups(policies={OPEN: replace(OPEN_POLICY, ingress=())})


class Bed:
    """A host with two ports, and one connection between them."""

    def __init__(self) -> None:
        self.connections = FakeConnections([PACKET])
        self.cutter = Cutter(self.connections)
        kernel = FakeKernel([A.interface, B.interface])
        self.keeper = Keeper(kernel, AgentSettings(host=HOST))

    def make_pass(self, groups: Groups) -> int:
        """Make a pass; return how often connections were read in it."""
        before = self.connections.reads
        wanted = replace(world(A, B), groups=groups)
        _, delta = self.keeper.compare(wanted, (), resync=False)
        outcome = self.keeper.apply(delta)
        self.problems = self.cutter.follow(outcome, delta.filter, groups)
        return self.connections.reads - before


def test_p07_a_change_of_policy_judges_connections_and_nothing_else_does() -> None:
    bed = Bed()
    assert bed.make_pass(OPEN_GROUPS) == 1, "what was before is not known"
    assert bed.make_pass(OPEN_GROUPS) == 0
    assert bed.connections.cut == []
    assert bed.make_pass(SHUT) == 1
    assert bed.connections.cut == [PACKET]
    assert bed.make_pass(OPEN_GROUPS) == 1
    assert bed.connections.cut == []


def test_connections_that_could_not_be_read_are_judged_in_the_next_pass() -> None:
    bed = Bed()
    bed.make_pass(OPEN_GROUPS)
    bed.connections.failure = OSError("unreadable")
    bed.make_pass(SHUT)
    assert [str(p) for p in bed.problems] == ["connections: judge: unreadable"]
    bed.connections.failure = None
    assert bed.make_pass(SHUT) == 1
    assert bed.connections.cut == [PACKET]
