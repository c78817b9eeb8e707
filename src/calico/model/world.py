"""What one host has to know, indexed: the input of every plan.

Built from the items under the keys that a host watches, and from nothing else. An
object that breaks its rules is set aside with the reason, and disturbs no other (P41).
"""

from collections import defaultdict
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TypeVar

from calico.model.bgp_codec import parse_bgp_configuration, parse_bgp_peer, parse_node
from calico.model.codec import parse_endpoint, parse_subnet
from calico.model.groups import Groups
from calico.model.ids import (
    DeviceId,
    GroupId,
    HostName,
    Invalid,
    PortId,
    Prefix,
    SubnetId,
)
from calico.model.keys import BGP_CONFIGURATION, BGP_PEERS, NODES, Keys
from calico.model.operator_reading import (
    operator_keys,
    operator_prefixes,
    read_operator,
    selector_prefixes,
)
from calico.model.operator_world import NO_OPERATOR, OperatorWorld
from calico.model.policy_codec import parse_address_group, parse_policy
from calico.model.records import (
    BgpConfiguration,
    BgpPeer,
    Endpoint,
    Node,
    Remote,
    RemoteAddressGroup,
    RemoteGroup,
    Subnet,
)
from calico.model.resource import REJECTIONS

_T = TypeVar("_T")


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
    groups: Groups = field(default_factory=Groups)
    operator: OperatorWorld = NO_OPERATOR
    rejected: tuple[Rejected, ...] = ()

    def subnets_of(self, endpoint: Endpoint) -> tuple[Subnet, ...]:
        """Return the subnets that an endpoint's fixed addresses are from, sorted."""
        return tuple(
            subnet
            for _, subnet in sorted(self.subnets.items())
            if subnet.network == endpoint.network
            and any(address in subnet.prefix for address in endpoint.addresses)
        )


def watched_prefixes(host: HostName, keys: Keys) -> frozenset[str]:
    """Return the prefixes of what a host has to know in any case (P29)."""
    own = keys.host_endpoints(host)
    return operator_prefixes() | {own, keys.subnets, BGP_PEERS, NODES}


def watched_keys() -> frozenset[str]:
    """Return the single keys that a host has to know besides."""
    return frozenset({BGP_CONFIGURATION}) | operator_keys()


def group_prefixes_and_keys(
    host: HostName, keys: Keys, seen: Mapping[str, Mapping[str, bytes]]
) -> tuple[frozenset[str], frozenset[str]]:
    """Return the prefixes and keys of what the host's own ports lead to, no others.

    The groups of its endpoints have policies, and those name groups, whose members
    count, and address groups; an operator's policies name selectors. `seen` are items
    by the prefix or key they were seen under; what it lacks leads nowhere yet.
    """
    prefixes = set(selector_prefixes(host, keys, seen))
    single: set[str] = set()
    groups: set[GroupId] = set()
    for value in seen.get(keys.host_endpoints(host), {}).values():
        with suppress(*REJECTIONS):
            groups |= _endpoint(value).groups
    for policy_key in map(keys.policy, groups):
        single.add(policy_key)
        for value in seen.get(policy_key, {}).values():
            with suppress(*REJECTIONS):
                for remote in _remotes(value):
                    match remote:
                        case RemoteGroup(group=group):
                            prefixes.add(keys.group_members(group))
                        case RemoteAddressGroup(address_group=address_group):
                            single.add(keys.address_group(address_group))
    known = tuple(prefixes)
    return frozenset(prefixes), frozenset(k for k in single if not k.startswith(known))


# The same values are read at every change of anything; parsing is pure.
_endpoint = lru_cache(maxsize=1 << 14)(parse_endpoint)
_policy = lru_cache(maxsize=1 << 14)(parse_policy)
_subnet = lru_cache(maxsize=1 << 16)(parse_subnet)
_address_group = lru_cache(maxsize=1 << 14)(parse_address_group)
_member = lru_cache(maxsize=1 << 18)(Keys.parse_member)


@lru_cache(maxsize=1 << 14)
def _remotes(policy: bytes) -> frozenset[Remote]:
    parsed = _policy(policy)
    rules = (*parsed.ingress, *parsed.egress)
    return frozenset(rule.remote for rule in rules if rule.remote is not None)


def build(host: HostName, keys: Keys, items: Mapping[str, bytes]) -> World:
    """Return the world in the items (key to value) that a host watches."""
    rejected: list[Rejected] = []

    def read(prefix: str, parse: Callable[[str, bytes], _T]) -> list[_T]:
        read_ones = []
        for key in sorted(key for key in items if key.startswith(prefix)):
            try:
                read_ones.append(parse(key.removeprefix(prefix), items[key]))
            except REJECTIONS as e:
                port = keys.parse_endpoint(key)
                rejected.append(Rejected(key=key, reason=_reason(e), port=port))
        return read_ones

    endpoints = read(
        keys.host_endpoints(host), lambda _, value: _own_endpoint(host, value)
    )
    subnets = read(keys.subnets, lambda name, value: _subnet(SubnetId(name), value))
    settings = read(BGP_CONFIGURATION, lambda _, value: parse_bgp_configuration(value))
    peers = read(BGP_PEERS, lambda _, value: parse_bgp_peer(value))
    nodes = read(NODES, lambda _, value: parse_node(value))
    policies = read(keys.policies, lambda _, value: _policy(value))
    address_groups = read(keys.address_groups, lambda _, value: _address_group(value))
    members: dict[GroupId, set[Prefix]] = defaultdict(set)
    for group, prefix, _ in read(
        keys.members, lambda name, _: _member(keys, keys.members + name)
    ):
        members[group].add(prefix)
    operator = read_operator(host, keys, items, read)
    return World(
        host=host,
        endpoints=tuple(sorted(endpoints, key=lambda endpoint: endpoint.port)),
        subnets={subnet.id: subnet for subnet in subnets},
        bgp=settings[0] if settings else BgpConfiguration(),
        peers=tuple(peer for peer in peers if peer.node in {None, host}),
        nodes=tuple(nodes),
        groups=Groups(
            policies={policy.group: policy for policy in policies},
            members={group: frozenset(found) for group, found in members.items()},
            address_groups={
                group.id: frozenset(group.prefixes) for group in address_groups
            },
        ),
        operator=operator,
        rejected=tuple(rejected),
    )


def _reason(error: Exception) -> str:
    return str(error) if isinstance(error, Invalid) else repr(error)


def _own_endpoint(host: HostName, value: bytes) -> Endpoint:
    endpoint = _endpoint(value)
    if endpoint.host != host:
        raise Invalid(f"node is {endpoint.host}, but the key is one of {host}")
    return endpoint
