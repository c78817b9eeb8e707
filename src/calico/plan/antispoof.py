"""Who may send what into the cloud from a port: the elements of the host's rules.

An element is one line of a set or verdict map of `plan.ruleset`. A port is closed until
its interface is in the maps (the *gate*), which is done last, when all else about it is
in the kernel (P52).
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Network
from typing import NamedTuple

from calico.model.ids import Address, InterfaceName, Mac, Prefix, collapsed, is_single
from calico.model.records import Endpoint

_GATES = ("from_port", "to_port", "out_policy", "in_policy")
FLOATING = "floating4"  # the map of floating IPs to addresses (plan.nat)
FORWARDED = "forwarded4"  # the map of their ports to others' (plan.forwarding)
OUTGOING = "outgoing4"  # the map of ports' addresses to floating IPs (plan.outgoing)
LANES_TO, LANES_FROM = "lanes_to", "lanes_from"  # of floating IPs (plan.lanes)
_MAPS = frozenset({FLOATING, FORWARDED, OUTGOING, LANES_TO, LANES_FROM})
# The maps of packet rates and of marks (plan.limits).
FROM_RATE, TO_RATE, MARKS = "from_rate", "to_rate", "marks"
_VERDICT_MAP = re.compile(
    r"(from|to)_(port|rate)|marks|(in|out)_(policy|before|after|\d+)"
)


class Element(NamedTuple):
    """One element of a set or map: `key` as nft writes it."""

    family: str
    set: str
    key: str

    @property
    def interface(self) -> InterfaceName | None:
        """Return the interface that the element is about, if it is about one."""
        return InterfaceName(self.key.split('"')[1]) if self.key[0] == '"' else None

    @property
    def to_verdict(self) -> bool:
        """Return whether its value is a verdict."""
        return bool(_VERDICT_MAP.fullmatch(self.set))

    @property
    def of_map(self) -> bool:
        """Return whether it leads to its value; else that is a comment, or empty."""
        return self.to_verdict or self.set in _MAPS


Elements = Mapping[Element, str]


def port_elements(endpoint: Endpoint, *, stateful: bool) -> dict[Element, str]:
    """Return what lets a port send and be sent to, gates included.

    A port whose groups are not `stateful` has no connections (P6).
    """
    facts = dict.fromkeys(_facts(endpoint), "")
    return {**dict(_gates(endpoint, stateful=stateful)), **facts}


def broadcast_elements(prefixes: Iterable[IPv4Network]) -> Iterator[Element]:
    """Yield the broadcast addresses of subnets: nobody's destination (S3)."""
    for prefix in prefixes:
        if prefix.prefixlen < 31:  # RFC 3021
            yield Element("inet", "broadcasts", str(prefix[-1]))


def is_gate(element: Element) -> bool:
    """Return whether an element opens or closes a port."""
    return element.set in _GATES


def sources(endpoint: Endpoint) -> dict[Mac, tuple[Prefix, ...]]:
    """Return what a port may send from, by MAC: single addresses, then networks.

    The fixed addresses come from the port's own MAC, a pair's from the pair's (Neutron
    API, allowed-address-pairs).
    """
    found: dict[Mac, set[Prefix]] = {endpoint.mac: set()}
    for address in endpoint.addresses:
        found[endpoint.mac].add(single(address))
    for pair in endpoint.pairs:
        found.setdefault(pair.mac, set()).add(pair.prefix)
    return {mac: _without_overlaps(prefixes) for mac, prefixes in found.items()}


@lru_cache(maxsize=1 << 16)
def single(address: Address) -> Prefix:
    """Return the prefix that holds one address and no other.

    Remembered: a host asks for those of all its addresses in each pass.
    """
    if isinstance(address, IPv4Address):
        return IPv4Network(address)
    return IPv6Network(address)


def _without_overlaps(prefixes: Iterable[Prefix]) -> tuple[Prefix, ...]:
    """Return single addresses as they are, and the networks merged.

    Intervals of a set must not overlap. Singles have sets of their own, and must not
    be merged with their neighbours: each needs a neighbour entry.
    """
    singles = {p for p in prefixes if is_single(p)}
    networks = [p for p in prefixes if p not in singles]
    ordered = sorted(singles, key=lambda p: (p.version, p.network_address.packed))
    return (*ordered, *collapsed(networks))


def _gates(endpoint: Endpoint, *, stateful: bool) -> Iterator[tuple[Element, str]]:
    key = f'"{endpoint.interface}"'
    guarded = endpoint.port_security
    yield (
        Element("inet", "from_port", key),
        "goto guarded" if guarded else "goto destination",
    )
    yield Element("inet", "to_port", key), "accept"
    kind = ("stateful" if stateful else "stateless") if guarded else "open"
    for way in ("out", "in"):
        yield Element("inet", f"{way}_policy", key), f"goto {way}_{kind}"
    yield (
        Element("arp", "from_port", key),
        "goto guarded" if guarded else "goto unanswered",
    )


def _facts(endpoint: Endpoint) -> Iterator[Element]:
    tap = f'"{endpoint.interface}"'
    for address in endpoint.addresses:
        if isinstance(address, IPv4Address):
            yield Element("arp", "own4", f"{tap} . {address}")
    for mac, prefixes in sources(endpoint).items():
        yield Element("inet", "macs", f"{tap} . {mac}")
        yield Element("arp", "macs", f"{tap} . {mac}")
        for prefix in prefixes:
            yield from _source_elements(tap, mac, prefix)


def _source_elements(tap: str, mac: Mac, prefix: Prefix) -> Iterator[Element]:
    single = is_single(prefix)
    key = f"{tap} . {mac} . {prefix.network_address if single else prefix}"
    name = f"{'sources' if single else 'networks'}{prefix.version}"
    yield Element("inet", name, key)
    if isinstance(prefix, IPv4Network):
        yield Element("arp", name, key)
        if single:
            yield Element("arp", "own4", f"{tap} . {prefix.network_address}")
