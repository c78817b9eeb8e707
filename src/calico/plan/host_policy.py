"""An operator's policies for the host's own traffic, as rules at `input` and `output`.

What the host needs to be reached and to route is let through first: the failsafe ports,
answers, neighbour discovery, and BFD of its BGP peers. A policy that forgets one of
them would else be the last that anybody could write.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from calico.model.ids import Address
from calico.model.operator import Failsafe, FailsafePort, GlobalPolicy, HostEndpoint
from calico.plan.conditions import set_of
from calico.plan.operator import Place, policy_section, safe_name
from calico.plan.policy import NAMES, Section, prefix_text
from calico.plan.ruleset import ANY_TAP, HOST, Chain, Rule
from calico.policy.evaluate import Direction
from calico.policy.operator import Stage, in_stage

_INTERFACE = {Direction.INGRESS: "iifname", Direction.EGRESS: "oifname"}
_HOOKS = {Direction.INGRESS: "input", Direction.EGRESS: "output"}
_FAR_END = {Direction.INGRESS: "saddr", Direction.EGRESS: "daddr"}
_PROTOCOL = {4: "ip", 6: "ip6"}
# Solicitations and advertisements of routers and neighbours, and MLD.
_NEIGHBOURS = "icmpv6 type { 130-136, 143 } accept"
_BFD = "{ 3784, 3785, 4784 }"  # RFC 5881, 4; RFC 5883, 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Guarded:
    """What a host's own traffic is subject to.

    `bfd_peers` are the BGP peers that are asked for signs of life over BFD.
    """

    endpoints: tuple[HostEndpoint, ...] = ()
    policies: tuple[GlobalPolicy, ...] = ()
    failsafe: Failsafe = field(default_factory=Failsafe)
    bfd_peers: tuple[Address, ...] = ()


def host_section(guarded: Guarded) -> Section:
    """Return the chains of the host's own traffic; none without endpoints."""
    section = Section()
    if not guarded.endpoints:
        return section
    for direction in Direction:
        lines = tuple(_lines(guarded, direction))
        name = f"host_{NAMES[direction]}"
        section.add(Chain(name, lines, _HOOKS[direction], HOST))
        for endpoint in guarded.endpoints:
            _add_endpoint(section, guarded.policies, endpoint, direction)
    return section


def _lines(guarded: Guarded, direction: Direction) -> Iterator[Rule]:
    near = _INTERFACE[direction]
    yield Rule(f'{near} "lo" accept', "the host with itself")
    yield Rule(f"{near} {ANY_TAP} accept", "instances have a door of their own")
    failsafe = guarded.failsafe
    inbound = direction is Direction.INGRESS
    for port in failsafe.inbound if inbound else failsafe.outbound:
        yield Rule(f"{_failsafe_text(port, direction)} accept", "failsafe")
    yield Rule("ct state established,related accept", "allowed when it began")
    yield Rule(_NEIGHBOURS, "neighbours, routers and groups of the link")
    for version, protocol in _PROTOCOL.items():
        peers = sorted(p for p in guarded.bfd_peers if p.version == version)
        if peers:
            far = f"{protocol} {_FAR_END[direction]} {set_of(map(str, peers))}"
            yield Rule(f"{far} udp dport {_BFD} accept", "BFD of BGP peers")
    # What is about one interface goes before what is about any.
    for endpoint in sorted(guarded.endpoints, key=lambda e: e.interface is None):
        chain = _chain(Stage.BEFORE, endpoint, direction)
        if endpoint.interface is None:
            yield Rule(f"goto {chain}", "any other interface")
        else:
            yield Rule(f'{near} "{endpoint.interface}" goto {chain}', "by interface")


def _failsafe_text(port: FailsafePort, direction: Direction) -> str:
    text = f"meta l4proto {port.protocol} th dport {port.port}"
    net = port.net
    if net is None:
        return text
    family = f"meta nfproto ipv{net.version}"
    if net.prefixlen == 0:
        return f"{family} {text}"
    far = f"{_PROTOCOL[net.version]} {_FAR_END[direction]} {prefix_text(net)}"
    return f"{family} {far} {text}"


def _chain(stage: Stage, endpoint: HostEndpoint, direction: Direction) -> str:
    name = safe_name(endpoint.name)
    return f"host_{stage.value}.{name}.{NAMES[direction]}"


def _add_endpoint(
    section: Section,
    policies: Iterable[GlobalPolicy],
    endpoint: HostEndpoint,
    direction: Direction,
) -> None:
    """Add what decides on one endpoint's traffic: a chain for each stage."""
    after = _chain(Stage.AFTER, endpoint, direction)
    speaking = False
    for stage in Stage:
        first = stage is Stage.BEFORE
        place = Place(
            direction=direction,
            passed=f"goto {after}" if first else "drop",
            prefix=f"host_policy.{safe_name(endpoint.name)}",
        )
        found = in_stage(policies, endpoint.labels, direction, stage)
        speaking = speaking or bool(found)
        lines = []
        for policy in found:
            planned = policy_section(policy, place)
            section.parts |= planned.parts
            section.remotes |= planned.remotes
            chain = place.chain(policy.name)
            lines.append(Rule(f"jump {chain}", "the next in order"))
        allow = endpoint.default_allow and not speaking
        end = "counter accept" if allow else "counter drop"
        lines.append(
            Rule(f"goto {after}", "then the others")
            if first
            else Rule(end, "no policy decides")
        )
        section.add(Chain(_chain(stage, endpoint, direction), tuple(lines)))
