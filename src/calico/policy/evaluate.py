"""The judge: what security groups say of a packet, slow and obvious.

The meaning of policy is here and nowhere else. The compiler, the kernel and every
explanation are tested against it.
"""

import enum
from collections.abc import Iterable
from dataclasses import dataclass

from calico.model.groups import Groups
from calico.model.ids import Address, GroupId
from calico.model.records import (
    ICMP,
    PORT_PROTOCOLS,
    Policy,
    Remote,
    Rule,
)


class Direction(enum.Enum):
    """Into the port, or out of it, as Neutron spells it."""

    INGRESS = "ingress"
    EGRESS = "egress"


@dataclass(frozen=True, slots=True, kw_only=True)
class Packet:
    """The first packet of a flow, as policy sees it.

    `port` is the destination port, of TCP, UDP and SCTP only, `source_port` the other
    if it is known; `icmp_type` and `icmp_code` are of ICMP and ICMPv6 only.
    """

    source: Address
    destination: Address
    protocol: int
    port: int | None = None
    icmp_type: int | None = None
    icmp_code: int | None = None
    source_port: int | None = None

    @property
    def version(self) -> int:
        """Return the IP version."""
        return self.source.version

    def remote(self, direction: Direction) -> Address:
        """Return the far end's address, seen from the port that is asked about."""
        return self.source if direction is Direction.INGRESS else self.destination

    def near(self, direction: Direction) -> Address:
        """Return the address of the port that is asked about."""
        return self.destination if direction is Direction.INGRESS else self.source


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """Whether a packet may pass, and by which rule of which group if it may."""

    allowed: bool
    group: GroupId | None = None
    rule: Rule | None = None


DENIED = Verdict(allowed=False)


def evaluate(
    groups: Groups, of_port: Iterable[GroupId], direction: Direction, packet: Packet
) -> Verdict:
    """Return what a port's groups say of a packet to it or from it.

    Rules only allow; a packet that none allows is denied (Neutron API, security
    groups; S16). The first rule in the order of group and rule ids is the one named.
    """
    for group in sorted(of_port):
        for rule in rules_of(groups.policies.get(group), direction):
            if matches(groups, rule, direction, packet):
                return Verdict(allowed=True, group=group, rule=rule)
    return DENIED


def rules_of(policy: Policy | None, direction: Direction) -> tuple[Rule, ...]:
    """Return a group's rules of one direction; none for a group that is unknown."""
    if policy is None:
        return ()
    return policy.ingress if direction is Direction.INGRESS else policy.egress


def matches(groups: Groups, rule: Rule, direction: Direction, packet: Packet) -> bool:
    """Tell whether one rule allows a packet."""
    remote = packet.remote(direction)
    return says_of_transport(rule, packet) and (
        rule.remote is None or _is_among(groups, rule.remote, remote)
    )


def says_of_transport(rule: Rule, packet: Packet) -> bool:
    """Tell whether a rule allows a packet, whoever its remote is."""
    return (
        rule.version == packet.version
        and rule.protocol in {None, packet.protocol}
        and _ports_match(rule, packet)
        and _icmp_matches(rule, packet)
    )


def _ports_match(rule: Rule, packet: Packet) -> bool:
    if rule.ports is None:
        return True
    return (
        packet.protocol in PORT_PROTOCOLS
        and packet.port is not None
        and rule.ports.first <= packet.port <= rule.ports.last
    )


def _icmp_matches(rule: Rule, packet: Packet) -> bool:
    if rule.icmp_type is None:
        return True
    return (
        packet.protocol == ICMP[packet.version]
        and packet.icmp_type == rule.icmp_type
        and rule.icmp_code in {None, packet.icmp_code}
    )


def _is_among(groups: Groups, remote: Remote, address: Address) -> bool:
    return any(address in prefix for prefix in groups.prefixes(remote))
