"""What one host has to know, indexed: the input of every plan.

Built from the items under the keys that a host watches, and from nothing else. An
object that breaks its rules is set aside with the reason, and disturbs no other (P41).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

from calico.model.bgp_codec import parse_bgp_configuration, parse_bgp_peer, parse_node
from calico.model.codec import parse_endpoint, parse_subnet
from calico.model.ids import DeviceId, HostName, Invalid, PortId, SubnetId
from calico.model.keys import BGP_CONFIGURATION, BGP_PEERS, NODES, Keys
from calico.model.records import BgpConfiguration, BgpPeer, Endpoint, Node, Subnet

_T = TypeVar("_T")

# What a parser raises is Invalid (a ValueError). The others are a parser's mistake, and
# a whole host's networking is too much to pay for one.
_REJECTIONS = (TypeError, ValueError, AttributeError, RecursionError)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rejected:
    """A stored object that cannot be used: its key and why.

    `port` (device and port) is known where the key is an endpoint's, so that its status
    can say `error`.
    """

    key: str
    reason: str
    port: tuple[DeviceId, PortId] | None = None

    def __str__(self) -> str:
        return f"{self.key}: {self.reason}"


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """A host's picture of the cloud; endpoints are its own only, sorted by port."""

    host: HostName
    endpoints: tuple[Endpoint, ...] = ()
    subnets: Mapping[SubnetId, Subnet] = field(default_factory=dict)
    bgp: BgpConfiguration = field(default_factory=BgpConfiguration)
    peers: tuple[BgpPeer, ...] = ()
    nodes: tuple[Node, ...] = ()
    rejected: tuple[Rejected, ...] = ()

    def subnets_of(self, endpoint: Endpoint) -> tuple[Subnet, ...]:
        """Return the subnets that an endpoint's fixed addresses are from, sorted."""
        return tuple(
            subnet
            for _, subnet in sorted(self.subnets.items())
            if subnet.network == endpoint.network
            and any(address in subnet.prefix for address in endpoint.addresses)
        )


def watched_prefixes(host: HostName, keys: Keys) -> tuple[str, ...]:
    """Return the prefixes of all that a host has to know, and of nothing more (P29)."""
    return (keys.host_endpoints(host), keys.subnets, BGP_PEERS, NODES)


def watched_keys() -> tuple[str, ...]:
    """Return the single keys that a host has to know besides."""
    return (BGP_CONFIGURATION,)


def build(host: HostName, keys: Keys, items: Mapping[str, bytes]) -> World:
    """Return the world in the items (key to value) that a host watches."""
    rejected: list[Rejected] = []

    def read(prefix: str, parse: Callable[[str, bytes], _T]) -> list[_T]:
        read_ones = []
        for key in sorted(key for key in items if key.startswith(prefix)):
            try:
                read_ones.append(parse(key.removeprefix(prefix), items[key]))
            except _REJECTIONS as e:
                port = keys.parse_endpoint(key)
                rejected.append(Rejected(key=key, reason=_reason(e), port=port))
        return read_ones

    endpoints = read(
        keys.host_endpoints(host), lambda _, value: _own_endpoint(host, value)
    )
    subnets = read(
        keys.subnets, lambda name, value: parse_subnet(SubnetId(name), value)
    )
    settings = read(BGP_CONFIGURATION, lambda _, value: parse_bgp_configuration(value))
    peers = read(BGP_PEERS, lambda _, value: parse_bgp_peer(value))
    nodes = read(NODES, lambda _, value: parse_node(value))
    return World(
        host=host,
        endpoints=tuple(sorted(endpoints, key=lambda endpoint: endpoint.port)),
        subnets={subnet.id: subnet for subnet in subnets},
        bgp=settings[0] if settings else BgpConfiguration(),
        peers=tuple(peer for peer in peers if peer.node in {None, host}),
        nodes=tuple(nodes),
        rejected=tuple(rejected),
    )


def _reason(error: Exception) -> str:
    return str(error) if isinstance(error, Invalid) else repr(error)


def _own_endpoint(host: HostName, value: bytes) -> Endpoint:
    endpoint = parse_endpoint(value)
    if endpoint.host != host:
        raise Invalid(f"node is {endpoint.host}, but the key is one of {host}")
    return endpoint
