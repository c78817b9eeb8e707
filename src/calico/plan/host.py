"""What one host's kernel should hold for the ports that it serves.

The wanted state is a pure function of the world and of a few facts about the host. It
is a mapping of keys to items (`plan.items`), and so is what the kernel is found to
have: `diff` of the two is all that there is to do.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from ipaddress import (
    IPv4Address,
    IPv4Interface,
    IPv6Address,
    IPv6Interface,
)

from calico.model.ids import (
    Address,
    DeviceId,
    Interface,
    InterfaceName,
    Mac,
    PortId,
    Prefix,
    host_side_mac,
    is_single,
)
from calico.model.records import Endpoint
from calico.model.world import World
from calico.plan.antispoof import sources
from calico.plan.dns import asked
from calico.plan.filter import FilterFacts, FilterPlanner, Sections, Wishes, merged
from calico.plan.homes import homes, without_nats
from calico.plan.items import (
    DHCP_BRIDGE,
    METADATA4,
    METADATA6,
    TAP,
    Bridge,
    Hop,
    Item,
    Link,
    LocalAddress,
    Multipath,
    Neighbour,
    Route,
    Setting,
    State,
    state_of,
)
from calico.plan.lanes import lane_items, lanes_of, refuse_unlimited
from calico.plan.logged import LogLimit
from calico.plan.policy import Section
from calico.plan.shaping import shapers
from calico.policy.floating import RefusedNat, Translations, settle
from calico.policy.forwarding import RefusedForwarding, settle_forwardings, targets
from calico.policy.ownership import RefusedPair, confine

_GLOBAL = {
    "net/ipv4/ip_forward": "1",
    # The kernel takes the greater of this and each interface's own: any but 0 would
    # drop, without a word, what a port sends from a pair that is also another's.
    "net/ipv4/conf/all/rp_filter": "0",
    "net/ipv6/conf/all/forwarding": "1",
}
_OPTIONAL = {
    "net/ipv4/fib_multipath_hash_policy": "1",  # L4: spread flows, not host pairs (S5)
    "net/ipv6/fib_multipath_hash_policy": "1",
}
# P50: the kernel's limit of 1,024 neighbours is less than a full host has. They belong
# to the initial network namespace; elsewhere the files do not exist.
_NEIGHBOUR_LIMITS = {
    f"net/{family}/neigh/default/gc_thresh{level}": limit
    for family in ("ipv4", "ipv6")
    for level, limit in ((1, 16384), (2, 32768), (3, 65536))
}
_PER_TAP = {
    "net/ipv4/conf/{}/forwarding": "1",
    "net/ipv4/conf/{}/proxy_arp": "1",
    "net/ipv4/conf/{}/send_redirects": "0",  # every peer is behind us (S3)
    "net/ipv4/neigh/{}/proxy_delay": "0",
    "net/ipv6/conf/{}/disable_ipv6": "0",
    "net/ipv6/conf/{}/addr_gen_mode": "1",  # none: we give it its one address
    "net/ipv6/conf/{}/accept_ra": "0",
    "net/ipv6/conf/{}/forwarding": "1",
    "net/ipv6/conf/{}/proxy_ndp": "1",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class HostFacts:
    """What a plan has to know of the host: its addresses, `tap` links and uplinks.

    `log_limit` is the operator's, for packets that are logged; `metadata` says whether
    instances have a metadata service. `arrived` are the taps that have a route: what
    has come stays, whatever an agent remembers.
    """

    address4: IPv4Address | None = None
    address6: IPv6Address | None = None
    taps: frozenset[InterfaceName] = frozenset()
    arrived: frozenset[InterfaceName] = frozenset()
    uplinks: tuple[str, ...] = ()
    log_limit: LogLimit = field(default_factory=LogLimit)
    metadata: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """An endpoint that cannot be served, and why (P41)."""

    device: DeviceId
    port: PortId
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class HostPlan:
    """The wanted state of a host. `served` are the endpoints whose link exists.

    Endpoints are without their `refused_pairs`, `refused_nats` and
    `refused_forwardings`. `awaited` are those of `served` whose instance still runs
    elsewhere, each with the routes to make when it comes.
    """

    state: State
    filter: Sections
    served: tuple[Endpoint, ...] = ()
    absent: tuple[Endpoint, ...] = ()
    awaited: tuple[tuple[Endpoint, State], ...] = ()
    refused: tuple[Refused, ...] = field(default=())
    refused_pairs: tuple[RefusedPair, ...] = ()
    refused_nats: tuple[RefusedNat, ...] = ()
    refused_forwardings: tuple[RefusedForwarding, ...] = ()
    translations: Translations = field(default_factory=Translations)

    @property
    def whole_filter(self) -> Section:
        """Return the filter as one section."""
        return merged(self.filter.values())


def plan_host(
    world: World,
    facts: HostFacts,
    gateways: Iterable[Interface] = (),
    planner: FilterPlanner | None = None,
) -> HostPlan:
    """Return what the host should have. `gateways` are put on the DHCP bridge.

    A `planner` that planned before saves the work that was done already.
    """
    accepted, refused = accept(world.endpoints)
    accepted, refused_pairs, refused_nats = _lawful(accepted, world, facts)
    accepted, refused_forwardings = settle_forwardings(
        accepted, world.subnets.values(), _own(facts)
    )
    awaited = {e.port for e in accepted if _is_awaited(e, facts)}
    accepted = without_nats(accepted, awaited)
    served = tuple(e for e in accepted if e.interface in facts.taps)
    present = tuple(e for e in served if e.port not in awaited)
    items: list[Item] = [Bridge(DHCP_BRIDGE), *_host_settings()]
    items += [LocalAddress(DHCP_BRIDGE, address) for address in gateways]
    for endpoint in served:
        items += _endpoint_items(endpoint)
    if facts.metadata:
        items += _metadata_addresses(served)
    items += _routes(present, facts)
    items += _limits(present, served, facts)
    state = state_of(items)
    return HostPlan(
        state=state,
        filter=(planner or FilterPlanner()).plan(
            accepted,
            world.subnets.values(),
            world.groups,
            _filter_facts(world, facts),
            Wishes(logs=world.logs, operator=world.operator),
        ),
        served=served,
        absent=tuple(e for e in accepted if e.interface not in facts.taps),
        awaited=tuple(
            (e, _arrival(e, facts, state)) for e in served if e.port in awaited
        ),
        refused=refused,
        refused_pairs=refused_pairs,
        refused_nats=refused_nats,
        refused_forwardings=refused_forwardings,
        translations=_translations(present, world),
    )


def _own(facts: HostFacts) -> set[Address | None]:
    return {facts.address4, facts.address6}


def _lawful(
    accepted: tuple[Endpoint, ...], world: World, facts: HostFacts
) -> tuple[tuple[Endpoint, ...], tuple[RefusedPair, ...], tuple[RefusedNat, ...]]:
    """Return endpoints with no more than what is theirs, and what is not (P47).

    Nor do they keep floating IPs whose limits this host could not enforce.
    """
    subnets, adopted = world.subnets.values(), world.adopted
    confined, refused_pairs = confine(accepted, subnets, adopted=adopted)
    settled, refused = settle(confined, subnets, _own(facts), adopted=adopted)
    limited, unlimited = refuse_unlimited(settled, facts.uplinks)
    return limited, refused_pairs, refused + unlimited


def _filter_facts(world: World, facts: HostFacts) -> FilterFacts:
    return FilterFacts(
        taps=facts.taps,
        uplinks=facts.uplinks,
        log_limit=facts.log_limit,
        metadata=facts.metadata,
        translate_sources=world.settings.translate_sources,
        bfd_peers=tuple(peer.address for peer in world.peers if peer.bfd),
        dns=asked(world),
    )


def _is_awaited(endpoint: Endpoint, facts: HostFacts) -> bool:
    """Tell whether an endpoint's instance runs on another host, and is to come here."""
    return endpoint.arriving_from is not None and endpoint.interface not in (
        facts.arrived
    )


def _arrival(endpoint: Endpoint, facts: HostFacts, state: State) -> State:
    """Return the routes to make at once when an awaited instance has come.

    An address that another port here has as well is left to the next pass.
    """
    routes = state_of(_routes([endpoint], facts))
    return {key: item for key, item in routes.items() if key not in state}


def link_local(mac: Mac) -> IPv6Address:
    """Return the EUI-64 link-local address of a MAC (RFC 4291, appendix A)."""
    octets = bytearray.fromhex(mac.replace(":", ""))
    octets[0] ^= 0x02
    return IPv6Address(b"\xfe\x80" + bytes(6) + octets[:3] + b"\xff\xfe" + octets[3:])


def accept(
    endpoints: Iterable[Endpoint],
) -> tuple[tuple[Endpoint, ...], tuple[Refused, ...]]:
    """Set aside endpoints whose interface is no tap, or is another's already."""
    accepted: dict[InterfaceName, Endpoint] = {}
    refused = []
    for endpoint in sorted(endpoints, key=lambda e: e.port):
        reason = ""
        if not TAP.fullmatch(endpoint.interface):
            reason = f"interface name {endpoint.interface!r} is not a tap's"
        elif endpoint.interface in accepted:
            other = accepted[endpoint.interface].port
            reason = f"interface {endpoint.interface} is that of port {other} too"
        if reason:
            refused.append(
                Refused(device=endpoint.device, port=endpoint.port, reason=reason)
            )
        else:
            accepted[endpoint.interface] = endpoint
    return tuple(accepted.values()), tuple(refused)


def _host_settings() -> Iterator[Setting]:
    for path, value in _GLOBAL.items():
        yield Setting(path, value)
    for path, value in _OPTIONAL.items():
        yield Setting(path, value, optional=True)
    for path, limit in _NEIGHBOUR_LIMITS.items():
        yield Setting(path, str(limit), at_least=True, optional=True)


def _endpoint_items(endpoint: Endpoint) -> Iterator[Item]:
    tap = endpoint.interface
    mac = host_side_mac(endpoint.mac)
    for template, value in _PER_TAP.items():
        yield Setting(template.format(tap), value, tap)
    yield Setting(f"net/ipv4/conf/{tap}/rp_filter", _rp_filter(endpoint), tap)
    yield Link(tap, mac)
    yield LocalAddress(tap, IPv6Interface((link_local(mac), 64)))
    for source_mac, prefixes in sources(endpoint).items():
        for prefix in prefixes:
            if is_single(prefix):
                yield Neighbour(tap, prefix.network_address, source_mac)
    yield from shapers(endpoint)


def _metadata_addresses(served: Iterable[Endpoint]) -> Iterator[Item]:
    """Yield what the metadata service is asked at: link-local, so per link for IPv6."""
    yield LocalAddress(DHCP_BRIDGE, IPv4Interface((METADATA4, 32)))
    for endpoint in served:
        yield LocalAddress(endpoint.interface, IPv6Interface((METADATA6, 64)))


def _limits(
    present: Iterable[Endpoint], served: Iterable[Endpoint], facts: HostFacts
) -> Iterator[Item]:
    """Yield the lanes of floating IPs, and what leads there wherever they leave by."""
    exits = [*facts.uplinks, *(endpoint.interface for endpoint in served)]
    return lane_items(lanes_of(present), map(InterfaceName, exits))


def _rp_filter(endpoint: Endpoint) -> str:
    """Return how strictly the kernel, too, looks at IPv4 sources (RFC 3704).

    Strict where every source has its route on the tap. A pair's address may be another
    port's too, and routed there, and on an interface without an address the kernel's
    loose mode refuses that like the strict one: the filter alone decides then. So it
    does of a port on the move, whose addresses may be routed to its other host.
    """
    moves = endpoint.arriving_from or endpoint.leaving_to
    strict = endpoint.port_security and not endpoint.pairs and not moves
    return "1" if strict else "0"


def _translations(served: Collection[Endpoint], world: World) -> Translations:
    return Translations(
        current={
            nat.external: nat.internal
            for endpoint in served
            for nat in endpoint.nats
            if isinstance(nat.external, IPv4Address)
            and isinstance(nat.internal, IPv4Address)
        },
        forwarded=targets(served),
        local=frozenset(a for e in served for a in e.addresses),
        subnets=world.subnets.values(),
    )


def _routes(served: Iterable[Endpoint], facts: HostFacts) -> Iterator[Item]:
    """Yield the ways to all that the ports have; of one on the way out yielding ones.

    What another port here has as well, leads to that one alone.
    """
    served = tuple(served)
    staying = homes(e for e in served if not e.leaving_to)
    leaving = homes(e for e in served if e.leaving_to)
    for prefix, macs in staying.items():
        yield from _ways(prefix, macs, facts)
    for prefix in leaving.keys() - staying.keys():
        yield from _ways(prefix, leaving[prefix], facts, yielding=True)


def _ways(
    prefix: Prefix,
    macs: Mapping[InterfaceName, Mac],
    facts: HostFacts,
    *,
    yielding: bool = False,
) -> Iterator[Item]:
    """Yield the route to the ports that have a prefix, and what it needs.

    The kernel takes no IPv6 multipath of interfaces alone. So its hops are the ports'
    link-local addresses, which are known to the host for this purpose.
    """
    source = facts.address4 if prefix.version == 4 else facts.address6
    ports = sorted(macs.items())
    if len(ports) == 1:
        yield Route(prefix, ports[0][0], source, yielding)
        return
    hops = []
    for interface, mac in ports:
        via = None if prefix.version == 4 else link_local(mac)
        hops.append(Hop(interface, via))
        if via is not None:
            yield Neighbour(interface, via, mac)
    yield Multipath(prefix, tuple(hops), source, yielding)
