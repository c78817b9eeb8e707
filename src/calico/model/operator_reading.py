"""What a host reads of an operator's policies, and what it has to follow for them.

The policies themselves are few, and every host follows them. What their rules select
may be the whole cloud, and a host follows that only while a policy that applies to
something of its own asks for it (P29).
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from functools import lru_cache
from ipaddress import ip_network
from typing import Protocol, TypeVar

from calico.model.codec import parse_prefix
from calico.model.ids import HostName, Invalid, PortId
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
from calico.model.operator_world import Labels, OperatorWorld, Selectable, group_of
from calico.model.resource import OWN_LABELS, REJECTIONS, items, parse
from calico.model.selectors import Selector, possible

_T = TypeVar("_T")
Items = Mapping[str, bytes]


class Read(Protocol):
    """Parses what is below a prefix; what cannot be read is set aside and reported."""

    def __call__(self, prefix: str, parse: Callable[[str, bytes], _T]) -> list[_T]:
        """Return what was read; `parse` is given the rest of a key, and the value."""


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


def read_operator(
    host: HostName, keys: Keys, stored: Items, read: Read
) -> OperatorWorld:
    """Return what an operator says, in the items that a host follows.

    Who serves an endpoint reports what is wrong with it, and so do those of address
    groups: `read` is not asked about these.
    """
    host_endpoints = read(HOST_ENDPOINTS, lambda _, value: _host_endpoint(value))
    failsafe = read(AGENT_DEFAULTS, lambda _, value: parse_failsafe(value))
    names: set[str] = set()
    policies = read(GLOBAL_POLICIES, lambda _, value: _once(_policy(value), names))
    selectable = read(GLOBAL_NETWORK_SETS, lambda _, value: _global_set(value))
    selectable += read(keys.network_sets, _network_set)
    selectable += [_of_host(endpoint) for endpoint in host_endpoints]
    workloads = [
        value for key, value in stored.items() if key.startswith(keys.endpoints)
    ]
    selectable += _readable(_workload, workloads)
    own = (e for e in host_endpoints if e.host == host)
    return OperatorWorld(
        policies=tuple(sorted(policies, key=lambda policy: policy.name)),
        labels=_labels(keys.host_endpoints(host), keys, stored),
        host_endpoints=tuple(sorted(own, key=lambda endpoint: endpoint.name)),
        selectable=tuple(selectable),
        failsafe=failsafe[0] if failsafe else Failsafe(),
    )


def _labels(prefix: str, keys: Keys, stored: Items) -> dict[PortId, Labels]:
    """Return the labels of the host's own ports."""
    found = {}
    for key, value in stored.items():
        if key.startswith(prefix) and (port := keys.parse_endpoint(key)):
            with suppress(*REJECTIONS):
                found[port[1]] = _workload(value).labels
    return found


def _once(policy: GlobalPolicy, names: set[str]) -> GlobalPolicy:
    """Return a policy whose name was not read before; Invalid if it was."""
    if policy.name in names:
        raise Invalid(f"policy {policy.name} is stored under another key as well")
    names.add(policy.name)
    return policy


# The same values are read at every change of anything; parsing is pure.
_policy = lru_cache(maxsize=1 << 12)(parse_global_policy)
_host_endpoint = lru_cache(maxsize=1 << 12)(parse_host_endpoint)


@lru_cache(maxsize=1 << 17)
def _workload(value: bytes) -> Selectable:
    """Return a port with those of its labels that the server publishes.

    Others are not looked at: which selectors could mean a port has to be known before
    all ports are.
    """
    resource = parse(value, "WorkloadEndpoint")
    return Selectable(
        {k: v for k, v in resource.labels.items() if k.startswith(OWN_LABELS)},
        tuple(parse_prefix(net) for net in items(resource.spec, "ipNetworks")),
    )


def _of_host(endpoint: HostEndpoint) -> Selectable:
    return Selectable(endpoint.labels, tuple(map(ip_network, endpoint.addresses)))


@lru_cache(maxsize=1 << 14)
def _global_set(value: bytes) -> Selectable:
    return _of_set(parse_global_network_set(value))


@lru_cache(maxsize=1 << 14)
def _network_set(name: str, value: bytes) -> Selectable:
    try:
        return _of_set(parse_network_set(value))
    except REJECTIONS:
        if name.startswith(ADDRESS_GROUP_NAME):
            return Selectable({}, ())
        raise


def _of_set(network_set: NetworkSet) -> Selectable:
    return Selectable(network_set.labels, network_set.nets)
