"""Which networks and instances a run sets up, and where. Pure.

Networks of four kinds, and instances placed so that every pairing of kinds occurs on
one host, on two hosts of one rack and across racks, where the cloud has them.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Network
from itertools import chain
from random import Random

from calico.verify.cloud import Host, Site

SLAAC, STATEFUL, STATELESS = "slaac", "dhcpv6-stateful", "dhcpv6-stateless"
MANY = 100  # networks of S15: more add time and nothing new
EXTRA = ("X", "Y", "Z", "R")  # what S21 makes, and what S10 races for
# SEMANTICS' own example (S9).
EXAMPLE = {"A": IPv4Network("10.65.0.0/24"), "P": IPv4Network("172.18.0.0/16")}
EXAMPLE_HOSTS = {"a1": IPv4Address("10.65.0.2"), "p1": IPv4Address("172.18.3.23")}
PLACEMENTS = ("same host", "one rack", "across racks")


@dataclass(frozen=True, slots=True, kw_only=True)
class NetPlan:
    """A network to make. A provider's is the administrator's, shared by all.

    `gateway` is the number of its IPv4 gateway in its subnet; `versions` are the IP
    versions that it has subnets of. `external` ones are for routers, not instances.
    """

    key: str
    project: str
    mode6: str = SLAAC
    mtu: int | None = None
    gateway: int = 1
    versions: tuple[int, ...] = (4, 6)
    external: bool = False

    @property
    def provider(self) -> bool:
        """Whether it is a provider network."""
        return self.project == "admin"


@dataclass(frozen=True, slots=True, kw_only=True)
class SitePlan:
    """An instance to make: its network, its project, and one of three hosts."""

    key: str
    net: str
    project: str
    where: int


NETS = (
    NetPlan(key="A", project="demo1"),
    NetPlan(key="B", project="demo2", mode6=STATELESS, gateway=254),
    NetPlan(key="C", project="demo1", mode6=STATEFUL, mtu=1400),
    NetPlan(key="P", project="admin"),
    NetPlan(key="Q", project="admin", mode6=STATEFUL),
    NetPlan(key="G", project="demo1"),  # of S5 and S16-S18, with groups of its own
    NetPlan(key="T", project="demo2"),  # of S12 and S13, behind a router to E
    NetPlan(key="E", project="admin", external=True),
)
SITES = (
    SitePlan(key="a1", net="A", project="demo1", where=0),
    SitePlan(key="a2", net="A", project="demo1", where=0),
    SitePlan(key="a3", net="A", project="demo1", where=1),
    SitePlan(key="a4", net="A", project="demo1", where=2),
    SitePlan(key="b1", net="B", project="demo2", where=0),
    SitePlan(key="b2", net="B", project="demo2", where=2),
    SitePlan(key="c1", net="C", project="demo1", where=1),
    SitePlan(key="p1", net="P", project="admin", where=0),
    SitePlan(key="p2", net="P", project="demo1", where=1),
    SitePlan(key="p3", net="P", project="admin", where=0),
    SitePlan(key="q1", net="Q", project="admin", where=0),
    SitePlan(key="q2", net="Q", project="admin", where=2),
    SitePlan(key="g1", net="G", project="demo1", where=0),
    SitePlan(key="g2", net="G", project="demo1", where=0),
    SitePlan(key="g3", net="G", project="demo1", where=1),
    SitePlan(key="g4", net="G", project="demo1", where=2),
    SitePlan(key="t1", net="T", project="demo2", where=0),
    SitePlan(key="t2", net="T", project="demo2", where=0),
    SitePlan(key="t3", net="T", project="demo2", where=2),
)


def choose_hosts(hosts: Sequence[Host]) -> tuple[Host, Host, Host]:
    """Return a host, another one of its rack, and one of another rack.

    Where there is none such the next best stands in: `placement` tells the truth.
    """
    first = hosts[0]
    rest = [host for host in hosts if host != first]
    near = [host for host in rest if host.rack == first.rack]
    far = [host for host in rest if host.rack != first.rack]
    return first, (near or rest or [first])[0], (far or rest or [first])[0]


def placement(one: Site, other: Site) -> str:
    """Return how two instances stand to each other: one of PLACEMENTS."""
    if one.host == other.host:
        return "same host"
    return "one rack" if one.host.rack == other.host.rack else "across racks"


@dataclass(frozen=True, slots=True, kw_only=True)
class Ranges:
    """The address ranges of all networks, by key.

    `taken` are the keys of those of the example that something else overlaps.
    """

    by_key: dict[str, tuple[IPv4Network, IPv6Network]]
    taken: tuple[str, ...]


def choose_ranges(existing: Iterable[str], draw: Random) -> Ranges:
    """Return ranges for every network, that overlap nothing that exists (CIDRs).

    IPv6 ranges are of a random ULA prefix (RFC 4193), which needs no comparing.
    """
    used = [IPv4Network(cidr) for cidr in existing if ":" not in cidr]
    taken = tuple(k for k, net in EXAMPLE.items() if any(map(net.overlaps, used)))
    busy = [*used, *EXAMPLE.values()]
    tens = list(IPv4Network("10.0.0.0/8").subnets(new_prefix=16))
    block = draw.choice([ten for ten in tens if not any(map(ten.overlaps, busy))])
    site = IPv6Network(((0xFD << 120) | (draw.getrandbits(40) << 80), 48))
    subnets4, subnets6 = block.subnets(new_prefix=24), site.subnets(new_prefix=64)
    keys = chain((net.key for net in NETS), map(many_key, range(MANY)), EXTRA)
    ranges = {key: (next(subnets4), next(subnets6)) for key in keys}
    for key, net in EXAMPLE.items():
        if key not in taken:
            ranges[key] = (net, ranges[key][1])
    return Ranges(by_key=ranges, taken=taken)


def many_key(number: int) -> str:
    """Return the key of one of the many networks of S15, counted from 0."""
    return f"M{number + 1}"


def is_many(key: str) -> bool:
    """Tell whether a network is one of the many of S15."""
    return key[:1] == "M"
