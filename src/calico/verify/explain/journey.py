"""A packet's whole way: its host, every router's route, the other host. Pure.

A node's routes are asked for through `Network`, from the node where the packet is to
the one at the other end of the cable, until a port, a node or nothing has it.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol, assert_never

from calico.plan.dns import asked
from calico.plan.items import DHCP_BRIDGE
from calico.policy.evaluate import Direction, Packet
from calico.verify.explain.hops import (
    Hop,
    Outcome,
    RuleName,
    arriving,
    own_traffic,
    proving,
    sending,
    to_host,
)
from calico.verify.explain.picture import End, Picture
from calico.verify.explain.question import Question
from calico.verify.explain.routes import Forwarded, Local, Route, Unroutable

_MOST_NODES = 32  # more is a loop that a packet's TTL would end as well
_TAP = "tap"


@dataclass(frozen=True, slots=True)
class Spot:
    """Where a packet is: the node, and the interface it came in by (None: its own)."""

    node: str
    entry: str | None = None


class Network(Protocol):
    """The nodes and cables between hosts, or the part of them that can be seen."""

    def start(self, source: End) -> Spot | None:
        """Return where a packet begins; None if that cannot be seen."""

    def entry(self, source: End) -> Spot:
        """Return where a packet comes in that began where nothing can be seen."""

    def route(self, spot: Spot, packet: Packet) -> Route:
        """Return what the node's kernel does with the packet."""

    def across(self, node: str, interface: str) -> Spot | None:
        """Return the other end of a cable; None if it cannot be seen."""

    def is_outside(self, node: str) -> bool:
        """Tell whether a node is no part of the cloud."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """The hops, in order, to where the packet is dropped or delivered."""

    question: Question
    hops: tuple[Hop, ...]

    @property
    def allowed(self) -> bool:
        """Return the verdict: no hop denies, as far as they can be seen."""
        return all(hop.outcome is not Outcome.DENIED for hop in self.hops)

    @property
    def complete(self) -> bool:
        """Tell whether all of the way could be seen, or enough of it to deny."""
        seen = all(hop.outcome is not Outcome.UNKNOWN for hop in self.hops)
        return seen or not self.allowed

    @property
    def rule(self) -> RuleName | None:
        """Return the last rule that allowed the packet, or the one that denied it.

        None where no rule did: groups only allow.
        """
        if not self.allowed:
            return self.hops[-1].rule
        rules = [hop.rule for hop in self.hops if hop.rule is not None]
        return rules[-1] if rules else None


def explain(question: Question, picture: Picture, network: Network) -> Explanation:
    """Return what becomes of the packet, and why."""
    hops: list[Hop] = []
    for hop in _journey(question, picture, network):
        hops.append(hop)
        if hop.outcome is Outcome.DENIED:
            break
    return Explanation(question=question, hops=tuple(hops))


def _journey(question: Question, picture: Picture, network: Network) -> Iterator[Hop]:
    source, packet = question.source, question.packet
    spot = network.start(source)
    if spot is None:
        yield Hop(
            node=source.host or "elsewhere",
            what="source",
            outcome=Outcome.UNKNOWN,
            detail=f"what is on the way to this host cannot be seen; {_whose(source)}",
        )
        spot = network.entry(source)
    elif source.host is not None:
        world = picture.world(source.host)
        yield from proving(source, packet, world)
        if not isinstance(network.route(spot, packet), Local):
            yield from sending(source, packet, world)
    yield from _Way(question, picture, network).go(spot)


def _whose(end: End) -> str:
    """Return who decides what cannot be seen from here."""
    routers = "the fabric's routes are its routers' to tell"
    if end.host is None:
        return routers
    return f"{routers}, {end.name}'s policy {end.host}'s: ask there"


@dataclass(frozen=True, slots=True)
class _Way:
    """The part of the way that routes decide."""

    question: Question
    picture: Picture
    network: Network

    def go(self, spot: Spot) -> Iterator[Hop]:
        """Yield a hop for each node from a spot on, and those of the arrival."""
        for _ in range(_MOST_NODES):
            if spot.entry is not None and self.network.is_outside(spot.node):
                yield self._outside(spot)
                return
            route = self.network.route(spot, self.question.packet)
            match route:
                case Unroutable(reason):
                    yield self._hop(spot, "route", Outcome.DENIED, reason + self._why())
                    return
                case Local():
                    yield from self._local(spot)
                    return
                case Forwarded(interface=interface):
                    yield self._hop(spot, "route", Outcome.ROUTED, str(route))
                    if spot.entry is None:
                        yield from self._own(spot, interface, Direction.EGRESS)
                    following = self.network.across(spot.node, interface)
                case _:
                    assert_never(route)
            if following is None:
                yield from self._leaves(spot, interface)
                return
            spot = following
        yield self._hop(spot, "route", Outcome.DENIED, "the routes lead in a circle")

    def _outside(self, spot: Spot) -> Hop:
        """Say of a packet that has left the cloud whether that was right."""
        target = self.question.target
        if target.port is not None:
            detail = "no host announces it, and the default route leads out" + (
                self._why()
            )
            return self._hop(spot, "outside", Outcome.DENIED, detail)
        subnet = self._subnet()
        if subnet:
            detail = f"no port has {target.address}, though it is of subnet {subnet}"
            return self._hop(spot, "outside", Outcome.DENIED, detail)
        detail = f"it leaves the cloud and arrives at {spot.node}'s {spot.entry}"
        return self._hop(spot, "outside", Outcome.DELIVERED, detail)

    def _local(self, spot: Spot) -> Iterator[Hop]:
        if spot.entry is not None and spot.entry.startswith(_TAP):
            addresses = asked(self.picture.world(spot.node))
            port = self.question.source.port
            told = addresses.get(port, ()) if port is not None else ()
            yield to_host(spot.node, self.question.packet, told)
            return
        if spot.entry is not None:
            yield from self._own(spot, spot.entry, Direction.INGRESS)
        detail = f"{self.question.target.address} is {spot.node}'s own"
        yield self._hop(spot, "node itself", Outcome.DELIVERED, detail)

    def _own(self, spot: Spot, interface: str, direction: Direction) -> Iterator[Hop]:
        """Yield what an operator says of a host's own packet at an interface."""
        if not interface.startswith(_TAP):
            world = self.picture.world(spot.node)
            yield from own_traffic(interface, self.question.packet, world, direction)

    def _leaves(self, spot: Spot, interface: str) -> Iterator[Hop]:
        """Yield what follows where no cable does: a port's tap, or the unseen."""
        if interface.startswith(_TAP):
            yield from self._to_tap(spot, interface)
            return
        target = self.question.target
        if interface == DHCP_BRIDGE:
            detail = (
                f"{spot.node} forwards single ports of {target.address}: ask for the "
                "instance and port that one leads to"
            )
            yield self._hop(spot, "port forwarding", Outcome.UNKNOWN, detail)
            return
        detail = f"what is beyond {spot.node}'s {interface} cannot be seen from here"
        detail += f"; {_whose(target)}" if target.host else ""
        yield Hop(
            node=target.host or "elsewhere",
            what="beyond",
            outcome=Outcome.UNKNOWN,
            detail=detail,
        )

    def _to_tap(self, spot: Spot, interface: str) -> Iterator[Hop]:
        target, packet = self.question.target, self.question.packet
        world = self.picture.world(spot.node)
        at = [e for e in world.endpoints if e.interface == interface]
        if not at or target.port not in {None, at[0].port}:
            found = self.picture.label(at[0].port) if at else "no port that is served"
            detail = f"{interface} is {found}{self._why()}"
            yield self._hop(spot, "port", Outcome.DENIED, detail)
            return
        end = self.picture.served(at[0], target.address)
        hops = arriving(end, packet, world)
        if spot.entry is None:  # the filter's `output` chain
            yield next(hops)
            detail = "a host may reach its own instances, whatever their groups"
            yield self._hop(spot, "host itself", Outcome.ALLOWED, detail)
            return
        yield from hops

    def _why(self) -> str:
        """Return what is known of a port to which no route leads."""
        target = self.question.target
        return f"; {target.name}: {target.problem}" if target.problem else ""

    def _subnet(self) -> str:
        address = self.question.target.address
        worlds = {e.host for e in self.picture.endpoints.values()}
        for host in sorted(worlds)[:1]:  # all hosts see all subnets
            for subnet in self.picture.world(host).subnets.values():
                if address in subnet.prefix:
                    return str(subnet.prefix)
        return ""

    def _hop(self, spot: Spot, what: str, outcome: Outcome, detail: str) -> Hop:
        return Hop(node=spot.node, what=what, outcome=outcome, detail=detail)
