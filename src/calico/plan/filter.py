"""What a host's filter should be, in sections, so that a change costs its own.

A section is what one thing comes to: a port, one direction of a group, a remote, and
what every host has. Sections have no part and no element in common.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Network
from typing import ParamSpec

from calico.model.groups import Groups
from calico.model.ids import InterfaceName, Prefix
from calico.model.records import Endpoint, Remote, Subnet
from calico.plan.antispoof import broadcast_elements, is_gate, port_elements
from calico.plan.nft import fixed_parts
from calico.plan.policy import (
    SLOTS,
    Section,
    dispatch_section,
    group_section,
    remote_section,
    slot_elements,
    stateless_groups,
)
from calico.plan.ruleset import passage
from calico.policy.evaluate import Direction

Sections = Mapping[str, Section]
"""Sections by what they are of."""

P = ParamSpec("P")


@dataclass(frozen=True, slots=True, kw_only=True)
class FilterFacts:
    """What a filter depends on of the host: its `tap` links, and its uplinks.

    Gates are open for ports whose tap is there.
    """

    taps: frozenset[InterfaceName] = frozenset()
    uplinks: tuple[str, ...] = ()


class FilterPlanner:
    """Plans filters, and keeps the sections whose input is what it was.

    What it returns depends on its input alone; what it remembers only saves work, and
    shows by identity which sections are the same as before.
    """

    def __init__(self) -> None:
        self._known: dict[str, tuple[tuple[object, ...], Section]] = {}

    def plan(
        self,
        endpoints: Iterable[Endpoint],
        subnets: Iterable[Subnet],
        groups: Groups,
        facts: FilterFacts,
    ) -> Sections:
        """Return the filter of a host that serves `endpoints`.

        `subnets` are the cloud's.
        """
        endpoints = tuple(endpoints)
        guarded = [e for e in endpoints if e.port_security]
        before, self._known = self._known, {}

        def keep(
            name: str, make: Callable[P, Section], *args: P.args, **_: P.kwargs
        ) -> Section:
            known = before.get(name)
            if known is None or known[0] != args:
                known = args, make(*args)  # type: ignore[call-arg] # there are no kwargs
            self._known[name] = known
            return known[1]

        slots = max([SLOTS, *(len(e.groups) for e in guarded)])
        keep("all ports", _common, slots, tuple(facts.uplinks))
        keep("broadcasts", _broadcasts, frozenset(s.prefix for s in subnets))
        stateless = stateless_groups(groups)
        for one in endpoints:
            # Neutron allows no mix of stateful and stateless groups on a port.
            stateful = stateless.isdisjoint(one.groups)
            is_open = one.interface in facts.taps
            keep(f"port {one.interface}", _port, one, stateful, is_open)
        remotes: set[Remote] = set()
        for group in {group for e in guarded for group in e.groups}:
            for way in Direction:
                policy = groups.policies.get(group)
                section = keep(
                    f"{way.value} {group}", group_section, way, group, policy
                )
                remotes |= section.remotes
        for remote in remotes:
            keep(repr(remote), remote_section, remote, groups.prefixes(remote))
        return {name: section for name, (_, section) in self._known.items()}


def plan_filter(
    endpoints: Iterable[Endpoint],
    subnets: Iterable[Subnet],
    groups: Groups,
    facts: FilterFacts,
) -> Section:
    """Return a filter whole: for what has no memory, and to judge what has."""
    sections = FilterPlanner().plan(endpoints, subnets, groups, facts)
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


def _port(endpoint: Endpoint, stateful: bool, is_open: bool) -> Section:  # noqa: FBT001 - values
    elements = port_elements(endpoint, stateful=stateful)
    return Section(
        elements={
            **{e: v for e, v in elements.items() if is_open or not is_gate(e)},
            **dict(slot_elements(endpoint)),
        }
    )
