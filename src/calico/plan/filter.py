"""What a host's filter should be, in sections, so that a change costs its own.

A section is what one thing comes to: a port, one direction of a group, a remote, and
what every host has. Sections have no part and no element in common.
"""

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Network
from typing import ParamSpec, Protocol

from calico.model.groups import Groups
from calico.model.ids import Address, GroupId, InterfaceName, PortId, Prefix
from calico.model.logs import Event, Log
from calico.model.operator_world import NO_OPERATOR, OperatorWorld
from calico.model.records import Endpoint, Subnet
from calico.plan.antispoof import (
    Element,
    broadcast_elements,
    is_gate,
    port_elements,
)
from calico.plan.forwarding import PARTS as FORWARDING
from calico.plan.forwarding import forwarding_elements
from calico.plan.host_policy import Guarded, host_section
from calico.plan.lanes import PARTS as LANES
from calico.plan.lanes import Limited, lane_elements, lanes_of
from calico.plan.limits import PARTS as LIMITS
from calico.plan.limits import mark_chain, rate_chains, rate_elements
from calico.plan.logged import LogLimit, limit_chains, logged_elements
from calico.plan.nat import PARTS, floating_elements
from calico.plan.nft import fixed_parts, part_of
from calico.plan.operator import (
    Sequence,
    place_of,
    policies_of,
    policy_section,
    sequence_section,
    sequences_of,
)
from calico.plan.outgoing import PARTS as OUTGOING
from calico.plan.outgoing import cloud_elements, outgoing_elements
from calico.plan.policy import (
    SLOTS,
    Named,
    Section,
    Selected,
    dispatch_section,
    group_section,
    members_section,
    remote_section,
    slot_elements,
    stateless_groups,
)
from calico.plan.portions import Portions
from calico.plan.ruleset import DNS, METADATA, passage
from calico.policy.evaluate import Direction
from calico.policy.logged import logged_events

Sections = Mapping[str, Section]
"""Sections by what they are of."""

P = ParamSpec("P")


@dataclass(frozen=True, slots=True, kw_only=True)
class FilterFacts:
    """What a filter depends on of the host: its `tap` links, uplinks, log limit.

    Gates are open for ports whose tap is there. `bfd_peers` are the BGP peers that are
    asked for signs of life; `metadata` says whether the host's metadata service may be
    asked, `translate_sources` whether what leaves the cloud comes from floating IPs;
    `dns` at which of the host's addresses ports may ask for names.
    """

    taps: frozenset[InterfaceName] = frozenset()
    uplinks: tuple[str, ...] = ()
    log_limit: LogLimit = field(default_factory=LogLimit)
    metadata: bool = False
    translate_sources: bool = False
    bfd_peers: tuple[Address, ...] = ()
    dns: Mapping[PortId, tuple[Address, ...]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Wishes:
    """What is wished of a filter besides the groups: the cloud's logs, the operator."""

    logs: Collection[Log] = ()
    operator: OperatorWorld = NO_OPERATOR


class FilterPlanner:
    """Plans filters, and keeps the sections whose input is what it was.

    What it returns depends on its input alone; what it remembers only saves work, and
    shows by identity which sections are the same as before.
    """

    def __init__(self) -> None:
        self._served: _Served | None = None
        self._stateless: frozenset[GroupId] = frozenset()
        self._operator = NO_OPERATOR
        self._sequences: dict[str, Sequence] = {}
        self._of_ports = _Kept()
        self._of_policy = _Kept()
        self._portions = Portions()

    def plan(
        self,
        endpoints: Iterable[Endpoint],
        subnets: Iterable[Subnet],
        groups: Groups,
        facts: FilterFacts,
        wishes: Wishes | None = None,
    ) -> Sections:
        """Return a host's filter; `subnets` are the cloud's."""
        wishes = wishes or Wishes()
        self._served = _Served(
            endpoints=tuple(endpoints),
            prefixes=frozenset(subnet.prefix for subnet in subnets),
            facts=facts,
            logs=wishes.logs,
        )
        self._operator = wishes.operator
        self._plan_ports(self._served, stateless_groups(groups))
        return self._plan_policy(self._served, groups)

    def replan(self, groups: Groups, operator: OperatorWorld = NO_OPERATOR) -> Sections:
        """Return the filter of the host that was planned, with other policy.

        Its ports are looked at only where that changes what they are subject to.
        """
        if self._served is None:
            raise ValueError("nothing was planned yet")
        stateless = stateless_groups(groups)
        before, self._operator = self._operator, operator
        subject = (stateless, operator.policies, operator.labels)
        if subject != (self._stateless, before.policies, before.labels):
            self._plan_ports(self._served, stateless)
        return self._plan_policy(self._served, groups)

    def _plan_ports(self, served: "_Served", stateless: frozenset[GroupId]) -> None:
        keep, self._stateless = self._of_ports.renew(), stateless
        self._sequences = {}
        slots = max([SLOTS, *(len(e.groups) for e in served.guarded)])
        facts = served.facts
        keep("all ports", _common, slots, tuple(facts.uplinks), facts.log_limit)
        keep("broadcasts", _broadcasts, served.prefixes)
        if served.translating:
            keep("cloud", _cloud, served.prefixes)
        for interface, lanes in served.lanes.items():
            keep("lanes", _lanes)
            keep(f"lanes {interface}", _lanes_of, lanes)
        for one in served.endpoints:
            # Neutron allows no mix of stateful and stateless groups on a port.
            stateful = stateless.isdisjoint(one.groups)
            is_open = one.interface in served.facts.taps
            events = logged_events(one, served.logs)
            ways = self._subject(one)
            keep(f"port {one.interface}", _port, one, stateful, is_open, events, ways)
            if one.qos.dscp is not None:
                keep(f"mark {one.qos.dscp}", _mark, one.qos.dscp)
            if is_open and facts.metadata:
                keep(f"metadata {one.interface}", _metadata, one.interface)
            if is_open and (addresses := facts.dns.get(one.port)):
                keep(f"dns {one.interface}", _dns, one.interface, addresses)
            if one.interface in served.translating:
                keep(f"outgoing {one.interface}", _outgoing, one)

    def _subject(self, endpoint: Endpoint) -> tuple[tuple[str, str], ...]:
        """Return the maps that lead a port to policies, and to which chain."""
        sequences = tuple(sequences_of(self._operator, endpoint))
        self._sequences |= {sequence.chain: sequence for sequence in sequences}
        return tuple((sequence.map, sequence.chain) for sequence in sequences)

    def _plan_policy(self, served: "_Served", groups: Groups) -> Sections:
        keep = self._of_policy.renew()
        remotes = _plan_groups(keep, served, groups)
        remotes |= self._plan_operator(keep, served.facts)
        for remote in remotes:
            name = repr(remote)
            keep(name, remote_section, remote)
            if isinstance(remote, Selected):
                prefixes = self._operator.prefixes(remote.selector, groups)
            else:
                prefixes = groups.prefixes(remote)
            for number, portion in self._portions.divide(remote, prefixes).items():
                keep(f"{name} {number}", members_section, remote, portion)
        self._portions.keep_only(remotes)
        return {**self._of_ports.sections(), **self._of_policy.sections()}

    def _plan_operator(self, keep: "_Keep", facts: FilterFacts) -> set[Named]:
        """Plan the operator's policies; return what their rules name."""
        remotes: set[Named] = set()
        operator, sequences = self._operator, self._sequences
        for chain, sequence in sequences.items():
            called = tuple(
                place_of(policy, sequence.direction).chain(policy.name)
                for policy in sequence.policies
            )
            keep(f"sequence {chain}", sequence_section, chain, called)
        for (name, direction), policy in policies_of(sequences.values()).items():
            place = place_of(policy, direction)
            what = f"policy {direction.value} {name}"
            remotes |= keep(what, policy_section, policy, place).remotes
        guarded = Guarded(
            endpoints=operator.host_endpoints,
            policies=operator.policies if operator.host_endpoints else (),
            failsafe=operator.failsafe,
            bfd_peers=facts.bfd_peers,
        )
        return remotes | keep("the host itself", host_section, guarded).remotes


def _plan_groups(keep: "_Keep", served: "_Served", groups: Groups) -> set[Named]:
    """Plan the groups of ports; return what their rules name."""
    remotes: set[Named] = set()
    for group in served.groups:
        for way in Direction:
            policy = groups.policies.get(group)
            section = keep(f"{way.value} {group}", group_section, way, group, policy)
            remotes |= section.remotes
    return remotes


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
        self.lanes = lanes_of(e for e in endpoints if e.interface in facts.taps)
        self.translating = frozenset(
            e.interface
            for e in endpoints
            if facts.translate_sources and e.nats and e.interface in facts.taps
        )


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


def plan_filter(
    endpoints: Iterable[Endpoint],
    subnets: Iterable[Subnet],
    groups: Groups,
    facts: FilterFacts,
    wishes: Wishes | None = None,
) -> Section:
    """Return a filter whole: for what has no memory, and to judge what has."""
    sections = FilterPlanner().plan(endpoints, subnets, groups, facts, wishes)
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
    fixed = (*PARTS, *FORWARDING, *OUTGOING, *LIMITS)
    for part in (*passage(uplinks), *limit_chains(limit), *fixed):
        section.add(part)
    return section


def _broadcasts(prefixes: frozenset[Prefix]) -> Section:
    fours = (p for p in prefixes if isinstance(p, IPv4Network))
    return Section(elements=dict.fromkeys(broadcast_elements(fours), ""))


def _cloud(prefixes: frozenset[Prefix]) -> Section:
    return Section(elements=dict.fromkeys(cloud_elements(prefixes), ""))


def _outgoing(endpoint: Endpoint) -> Section:
    return Section(elements=dict(outgoing_elements(endpoint)))


def _lanes() -> Section:
    section = Section()
    for part in LANES:
        section.add(part)
    return section


def _lanes_of(lanes: tuple[Limited, ...]) -> Section:
    return Section(elements=dict(lane_elements(lanes)))


def _mark(dscp: int) -> Section:
    section = Section()
    section.add(mark_chain(dscp))
    return section


def _metadata(interface: InterfaceName) -> Section:
    return Section(elements={Element("inet", METADATA, f'"{interface}"'): ""})


def _dns(interface: InterfaceName, addresses: tuple[Address, ...]) -> Section:
    return Section(
        elements={
            Element("inet", DNS[address.version], f'"{interface}" . {address}'): ""
            for address in addresses
        }
    )


def _port(
    endpoint: Endpoint,
    stateful: bool,  # noqa: FBT001 - a value
    is_open: bool,  # noqa: FBT001 - a value
    events: frozenset[Event],
    ways: tuple[tuple[str, str], ...],
) -> Section:
    """Return a port's elements; `ways` are maps, and the chains they lead to."""
    elements = port_elements(endpoint, stateful=stateful)
    interface = f'"{endpoint.interface}"'
    return Section(
        parts={part_of("inet", chain): chain for chain in rate_chains(endpoint)},
        elements={
            **{e: v for e, v in elements.items() if is_open or not is_gate(e)},
            **dict(rate_elements(endpoint)),
            **dict(slot_elements(endpoint)),
            # No route leads to a floating IP whose interface is not there.
            **(dict(floating_elements(endpoint)) if is_open else {}),
            **(dict(forwarding_elements(endpoint)) if is_open else {}),
            **dict.fromkeys(logged_elements(endpoint.interface, events), ""),
            **{Element("inet", name, interface): f"jump {c}" for name, c in ways},
        },
    )
