"""An operator's policies as the host's rules: a chain for each policy and direction.

A policy's rules stay in their order, one after the other: operators have tens of them,
and the order is the meaning. Those that a port is subject to are a chain of their own
that calls them, shared by all ports that are subject to the same; a port itself is an
element in a map for each stage. Whom a rule's selector selects is a set, shared by all
rules that say the same, so that what comes and goes costs its element (P51).
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from hashlib import sha256
from ipaddress import IPv4Address, IPv6Address
from itertools import product
from typing import assert_never

from calico.model.ids import Prefix
from calico.model.operator import Action, End, GlobalPolicy, Icmp, OperatorRule
from calico.model.operator_world import OperatorWorld
from calico.model.records import ICMP, Endpoint, PortRange
from calico.plan.policy import (
    NAMES,
    Section,
    Selected,
    remote_set_names,
)
from calico.plan.ruleset import LOG_GROUP, Chain
from calico.plan.ruleset import Rule as FilterRule
from calico.policy.cover import Cover, Range
from calico.policy.evaluate import Direction
from calico.policy.operator import Stage, in_stage, rules_in, stage_of

_PROTOCOL = {4: "ip", 6: "ip6"}
_BITS = {4: 32, 6: 128}
_LAST_PORT = 65535
_ICMP = {4: "icmp", 6: "icmpv6"}
_UNSAFE_IN_NAMES = re.compile(r"[^0-9A-Za-z_-]")
_UNSAFE_IN_TEXT = re.compile(r"[^0-9A-Za-z_./-]")
_READABLE = 40  # characters of a policy's name in the name of its chain
_TOLD = 80  # characters of a policy's name in comments and logs, which are short
# A rule that everything matches must not fill the log.
_LOG_LIMIT = "limit rate 100/second burst 25 packets"


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a policy's rules are asked: what its chain is called, what Pass leads to.

    `prefix` tells a host endpoint's chains from those of ports.
    """

    direction: Direction
    passed: str
    prefix: str = "policy"

    def chain(self, policy: str) -> str:
        """Return the name of a policy's chain."""
        return f"{self.prefix}.{safe_name(policy)}.{NAMES[self.direction]}"


def port_place(direction: Direction, stage: Stage) -> Place:
    """Return where policies of ports are asked."""
    passed = f"goto {NAMES[direction]}_groups" if stage is Stage.BEFORE else "drop"
    return Place(direction=direction, passed=passed)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sequence:
    """The policies that some ports are subject to in a stage, in order."""

    stage: Stage
    direction: Direction
    policies: tuple[GlobalPolicy, ...]

    @property
    def chain(self) -> str:
        """Return the name of its chain."""
        names = "\n".join(policy.name for policy in self.policies)
        return f"{self.stage.value}.{_digest(names)}.{NAMES[self.direction]}"

    @property
    def map(self) -> str:
        """Return the map that leads its ports here."""
        return f"{NAMES[self.direction]}_{self.stage.value}"


def sequences_of(operator: OperatorWorld, endpoint: Endpoint) -> Iterator[Sequence]:
    """Yield the policies that a port is subject to, by stage and direction.

    After the groups of a port without any, nothing is asked.
    """
    labels = operator.labels_of(endpoint.port)
    for stage in Stage:
        if stage is Stage.AFTER and not endpoint.port_security:
            continue
        for direction in Direction:
            found = in_stage(operator.policies, labels, direction, stage)
            if found:
                yield Sequence(stage=stage, direction=direction, policies=found)


def sequence_section(chain: str, called: tuple[str, ...]) -> Section:
    """Return the chain that calls the chains of policies one after the other."""
    section = Section()
    lines = (FilterRule(f"jump {name}", "the next in order") for name in called)
    section.add(Chain(chain, tuple(lines)))
    return section


def policy_section(policy: GlobalPolicy, place: Place) -> Section:
    """Return a policy's rules of one direction, in their order, as a chain."""
    section = Section()
    lines: list[FilterRule] = []
    for number, rule in enumerate(rules_in(policy, place.direction) or (), 1):
        verdict = _verdict(rule.action, policy.name, place)
        note = f"{number} {told_name(policy.name)}"
        for conditions in _conditions(rule):
            text = " ".join([*conditions, "counter", verdict])
            lines.append(FilterRule(text, note))
        section.remotes |= set(_selected(rule))
    section.add(Chain(place.chain(policy.name), tuple(lines)))
    return section


def safe_name(name: str) -> str:
    """Return what stands for any name in the name of a chain: readable, and its own."""
    return f"{_UNSAFE_IN_NAMES.sub('_', name)[:_READABLE]}-{_digest(name)}"


def told_name(name: str) -> str:
    """Return a name for comments and logs; a long one is cut, but still its own."""
    safe = _UNSAFE_IN_TEXT.sub("_", name)
    if len(safe) <= _TOLD and safe == name:
        return name
    return f"{safe[:_TOLD]}~{_digest(name)[:8]}"


def _digest(text: str) -> str:
    return sha256(text.encode()).hexdigest()[:16]


def _verdict(action: Action, policy: str, place: Place) -> str:
    match action:
        case Action.ALLOW:
            return "accept"
        case Action.DENY:
            return "drop"
        case Action.PASS:
            return place.passed
        case Action.LOG:
            prefix = f"policy/{told_name(policy)}/{NAMES[place.direction]}"
            return f'{_LOG_LIMIT} log prefix "{prefix}" group {LOG_GROUP}'
        case _:
            assert_never(action)


def _selected(rule: OperatorRule) -> Iterator[Selected]:
    for end in (rule.source, rule.destination):
        for selector in (end.selector, end.not_selector):
            if selector is not None:
                yield Selected(selector)


def _conditions(rule: OperatorRule) -> Iterator[list[str]]:
    """Yield conditions of which at most one holds, where the rule matches.

    There are several where a rule is for both families, or a selector's addresses are
    in two sets; none where it can match nothing.
    """
    transport = _transport(rule)
    if transport is None:
        return
    ends = {"saddr": rule.source, "daddr": rule.destination}
    if rule.version is None and not _is_of_family(rule):
        yield transport
        return
    for version in (4, 6):
        if rule.version not in {None, version}:
            continue
        icmp = _icmp(rule, version)
        sides = [_addresses(end, side, version) for side, end in ends.items()]
        if icmp is None:
            continue
        for source, destination in product(*sides):
            yield [
                f"meta nfproto ipv{version}",
                *transport,
                *icmp,
                *source,
                *destination,
            ]


def _is_of_family(rule: OperatorRule) -> bool:
    """Tell whether something of a rule is spelled differently in IPv4 and IPv6."""
    return bool(rule.icmp or rule.not_icmp) or any(
        end.nets is not None or end.not_nets or end.selector or end.not_selector
        for end in (rule.source, rule.destination)
    )


def _transport(rule: OperatorRule) -> list[str] | None:
    """Return what a rule says of protocol and ports; None if nothing has it."""
    texts = []
    if rule.protocol is not None:
        texts.append(f"meta l4proto {rule.protocol}")
    if rule.not_protocol is not None:
        texts.append(f"meta l4proto != {rule.not_protocol}")
    for side, end in (("sport", rule.source), ("dport", rule.destination)):
        some = None if end.ports is None else _port_ranges(end.ports)
        ranges = _remaining(some, _port_ranges(end.not_ports), _LAST_PORT)
        if not ranges:
            return None
        if ranges != [(0, _LAST_PORT)]:
            texts.append(f"th {side} {set_of(_range_text(*each) for each in ranges)}")
    return texts


def _remaining(
    some: Iterable[Range] | None, others: Iterable[Range], last: int
) -> list[Range]:
    """Return what is in some ranges, or in 0 to `last`, and in none of the others.

    The rules of the kernel say nothing by negation: of two that are next to each other
    in a packet, nft (1.0.6) makes one, that the pair is not this pair.
    """
    wanted, excluded = Cover(), Cover()
    for each in some if some is not None else [(0, last)]:
        wanted.add(*each)
    for each in others:
        excluded.add(*each)
    return [part for each in wanted.ranges for part in excluded.missing(*each)]


def _port_ranges(ports: Iterable[PortRange]) -> list[Range]:
    return [(one.first, one.last) for one in ports]


def _range_text(first: int, last: int) -> str:
    return str(first) if first == last else f"{first}-{last}"


def set_of(texts: Iterable[str]) -> str:
    """Return values as an anonymous set."""
    return f"{{ {', '.join(texts)} }}"


def _icmp(rule: OperatorRule, version: int) -> list[str] | None:
    """Return what a rule says of ICMP; None if it is the other family's."""
    if not (rule.icmp or rule.not_icmp):
        return []
    if rule.protocol != ICMP[version]:
        return None
    texts = [_icmp_text(rule.icmp, version, "")] if rule.icmp else []
    return texts + (
        [_icmp_text(rule.not_icmp, version, "!= ")] if rule.not_icmp else []
    )


def _icmp_text(icmp: Icmp, version: int, sign: str) -> str:
    name = _ICMP[version]
    if icmp.code is None:
        return f"{name} type {sign}{icmp.type}"
    return f"{name} type . {name} code {sign}{{ {icmp.type} . {icmp.code} }}"


def _addresses(end: End, side: str, version: int) -> list[list[str]]:
    """Return alternative conditions on one address, that exclude each other.

    None at all where nothing of this version can be meant.
    """
    field = f"{_PROTOCOL[version]} {side}"
    last = (1 << _BITS[version]) - 1
    some = None if end.nets is None else _ranges(end.nets, version)
    ranges = _remaining(some, _ranges(end.not_nets, version), last)
    if not ranges:
        return []
    texts = []
    if ranges != [(0, last)]:
        spans = (_address_range(*each, version) for each in ranges)
        texts.append(f"{field} {set_of(spans)}")
    if end.not_selector is not None:
        names = remote_set_names(Selected(end.not_selector), version)
        texts += [f"{field} != @{name}" for name in names]
    if end.selector is None:
        return [texts]
    singles, networks = remote_set_names(Selected(end.selector), version)
    return [
        [*texts, f"{field} @{singles}"],
        [*texts, f"{field} != @{singles}", f"{field} @{networks}"],
    ]


def _ranges(nets: Iterable[Prefix], version: int) -> list[Range]:
    """Return the nets of a version as ranges of numbers."""
    return [
        (int(net.network_address), int(net.broadcast_address))
        for net in nets
        if net.version == version
    ]


def _address_range(first: int, last: int, version: int) -> str:
    address = IPv4Address if version == 4 else IPv6Address
    ends = sorted({first, last})
    return "-".join(str(address(end)) for end in ends)


def policies_of(
    sequences: Iterable[Sequence],
) -> Mapping[tuple[str, Direction], GlobalPolicy]:
    """Return the policies in sequences, each once, by name and direction."""
    return {
        (policy.name, sequence.direction): policy
        for sequence in sequences
        for policy in sequence.policies
    }


def place_of(policy: GlobalPolicy, direction: Direction) -> Place:
    """Return where a policy of ports is asked."""
    return port_place(direction, stage_of(policy))
