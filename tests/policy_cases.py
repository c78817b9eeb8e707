"""Random groups, and packets aimed at their corners.

A packet drawn at random meets no rule; one drawn from the edge of a rule shows whether
the rule ends where it should.
"""

from dataclasses import dataclass
from ipaddress import IPv4Network, ip_address, ip_network
from random import Random
from typing import Any

from calico.model.groups import Groups
from calico.model.ids import Address, AddressGroupId, GroupId, Prefix
from calico.model.records import (
    ICMP,
    Policy,
    PortRange,
    Remote,
    RemoteAddressGroup,
    RemoteGroup,
    Rule,
)
from calico.policy.evaluate import Direction, Packet, rules_of

NAMES = tuple(GroupId(f"{i:08x}-aaaa-bbbb-cccc-0123456789ab") for i in range(4))
ADDRESS_GROUP = AddressGroupId("0a0a0a0a-aaaa-bbbb-cccc-0123456789ab")
UNKNOWN = NAMES[3]  # a group that nothing is known of
# Those with ports, ICMP, some others, and ICMP of the wrong family.
_PROTOCOLS = (None, 6, 6, 17, 17, 132, 1, 58, 0, 2, 47, 112, 136, 255)
_PORTS = (0, 1, 22, 79, 80, 81, 443, 1023, 1024, 65535)
_ICMP_TYPES = (0, 3, 8, 128, 129, 255)


@dataclass(frozen=True, slots=True)
class Corners:
    """Draws groups whose rules lie close to each other and to `near` addresses."""

    random: Random
    near: dict[int, tuple[Address, ...]]

    def groups(self) -> Groups:
        """Return groups of which three are known, with members and address groups."""
        some = self.random.choice
        return Groups(
            policies={name: self._policy(name) for name in NAMES if name != UNKNOWN},
            members={name: self._prefixes(some((0, 1, 5))) for name in NAMES},
            address_groups={ADDRESS_GROUP: self._prefixes(some((0, 1, 5)))},
        )

    def of_port(self) -> frozenset[GroupId]:
        """Return the groups of a port."""
        return frozenset(self.random.sample(NAMES, self.random.choice((0, 1, 2, 4))))

    def packet(
        self, groups: Groups, names: frozenset[GroupId], direction: Direction
    ) -> tuple[int, dict[str, Any], Address | None]:
        """Return version, transport and far end of a packet at the edge of a rule."""
        rules = [
            rule
            for name in sorted(names)
            for rule in rules_of(groups.policies.get(name), direction)
        ]
        if not rules or self.random.random() < 0.1:
            version = self.random.choice((4, 6))
            return version, self._transport(None, version), None
        rule = self.random.choice(rules)
        return (
            rule.version,
            self._transport(rule, rule.version),
            self._far(groups, rule),
        )

    def _policy(self, name: GroupId) -> Policy:
        return Policy(
            group=name,
            name="",
            ingress=self._rules(name),
            egress=self._rules(name),
            stateful=True,
        )

    def _rules(self, name: GroupId) -> tuple[Rule, ...]:
        number = self.random.choice((0, 1, 2, 3, 8, 20))
        return tuple(self._rule(f"{name[:8]}-{n}") for n in range(number))

    def _rule(self, name: str) -> Rule:
        some = self.random.choice
        version = some((4, 6))
        protocol = some(_PROTOCOLS)
        ports = icmp_type = icmp_code = None
        if protocol in {6, 17, 132} and self.random.random() < 0.8:
            first = some(_PORTS)
            ports = PortRange(
                first=first, last=min(65535, first + some((0, 0, 1, 2, 100, 65535)))
            )
        if protocol == ICMP[version] and self.random.random() < 0.8:
            icmp_type, icmp_code = some(_ICMP_TYPES), some((None, 0, 1, 255))
        return Rule(
            version=version,
            protocol=protocol,
            ports=ports,
            icmp_type=icmp_type,
            icmp_code=icmp_code,
            remote=self._remote(version),
            id=name,
        )

    def _remote(self, version: int) -> Remote | None:
        return self.random.choice(
            (
                None,
                None,
                self._prefix(version),
                self._prefix(version),
                RemoteGroup(self.random.choice(NAMES)),
                RemoteAddressGroup(ADDRESS_GROUP),
            )
        )

    def _prefixes(self, number: int) -> frozenset[Prefix]:
        return frozenset(
            self._prefix(self.random.choice((4, 6))) for _ in range(number)
        )

    def _prefix(self, version: int) -> Prefix:
        address = self.random.choice(self.near[version])
        lengths = (0, 1, 8, 24, 29, 30, 31, 32, 32)
        length = self.random.choice(lengths) + (96 if version == 6 else 0)
        return ip_network((address, length), strict=False)

    def _transport(self, rule: Rule | None, version: int) -> dict[str, Any]:
        """Return a packet's protocol and what goes with it, at the edge of a rule."""
        some = self.random.choice
        protocol = rule.protocol if rule and self.random.random() < 0.9 else None
        if protocol is None:
            protocol = some((6, 17, 132, ICMP[version], 47))
        if protocol in {6, 17, 132}:
            port = some(_PORTS)
            if rule and rule.ports:
                first, last = rule.ports.first, rule.ports.last
                port = some((first - 1, first, last, last + 1))
            return {"protocol": protocol, "port": max(0, min(65535, port))}
        if protocol == ICMP[version]:
            icmp_type, code = some(_ICMP_TYPES), some((0, 1, 255))
            if rule and rule.icmp_type is not None:
                icmp_type = some((rule.icmp_type, rule.icmp_type, icmp_type))
                code = some((rule.icmp_code or 0, code))
            return {"protocol": protocol, "icmp_type": icmp_type, "icmp_code": code}
        return {"protocol": protocol}

    def _far(self, groups: Groups, rule: Rule) -> Address | None:
        """Return an address just inside or outside of what a rule's remote is."""
        if rule.remote is None:
            return None
        prefixes = [
            p for p in groups.prefixes(rule.remote) if p.version == rule.version
        ]
        if not prefixes:
            return None
        prefix = self.random.choice(sorted(prefixes))
        first, last = int(prefix.network_address), int(prefix.broadcast_address)
        number = self.random.choice((first - 1, first, last, last + 1))
        if not 0 <= number < 1 << prefix.max_prefixlen:
            return None
        if isinstance(prefix, IPv4Network):
            return ip_address(number)
        return ip_address(number.to_bytes(16, "big"))


def packet_of(
    transport: dict[str, Any], far: Address, near: Address, direction: Direction
) -> Packet:
    """Return a packet to `near` from `far`, or the other way round."""
    if direction is Direction.INGRESS:
        return Packet(source=far, destination=near, **transport)
    return Packet(source=near, destination=far, **transport)
