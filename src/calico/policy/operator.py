"""The judge of an operator's policies: what they say of a packet, slow and obvious.

They frame the tenants' groups: those with an order are asked before, those without
after. They are asked about the first packet of a connection only. The compiler and the
kernel are tested against this.
"""

import enum
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from calico.model.groups import Groups
from calico.model.ids import Address
from calico.model.operator import (
    Action,
    End,
    Failsafe,
    GlobalPolicy,
    HostEndpoint,
    Icmp,
    OperatorRule,
)
from calico.model.operator_world import Labels, OperatorWorld
from calico.model.records import ICMP, Endpoint, PortRange
from calico.model.selectors import Selector
from calico.policy.evaluate import Direction, Packet, Verdict, evaluate

# Of ICMPv6: MLD, router and neighbour solicitations and advertisements.
_OF_THE_LINK = frozenset({*range(130, 137), 143})

Selects = Callable[[Selector, Address], bool]
"""Tells whether an address is of something that a selector selects."""


class Stage(enum.Enum):
    """When policies are asked: before the tenants' groups, or after them."""

    BEFORE = "before"
    AFTER = "after"


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """The rule of a policy that ended a stage; rules are numbered from 1."""

    policy: str
    direction: Direction
    number: int
    action: Action


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """Whether an end lets a packet pass, and who said so.

    `by` is the operator's rule that decided, `groups` what the tenants' groups said
    where they were asked. With neither, it is what holds where nobody decides.
    """

    allowed: bool
    by: Decision | None = None
    groups: Verdict | None = None


def judge_port(
    operator: OperatorWorld,
    groups: Groups,
    endpoint: Endpoint,
    direction: Direction,
    packet: Packet,
) -> Judgement:
    """Return what is said of a packet to a port or from it.

    Without port security there are no groups, and what the operator does not deny
    before them is allowed.
    """
    selects = selecting(operator, groups)
    labels = operator.labels_of(endpoint.port)
    before = in_stage(operator.policies, labels, direction, Stage.BEFORE)
    decided = decide(before, direction, packet, selects)
    if decided is not None and decided.action is not Action.PASS:
        return Judgement(allowed=decided.action is Action.ALLOW, by=decided)
    if not endpoint.port_security:
        return Judgement(allowed=True)
    verdict = evaluate(groups, endpoint.groups, direction, packet)
    if verdict.allowed:
        return Judgement(allowed=True, groups=verdict)
    after = in_stage(operator.policies, labels, direction, Stage.AFTER)
    decided = decide(after, direction, packet, selects)
    allowed = decided is not None and decided.action is Action.ALLOW
    return Judgement(allowed=allowed, by=decided, groups=verdict)


def judge_host(
    operator: OperatorWorld,
    groups: Groups,
    endpoint: HostEndpoint,
    direction: Direction,
    packet: Packet,
) -> Judgement:
    """Return what is said of a packet to the host itself or from it."""
    if exemption(operator.failsafe, direction, packet):
        return Judgement(allowed=True)
    selects = selecting(operator, groups)
    speaking = False
    decided = None
    for stage in Stage:
        policies = in_stage(operator.policies, endpoint.labels, direction, stage)
        speaking = speaking or bool(policies)
        decided = decide(policies, direction, packet, selects)
        if decided is not None and decided.action is not Action.PASS:
            return Judgement(allowed=decided.action is Action.ALLOW, by=decided)
    return Judgement(allowed=endpoint.default_allow and not speaking, by=decided)


def guarding(endpoints: Iterable[HostEndpoint], interface: str) -> HostEndpoint | None:
    """Return the host endpoint that is asked about an interface's traffic, if any.

    One for the interface goes before one for all; of several the first by name.
    """
    found = [e for e in endpoints if e.interface in {None, interface}]
    return min(found, key=lambda e: (e.interface is None, e.name), default=None)


def exemption(failsafe: Failsafe, direction: Direction, packet: Packet) -> str:
    """Return why no policy is asked about a host's own packet; empty if they are."""
    inbound = direction is Direction.INGRESS
    for open_port in failsafe.inbound if inbound else failsafe.outbound:
        if (
            open_port.protocol == packet.protocol
            and open_port.port == packet.port
            and (open_port.net is None or packet.remote(direction) in open_port.net)
        ):
            return "a failsafe port"
    if packet.version == 6 and _is_icmp(packet) and packet.icmp_type in _OF_THE_LINK:
        return "neighbours, routers and groups of the link"
    return ""


def in_stage(
    policies: Iterable[GlobalPolicy], labels: Labels, direction: Direction, stage: Stage
) -> tuple[GlobalPolicy, ...]:
    """Return the policies that something with these labels is subject to, in order."""
    found = [
        policy
        for policy in policies
        if stage_of(policy) is stage
        and rules_in(policy, direction) is not None
        and policy.selector.matches(labels)
    ]
    return tuple(sorted(found, key=lambda p: (p.order or 0, p.name)))


def stage_of(policy: GlobalPolicy) -> Stage:
    """Return the stage that a policy is of."""
    return Stage.AFTER if policy.order is None else Stage.BEFORE


def rules_in(
    policy: GlobalPolicy, direction: Direction
) -> tuple[OperatorRule, ...] | None:
    """Return a policy's rules of a direction; None if it says nothing of it."""
    return policy.ingress if direction is Direction.INGRESS else policy.egress


def decide(
    policies: Iterable[GlobalPolicy],
    direction: Direction,
    packet: Packet,
    selects: Selects,
) -> Decision | None:
    """Return the first rule that decides or passes; None if none does."""
    for policy in policies:
        for number, rule in enumerate(rules_in(policy, direction) or (), 1):
            if rule.action is not Action.LOG and matches(rule, packet, selects):
                return Decision(
                    policy=policy.name,
                    direction=direction,
                    number=number,
                    action=rule.action,
                )
    return None


def selecting(operator: OperatorWorld, groups: Groups) -> Selects:
    """Return what tells whose an address is."""

    def selects(selector: Selector, address: Address) -> bool:
        return any(address in p for p in operator.prefixes(selector, groups))

    return selects


def matches(rule: OperatorRule, packet: Packet, selects: Selects) -> bool:
    """Tell whether a rule is about a packet: all that it says must hold."""
    return (
        rule.version in {None, packet.version}
        and rule.protocol in {None, packet.protocol}
        and (rule.not_protocol is None or rule.not_protocol != packet.protocol)
        and (rule.icmp is None or _is(rule.icmp, packet))
        and (rule.not_icmp is None or _is_other(rule.not_icmp, packet))
        and _at(rule.source, packet.source, packet.source_port, selects)
        and _at(rule.destination, packet.destination, packet.port, selects)
    )


def _at(end: End, address: Address, port: int | None, selects: Selects) -> bool:
    """Tell whether an end of a packet is what a rule says; None is an unknown port.

    A port that is not known is in no list.
    """
    return (
        (end.nets is None or any(address in net for net in end.nets))
        and not any(address in net for net in end.not_nets)
        and (end.selector is None or selects(end.selector, address))
        and (end.not_selector is None or not selects(end.not_selector, address))
        and (end.ports is None or _is_in(port, end.ports))
        and not _is_in(port, end.not_ports)
    )


def _is_in(port: int | None, ranges: Iterable[PortRange]) -> bool:
    return port is not None and any(one.first <= port <= one.last for one in ranges)


def _is_icmp(packet: Packet) -> bool:
    return packet.protocol == ICMP[packet.version]


def _is(icmp: Icmp, packet: Packet) -> bool:
    return (
        _is_icmp(packet)
        and packet.icmp_type == icmp.type
        and icmp.code in {None, packet.icmp_code}
    )


def _is_other(icmp: Icmp, packet: Packet) -> bool:
    return _is_icmp(packet) and not _is(icmp, packet)
