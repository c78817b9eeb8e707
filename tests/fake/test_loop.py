"""When the loop makes passes, with services and a clock that the test holds."""

from dataclasses import dataclass, field

from tests.endpoints import HOST, endpoint
from tests.unit.hosts import world

from calico.agent.cutter import Cutter
from calico.agent.keeper import Keeper
from calico.agent.loop import Loop, Parts
from calico.agent.statuses import StatusWriter
from calico.config import AgentSettings
from calico.datastore.memory import MemoryStore
from calico.model.keys import Keys
from calico.model.world import World
from calico.obs import Metrics
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

    def __post_init__(self) -> None:
        keys = Keys()
        parts = Parts(
            host=HOST,
            keys=keys,
            world=lambda: world(A),
            keeper=Keeper(FakeKernel([A.interface]), AgentSettings(host=HOST)),
            cutter=Cutter(FakeConnections()),
            services=(self._serve,),
            writer=StatusWriter(MemoryStore(), keys, HOST),
            metrics=Metrics(),
            reload=lambda: None,
        )
        pacer = Pacer(Intervals(throttle=0, resync=60, first_retry=1, last_retry=8))
        self.loop = Loop(parts, pacer, clock=lambda: self.now)

    def _serve(self, world: World, have: Have) -> list[Problem]:
        del world, have
        return self.problems

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
