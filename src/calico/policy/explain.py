"""Why a port's groups allow a packet or deny it, in words. Pure.

The verdict is the judge's (`policy.evaluate`); here it gets a sentence that names rule
and group, and for a packet that is denied the rules that come nearest: what an operator
looks for is mostly a rule that has the port right and the remote wrong.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network

from calico.model.groups import Groups
from calico.model.ids import GroupId
from calico.model.operator import Action
from calico.model.policy_codec import PROTOCOLS
from calico.model.records import RemoteAddressGroup, RemoteGroup, Rule
from calico.policy.evaluate import (
    Direction,
    Packet,
    Verdict,
    evaluate,
    rules_of,
    says_of_transport,
)
from calico.policy.operator import Decision

_NEAR_MISSES = 3  # more would hide the sentence
_FAR = {Direction.INGRESS: "from", Direction.EGRESS: "to"}
_PROTOCOL_NAMES = {number: name for name, number in PROTOCOLS.items()}
Names = Mapping[GroupId, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Ruling:
    """What a port's groups say of a packet, and the sentence that explains it."""

    verdict: Verdict
    direction: Direction
    text: str


def rule_on(
    groups: Groups,
    of_port: Iterable[GroupId],
    direction: Direction,
    packet: Packet,
    names: Names | None = None,
) -> Ruling:
    """Return what a port's groups say of a packet to it or from it, and why.

    `names` are those of groups whose policies are not known.
    """
    speech = _Speech(groups, names or {})
    of_port = frozenset(of_port)
    verdict = evaluate(groups, of_port, direction, packet)
    if verdict.group is not None and verdict.rule is not None:
        text = speech.rule(verdict.group, verdict.rule, direction)
    else:
        text = speech.denial(of_port, direction, packet)
    return Ruling(verdict=verdict, direction=direction, text=text)


def decision_words(decision: Decision) -> str:
    """Return what an operator's rule decided, and which rule it is."""
    rule = f"policy {decision.policy}, {decision.direction.value} rule"
    words = f"{rule} {decision.number}"
    match decision.action:
        case Action.ALLOW:
            return f"allowed by {words}"
        case Action.DENY:
            return f"denied by {words}"
        case _:
            return f"{words} passes it on, and nothing that follows allows it"


def packet_words(packet: Packet) -> str:
    """Return what a packet is, without its addresses: `IPv4 TCP to port 80`."""
    words = f"IPv{packet.version} {protocol_name(packet.protocol)}"
    if packet.port is not None:
        words += f" to port {packet.port}"
    if packet.icmp_type is not None:
        words += f" type {packet.icmp_type} code {packet.icmp_code}"
    return words


def protocol_name(number: int) -> str:
    """Return what people call an IP protocol."""
    return _PROTOCOL_NAMES.get(number, f"protocol {number}")


def printable(text: str) -> str:
    """Return a name that a tenant chose as a terminal can show it safely."""
    return text if text.isprintable() else repr(text)


@dataclass(frozen=True, slots=True)
class _Speech:
    """The words for groups and rules, names looked up."""

    groups: Groups
    names: Names

    def group(self, group: GroupId) -> str:
        policy = self.groups.policies.get(group)
        name = policy.name if policy else self.names.get(group, "")
        return f"{printable(name)} ({group})" if name else str(group)

    def rule(self, group: GroupId, rule: Rule, direction: Direction) -> str:
        allows = self._allows(rule, direction)
        return f"rule {rule.id or '-'} of group {self.group(group)}: {allows}"

    def denial(
        self, of_port: frozenset[GroupId], direction: Direction, packet: Packet
    ) -> str:
        if not of_port:
            return "the port has no security group, so nothing is allowed"
        groups = ", ".join(map(self.group, sorted(of_port)))
        far = f"{_FAR[direction]} {packet.remote(direction)}"
        text = f"no {direction.value} rule of {groups} allows {packet_words(packet)} "
        text += far
        unknown = sorted(of_port - self.groups.policies.keys())
        if unknown:
            text += f"; nothing usable is stored of group {', '.join(unknown)}"
        near = list(self._near_misses(of_port, direction, packet))
        for group, rule in near[:_NEAR_MISSES]:
            text += f"; near: {self.rule(group, rule, direction)}"
        return text

    def _near_misses(
        self, of_port: Iterable[GroupId], direction: Direction, packet: Packet
    ) -> Iterator[tuple[GroupId, Rule]]:
        """Yield rules that would allow the packet if its far end were another."""
        for group in sorted(of_port):
            for rule in rules_of(self.groups.policies.get(group), direction):
                if says_of_transport(rule, packet):
                    yield group, rule

    def _allows(self, rule: Rule, direction: Direction) -> str:
        words = f"IPv{rule.version} "
        any_protocol = rule.protocol is None
        words += "any protocol" if any_protocol else protocol_name(rule.protocol or 0)
        if rule.ports is not None:
            first, last = rule.ports.first, rule.ports.last
            words += f" port {first}" if first == last else f" ports {first}-{last}"
        if rule.icmp_type is not None:
            words += f" type {rule.icmp_type}"
            words += "" if rule.icmp_code is None else f" code {rule.icmp_code}"
        return f"{words} {_FAR[direction]} {self._remote(rule)}"

    def _remote(self, rule: Rule) -> str:
        match rule.remote:
            case None:
                return "anywhere"
            case RemoteGroup(group=group):
                members = self.groups.prefixes(rule.remote)
                count = sum(m.version == rule.version for m in members)
                plural = "" if count == 1 else "es"
                return f"members of {self.group(group)}, {count} address{plural}"
            case RemoteAddressGroup(address_group=address_group):
                return f"address group {address_group}"
            case IPv4Network() | IPv6Network():
                return str(rule.remote)
