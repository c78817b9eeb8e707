"""The agent's main loop: the one thread that owns the kernel.

Whatever happens elsewhere (the datastore, the kernel, a signal) is put in one queue as
a hint; the loop decides when to make a pass, and a pass looks at everything.
"""

import enum
import queue
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

import structlog

from calico.agent.cutter import Cutter
from calico.agent.keeper import Delta, Keeper, Outcome
from calico.agent.statuses import StatusWriter, statuses
from calico.model.ids import HostName, InterfaceName
from calico.model.keys import Keys
from calico.model.names import PortNames
from calico.model.records import Endpoint
from calico.model.world import World, differs_in_policy
from calico.obs import Metrics
from calico.plan.dnsmasq import plan_dnsmasq
from calico.plan.host import HostPlan
from calico.reconcile.loop import Pacer
from calico.reconcile.problem import Problem
from calico.system.kernel import Have

log = structlog.get_logger()

_TEND = 2.0  # seconds between looks at the daemons; peers wait minutes for a BIRD


class Event(enum.Enum):
    """What another thread, or a signal, tells the loop."""

    DIRTY = enum.auto()  # the datastore says something else
    TOUCHED = enum.auto()  # somebody changed the host
    RESYNC = enum.auto()
    RELOAD = enum.auto()
    STOP = enum.auto()


STOP = Event.STOP


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What the loop drives. `world` is None until the datastore was seen whole.

    `services` are the daemons: each makes one what the world and the host say, and
    returns what it could not. `ready` is called once nothing is open that is unknown.
    `inform` is shown each world before the kernel follows it, `expect` after it the
    endpoints whose instances are to come; `arrived` returns the taps of those that did.
    `rename` is the one of the services that names of ports in DNS concern.
    """

    host: HostName
    keys: Keys
    world: Callable[[], World | None]
    keeper: Keeper
    cutter: Cutter
    services: tuple[Callable[[World, Have], list[Problem]], ...]
    writer: StatusWriter
    metrics: Metrics
    reload: Callable[[], None]
    ready: Callable[[], None] = lambda: None
    inform: Callable[[World], None] = lambda _: None
    expect: Callable[[Iterable[Endpoint]], None] = lambda _: None
    arrived: Callable[[], Collection[InterfaceName]] = tuple
    rename: Callable[[World], list[Problem]] = lambda _: []


class Loop:
    """Makes passes until told to stop."""

    def __init__(
        self, parts: Parts, pacer: Pacer, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._parts = parts
        self.pacer = pacer
        self._clock = clock
        self._events: queue.SimpleQueue[Event] = queue.SimpleQueue()
        self._told: frozenset[str] = frozenset()
        self._last: tuple[World, Have] | None = None
        self._lasting: list[Problem] = []  # the last whole pass's
        self._touched = True  # the host may be another than the last pass left
        self._unfinished_resync = False  # one began and did not come to its end
        self._tended_at = 0.0
        self._known: frozenset[tuple[str, str]] = frozenset()  # the last pass's
        self._shut = False
        self._in_sync = False  # once true it stays: what was seen is never forgotten

    def tell(self, event: Event) -> None:
        """Put an event in the queue; from any thread, or a signal's function."""
        self._events.put(event)

    def run(self) -> None:
        """Make a pass whenever one is due, until STOP."""
        while True:
            self._shut = self._shut or self._make_ready()
            self._admit()
            wait = self._wait()
            if wait == 0.0:
                self._guarded_pass()
                continue
            event = self._listen(_TEND if wait is None else min(wait, _TEND))
            if event is STOP:
                return
            if event is None or self._clock() >= self._tended_at + _TEND:
                self._tend()

    def _make_ready(self) -> bool:
        """Cut off what is unknown and tell that it is; return whether that is done.

        Instances may start from then on, whether the datastore is there or not (P52).
        """
        try:
            self._parts.keeper.shut()
            self._parts.ready()
        except Exception:
            log.exception("taps not guarded")
            return False
        return True

    def _admit(self) -> None:
        """Make the routes of instances that have come, before anything else.

        Packets are lost until then; a pass, which looks at everything, comes after it.
        """
        if not (names := self._parts.arrived()):
            return
        self._touched = True
        self.pacer.mark()
        try:
            problems = self._parts.keeper.admit(names)
        except Exception:
            log.exception("instance not admitted")
            return
        log.info(
            "instance arrived", interfaces=sorted(names), problems=[*map(str, problems)]
        )

    def once(self, patience: float) -> bool:
        """Make one pass as soon as the datastore was seen; return whether all is well.

        TimeoutError if that takes longer than `patience` seconds.
        """
        self._await_world(patience)
        return not self.make_pass()

    def preview(self, patience: float) -> list[str]:
        """Return what a pass would change, one change a line; changes nothing."""
        world = self._await_world(patience)
        gateways = plan_dnsmasq(world).gateways
        _, delta = self._parts.keeper.compare(world, gateways, resync=True)
        return delta.lines()

    def _await_world(self, patience: float) -> World:
        deadline = self._clock() + patience
        while (world := self._parts.world()) is None:
            left = deadline - self._clock()
            if left <= 0:
                raise TimeoutError(
                    f"the datastore was not seen whole in {patience:g} s"
                )
            self._listen(left)
        return world

    def make_pass(self) -> list[Problem]:
        """Make the host what the datastore says; return what could not be.

        All is compared, but where nothing except policy and names changed since the
        last pass: then the filter, and what answers names, are all that can change.
        """
        world = self._parts.world()
        if world is None:  # unknown is not empty
            return []
        resync = self.pacer.begin(self._clock()) or self._unfinished_resync
        if not (resync or self._touched) and self._differs_in_policy(world):
            renamed = world.names is not self._names()
            problems = self._change_names(world) if renamed else []
            if problems or (renamed and not self._differs_in_groups(world)):
                return problems
            delta = self._parts.keeper.compare_policy(world.groups, world.operator)
            if delta is not None:
                return self._change_policy(world, delta)
        return self._whole_pass(world, resync=resync)

    def _differs_in_policy(self, world: World) -> bool:
        return self._last is not None and differs_in_policy(world, self._last[0])

    def _differs_in_groups(self, world: World) -> bool:
        last = self._last[0] if self._last is not None else None
        return last is None or (
            world.groups is not last.groups or world.operator is not last.operator
        )

    def _names(self) -> tuple[PortNames, ...] | None:
        return self._last[0].names if self._last is not None else None

    def _change_names(self, world: World) -> list[Problem]:
        """Have names answered as they are now; the kernel has no part in it."""
        self._touched = True
        problems = self._parts.rename(world)
        if self._last is not None:
            last, have = self._last
            self._last = replace(last, names=world.names), have
        self._touched = bool(problems)
        if problems:
            self._report(world, [*problems, *self._lasting])
        return problems

    def _change_policy(self, world: World, delta: Delta) -> list[Problem]:
        """Change the filter, and cut the connections that it no longer allows."""
        self._touched = True
        outcome = self._parts.keeper.apply(delta)
        cutting = self._cut(outcome, delta, world)
        if self._last is not None:
            self._last = world, self._last[1]
        problems = [*outcome.problems, *cutting]
        self._touched = bool(problems)
        self._report(world, [*problems, *self._lasting])
        self._count(outcome.changes)
        return problems

    def _cut(self, outcome: Outcome, delta: Delta, world: World) -> list[Problem]:
        """Cut connections; what breaks there leaves the rest of a pass alone (P41)."""
        try:
            return self._parts.cutter.follow(
                outcome, delta.filter, world.groups, world.operator
            )
        except Exception as e:
            log.exception("connections not judged")
            return [Problem("connections", "judge", str(e) or type(e).__name__)]

    def _whole_pass(self, world: World, *, resync: bool) -> list[Problem]:
        parts = self._parts
        # Until this is through: whatever ends it, all has to be looked at again.
        self._touched, self._unfinished_resync = True, resync
        parts.inform(world)
        gateways = plan_dnsmasq(world).gateways
        have, delta = parts.keeper.compare(world, gateways, resync=resync)
        outcome = parts.keeper.apply(delta)
        self._last = world, have
        parts.expect(endpoint for endpoint, _ in outcome.plan.awaited)
        cutting = self._cut(outcome, delta, world)
        served = self._serve(world, have)
        self._known = _names(served)
        wanted = statuses(parts.host, parts.keys, outcome, world.rejected)
        parts.writer.offer(wanted, resync=resync)
        problems = [*outcome.problems, *cutting, *served, *_refusals(outcome.plan)]
        self._lasting = [problem for problem in problems if problem.lasting]
        self._touched = len(self._lasting) < len(problems)
        self._unfinished_resync = False
        self._report(world, problems)
        self._measure(wanted, world, len(problems))
        self._count(outcome.changes)
        return problems

    def _wait(self) -> float | None:
        """Return the seconds until a pass is due; None as long as none can be made."""
        if not self._in_sync:
            self._in_sync = self._parts.world() is not None
        return self.pacer.wait(self._clock()) if self._in_sync else None

    def _listen(self, wait: float | None) -> Event | None:
        """Take what comes within `wait` seconds into account; return its last."""
        try:
            event = self._events.get(timeout=wait)
        except queue.Empty:
            return None
        while event is not STOP:
            if event is Event.RELOAD:
                self._parts.reload()
            elif event is Event.RESYNC:
                self.pacer.demand_resync()
            else:
                self._touched = self._touched or event is Event.TOUCHED
                self.pacer.mark()
            try:
                event = self._events.get_nowait()
            except queue.Empty:
                break
        return event

    def _guarded_pass(self) -> None:
        """Make a pass; whatever goes wrong is logged, counted and tried again later."""
        with self._parts.metrics.pass_seconds.time():
            try:
                problems = self.make_pass()
            except Exception:
                log.exception("pass failed")
                problems = [Problem("pass", "finish", "exception")]
        if all(problem.lasting for problem in problems):
            self.pacer.succeed()
        else:
            self.pacer.fail(self._clock())
        outcome = "incomplete" if problems else "complete"
        self._parts.metrics.passes.labels(outcome).inc()

    def _serve(self, world: World, have: Have) -> list[Problem]:
        return [
            problem
            for service in self._parts.services
            for problem in _guarded(service, world, have)
        ]

    def _tend(self) -> None:
        """See that the daemons run, between passes.

        One that fails anew makes a pass due. What the last pass knew already does not:
        the pacer tries that again, later each time.
        """
        self._tended_at = self._clock()
        if self._last is None:
            return
        if _names(self._serve(*self._last)) - self._known:
            self.pacer.mark()

    def _report(self, world: World, problems: list[Problem]) -> None:
        """Log each problem when it is new, and when it is gone."""
        rejected = {f"stored object set aside: {one}" for one in world.rejected}
        current = frozenset({*map(str, problems), *rejected})
        for text in sorted(current - self._told):
            log.warning("problem", problem=text)
        for text in sorted(self._told - current):
            log.info("problem gone", problem=text)
        self._told = current

    def _measure(self, wanted: dict[str, bytes], world: World, problems: int) -> None:
        metrics = self._parts.metrics
        metrics.in_sync.set(1)
        metrics.problems.set(problems)
        metrics.rejected.set(len(world.rejected))
        for status in ("up", "down", "error"):
            count = sum(f'"{status}"'.encode() in value for value in wanted.values())
            metrics.endpoints.labels(status).set(count)

    def _count(self, changes: Mapping[str, int]) -> None:
        metrics = self._parts.metrics
        for kind, count in changes.items():
            metrics.changes.labels(kind).inc(count)
        if changes:
            log.info("host changed", **changes)


def _names(problems: list[Problem]) -> frozenset[tuple[str, str]]:
    """Return what problems are about; replies may differ each time."""
    return frozenset((problem.subject, problem.wish) for problem in problems)


def _refusals(plan: HostPlan) -> Iterator[Problem]:
    """Yield what of the world cannot be served as long as it is as it is."""
    for one in plan.refused:
        yield Problem(f"port {one.port}", "serve", one.reason, lasting=True)
    for pair in plan.refused_pairs:
        wish = f"allow {pair.prefix}"
        yield Problem(f"port {pair.port}", wish, pair.reason.value, lasting=True)
    for nat in plan.refused_nats:
        wish = f"translate {nat.external}"
        yield Problem(f"port {nat.port}", wish, nat.reason, lasting=True)
    for refusal in plan.refused_forwardings:
        wish = f"do {refusal.forwarding}"
        yield Problem(f"port {refusal.port}", wish, refusal.reason, lasting=True)


def _guarded(
    service: Callable[[World, Have], list[Problem]], world: World, have: Have
) -> list[Problem]:
    """Run a service; one that breaks leaves the others, and the kernel, alone."""
    try:
        return service(world, have)
    except Exception as e:
        log.exception("service failed")
        return [Problem("service", "apply", str(e) or type(e).__name__)]
