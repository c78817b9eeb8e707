"""What a host does to a packet of one of its ports, step by step. Pure.

Each step is a Hop; the first that denies is where the packet ends. The order is the
filter's (`plan.ruleset`): whose packet it is, its sender's policy, then its receiver's.
"""

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from enum import StrEnum
from ipaddress import IPv4Network, ip_network

from calico.model.ids import Address, GroupId, Prefix
from calico.model.records import ICMP, Endpoint
from calico.model.world import World
from calico.plan.antispoof import sources
from calico.plan.policy import stateless_groups
from calico.policy.evaluate import Direction, Packet
from calico.policy.explain import decision_words, packet_words, rule_on
from calico.policy.operator import (
    Decision,
    exemption,
    guarding,
    judge_host,
    judge_port,
)
from calico.verify.explain.picture import End

# Other types begin no connection, and a tracker takes them for strays.
_BEGINS = {4: frozenset({8, 13, 15, 17}), 6: frozenset({128, 139})}
_UNTRACKED = frozenset({*range(130, 137), 143})  # of ICMPv6: ND and MLD
_FROM_ROUTERS = frozenset({134, 137})  # of ICMPv6: router advertisement, redirect
_DNS, _DOMAIN = frozenset({6, 17}), 53
_TAKES = (
    "a host takes DHCP, neighbour discovery, ping and what is asked of its services"
    " only"
)
_LINK_LOCAL = tuple(map(ip_network, ("169.254.0.0/16", "fe80::/10")))


class Outcome(StrEnum):
    """What becomes of the packet; UNKNOWN is what others have to tell."""

    ALLOWED = "allowed"
    DENIED = "denied"
    ROUTED = "routed"
    DELIVERED = "delivered"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True, kw_only=True)
class RuleName:
    """A rule that decided on a packet: of a group, or of an operator's policy.

    Groups' rules have ids, those of a policy are numbered from 1.
    """

    id: str | None
    group: GroupId | None = None
    policy: str | None = None
    direction: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Hop:
    """One step of a packet's way: where, at what, with which outcome, and why."""

    node: str
    what: str
    outcome: Outcome
    detail: str
    rule: RuleName | None = None


def proving(end: End, packet: Packet, world: World) -> Iterator[Hop]:
    """Yield what the sender's host does to whatever comes from its port."""
    yield _served(end)
    if end.endpoint is None:
        return
    passes, why = _source(end.endpoint, packet)
    yield _hop(world, "source address", passes=passes, why=why)
    why = _refused_destination(end.endpoint, packet, world)
    if why:
        yield _hop(world, "destination address", passes=False, why=why)


def sending(end: End, packet: Packet, world: World) -> Iterator[Hop]:
    """Yield what the sender's host does to what it is to forward."""
    if end.endpoint is None:
        return
    yield from _policy(end.endpoint, packet, world, Direction.EGRESS)
    if any(packet.destination in prefix for prefix in _LINK_LOCAL):
        why = f"{packet.destination} is of one link, and never forwarded"
        yield _hop(world, "destination address", passes=False, why=why)


def arriving(end: End, packet: Packet, world: World) -> Iterator[Hop]:
    """Yield what the receiver's host does, after the route to the port's tap."""
    yield _served(end)
    if end.endpoint is None:
        return
    yield from _policy(end.endpoint, packet, world, Direction.INGRESS)
    prefix = _only_within(end.endpoint, packet)
    if prefix is not None:
        yield Hop(
            node=world.host,
            what="neighbour",
            outcome=Outcome.UNKNOWN,
            detail=f"{packet.destination} is within the allowed address pair {prefix}: "
            "the instance answers for it, or not",
        )


def _only_within(endpoint: Endpoint, packet: Packet) -> Prefix | None:
    """Return the pair's network that a destination is in, if it is nothing better.

    Single addresses are permanent neighbours; for those within a network the host has
    to ask the instance.
    """
    address = packet.destination
    held = [pair.prefix for pair in endpoint.pairs if address in pair.prefix]
    single = any(prefix.prefixlen == prefix.max_prefixlen for prefix in held)
    if address in endpoint.addresses or single or not held:
        return None
    return held[0]


def to_host(node: str, packet: Packet, asked: Collection[Address]) -> Hop:
    """Return what a host does with an instance's packet to itself.

    `asked` are the addresses at which the instance may ask it for names.
    """
    echo = packet.protocol == ICMP[packet.version] and packet.icmp_type in {8, 128}
    query = packet.protocol in _DNS and packet.port == _DOMAIN
    outcome, detail = Outcome.DELIVERED, _TAKES
    if echo:
        detail = "a host answers its instances' pings"
    elif query and packet.destination in asked:
        detail = "the instance was told to ask its host for names"
    else:
        outcome = Outcome.DENIED
    return Hop(
        node=node,
        what="host itself",
        outcome=outcome,
        detail=detail,
    )


def _served(end: End) -> Hop:
    endpoint = end.endpoint
    if end.problem or endpoint is None:
        detail = f"{end.name} is cut off: {end.problem}"
    else:
        port = f"port {endpoint.port}"
        detail = port if end.name == port else f"{end.name} is {port}"
        detail += f" at {endpoint.interface}, up"
    return Hop(
        node=end.host or "",
        what="port",
        outcome=Outcome.DENIED if end.problem else Outcome.ALLOWED,
        detail=detail,
    )


def _source(endpoint: Endpoint, packet: Packet) -> tuple[bool, str]:
    if not endpoint.port_security:
        return True, "port security is off: any source may be used"
    if packet.source in endpoint.addresses:
        return True, f"{packet.source} is a fixed address of the port"
    for mac, prefixes in sources(endpoint).items():
        for prefix in prefixes:
            if packet.source in prefix:
                own = mac == endpoint.mac
                pair = f"{packet.source} is in the allowed address pair {prefix}"
                return own, pair + ("" if own else f", but of {mac} only")
    return False, f"{packet.source} is no address of the port: anti-spoofing drops it"


def _refused_destination(endpoint: Endpoint, packet: Packet, world: World) -> str:
    """Return why a packet is dropped wherever it comes from; empty if it is not."""
    icmp6 = packet.version == 6 and packet.protocol == ICMP[6]
    if endpoint.port_security and icmp6 and packet.icmp_type in _FROM_ROUTERS:
        return "router advertisements and redirects are not an instance's"
    if packet.destination.is_multicast:
        return "multicast is not routed"
    for subnet in world.subnets.values():
        prefix = subnet.prefix
        wide = isinstance(prefix, IPv4Network) and prefix.prefixlen < 31
        if wide and packet.destination == prefix[-1]:
            return f"{packet.destination} is the broadcast address of {prefix}"
    if str(packet.destination) == "255.255.255.255":
        return "broadcasts reach no other instance"
    return ""


def _begins_connection(endpoint: Endpoint, packet: Packet, world: World) -> bool:
    """Tell whether a stateful port's tracker takes it for a connection's first."""
    stateless = endpoint.groups & stateless_groups(world.groups)
    if stateless or packet.protocol != ICMP[packet.version]:
        return True
    return packet.icmp_type in _BEGINS[packet.version] or (
        packet.version == 6 and packet.icmp_type in _UNTRACKED
    )


def _policy(
    endpoint: Endpoint, packet: Packet, world: World, direction: Direction
) -> Iterator[Hop]:
    what = f"{direction.value} policy"
    if endpoint.port_security and not _begins_connection(endpoint, packet, world):
        why = f"{packet_words(packet)} begins no connection, whatever rules say"
        yield _hop(world, "connection", passes=False, why=why)
    judged = judge_port(world.operator, world.groups, endpoint, direction, packet)
    if judged.by is not None:
        why, rule = _decided(judged.by)
    elif not endpoint.port_security:
        why, rule = "port security is off: security groups do not apply", None
    else:
        why, rule = _grouped(endpoint, packet, world, direction)
    yield _hop(world, what, passes=judged.allowed, why=why, rule=rule)


def _decided(decision: Decision) -> tuple[str, RuleName]:
    """Return what an operator's rule decided, in words, and the rule."""
    rule = RuleName(
        id=str(decision.number),
        policy=decision.policy,
        direction=decision.direction.value,
    )
    return decision_words(decision), rule


def _grouped(
    endpoint: Endpoint, packet: Packet, world: World, direction: Direction
) -> tuple[str, RuleName | None]:
    """Return what a port's groups say, in words, and the rule that allows."""
    names = dict(endpoint.group_names)
    ruling = rule_on(world.groups, endpoint.groups, direction, packet, names)
    verdict = ruling.verdict
    if verdict.rule is None or verdict.group is None:
        return ruling.text, None
    return ruling.text, RuleName(
        id=verdict.rule.id, group=verdict.group, direction=direction.value
    )


def own_traffic(
    interface: str, packet: Packet, world: World, direction: Direction
) -> Iterator[Hop]:
    """Yield what the operator says of a host's own packet, if he says anything."""
    operator = world.operator
    endpoint = guarding(operator.host_endpoints, interface)
    if endpoint is None:
        return
    judged = judge_host(operator, world.groups, endpoint, direction, packet)
    rule = None
    why = exemption(operator.failsafe, direction, packet)
    if why:
        why = f"{why}: no policy is asked"
    elif judged.by is not None:
        why, rule = _decided(judged.by)
    elif judged.allowed:
        why = f"no policy speaks of {direction.value} here, and the default is to allow"
    else:
        why = "no policy allows it"
    what = f"{direction.value} host policy"
    why = f"host endpoint {endpoint.name}: {why}"
    yield _hop(world, what, passes=judged.allowed, why=why, rule=rule)


def _hop(
    world: World, what: str, *, passes: bool, why: str, rule: RuleName | None = None
) -> Hop:
    return Hop(
        node=world.host,
        what=what,
        outcome=Outcome.ALLOWED if passes else Outcome.DENIED,
        detail=why,
        rule=rule,
    )
