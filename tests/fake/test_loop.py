"""When the loop makes passes, with services and a clock that the test holds."""

from dataclasses import dataclass, field, replace

from tests.endpoints import HOST, PROJECT, endpoint
from tests.policies import OPEN, OPEN_POLICY
from tests.unit.hosts import world

from calico.agent.cutter import Cutter
from calico.agent.keeper import Keeper
from calico.agent.loop import Event, Loop, Parts
from calico.agent.statuses import StatusWriter
from calico.config import AgentSettings
from calico.datastore.memory import MemoryStore
from calico.model.groups import Groups
from calico.model.keys import Keys
from calico.model.names import PortNames
from calico.model.records import PortRange, Rule
from calico.model.world import World
from calico.obs import Metrics
from calico.plan.items import Route
from calico.reconcile.loop import Intervals, Pacer
from calico.reconcile.problem import Problem
from calico.system.fake_connections import FakeConnections
from calico.system.fake_kernel import FakeKernel
from calico.system.kernel import Have

A = endpoint(2)


@dataclass
class Bed:
    """A loop with one service, whose problems the test sets."""

    now: float = 100.0
    problems: list[Problem] = field(default_factory=list)
    world: World = field(default_factory=lambda: world(A))
    served: int = 0  # times that the service was asked
    named: list[tuple[PortNames, ...]] = field(default_factory=list)  # what it was told

    def __post_init__(self) -> None:
        keys = Keys()
        self.kernel = FakeKernel([A.interface])
        self.connections = FakeConnections()
        parts = Parts(
            host=HOST,
            keys=keys,
            world=lambda: self.world,
            keeper=Keeper(self.kernel, AgentSettings(host=HOST)),
            cutter=Cutter(self.connections),
            services=(self._serve,),
            writer=StatusWriter(MemoryStore(), keys, HOST),
            metrics=Metrics(),
            reload=lambda: None,
            rename=self._rename,
        )
        pacer = Pacer(Intervals(throttle=0, resync=60, first_retry=1, last_retry=8))
        self.loop = Loop(parts, pacer, clock=lambda: self.now)

    def _serve(self, world: World, have: Have) -> list[Problem]:
        del world, have
        self.served += 1
        return self.problems

    def _rename(self, world: World) -> list[Problem]:
        self.named.append(world.names)
        return self.problems

    def call(self, name: str) -> tuple[PortNames, ...]:
        """Change the name of a port, and nothing else; return what is to be known."""
        named = PortNames(
            project=PROJECT, port=A.port, names=(name,), addresses=A.addresses
        )
        self.world = replace(self.world, names=(named,))
        self.loop.pacer.mark()
        return self.world.names

    def allow(self, port: int) -> None:
        """Change what A's group allows, and nothing else, to one TCP port."""
        rule = Rule(version=4, protocol=6, ports=PortRange(first=port, last=port))
        policy = replace(OPEN_POLICY, ingress=(rule,))
        self.world = replace(self.world, groups=Groups(policies={OPEN: policy}))
        self.loop.pacer.mark()

    def allowed(self) -> set[str]:
        """Return the TCP ports that A's group allows in the kernel."""
        elements = self.kernel.elements
        return {e.key for e in elements if e.set == f"in.{OPEN}.ports4"}

    def pass_and_wait(self) -> float:
        """Make a pass; return the seconds until the next one is due."""
        self.loop._guarded_pass()
        return self.loop.pacer.wait(self.now)

    def tend_and_wait(self) -> float:
        self.loop._tend()
        return self.loop.pacer.wait(self.now)


def test_an_input_that_is_refused_is_no_reason_for_another_pass() -> None:
    bed = Bed(problems=[Problem("port a", "option", "unknown", lasting=True)])
    assert bed.pass_and_wait() == 60
    assert bed.tend_and_wait() == 60


def test_a_problem_that_stays_is_tried_again_later_each_time() -> None:
    bed = Bed()
    for number, wait in enumerate((1, 2, 4, 8, 8)):
        reply = f"next start in {number} s"
        bed.problems = [Problem("daemon x", "keep", reply)]
        assert bed.pass_and_wait() == wait
        bed.problems = [Problem("daemon x", "keep", reply + "!")]
        assert bed.tend_and_wait() == wait
        bed.now += wait


def test_a_problem_that_is_new_between_passes_makes_one_due() -> None:
    bed = Bed()
    assert bed.pass_and_wait() == 60
    assert bed.tend_and_wait() == 60
    bed.problems = [Problem("daemon x", "keep", "it ended")]
    assert bed.tend_and_wait() == 0


def test_p51_a_change_of_groups_looks_at_nothing_else() -> None:
    bed = Bed()
    bed.pass_and_wait()
    route = next(
        key for key, item in bed.kernel.items.items() if isinstance(item, Route)
    )
    del bed.kernel.items[route]  # would be seen, were it looked at
    bed.allow(80)
    assert bed.pass_and_wait() == 60
    assert bed.allowed() == {"6 . 80"}
    assert bed.served == 1
    assert route not in bed.kernel.items


def test_names_are_told_without_a_look_at_the_kernel_or_other_services() -> None:
    bed = Bed()
    bed.pass_and_wait()
    before = dict(bed.kernel.items), bed.kernel.elements
    bed.kernel.items.clear()  # would be seen, were it looked at
    names = bed.call("web.example")
    assert bed.pass_and_wait() == 60
    assert (bed.named, bed.served) == ([names], 1)
    assert (dict(bed.kernel.items), bed.kernel.elements) == ({}, before[1])
    bed.pass_and_wait()
    assert len(bed.named) == 1, "told once"


def test_names_and_groups_that_change_at_once_are_both_followed() -> None:
    bed = Bed()
    bed.pass_and_wait()
    names = bed.call("web.example")
    bed.allow(80)
    bed.pass_and_wait()
    assert (bed.named, bed.allowed(), bed.served) == ([names], {"6 . 80"}, 1)


def test_names_that_could_not_be_told_are_told_again() -> None:
    bed = Bed()
    bed.pass_and_wait()
    bed.problems = [Problem("DNS", "write its files", "no space")]
    bed.call("web.example")
    assert bed.pass_and_wait() == 1
    bed.problems = []
    assert bed.pass_and_wait() == 60
    assert bed.served == 2, "by a whole pass, which asks all services"


def test_a_host_that_was_touched_is_looked_at_whole() -> None:
    bed = Bed()
    bed.pass_and_wait()
    bed.kernel.plug(A.interface)
    bed.loop.tell(Event.TOUCHED)
    bed.loop._listen(0)
    bed.allow(80)
    bed.pass_and_wait()
    assert bed.allowed() == {"6 . 80"}
    assert bed.served == 2
    assert any(isinstance(item, Route) for item in bed.kernel.items.values())


def test_a_resync_looks_at_the_host_whole() -> None:
    bed = Bed()
    bed.pass_and_wait()
    bed.kernel.plug(A.interface)
    bed.now += 60
    bed.allow(80)
    bed.pass_and_wait()
    assert any(isinstance(item, Route) for item in bed.kernel.items.values())


def test_a_change_of_groups_that_fails_is_followed_by_a_whole_pass() -> None:
    bed = Bed()
    bed.pass_and_wait()
    bed.kernel.refuse_filter = bool
    bed.allow(80)
    assert bed.pass_and_wait() == 1
    bed.kernel.refuse_filter = lambda _: False
    bed.pass_and_wait()
    assert bed.served == 2
    assert bed.allowed() == {"6 . 80"}


def test_a_change_of_groups_keeps_what_lasts_reported() -> None:
    problem = Problem("port a", "option", "unknown", lasting=True)
    bed = Bed(problems=[problem])
    bed.pass_and_wait()
    bed.allow(80)
    bed.pass_and_wait()
    assert bed.loop._told == {str(problem)}


def test_a_pass_that_breaks_is_made_again_whole() -> None:
    """Nothing of it may be taken for done: not the taps, not that it was a resync."""
    bed = Bed()
    bed.pass_and_wait()
    bed.kernel.plug(A.interface)
    bed.loop.tell(Event.TOUCHED)
    bed.loop._listen(0)
    bed.kernel.unreadable = True
    assert bed.pass_and_wait() == 1
    bed.kernel.unreadable = False
    bed.now += 1
    assert bed.pass_and_wait() > 0
    assert bed.served == 2
    assert any(isinstance(item, Route) for item in bed.kernel.items.values())


def test_a_resync_that_breaks_is_made_again_as_one() -> None:
    bed = Bed()
    bed.pass_and_wait()
    bed.now += 60
    bed.kernel.unreadable = True
    bed.pass_and_wait()
    bed.kernel.unreadable = False
    bed.now += 1
    bed.pass_and_wait()
    bed.loop.tell(Event.TOUCHED)
    bed.loop._listen(0)
    bed.pass_and_wait()
    assert bed.kernel.reads == [True, True, True, False]


def test_p41_connections_that_cannot_be_judged_hold_up_nothing() -> None:
    bed = Bed()
    bed.connections.failure = KeyError("an attribute that is not there")
    assert bed.pass_and_wait() == 1
    assert bed.served == 1
    assert bed.loop._last is not None
    bed.connections.failure = None
    bed.now += 1
    assert bed.pass_and_wait() == 59
