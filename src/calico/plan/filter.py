"""What a host's filter should be, in sections, so that a change costs its own.

A section is what one thing comes to: a port, one direction of a group, a remote, and
what every host has. Sections have no part and no element in common.
"""

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Network
from typing import ParamSpec, Protocol

from calico.model.groups import Groups
from calico.model.ids import GroupId, InterfaceName, Prefix, is_single
from calico.model.logs import Event, Log
from calico.model.records import Endpoint, Remote, Subnet
from calico.plan.antispoof import broadcast_elements, is_gate, port_elements
from calico.plan.limits import PARTS as LIMITS
from calico.plan.limits import mark_chain, rate_chains, rate_elements
from calico.plan.logged import LogLimit, limit_chains, logged_elements
from calico.plan.nat import PARTS, floating_elements
from calico.plan.nft import fixed_parts, part_of
from calico.plan.policy import (
    SLOTS,
    Section,
    dispatch_section,
    group_section,
    members_section,
    remote_section,
    slot_elements,
    stateless_groups,
)
from calico.plan.ruleset import passage
from calico.policy.evaluate import Direction
from calico.policy.logged import logged_events

Sections = Mapping[str, Section]
"""Sections by what they are of."""

P = ParamSpec("P")
_FEW, _MANY = 512, 64  # addresses of a remote that is in one portion; else portions


@dataclass(frozen=True, slots=True, kw_only=True)
class FilterFacts:
    """What a filter depends on of the host: its `tap` links, uplinks, log limit.

    Gates are open for ports whose tap is there.
    """

    taps: frozenset[InterfaceName] = frozenset()
    uplinks: tuple[str, ...] = ()
    log_limit: LogLimit = field(default_factory=LogLimit)


class FilterPlanner:
    """Plans filters, and keeps the sections whose input is what it was.

    What it returns depends on its input alone; what it remembers only saves work, and
    shows by identity which sections are the same as before.
    """

    def __init__(self) -> None:
        self._served: _Served | None = None
        self._stateless: frozenset[GroupId] = frozenset()
        self._of_ports = _Kept()
        self._of_groups = _Kept()
        self._portions = _Portions()

    def plan(
        self,
        endpoints: Iterable[Endpoint],
        subnets: Iterable[Subnet],
        groups: Groups,
        facts: FilterFacts,
        logs: Collection[Log] = (),
    ) -> Sections:
        """Return a host's filter; `subnets` and `logs` are the cloud's."""
        self._served = _Served(
            endpoints=tuple(endpoints),
            prefixes=frozenset(subnet.prefix for subnet in subnets),
            facts=facts,
            logs=logs,
        )
        self._plan_ports(self._served, stateless_groups(groups))
        return self._plan_groups(self._served, groups)

    def replan(self, groups: Groups) -> Sections:
        """Return the filter of the host that was planned, with other groups.

        Its ports are looked at only where the groups change what they are.
        """
        if self._served is None:
            raise ValueError("nothing was planned yet")
        stateless = stateless_groups(groups)
        if stateless != self._stateless:
            self._plan_ports(self._served, stateless)
        return self._plan_groups(self._served, groups)

    def _plan_ports(self, served: "_Served", stateless: frozenset[GroupId]) -> None:
        keep, self._stateless = self._of_ports.renew(), stateless
        slots = max([SLOTS, *(len(e.groups) for e in served.guarded)])
        facts = served.facts
        keep("all ports", _common, slots, tuple(facts.uplinks), facts.log_limit)
        keep("broadcasts", _broadcasts, served.prefixes)
        for one in served.endpoints:
            # Neutron allows no mix of stateful and stateless groups on a port.
            stateful = stateless.isdisjoint(one.groups)
            is_open = one.interface in served.facts.taps
            events = logged_events(one, served.logs)
            keep(f"port {one.interface}", _port, one, stateful, is_open, events)
            if one.qos.dscp is not None:
                keep(f"mark {one.qos.dscp}", _mark, one.qos.dscp)

    def _plan_groups(self, served: "_Served", groups: Groups) -> Sections:
        keep = self._of_groups.renew()
        remotes: set[Remote] = set()
        for group in served.groups:
            for way in Direction:
                policy = groups.policies.get(group)
                section = keep(
                    f"{way.value} {group}", group_section, way, group, policy
                )
                remotes |= section.remotes
        for remote in remotes:
            name = repr(remote)
            keep(name, remote_section, remote)
            portions = self._portions.divide(remote, groups.prefixes(remote))
            for number, portion in portions.items():
                keep(f"{name} {number}", members_section, remote, portion)
        self._portions.keep_only(remotes)
        return {**self._of_ports.sections(), **self._of_groups.sections()}


class _Served:
    """What a filter is planned for, whatever the groups say."""

    def __init__(
        self,
        *,
        endpoints: tuple[Endpoint, ...],
        prefixes: frozenset[Prefix],
        facts: FilterFacts,
        logs: Collection[Log],
    ) -> None:
        self.endpoints = endpoints
        self.prefixes = prefixes
        self.facts = facts
        self.logs = logs
        self.guarded = tuple(e for e in endpoints if e.port_security)
        self.groups = frozenset(group for e in self.guarded for group in e.groups)


class _Kept:
    """Sections by name, each with what it was made from."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[tuple[object, ...], Section]] = {}

    def renew(self) -> "_Keep":
        """Forget all that is not asked for from now on; return what to ask with."""
        before, self._known = self._known, {}

        def keep(
            name: str, make: Callable[P, Section], *args: P.args, **_: P.kwargs
        ) -> Section:
            known = before.get(name)
            if known is None or known[0] != args:
                known = args, make(*args)  # type: ignore[call-arg] # there are no kwargs
            self._known[name] = known
            return known[1]

        return keep

    def sections(self) -> dict[str, Section]:
        """Return the sections by name."""
        return {name: section for name, (_, section) in self._known.items()}


class _Keep(Protocol):
    """Returns a section, made anew where it was made from something else."""

    def __call__(
        self, name: str, make: Callable[P, Section], *args: P.args, **_: P.kwargs
    ) -> Section: ...


class _Portions:
    """The addresses of remotes in portions, so that one that comes concerns few.

    Networks are a portion of their own: they are merged with each other.
    """

    def __init__(self) -> None:
        self._known: dict[Remote, _Divided] = {}

    def divide(
        self, remote: Remote, prefixes: frozenset[Prefix]
    ) -> Mapping[int, frozenset[Prefix]]:
        """Return a remote's addresses by the number of their portion; none is empty."""
        count = _MANY if len(prefixes) > _FEW else 1
        known = self._known.get(remote)
        if known is None or known.count != count:
            known = _Divided(count=count)
        if known.prefixes is not prefixes:
            moved: dict[int, set[Prefix]] = defaultdict(set)
            for prefix in known.prefixes ^ prefixes:
                moved[_portion(prefix, count)].add(prefix)
            changed = {
                number: known.portions.get(number, frozenset()) ^ some
                for number, some in moved.items()
            }
            portions = {**known.portions, **changed}
            known = _Divided(
                count=count,
                prefixes=prefixes,
                portions={n: some for n, some in portions.items() if some},
            )
        self._known[remote] = known
        return known.portions

    def keep_only(self, remotes: set[Remote]) -> None:
        """Forget all other remotes."""
        self._known = {r: known for r, known in self._known.items() if r in remotes}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Divided:
    count: int
    prefixes: frozenset[Prefix] = frozenset()
    portions: Mapping[int, frozenset[Prefix]] = field(default_factory=dict)


def _portion(prefix: Prefix, count: int) -> int:
    return int(prefix.network_address) % count if is_single(prefix) else -1


def plan_filter(
    endpoints: Iterable[Endpoint],
    subnets: Iterable[Subnet],
    groups: Groups,
    facts: FilterFacts,
    logs: Collection[Log] = (),
) -> Section:
    """Return a filter whole: for what has no memory, and to judge what has."""
    sections = FilterPlanner().plan(endpoints, subnets, groups, facts, logs)
    return merged(sections.values())


def merged(sections: Iterable[Section]) -> Section:
    """Return sections as one."""
    whole = Section()
    for section in sections:
        whole.parts |= section.parts
        whole.elements |= section.elements
        whole.remotes |= section.remotes
    return whole


def _common(slots: int, uplinks: tuple[str, ...], limit: LogLimit) -> Section:
    section = dispatch_section(slots)
    section.parts |= fixed_parts()
    for part in (*passage(uplinks), *limit_chains(limit), *PARTS, *LIMITS):
        section.add(part)
    return section


def _broadcasts(prefixes: frozenset[Prefix]) -> Section:
    fours = (p for p in prefixes if isinstance(p, IPv4Network))
    return Section(elements=dict.fromkeys(broadcast_elements(fours), ""))


def _mark(dscp: int) -> Section:
    section = Section()
    section.add(mark_chain(dscp))
    return section


def _port(
    endpoint: Endpoint,
    stateful: bool,  # noqa: FBT001 - a value
    is_open: bool,  # noqa: FBT001 - a value
    events: frozenset[Event],
) -> Section:
    elements = port_elements(endpoint, stateful=stateful)
    return Section(
        parts={part_of("inet", chain): chain for chain in rate_chains(endpoint)},
        elements={
            **{e: v for e, v in elements.items() if is_open or not is_gate(e)},
            **dict(rate_elements(endpoint)),
            **dict(slot_elements(endpoint)),
            # No route leads to a floating IP whose interface is not there.
            **(dict(floating_elements(endpoint)) if is_open else {}),
            **dict.fromkeys(logged_elements(endpoint.interface, events), ""),
        },
    )
