"""Which connections that were allowed once are allowed still (P7, S16).

A connection is judged by its first packet, with every port of this host that is at one
of its ends. As many are asked about at once, remotes are looked up in sets; what is
answered is what the judges say (`policy.evaluate`, `policy.operator`).
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network

from calico.model.groups import Groups
from calico.model.ids import Address, GroupId, PortId, Prefix, is_single
from calico.model.operator import Action, GlobalPolicy
from calico.model.operator_world import NO_OPERATOR, OperatorWorld
from calico.model.records import Endpoint, Remote, RemoteAddressGroup, RemoteGroup
from calico.model.selectors import Selector
from calico.policy.evaluate import Direction, Packet, rules_of, says_of_transport
from calico.policy.operator import Stage, decide, in_stage


@dataclass(frozen=True, slots=True)
class _Prefixes:
    """Prefixes, the single addresses apart."""

    singles: frozenset[Address]
    networks: tuple[Prefix, ...]

    def hold(self, address: Address) -> bool:
        return address in self.singles or any(address in n for n in self.networks)


_Subject = tuple[PortId, Direction, Stage]


class Connections:
    """The judge of connections of a host that serves `endpoints`."""

    def __init__(
        self,
        endpoints: Iterable[Endpoint],
        groups: Groups,
        operator: OperatorWorld = NO_OPERATOR,
    ) -> None:
        self._groups = groups
        self._operator = operator
        self._remotes: dict[Remote | Selector, _Prefixes] = {}
        self._stages: dict[_Subject, tuple[GlobalPolicy, ...]] = {}
        self._at: dict[Address, list[Endpoint]] = defaultdict(list)
        self._within: list[tuple[Prefix, Endpoint]] = []
        for endpoint in endpoints:
            for address in endpoint.addresses:
                self._at[address].append(endpoint)
            for pair in endpoint.pairs:
                if is_single(pair.prefix):
                    self._at[pair.prefix.network_address].append(endpoint)
                else:
                    self._within.append((pair.prefix, endpoint))

    def concern(self, address: Address) -> bool:
        """Tell whether an address is of one of the host's ports."""
        return address in self._at or any(address in p for p, _ in self._within)

    def allow(self, packet: Packet) -> bool:
        """Tell whether a connection that began with this packet may go on.

        Of several ports with one address, one that allows it is enough: which of them
        has the connection is not known.
        """
        return self._at_end(packet, Direction.EGRESS) and self._at_end(
            packet, Direction.INGRESS
        )

    def _at_end(self, packet: Packet, direction: Direction) -> bool:
        near = packet.near(direction)
        ports = list(self._ports(near))
        return not ports or any(self._port(e, direction, packet) for e in ports)

    def _ports(self, address: Address) -> Iterator[Endpoint]:
        yield from self._at.get(address, ())
        yield from (e for prefix, e in self._within if address in prefix)

    def _port(self, endpoint: Endpoint, direction: Direction, packet: Packet) -> bool:
        first = self._stage(endpoint, direction, Stage.BEFORE, packet)
        if first in {Action.ALLOW, Action.DENY}:
            return first is Action.ALLOW
        if not endpoint.port_security:
            return True
        if any(self._group(group, direction, packet) for group in endpoint.groups):
            return True
        return self._stage(endpoint, direction, Stage.AFTER, packet) is Action.ALLOW

    def _stage(
        self, endpoint: Endpoint, direction: Direction, stage: Stage, packet: Packet
    ) -> Action | None:
        subject = (endpoint.port, direction, stage)
        policies = self._stages.get(subject)
        if policies is None:
            labels = self._operator.labels_of(endpoint.port)
            policies = in_stage(self._operator.policies, labels, direction, stage)
            self._stages[subject] = policies
        decided = decide(policies, direction, packet, self._selects)
        return decided.action if decided else None

    def _selects(self, selector: Selector, address: Address) -> bool:
        return self._prefixes(selector).hold(address)

    def _group(self, group: GroupId, direction: Direction, packet: Packet) -> bool:
        remote = packet.remote(direction)
        return any(
            says_of_transport(rule, packet)
            and (rule.remote is None or self._prefixes(rule.remote).hold(remote))
            for rule in rules_of(self._groups.policies.get(group), direction)
        )

    def _prefixes(self, named: Remote | Selector) -> _Prefixes:
        known = self._remotes.get(named)
        if known is None:
            match named:
                case (
                    IPv4Network() | IPv6Network() | RemoteGroup() | RemoteAddressGroup()
                ):
                    prefixes = self._groups.prefixes(named)
                case selector:
                    prefixes = self._operator.prefixes(selector, self._groups)
            known = self._remotes[named] = _Prefixes(
                frozenset(p.network_address for p in prefixes if is_single(p)),
                tuple(p for p in prefixes if not is_single(p)),
            )
        return known
