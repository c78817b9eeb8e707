"""What etcd holds of a region, listed, and by which object of Neutron's it is there.

Whoever wrote it: an earlier Neutron side of the same model left endpoints that no
record of ours names.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass

from calico.datastore.store import Item, Store
from calico.model.ids import GroupId, Invalid, PortId
from calico.model.keys import Keys, parse_endpoint_name
from calico.server.publish import all_keys, decode_record


@dataclass(frozen=True, slots=True, kw_only=True)
class Holdings:
    """All of a region's objects: by key, and each port's keys without its record."""

    items: Mapping[str, Item]
    of_ports: Mapping[PortId, frozenset[str]]
    keys: Keys

    def value(self, key: str) -> bytes | None:
        """Return what is under a key."""
        item = self.items.get(key)
        return item.value if item else None

    def record(self, port: PortId) -> Item | None:
        """Return the record of what was published for a port."""
        return self.items.get(self.keys.published_port(port))

    def ports(self) -> set[str]:
        """Return the ids of all ports that anything is there of."""
        return {*self.of_ports, *self.names(self.keys.published_ports)}

    def names(self, prefix: str) -> set[str]:
        """Return what follows a prefix in the keys that have it."""
        return {
            key.removeprefix(prefix) for key in self.items if key.startswith(prefix)
        }

    def unlisted(self) -> dict[PortId, frozenset[str]]:
        """Return all keys of those ports whose record lists others than are there.

        Of a record that is incomplete nothing is said: its port is being published.
        """
        found = {}
        for port in map(PortId, self.ports()):
            there = self.of_ports.get(port, frozenset())
            item = self.record(port)
            record = decode_record(item.value) if item else None
            listed = frozenset(all_keys(record)) if record else frozenset()
            if listed != there and (record is None or record.complete):
                found[port] = there | listed
        return found


def read(store: Store, keys: Keys) -> Holdings:
    """List a region's objects.

    The records first: a port whose record is still the same afterwards was not
    published meanwhile, so that what was listed of it later belongs together.
    """
    items: dict[str, Item] = {}
    for prefix in (
        keys.published_ports,
        keys.endpoints,
        keys.migrations,
        keys.members,
        keys.names,
        keys.policies,
        keys.address_groups,
        keys.subnets,
        keys.logs,
    ):
        items |= store.get_prefix(prefix).items
    return Holdings(items=items, of_ports=_of_ports(items, keys), keys=keys)


def groups(names: Iterable[str], keys: Keys) -> set[str]:
    """Return the security groups among the names of policies."""
    prefix = keys.policy_name(GroupId(""))
    return {name.removeprefix(prefix) for name in names if name.startswith(prefix)}


def _of_ports(items: Iterable[str], keys: Keys) -> dict[PortId, frozenset[str]]:
    found: dict[PortId, set[str]] = defaultdict(set)
    for key in items:
        if port := _port(key, keys):
            found[port].add(key)
    return {port: frozenset(there) for port, there in found.items()}


def _port(key: str, keys: Keys) -> PortId | None:
    """Return the port that a key is there for; None if it is not a port's."""
    for prefix in (keys.endpoints, keys.migrations):
        if key.startswith(prefix):
            name = parse_endpoint_name(key.removeprefix(prefix))
            return name[1] if name else None
    for parse in (keys.parse_member, keys.parse_port_names):
        with suppress(Invalid):
            return parse(key)[-1]
    return None
