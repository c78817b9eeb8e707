"""What a host reads of an operator's policies, and what it has to follow for them.

The policies themselves are few, and every host follows them. What their rules select
may be the whole cloud, and a host follows that only while a policy that applies to
something of its own asks for it (P29).
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from functools import lru_cache
from ipaddress import ip_network
from operator import is_
from typing import TypeVar

from calico.model.codec import parse_prefix
from calico.model.ids import HostName, PortId
from calico.model.keys import (
    ADDRESS_GROUP_NAME,
    AGENT_DEFAULTS,
    GLOBAL_NETWORK_SETS,
    GLOBAL_POLICIES,
    HOST_ENDPOINTS,
    Keys,
)
from calico.model.operator import Failsafe, GlobalPolicy, HostEndpoint, NetworkSet
from calico.model.operator_codec import (
    parse_failsafe,
    parse_global_network_set,
    parse_global_policy,
    parse_host_endpoint,
    parse_network_set,
)
from calico.model.operator_world import OperatorWorld, Selectable, group_of
from calico.model.policy_codec import AG_LABEL
from calico.model.resource import OWN_LABELS, REJECTIONS, items, parse, text
from calico.model.selectors import Selector, possible
from calico.model.shelf import AnyShelf, Shelf

_T = TypeVar("_T")
Items = Mapping[str, bytes]


def operator_prefixes() -> frozenset[str]:
    """Return the prefixes that every host follows."""
    return frozenset({GLOBAL_POLICIES, HOST_ENDPOINTS})


def operator_keys() -> frozenset[str]:
    """Return the single keys that every host follows."""
    return frozenset({AGENT_DEFAULTS})


def selector_prefixes(
    host: HostName, keys: Keys, seen: Mapping[str, Items]
) -> frozenset[str]:
    """Return the prefixes of what is selected by rules that apply to the host's own.

    `seen` are items by the prefix that they were seen under.
    """
    ports = seen.get(keys.host_endpoints(host), {}).values()
    subjects = [one.labels for one in _readable(_workload, ports)]
    subjects += [
        one.labels
        for one in _readable(_host_endpoint, seen.get(HOST_ENDPOINTS, {}).values())
        if one.host == host
    ]
    prefixes: set[str] = set()
    for policy in _readable(_policy, seen.get(GLOBAL_POLICIES, {}).values()):
        if any(policy.selector.matches(labels) for labels in subjects):
            for selector in _selectors(policy):
                prefixes |= set(_prefixes(selector, keys))
    return frozenset(prefixes)


def _prefixes(selector: Selector, keys: Keys) -> Iterator[str]:
    yield keys.network_sets
    yield GLOBAL_NETWORK_SETS
    if group := group_of(selector):
        yield keys.group_members(group)
    elif possible(selector, OWN_LABELS):
        yield keys.endpoints


def _selectors(policy: GlobalPolicy) -> frozenset[Selector]:
    return frozenset(
        selector
        for rule in (*(policy.ingress or ()), *(policy.egress or ()))
        for end in (rule.source, rule.destination)
        for selector in (end.selector, end.not_selector)
        if selector is not None
    )


def _readable(parse: Callable[[bytes], _T], values: Iterable[bytes]) -> Iterator[_T]:
    for value in values:
        with suppress(*REJECTIONS):
            yield parse(value)


class OperatorShelves:
    """What an operator says, from the items that a host follows.

    Nothing is said here of endpoints and address groups that cannot be read: who serves
    them, or names them, reports that.
    """

    def __init__(self, host: HostName, keys: Keys) -> None:
        self._policies = Shelf(GLOBAL_POLICIES, lambda _, value: _policy(value), _named)
        self._host_endpoints = Shelf(
            HOST_ENDPOINTS, lambda _, value: _host_endpoint(value), _sorted
        )
        self._failsafe = Shelf(
            AGENT_DEFAULTS,
            lambda _, value: parse_failsafe(value),
            lambda found: found[0] if found else Failsafe(),
        )
        self._global_sets = Shelf(
            GLOBAL_NETWORK_SETS, lambda _, value: _global_set(value), tuple
        )
        self._sets = Shelf(keys.network_sets, _network_set, tuple)
        self._workloads = Shelf(keys.endpoints, _workload_of, tuple)
        self._own = Shelf(
            keys.host_endpoints(host),
            _workload_of,
            lambda found: {port: one.labels for port, one in filter(None, found)},
        )
        self._host = host
        self._known: tuple[object, ...] = ()
        self._world = OperatorWorld()

    @property
    def shelves(self) -> tuple[AnyShelf, ...]:
        """Return all shelves."""
        return (
            self._policies,
            self._host_endpoints,
            self._failsafe,
            self._global_sets,
            self._sets,
            self._workloads,
            self._own,
        )

    def world(self) -> OperatorWorld:
        """Return what the operator says: the same object until that changes."""
        values = (
            self._policies.value,
            self._host_endpoints.value,
            self._failsafe.value,
            self._global_sets.value,
            self._sets.value,
            self._workloads.value,
            self._own.value,
        )
        if all(map(is_, values, self._known)) and self._known:
            return self._world
        self._known = values
        hosts = self._host_endpoints.value
        ports = tuple(one for _, one in filter(None, self._workloads.value))
        self._world = OperatorWorld(
            policies=self._policies.value,
            labels=self._own.value,
            host_endpoints=tuple(e for e in hosts if e.host == self._host),
            selectable=(
                *self._global_sets.value,
                *self._sets.value,
                *map(_of_host, hosts),
                *ports,
            ),
            failsafe=self._failsafe.value,
        )
        return self._world


def _named(found: list[GlobalPolicy]) -> tuple[GlobalPolicy, ...]:
    """Return policies by name; of two that are stored differently the first counts."""
    by_name: dict[str, GlobalPolicy] = {}
    for policy in found:
        by_name.setdefault(policy.name, policy)
    return tuple(policy for _, policy in sorted(by_name.items()))


def _sorted(found: list[HostEndpoint]) -> tuple[HostEndpoint, ...]:
    return tuple(sorted(found, key=lambda endpoint: endpoint.name))


def _workload_of(_name: str, value: bytes) -> tuple[PortId, Selectable] | None:
    """Return a port and what selectors see of it; None where it cannot be read.

    The port is the value's word, as it is where the port is served: names are made of
    what tenants write.
    """
    with suppress(*REJECTIONS):
        return _port_of(value), _workload(value)
    return None


# The same values are read at every change of anything; parsing is pure.
_policy = lru_cache(maxsize=1 << 12)(parse_global_policy)
_host_endpoint = lru_cache(maxsize=1 << 12)(parse_host_endpoint)


@lru_cache(maxsize=1 << 17)
def _port_of(value: bytes) -> PortId:
    return PortId(text(parse(value, "WorkloadEndpoint").spec, "endpoint"))


@lru_cache(maxsize=1 << 17)
def _workload(value: bytes) -> Selectable:
    """Return a port with those of its labels that the server publishes.

    Its addresses are those that it sends from, and the floating IPs that lead to it.
    Others are not looked at: which selectors could mean a port has to be known before
    all ports are.
    """
    resource = parse(value, "WorkloadEndpoint")
    return Selectable(
        {k: v for k, v in resource.labels.items() if k.startswith(OWN_LABELS)},
        (
            *(parse_prefix(net) for net in items(resource.spec, "ipNetworks")),
            *(
                parse_prefix(nat["externalIP"])
                for nat in items(resource.spec, "ipNATs")
            ),
        ),
    )


def _of_host(endpoint: HostEndpoint) -> Selectable:
    return Selectable(endpoint.labels, tuple(map(ip_network, endpoint.addresses)))


@lru_cache(maxsize=1 << 14)
def _global_set(value: bytes) -> Selectable:
    return _of_set(parse_global_network_set(value))


@lru_cache(maxsize=1 << 14)
def _network_set(name: str, value: bytes) -> Selectable:
    if not name.startswith(ADDRESS_GROUP_NAME):
        return _of_set(parse_network_set(value))
    only_by = AG_LABEL + name.removeprefix(ADDRESS_GROUP_NAME)
    with suppress(*REJECTIONS):
        return Selectable({}, parse_network_set(value).nets, only_by)
    return Selectable({}, (), only_by)


def _of_set(network_set: NetworkSet) -> Selectable:
    return Selectable(network_set.labels, network_set.nets)
