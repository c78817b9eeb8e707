"""What a host's filter should be, in sections, so that a change costs its own.

A section is what one thing comes to: a port, one direction of a group, a remote, and
what every host has. Sections have no part and no element in common.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Network
from typing import ParamSpec

from calico.model.groups import Groups
from calico.model.ids import Address, InterfaceName, Prefix, is_single
from calico.model.operator_world import NO_OPERATOR, OperatorWorld
from calico.model.records import Endpoint, Subnet
from calico.plan.antispoof import (
    Element,
    broadcast_elements,
    is_gate,
    port_elements,
)
from calico.plan.host_policy import Guarded, host_section
from calico.plan.nft import fixed_parts
from calico.plan.operator import (
    Sequence,
    place_of,
    policies_of,
    policy_section,
    sequence_section,
    sequences_of,
)
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
from calico.plan.ruleset import passage
from calico.policy.evaluate import Direction

Sections = Mapping[str, Section]
"""Sections by what they are of."""

P = ParamSpec("P")
_FEW, _MANY = 512, 64  # addresses of a remote that is in one portion; else portions


@dataclass(frozen=True, slots=True, kw_only=True)
class FilterFacts:
    """What a filter depends on of the host: its `tap` links, its uplinks, BFD peers.

    Gates are open for ports whose tap is there.
    """

    taps: frozenset[InterfaceName] = frozenset()
    uplinks: tuple[str, ...] = ()
    bfd_peers: tuple[Address, ...] = ()


class FilterPlanner:
    """Plans filters, and keeps the sections whose input is what it was.

    What it returns depends on its input alone; what it remembers only saves work, and
    shows by identity which sections are the same as before.
    """

    def __init__(self) -> None:
        self._known: dict[str, tuple[tuple[object, ...], Section]] = {}
        self._before = self._known  # what the plan before this one knew
        self._portions = _Portions()

    def plan(
        self,
        endpoints: Iterable[Endpoint],
        subnets: Iterable[Subnet],
        groups: Groups,
        facts: FilterFacts,
        operator: OperatorWorld = NO_OPERATOR,
    ) -> Sections:
        """Return the filter of a host that serves `endpoints`.

        `subnets` are the cloud's.
        """
        endpoints = tuple(endpoints)
        guarded = [e for e in endpoints if e.port_security]
        self._before, self._known = self._known, {}
        slots = max([SLOTS, *(len(e.groups) for e in guarded)])
        self._keep("all ports", _common, slots, tuple(facts.uplinks))
        self._keep("broadcasts", _broadcasts, frozenset(s.prefix for s in subnets))
        stateless = stateless_groups(groups)
        sequences: dict[str, Sequence] = {}
        for one in endpoints:
            # Neutron allows no mix of stateful and stateless groups on a port.
            stateful = stateless.isdisjoint(one.groups)
            is_open = one.interface in facts.taps
            subject = tuple(sequences_of(operator, one))
            sequences |= {sequence.chain: sequence for sequence in subject}
            ways = tuple((sequence.map, sequence.chain) for sequence in subject)
            self._keep(f"port {one.interface}", _port, one, stateful, is_open, ways)
        remotes = self._groups(guarded, groups)
        remotes |= self._operator(operator, sequences, facts)
        self._addresses(remotes, groups, operator)
        return {name: section for name, (_, section) in self._known.items()}

    def _keep(
        self, name: str, make: Callable[P, Section], *args: P.args, **_: P.kwargs
    ) -> Section:
        known = self._before.get(name)
        if known is None or known[0] != args:
            known = args, make(*args)  # type: ignore[call-arg] # there are no kwargs
        self._known[name] = known
        return known[1]

    def _groups(self, guarded: Iterable[Endpoint], groups: Groups) -> set[Named]:
        """Plan the groups of ports; return what their rules name."""
        remotes: set[Named] = set()
        for group in {group for e in guarded for group in e.groups}:
            for way in Direction:
                policy = groups.policies.get(group)
                section = self._keep(
                    f"{way.value} {group}", group_section, way, group, policy
                )
                remotes |= section.remotes
        return remotes

    def _operator(
        self,
        operator: OperatorWorld,
        sequences: Mapping[str, Sequence],
        facts: FilterFacts,
    ) -> set[Named]:
        """Plan the operator's policies; return what their rules name."""
        remotes: set[Named] = set()
        for chain, sequence in sequences.items():
            called = tuple(
                place_of(policy, sequence.direction).chain(policy.name)
                for policy in sequence.policies
            )
            self._keep(f"sequence {chain}", sequence_section, chain, called)
        for (name, direction), policy in policies_of(sequences.values()).items():
            place = place_of(policy, direction)
            section = self._keep(
                f"policy {direction.value} {name}", policy_section, policy, place
            )
            remotes |= section.remotes
        guarded = Guarded(
            endpoints=operator.host_endpoints,
            policies=operator.policies if operator.host_endpoints else (),
            failsafe=operator.failsafe,
            bfd_peers=facts.bfd_peers,
        )
        return remotes | self._keep("the host itself", host_section, guarded).remotes

    def _addresses(
        self, remotes: set[Named], groups: Groups, operator: OperatorWorld
    ) -> None:
        """Plan the addresses of what rules name."""
        for remote in remotes:
            name = repr(remote)
            self._keep(name, remote_section, remote)
            if isinstance(remote, Selected):
                prefixes = operator.prefixes(remote.selector, groups)
            else:
                prefixes = groups.prefixes(remote)
            for number, portion in self._portions.divide(remote, prefixes).items():
                self._keep(f"{name} {number}", members_section, remote, portion)
        self._portions.keep_only(remotes)


class _Portions:
    """The addresses of remotes in portions, so that one that comes concerns few.

    Networks are a portion of their own: they are merged with each other.
    """

    def __init__(self) -> None:
        self._known: dict[Named, _Divided] = {}

    def divide(
        self, remote: Named, prefixes: frozenset[Prefix]
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

    def keep_only(self, remotes: set[Named]) -> None:
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
    operator: OperatorWorld = NO_OPERATOR,
) -> Section:
    """Return a filter whole: for what has no memory, and to judge what has."""
    sections = FilterPlanner().plan(endpoints, subnets, groups, facts, operator)
    return merged(sections.values())


def merged(sections: Iterable[Section]) -> Section:
    """Return sections as one."""
    whole = Section()
    for section in sections:
        whole.parts |= section.parts
        whole.elements |= section.elements
        whole.remotes |= section.remotes
    return whole


def _common(slots: int, uplinks: tuple[str, ...]) -> Section:
    section = dispatch_section(slots)
    section.parts |= fixed_parts()
    for chain in passage(uplinks):
        section.add(chain)
    return section


def _broadcasts(prefixes: frozenset[Prefix]) -> Section:
    fours = (p for p in prefixes if isinstance(p, IPv4Network))
    return Section(elements=dict.fromkeys(broadcast_elements(fours), ""))


def _port(
    endpoint: Endpoint,
    stateful: bool,  # noqa: FBT001 - a value
    is_open: bool,  # noqa: FBT001 - a value
    ways: tuple[tuple[str, str], ...],
) -> Section:
    """Return a port's elements; `ways` are maps, and the chains they lead to."""
    elements = port_elements(endpoint, stateful=stateful)
    interface = f'"{endpoint.interface}"'
    return Section(
        elements={
            **{e: v for e, v in elements.items() if is_open or not is_gate(e)},
            **dict(slot_elements(endpoint)),
            **{Element("inet", name, interface): f"jump {c}" for name, c in ways},
        }
    )
