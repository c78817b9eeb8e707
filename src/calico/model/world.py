"""What one host has to know, indexed: the input of every plan.

Built from the items under the keys that a host watches, and from nothing else. An
object that breaks its rules is set aside with the reason, and disturbs no other (P41).
"""

from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, fields
from functools import lru_cache, partial
from typing import TypeVar

from calico.model.bgp_codec import parse_bgp_configuration, parse_bgp_peer, parse_node
from calico.model.cloud_settings import (
    DEFAULTS,
    CloudSettings,
    parse_cloud_settings,
)
from calico.model.codec import parse_endpoint, parse_subnet
from calico.model.groups import Groups
from calico.model.ids import (
    DeviceId,
    GroupId,
    HostName,
    Invalid,
    LogId,
    PortId,
    Prefix,
    SubnetId,
)
from calico.model.keys import BGP_CONFIGURATION, BGP_PEERS, NODES, SUBNETS, Keys
from calico.model.logs import Log, parse_log
from calico.model.membership import Membership, unlisted_members
from calico.model.names import PortNames, parse_port_names
from calico.model.operator_reading import (
    OperatorShelves,
    operator_keys,
    operator_prefixes,
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
from calico.model.shelf import AnyShelf, Shelf

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
    """A host's picture of the cloud; endpoints are its own only, sorted by port.

    All but `elsewhere`, the prefixes of other regions' subnets, is its own region's.
    """

    host: HostName
    endpoints: tuple[Endpoint, ...] = ()
    subnets: Mapping[SubnetId, Subnet] = field(default_factory=dict)
    elsewhere: frozenset[Prefix] = frozenset()
    bgp: BgpConfiguration = field(default_factory=BgpConfiguration)
    peers: tuple[BgpPeer, ...] = ()
    nodes: tuple[Node, ...] = ()
    groups: Groups = field(default_factory=Groups)
    logs: tuple[Log, ...] = ()
    settings: CloudSettings = DEFAULTS
    operator: OperatorWorld = NO_OPERATOR
    # Whether all that is stored was gone through by this project's Neutron side.
    adopted: bool = True
    names: tuple[PortNames, ...] = ()
    rejected: tuple[Rejected, ...] = ()

    def subnets_of(self, endpoint: Endpoint) -> tuple[Subnet, ...]:
        """Return the subnets that an endpoint's fixed addresses are from, sorted."""
        return tuple(
            subnet
            for _, subnet in sorted(self.subnets.items())
            if subnet.network == endpoint.network
            and any(address in subnet.prefix for address in endpoint.addresses)
        )


def differs_in_policy(world: World, other: World) -> bool:
    """Tell whether nothing but policy and names sets two worlds apart, by identity.

    Policy is the groups, and what the operator says. Names are of no concern to the
    kernel.

    Worlds of one builder keep what did not change; of others it is not known.
    """
    return all(
        getattr(world, f.name) is getattr(other, f.name)
        for f in fields(World)
        if f.name not in {"groups", "operator", "names"}
    )


def watched_prefixes(host: HostName, keys: Keys) -> frozenset[str]:
    """Return the prefixes of what a host has to know in any case (P29)."""
    own = {keys.host_endpoints(host), SUBNETS, keys.logs, BGP_PEERS, NODES}
    return operator_prefixes() | own


def watched_keys(keys: Keys) -> frozenset[str]:
    """Return the single keys that a host has to know besides."""
    own = {BGP_CONFIGURATION, keys.settings, keys.adopted}
    return frozenset(own) | operator_keys()


def group_prefixes_and_keys(
    host: HostName, keys: Keys, seen: Mapping[str, Mapping[str, bytes]]
) -> tuple[frozenset[str], frozenset[str]]:
    """Return the prefixes and keys of what the host's own ports lead to, no others.

    The groups of its endpoints have policies, and those name groups, whose members
    count, and address groups; an operator's policies name selectors. Where the member
    index may lack some, members are found by the labels of all endpoints. The projects
    of its endpoints have names in DNS, which it answers them alone. `seen` are items
    by the prefix or key they were seen under; what it lacks leads nowhere yet.
    """
    prefixes = set(selector_prefixes(host, keys, seen))
    single: set[str] = set()
    groups: set[GroupId] = set()
    for value in seen.get(keys.host_endpoints(host), {}).values():
        with suppress(*REJECTIONS):
            endpoint = _endpoint(value)
            groups |= endpoint.groups
            prefixes.add(keys.project_names(endpoint.project))
    for policy_key in map(keys.policy, groups):
        single.add(policy_key)
        for value in seen.get(policy_key, {}).values():
            with suppress(*REJECTIONS):
                for remote in _remotes(value):
                    match remote:
                        case RemoteGroup(group=group):
                            prefixes.add(keys.group_members(group))
                            prefixes |= unlisted_members(keys, seen)
                        case RemoteAddressGroup(address_group=address_group):
                            single.add(keys.address_group(address_group))
    known = tuple(prefixes)
    return frozenset(prefixes), frozenset(k for k in single if not k.startswith(known))


# The same values are read at every change of anything; parsing is pure.
_endpoint = lru_cache(maxsize=1 << 14)(parse_endpoint)
_policy = lru_cache(maxsize=1 << 14)(parse_policy)
_subnet = lru_cache(maxsize=1 << 16)(parse_subnet)
_address_group = lru_cache(maxsize=1 << 14)(parse_address_group)


@lru_cache(maxsize=1 << 14)
def _remotes(policy: bytes) -> frozenset[Remote]:
    parsed = _policy(policy)
    rules = (*parsed.ingress, *parsed.egress)
    return frozenset(rule.remote for rule in rules if rule.remote is not None)


def build(host: HostName, keys: Keys, items: Mapping[str, bytes]) -> World:
    """Return the world in the items (key to value) that a host watches."""
    return WorldBuilder(host, keys).build(items, items)


class WorldBuilder:
    """Builds a host's worlds one after the other, each from what changed.

    What it returns depends on the items alone; a part of the world that a change does
    not concern is the same object as before, so that whoever comes after sees by `is`
    what there is nothing to do for.
    """

    def __init__(self, host: HostName, keys: Keys) -> None:
        self._host = host
        self._keys = keys
        self._endpoints = Shelf(
            keys.host_endpoints(host),
            lambda _, value: _own_endpoint(host, value),
            lambda found: tuple(sorted(found, key=lambda endpoint: endpoint.port)),
        )
        self._subnets = Shelf(
            keys.subnets,
            lambda name, value: _subnet(SubnetId(name), value),
            lambda found: {subnet.id: subnet for subnet in found},
        )
        self._elsewhere = Shelf(
            SUBNETS,
            partial(_prefix_elsewhere, keys),
            lambda found: frozenset(p for p in found if p is not None),
        )
        self._bgp = Shelf(
            BGP_CONFIGURATION,
            lambda _, value: parse_bgp_configuration(value),
            lambda found: found[0] if found else BgpConfiguration(),
        )
        self._peers = Shelf(
            BGP_PEERS,
            lambda _, value: parse_bgp_peer(value),
            lambda found: tuple(p for p in found if p.node in {None, host}),
        )
        self._logs = Shelf(keys.logs, _log, tuple)
        self._names = Shelf(keys.names, partial(_port_names, keys), tuple)
        self._settings = Shelf(
            keys.settings,
            lambda _, value: parse_cloud_settings(value),
            lambda found: found[0] if found else DEFAULTS,
        )
        self._nodes = Shelf(NODES, lambda _, value: parse_node(value), tuple)
        self._policies = Shelf(
            keys.policies,
            lambda _, value: _policy(value),
            lambda found: {policy.group: policy for policy in found},
        )
        self._address_groups = Shelf(
            keys.address_groups,
            lambda _, value: _address_group(value),
            lambda found: {group.id: frozenset(group.prefixes) for group in found},
        )
        self._membership = Membership(keys)
        self._operator = OperatorShelves(host, keys)
        self._rejected: dict[str, Rejected] = {}
        self._world = World(host=host)

    def _shelves(self) -> tuple[AnyShelf, ...]:
        return (
            # First, since what is under a key may be on a shelf of the others too, and
            # it is for that to say what is wrong.
            *self._operator.shelves,
            *self._membership.shelves,
            self._elsewhere,
            self._endpoints,
            self._subnets,
            self._bgp,
            self._peers,
            self._nodes,
            self._logs,
            self._names,
            self._settings,
            self._policies,
            self._address_groups,
        )

    def build(self, items: Mapping[str, bytes], changed: Iterable[str]) -> World:
        """Return the world in the items that a host watches.

        `changed` are the keys of all that is not as it was the last time; one that is
        not among the items is gone.
        """
        shelves = self._shelves()
        for key in changed:
            for shelf in shelves:
                if key.startswith(shelf.prefix):
                    self._take(shelf, key, items.get(key))
        before = self._world
        self._world = World(
            host=self._host,
            endpoints=self._endpoints.value,
            subnets=self._subnets.value,
            elsewhere=self._elsewhere.value,
            bgp=self._bgp.value,
            peers=self._peers.value,
            nodes=self._nodes.value,
            groups=self._groups(before.groups),
            logs=self._logs.value,
            settings=self._settings.value,
            operator=self._operator.world(),
            adopted=self._membership.adopted,
            names=self._names.value,
            rejected=_same(
                tuple(one for _, one in sorted(self._rejected.items())),
                before.rejected,
            ),
        )
        return self._world

    def _take(self, shelf: AnyShelf, key: str, value: bytes | None) -> None:
        self._rejected.pop(key, None)
        try:
            shelf.take(key, value)
        except REJECTIONS as e:
            port = self._keys.parse_endpoint(key)
            self._rejected[key] = Rejected(key=key, reason=_reason(e), port=port)

    def _groups(self, before: Groups) -> Groups:
        now = Groups(
            policies=self._policies.value,
            members=self._membership.members,
            address_groups=self._address_groups.value,
        )
        same = (
            now.policies is before.policies
            and now.members is before.members
            and now.address_groups is before.address_groups
        )
        return before if same else now


def _same(now: _T, before: _T) -> _T:
    """Return the one of before if it equals."""
    return before if now == before else now


def _reason(error: Exception) -> str:
    return str(error) if isinstance(error, Invalid) else repr(error)


def _log(name: str, value: bytes) -> Log:
    return parse_log(LogId(name), value)


def _prefix_elsewhere(keys: Keys, name: str, value: bytes) -> Prefix | None:
    key = SUBNETS + name
    # What cannot be read its own region's hosts report.
    if key.startswith(keys.subnets):
        return None
    with suppress(*REJECTIONS):
        return _subnet(SubnetId(key), value).prefix
    return None


def _port_names(keys: Keys, name: str, value: bytes) -> PortNames:
    return parse_port_names(*keys.parse_port_names(keys.names + name), value)


def _own_endpoint(host: HostName, value: bytes) -> Endpoint:
    endpoint = _endpoint(value)
    if endpoint.host != host:
        raise Invalid(f"node is {endpoint.host}, but the key is one of {host}")
    return endpoint
