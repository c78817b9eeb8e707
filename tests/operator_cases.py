"""Random policies of an operator, and packets aimed at the edges of their rules."""

from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Network, ip_address, ip_network
from random import Random
from typing import Any

from calico.model.ids import Address, Prefix
from calico.model.operator import Action, End, GlobalPolicy, Icmp, OperatorRule
from calico.model.operator_world import Labels, OperatorWorld, Selectable
from calico.model.records import ICMP, PORT_PROTOCOLS, PortRange
from calico.model.selectors import (
    EVERYTHING,
    Compare,
    Comparison,
    Has,
    Not,
    Selector,
)
from calico.policy.evaluate import Direction, Packet
from calico.policy.operator import rules_in

_PORTS = (0, 1, 79, 80, 81, 1024, 65535)
_ICMP_TYPES = (0, 8, 13, 128, 135, 139)
_KINDS = ("web", "db", "none")
_SELECTORS: tuple[Selector, ...] = (
    EVERYTHING,
    Has("kind"),
    Not(Has("kind")),
    *(Compare("kind", Comparison.EQUAL, kind) for kind in _KINDS),
)


def _policy(name: str, order: float | None, *actions: Action) -> GlobalPolicy:
    rules = tuple(OperatorRule(action=action) for action in actions)
    return GlobalPolicy(name=name, order=order, ingress=rules, egress=rules)


# Passed on, a packet must meet none of what follows in the same stage.
PASSING = (
    _policy("one", 1, Action.PASS, Action.DENY),
    _policy("two", 2, Action.DENY),
    _policy("last", None, Action.ALLOW),
)


@dataclass(frozen=True, slots=True)
class OperatorCorners:
    """Draws policies whose rules lie close to each other and to `near` addresses."""

    random: Random
    near: dict[int, tuple[Address, ...]]

    def policies(self) -> tuple[GlobalPolicy, ...]:
        """Return policies of both stages, some with the same order."""
        if self.random.random() < 0.1:
            return PASSING
        return tuple(
            GlobalPolicy(
                name=f"policy.{number}",
                order=self.random.choice((None, None, -1.5, 1, 1, 1, 2)),
                selector=self.random.choice(_SELECTORS),
                ingress=self._rules(),
                egress=self._rules(),
            )
            for number in range(self.random.choice((1, 3, 5)))
        )

    def labels(self) -> Labels:
        """Return the labels of something."""
        kind = self.random.choice((None, *_KINDS[:2]))
        return {"kind": kind} if kind else {}

    def selectable(self) -> tuple[Selectable, ...]:
        """Return what selectors may select: a few things of a few addresses."""
        return tuple(
            Selectable(self.labels(), tuple(self._prefixes(None)))
            for _ in range(self.random.choice((0, 1, 4)))
        )

    def packet(
        self, operator: OperatorWorld, direction: Direction, own: Iterable[Address]
    ) -> Packet:
        """Return a packet at the edge of a rule."""
        some = self.random.choice
        rules = [r for p in operator.policies for r in rules_in(p, direction) or ()]
        rule = some(rules) if rules else OperatorRule(action=Action.DENY)
        version = rule.version or some((4, 6))
        near = next(a for a in own if a.version == version)
        ingress = direction is Direction.INGRESS
        far = self._far(operator, rule.source if ingress else rule.destination, version)
        source, destination = (far, near) if ingress else (near, far)
        return Packet(
            source=source, destination=destination, **self._transport(rule, version)
        )

    def _rules(self) -> tuple[OperatorRule, ...] | None:
        number = self.random.choice((None, 0, 1, 2, 3, 6))
        return None if number is None else tuple(self._rule() for _ in range(number))

    def _rule(self) -> OperatorRule:
        some = self.random.choice
        version = some((None, None, 4, 6))
        protocol = some((None, 6, 6, 17, 132, 1, 58, 47))
        if version is not None and protocol in ICMP.values():
            protocol = ICMP[version]
        icmp = not_icmp = None
        if protocol in ICMP.values():
            icmp = some((None, None, self._icmp()))
            not_icmp = some((None, None, self._icmp()))
        return OperatorRule(
            action=some((*Action, Action.PASS, Action.ALLOW, Action.DENY)),
            version=version,
            protocol=protocol,
            not_protocol=some((None, None, None, 6, 17, 1)),
            icmp=icmp,
            not_icmp=not_icmp,
            source=self._end(version, protocol),
            destination=self._end(version, protocol),
        )

    def _icmp(self) -> Icmp:
        return Icmp(
            type=self.random.choice(_ICMP_TYPES), code=self.random.choice((None, 0, 1))
        )

    def _end(self, version: int | None, protocol: int | None) -> End:
        ports: dict[str, Any] = {}
        if protocol in PORT_PROTOCOLS:
            ports = {
                "ports": self._sometimes(self._ports(), None),
                "not_ports": self._sometimes(self._ports(), ()),
            }
        return End(
            nets=self._sometimes(self._prefixes(version), None),
            not_nets=self._sometimes(self._prefixes(version), ()),
            selector=self._sometimes(self.random.choice(_SELECTORS), None),
            not_selector=self._sometimes(self.random.choice(_SELECTORS), None),
            **ports,
        )

    def _sometimes(self, value: Any, otherwise: Any) -> Any:
        return value if self.random.random() < 0.2 else otherwise

    def _ports(self) -> tuple[PortRange, ...]:
        some = self.random.choice
        firsts = [some(_PORTS) for _ in range(some((1, 1, 3)))]
        return tuple(
            PortRange(first=first, last=min(65535, first + some((0, 0, 1, 2, 65535))))
            for first in firsts
        )

    def _prefixes(self, version: int | None) -> tuple[Prefix, ...]:
        return tuple(
            self._prefix(version or self.random.choice((4, 6)))
            for _ in range(self.random.choice((1, 1, 2, 4)))
        )

    def _prefix(self, version: int) -> Prefix:
        address = self.random.choice(self.near[version])
        length = self.random.choice((0, 8, 24, 29, 30, 31, 32, 32, 32))
        length += 96 if version == 6 and length else 0
        return ip_network((address, length), strict=False)

    def _far(self, operator: OperatorWorld, end: End, version: int) -> Address:
        """Return an address just inside or outside of what one end of a rule says."""
        prefixes = [*(end.nets or ()), *end.not_nets]
        if end.selector or end.not_selector:
            prefixes += [p for one in operator.selectable for p in one.prefixes]
        prefixes = [p for p in prefixes if p.version == version]
        if not prefixes or self.random.random() < 0.3:
            return self.random.choice(self.near[version])
        prefix = self.random.choice(prefixes)
        first, last = int(prefix.network_address), int(prefix.broadcast_address)
        number = self.random.choice((first - 1, first, last, last + 1))
        number = min(max(number, 0), (1 << prefix.max_prefixlen) - 1)
        if isinstance(prefix, IPv4Network):
            return ip_address(number)
        return ip_address(number.to_bytes(16, "big"))

    def _transport(self, rule: OperatorRule, version: int) -> dict[str, Any]:
        some = self.random.choice
        protocol = rule.protocol if self.random.random() < 0.9 else None
        if protocol is None:
            protocol = some((rule.not_protocol or 6, 6, 17, 132, ICMP[version], 47))
        if protocol in PORT_PROTOCOLS:
            return {
                "protocol": protocol,
                "source_port": self._port(rule.source),
                "port": self._port(rule.destination),
            }
        if protocol == ICMP[version]:
            known = rule.icmp or rule.not_icmp or self._icmp()
            return {
                "protocol": protocol,
                "icmp_type": some((known.type, known.type, some(_ICMP_TYPES))),
                "icmp_code": some((known.code or 0, 0, 1)),
            }
        return {"protocol": protocol}

    def _port(self, end: End) -> int:
        ranges = [*(end.ports or ()), *end.not_ports]
        if not ranges:
            return self.random.choice(_PORTS)
        one = self.random.choice(ranges)
        port = self.random.choice((one.first - 1, one.first, one.last, one.last + 1))
        return min(max(port, 0), 65535)
