"""One pass over a host's kernel: want, have, the difference, in a safe order.

The order is the promise (P52). Policy first: a port's sources are in the kernel before
anything else of it. Then its settings, its link, its addresses, neighbours and routes.
Last its gate, without which nothing passes in either direction. IPv4 and IPv6 refuse
routes through a link that is down, so it is the gate, not the link, that opens a port.
Going, the gate shuts first.
"""

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Address, IPv6Address, ip_address

from calico.config import AgentSettings
from calico.model.groups import Groups
from calico.model.ids import Address, Interface, InterfaceName
from calico.model.operator_world import OperatorWorld
from calico.model.world import World
from calico.plan.antispoof import is_gate
from calico.plan.filter import FilterFacts, FilterPlanner, Sections, plan_filter
from calico.plan.host import HostFacts, HostPlan, plan_host
from calico.plan.items import (
    Bridge,
    Item,
    Key,
    Link,
    Multipath,
    Route,
    Setting,
    State,
    interfaces_of,
    key_of,
    without,
)
from calico.plan.logged import LogLimit
from calico.reconcile.diff import Diff, diff
from calico.reconcile.filter import (
    FilterChange,
    FilterState,
    compare,
    compare_sections,
    steps,
)
from calico.reconcile.problem import Problem
from calico.reconcile.transactions import transactions
from calico.system.kernel import Failure, Have, Host
from calico.system.nft import NftError


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What a pass came to: its plan, what failed, and whose data path that is."""

    plan: HostPlan
    problems: tuple[Problem, ...] = ()
    failed: frozenset[InterfaceName] = frozenset()
    changes: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Delta:
    """What a pass would change: items, and the filter."""

    plan: HostPlan
    items: Diff[Key, Item]
    filter: FilterChange
    inherited: frozenset[InterfaceName] = frozenset()

    @property
    def unfinished(self) -> frozenset[InterfaceName]:
        """Return the interfaces that lack more than their gate.

        Not those that carry traffic as another agent left them: they stay open.
        """
        lacking = frozenset(
            name for item in self.items.put.values() for name in interfaces_of(item)
        )
        return lacking - self.inherited

    def lines(self) -> list[str]:
        """Return the changes as text, one a line, in order."""
        return [
            *self.filter.lines(),
            *(f"- {self.items.drop[key]}" for key in sorted(self.items.drop)),
            *(f"+ {self.items.put[key]}" for key in sorted(self.items.put)),
        ]


def host_facts(settings: AgentSettings, have: Have) -> HostFacts:
    """Return what the plan needs to know; addresses as set, else from the uplinks."""
    address4 = own_address(settings, have, 4)
    address6 = own_address(settings, have, 6)
    routes = (i for i in have.items.values() if isinstance(i, Route | Multipath))
    return HostFacts(
        address4=address4 if isinstance(address4, IPv4Address) else None,
        address6=address6 if isinstance(address6, IPv6Address) else None,
        taps=have.taps,
        arrived=frozenset(
            name for r in routes if not r.yielding for name in interfaces_of(r)
        ),
        uplinks=settings.uplinks,
        log_limit=_log_limit(settings),
        metadata=bool(settings.metadata.backends),
    )


def _log_limit(settings: AgentSettings) -> LogLimit:
    return LogLimit(settings.log_rate, settings.log_burst)


def own_address(settings: AgentSettings, have: Have, version: int) -> Address | None:
    """Return the host's own address: as set, if it has it, else its uplinks' first.

    A route cannot prefer an address that the host lacks: the kernel refuses it.
    """
    wanted = settings.address4 if version == 4 else settings.address6
    own = [interface.ip for _, interface in have.addresses]
    if wanted is not None:
        address = ip_address(wanted)
        return address if address in own else None
    found = sorted(
        (settings.uplinks.index(name), interface.ip.packed, interface.ip)
        for name, interface in have.addresses
        if name in settings.uplinks
        and interface.version == version
        and not (interface.is_link_local or interface.is_loopback)
    )
    return found[0][2] if found else None


class Keeper:
    """Keeps one host's kernel as planned; the thread that calls it owns the kernel."""

    def __init__(self, host: Host, settings: AgentSettings) -> None:
        self._host = host
        self._settings = settings
        self._planner = FilterPlanner()
        self._left: Sections | None = None  # the filter as our last pass left it
        self._done: HostPlan | None = None  # what it made of the host, all of it
        self._arrivals: dict[InterfaceName, State] = {}  # what awaited instances lack

    def shut(self) -> None:
        """Cut off all taps while nothing is known (P52): make the tables that lack.

        They are empty, and a tap that is in no map is cut off. A table that is there,
        an earlier agent's perhaps, is left alone with the ports that it serves. So is
        all where another agent of the model serves some: until our first pass its rules
        are in force, and they let no other tap in.
        NftError or OSError if it cannot be done.
        """
        have = self._host.read(resync=True)
        absent = frozenset() if have.inherited else have.absent
        limit = _log_limit(self._settings)
        facts = FilterFacts(uplinks=self._settings.uplinks, log_limit=limit)
        parts = plan_filter((), (), Groups(), facts).parts
        empty = {name: part for name, part in parts.items() if name.family in absent}
        if empty:
            self._host.change_filter(FilterChange(renewed=absent, put=empty))

    def compare(
        self, world: World, gateways: Iterable[Interface], *, resync: bool
    ) -> tuple[Have, Delta]:
        """Return what the host has and what would have to change."""
        have = self._host.read(resync=resync or self._left is None)
        facts = host_facts(self._settings, have)
        plan = plan_host(world, facts, gateways, self._planner)
        settings = self._host.read_settings(
            [item for item in plan.state.values() if isinstance(item, Setting)]
        )
        items = diff(plan.state, {**have.items, **settings})
        droppable = {
            key: item
            for key, item in items.drop.items()
            if not isinstance(item, Bridge | Link | Setting)  # others' to remove
        }
        return have, Delta(
            plan=plan,
            items=Diff(put=items.put, drop=droppable, replaced=items.replaced),
            filter=self._compare_filter(plan, have),
            inherited=have.inherited,
        )

    def compare_policy(self, groups: Groups, operator: OperatorWorld) -> Delta | None:
        """Return what other policy would change on the host as the last pass left it.

        None where that is not known, or where the pass left something undone: then all
        has to be looked at.
        """
        if self._left is None or self._done is None:
            return None
        plan = replace(self._done, filter=self._planner.replan(groups, operator))
        return Delta(
            plan=plan,
            items=Diff(put={}, drop={}, replaced={}),
            filter=compare_sections(plan.filter, self._left),
        )

    def _compare_filter(self, plan: HostPlan, have: Have) -> FilterChange:
        if have.filter is None and self._left is not None:
            return compare_sections(plan.filter, self._left)
        self._left = None  # until what differs is made good
        whole = plan.whole_filter
        return compare(whole.parts, whole.elements, have.filter or FilterState())

    def apply(self, delta: Delta) -> Outcome:
        """Make the changes, in order; a failure disturbs its own port alone (P41)."""
        problems: list[Problem] = []
        self._left = self._done = None  # until this is through
        unfinished = delta.unfinished
        elements = delta.filter.elements
        later = {
            element: verdict
            for element, verdict in elements.put.items()
            if is_gate(element)
            and element.interface in unfinished
            and element not in elements.replaced
        }
        now = {e: v for e, v in elements.put.items() if e not in later}
        blocked = self._filter(
            replace(delta.filter, elements=replace(elements, put=now)), problems
        )
        failures = self._items(delta, blocked)
        problems += [failure.problem for failure in failures]
        failed = blocked | {
            name for failure in failures for name in interfaces_of(failure.item)
        }
        gates = {e: v for e, v in later.items() if e.interface not in failed}
        opening = FilterChange(elements=Diff(put=gates, drop={}, replaced={}))
        failed |= self._filter(opening, problems)
        self._left = None if problems else delta.plan.filter
        self._done = None if problems else delta.plan
        self._arrivals = {
            endpoint.interface: routes
            for endpoint, routes in delta.plan.awaited
            if endpoint.interface not in failed
        }
        return Outcome(
            plan=delta.plan,
            problems=tuple(problems),
            failed=frozenset(failed),
            changes=_count(delta),
        )

    def admit(self, interfaces: Iterable[InterfaceName]) -> list[Problem]:
        """Make the routes of awaited instances that have come, and nothing else.

        All else of theirs is in the kernel since the last pass; the next one finds the
        routes and takes it from there.
        """
        arrivals = [self._arrivals.pop(name, {}) for name in interfaces]
        items = [item for routes in arrivals for _, item in sorted(routes.items())]
        return [failure.problem for failure in self._host.put(items)] if items else []

    def _items(self, delta: Delta, blocked: Collection[InterfaceName]) -> list[Failure]:
        """Drop what goes, and put what comes; a route of another metric only then.

        Between the two its destination would have no route.
        """
        drop, put = delta.items.drop, delta.items.put
        kept = {key for key in drop if _other_metric(drop[key]) in put}
        order = sorted(drop, reverse=True)
        failures = self._host.drop([drop[key] for key in order if key not in kept])
        wanted = [without(put[key], blocked) for key in sorted(put)]
        failures += self._host.put([item for item in wanted if item])
        return failures + self._host.drop([drop[key] for key in order if key in kept])

    def _filter(
        self, change: FilterChange, problems: list[Problem]
    ) -> set[InterfaceName]:
        """Change the filter; return the interfaces whose part of it was refused."""
        refused: set[InterfaceName] = set()
        for part in transactions(change):
            try:
                self._host.change_filter(part)
            except NftError as e:
                refused |= self._isolate(part, problems, e)
        return refused

    def _isolate(
        self, change: FilterChange, problems: list[Problem], whole: NftError
    ) -> set[InterfaceName]:
        """Change the filter step by step, after it was refused as a whole."""
        refused: set[str] = set()
        for name, step in steps(change):
            try:
                self._host.change_filter(step)
            except NftError as e:
                if not name:
                    problems.append(
                        Problem("nftables", "change the filter", str(whole))
                    )
                    return interfaces(change)
                problems.append(Problem(f"filter of {name}", "change", str(e)))
                refused.add(name)
        return {name for name in interfaces(change) if name in refused}


def interfaces(change: FilterChange) -> set[InterfaceName]:
    """Return the interfaces that a change of the filter is about."""
    elements = (*change.elements.put, *change.elements.drop)
    return {name for element in elements if (name := element.interface)}


def _other_metric(item: Item) -> Key | None:
    """Return the key of a route's twin, which yields where it does not."""
    if not isinstance(item, Route | Multipath):
        return None
    return key_of(replace(item, yielding=not item.yielding))


def _count(delta: Delta) -> dict[str, int]:
    """Return the number of changes by kind of item."""
    counts: dict[str, int] = defaultdict(int)
    for item in (*delta.items.put.values(), *delta.items.drop.values()):
        counts[type(item).__name__.lower()] += 1
    change = delta.filter
    changed = {
        "element": len(change.elements.put) + len(change.elements.drop),
        "part": len(change.put) + len(change.drop),
        "table": len(change.renewed),
    }
    counts.update({kind: number for kind, number in changed.items() if number})
    return dict(counts)
