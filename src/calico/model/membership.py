"""Who is in a group: what the member index says, or endpoints' labels say.

The index is what this project's Neutron side keeps. Another one of the same model wrote
labels only; until all that it left was gone through, both count, so that a host may
change its agent before the cloud changes its Neutron side.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from contextlib import suppress
from functools import lru_cache

from calico.model.codec import SG_LABEL, parse_prefix
from calico.model.ids import GroupId, Prefix
from calico.model.keys import Keys
from calico.model.resource import REJECTIONS, items, parse
from calico.model.shelf import AnyShelf, Shelf

Members = Mapping[GroupId, frozenset[Prefix]]


def unlisted_members(
    keys: Keys, seen: Mapping[str, Mapping[str, bytes]]
) -> frozenset[str]:
    """Return the prefix of what tells of members that the index lacks, if it may."""
    found = seen.get(keys.adopted)
    return frozenset({keys.endpoints} if found is not None and not found else ())


class Membership:
    """The members of groups, from the items that a host follows."""

    def __init__(self, keys: Keys) -> None:
        self._adopted = Shelf(keys.adopted, lambda _name, _value: True, bool)
        self._index = _IndexShelf(keys)
        self._labelled = Shelf(keys.endpoints, _labelled_members, _gather)
        self._known: tuple[Members, Members] | None = None
        self._both: Members = {}

    @property
    def shelves(self) -> tuple[AnyShelf, ...]:
        """Return all shelves."""
        return self._adopted, self._index, self._labelled

    @property
    def adopted(self) -> bool:
        """Whether the index knows all members."""
        return self._adopted.value

    @property
    def members(self) -> Members:
        """Return each group's addresses: the same object until they change."""
        if self.adopted:
            return self._index.value
        now = self._index.value, self._labelled.value
        if self._known is None or any(
            one is not other for one, other in zip(now, self._known, strict=True)
        ):
            self._known = now
            self._both = _union(*now, self._both)
        return self._both


_member = lru_cache(maxsize=1 << 18)(Keys.parse_member)


class _IndexShelf:
    """The members of groups; one that comes or goes costs its own group."""

    def __init__(self, keys: Keys) -> None:
        self.prefix = keys.members
        self._keys = keys
        self._ports: dict[GroupId, Counter[Prefix]] = defaultdict(Counter)
        self._known: set[str] = set()
        self._stale: set[GroupId] = set()
        self._value: Mapping[GroupId, frozenset[Prefix]] = {}

    def take(self, key: str, value: bytes | None) -> None:
        """Take what is under a key now; None if nothing. Raises what is wrong."""
        if (value is not None) == (key in self._known):
            return
        group, prefix, _ = _member(self._keys, key)
        ports = self._ports[group]
        if value is None:
            self._known.remove(key)
            ports[prefix] -= 1
            if not ports[prefix]:
                del ports[prefix]
        else:
            self._known.add(key)
            ports[prefix] += 1
        self._stale.add(group)

    @property
    def value(self) -> Mapping[GroupId, frozenset[Prefix]]:
        """Return the addresses of each group's members."""
        if self._stale:
            value = dict(self._value)
            for group in self._stale:
                if ports := self._ports[group]:
                    value[group] = frozenset(ports)
                else:
                    del self._ports[group]
                    value.pop(group, None)
            self._value, self._stale = value, set()
        return self._value


def _union(index: Members, labelled: Members, before: Members) -> Members:
    """Return both together; a group that is as it was before is the same object."""
    both = {}
    for group in {*index, *labelled}:
        members = index.get(group, frozenset()) | labelled.get(group, frozenset())
        known = before.get(group)
        both[group] = known if known == members else members
    return both


def _labelled_members(_name: str, value: bytes) -> frozenset[tuple[GroupId, Prefix]]:
    # Whoever serves an endpoint that cannot be read says so.
    with suppress(*REJECTIONS):
        return _entries(value)
    return frozenset()


@lru_cache(maxsize=1 << 17)
def _entries(value: bytes) -> frozenset[tuple[GroupId, Prefix]]:
    resource = parse(value, "WorkloadEndpoint")
    addresses = [parse_prefix(one) for one in items(resource.spec, "ipNetworks")]
    return frozenset(
        (GroupId(name.removeprefix(SG_LABEL)), address)
        for name in resource.labels
        if name.startswith(SG_LABEL)
        for address in addresses
    )


def _gather(found: Iterable[frozenset[tuple[GroupId, Prefix]]]) -> Members:
    members: dict[GroupId, set[Prefix]] = defaultdict(set)
    for entries in found:
        for group, address in entries:
            members[group].add(address)
    return {group: frozenset(addresses) for group, addresses in members.items()}
