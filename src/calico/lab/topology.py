"""A lab's network as data: nodes, links, addresses and AS numbers. Pure.

Racks of hosts, a top-of-rack router (ToR) for each, a spine, a border router and an
"Internet". Every link is a point-to-point one with a /31 and a /127 of its own, as in a
routed data centre (RFC 7938, RFC 3021, RFC 6164): no two hosts share a segment.
"""

from dataclasses import dataclass
from enum import StrEnum
from ipaddress import (
    IPv4Address,
    IPv4Interface,
    IPv4Network,
    IPv6Address,
    IPv6Interface,
    IPv6Network,
)

from calico.model.ids import Address

FABRIC4 = IPv4Network("172.30.0.0/16")
FABRIC6 = IPv6Network("fd00:30::/32")
MANAGEMENT = IPv4Network("100.64.0.0/16")
CONTROL_ADDRESS = IPv4Address("100.64.0.1")
INTERNET_WEB4 = IPv4Address("198.51.100.80")
INTERNET_WEB6 = IPv6Address("2001:db8:ffff::80")
UPLINK = "uplink"  # a host's interface to its ToR
CLOUD_AS = 64512  # the one AS of the modes without AS per host
MAX_RACKS = 32
MAX_HOSTS_PER_RACK = 64

_BORDER_AS = 64600
_SPINE_AS = 64601
_TOR_AS = 64610
_INTERNET_AS = 64500
_HOST_AS = 4_200_000_000  # RFC 6996: private numbers of four octets


class Impossible(ValueError):  # noqa: N818 - names what the wish is
    """A lab of a size that cannot be addressed; the message says the limits."""


class BgpMode(StrEnum):
    """How hosts exchange routes: with their ToR, with each other, by reflectors."""

    TOR = "tor"
    MESH = "mesh"
    REFLECTOR = "reflector"


class Kind(StrEnum):
    """What a node of the fabric is."""

    HOST = "host"
    TOR = "tor"
    SPINE = "spine"
    BORDER = "border"
    INTERNET = "internet"


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """A host or a router. Only routers have loopback addresses."""

    name: str
    kind: Kind
    as_number: int
    rack: int | None = None
    loopback4: IPv4Address | None = None
    loopback6: IPv6Address | None = None
    management: IPv4Address | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class End:
    """One end of a link: its node, its interface's name and addresses."""

    node: Node
    interface: str
    address4: IPv4Interface
    address6: IPv6Interface


@dataclass(frozen=True, slots=True)
class Link:
    """A cable between two nodes; `upper` is the one nearer to the Internet."""

    upper: End
    lower: End


@dataclass(frozen=True, slots=True, kw_only=True)
class Topology:
    """All nodes and links of a lab."""

    racks: int
    hosts_per_rack: int
    bgp: BgpMode
    nodes: tuple[Node, ...]
    links: tuple[Link, ...]

    @property
    def hosts(self) -> tuple[Node, ...]:
        """Return the hosts, rack by rack."""
        return tuple(n for n in self.nodes if n.kind is Kind.HOST)

    @property
    def routers(self) -> tuple[Node, ...]:
        """Return everything that is no host: ToRs, spine, border, Internet."""
        return tuple(n for n in self.nodes if n.kind is not Kind.HOST)

    def node(self, name: str) -> Node:
        """Return the node called `name`; KeyError if there is none."""
        for node in self.nodes:
            if node.name == name:
                return node
        raise KeyError(name)

    def adjacent(self, node: Node) -> tuple[tuple[End, End], ...]:
        """Return (own end, other end) of each of a node's links."""
        return tuple(
            (link.upper, link.lower)
            if link.upper.node == node
            else (link.lower, link.upper)
            for link in self.links
            if node in (link.upper.node, link.lower.node)
        )

    def uplink(self, host: Node) -> tuple[End, End]:
        """Return a host's own end and its ToR's end of the cable between them."""
        return self.adjacent(host)[0]

    def owner(self, address: Address) -> str | None:
        """Return the name of the node that has an address; None if no node does."""
        for node in self.nodes:
            if address in (node.loopback4, node.loopback6, node.management):
                return node.name
            for own, _ in self.adjacent(node):
                if address in (own.address4.ip, own.address6.ip):
                    return node.name
        if address in (INTERNET_WEB4, INTERNET_WEB6):
            return Kind.INTERNET.value
        return None


def design(racks: int, hosts_per_rack: int, bgp: BgpMode) -> Topology:
    """Return the topology of so many racks with so many hosts each.

    Raises Impossible for sizes outside the address plan.
    """
    if not 1 <= racks <= MAX_RACKS:
        raise Impossible(f"a lab has 1 to {MAX_RACKS} racks, not {racks}")
    if not 1 <= hosts_per_rack <= MAX_HOSTS_PER_RACK:
        raise Impossible(
            f"a rack has 1 to {MAX_HOSTS_PER_RACK} hosts, not {hosts_per_rack}"
        )
    spine = _router(Kind.SPINE, "spine-1", 1, _own_as(bgp, _SPINE_AS))
    border = _router(Kind.BORDER, "border-1", 2, _own_as(bgp, _BORDER_AS))
    internet = _router(Kind.INTERNET, "internet", 3, _INTERNET_AS)
    nodes = [internet, border, spine]
    links = [_link(internet, border, (254, 1)), _link(border, spine, (254, 2))]
    for rack in range(1, racks + 1):
        tor = _router(Kind.TOR, f"tor-{rack}", 10 + rack, _own_as(bgp, _TOR_AS + rack))
        hosts = [_host(rack, n, bgp) for n in range(1, hosts_per_rack + 1)]
        nodes += [tor, *hosts]
        links.append(_link(spine, tor, (0, rack)))
        links += [_link(tor, host, (rack, n)) for n, host in enumerate(hosts, 1)]
    return Topology(
        racks=racks,
        hosts_per_rack=hosts_per_rack,
        bgp=bgp,
        nodes=tuple(nodes),
        links=tuple(links),
    )


def _own_as(bgp: BgpMode, as_number: int) -> int:
    return as_number if bgp is BgpMode.TOR else CLOUD_AS


def _router(kind: Kind, name: str, number: int, as_number: int) -> Node:
    return Node(
        name=name,
        kind=kind,
        as_number=as_number,
        rack=number - 10 if kind is Kind.TOR else None,
        loopback4=FABRIC4[255 * 256 + number],
        loopback6=FABRIC6[(0xFF << 80) + number],
    )


def _host(rack: int, number: int, bgp: BgpMode) -> Node:
    return Node(
        name=f"host-{rack}-{number}",
        kind=Kind.HOST,
        as_number=_own_as(bgp, _HOST_AS + rack * 1000 + number),
        rack=rack,
        management=MANAGEMENT[rack * 256 + number],
    )


def _link(upper: Node, lower: Node, place: tuple[int, int]) -> Link:
    """Return a link; `place` (group, number from 1) selects its two prefixes."""
    group, number = place
    first4 = FABRIC4[group * 256 + 2 * (number - 1)]
    first6 = FABRIC6[(group << 80) + (number << 64)]
    is_host = lower.kind is Kind.HOST
    return Link(
        upper=End(
            node=upper,
            interface=_to(lower),
            address4=IPv4Interface((first4, 31)),
            address6=IPv6Interface((first6, 127)),
        ),
        lower=End(
            node=lower,
            interface=UPLINK if is_host else _to(upper),
            address4=IPv4Interface((first4 + 1, 31)),
            address6=IPv6Interface((first6 + 1, 127)),
        ),
    )


def _to(node: Node) -> str:
    return f"to-{node.name}"
