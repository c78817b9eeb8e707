"""Bring etcd to what Neutron's database says: one transaction for each object.

What is compared is read from etcd before the database is read, so a publication that
was overtaken fails and is done again: a slow writer cannot undo a newer one, and the
order of events never matters.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import islice
from typing import NamedTuple

import msgspec

from calico.datastore.store import (
    MAX_OPERATIONS,
    Compare,
    Delete,
    Item,
    Put,
    Store,
    Transaction,
)
from calico.model.codec import encode_endpoint
from calico.model.ids import Invalid, PortId
from calico.model.keys import Keys
from calico.model.migration import encode_migration
from calico.model.names import encode_port_names
from calico.model.records import Endpoint
from calico.model.resource import parse_json, says_the_same
from calico.server.translate import members, names

ATTEMPTS = 10  # lost races in a row before the journal gets the object back

LARGEST_REQUEST = 1_500_000
"""Bytes that etcd takes at once (its --max-request-bytes, less what wraps them)."""

Writes = list[Put | Delete]

Encode = Callable[[bytes | None], bytes]
"""Makes a stored value from the one that it replaces (None: there is none)."""


class Form(NamedTuple):
    """A key, and what makes the value that should be there (None: nothing should)."""

    key: str
    wanted: Callable[[bytes | None], bytes | None]


Endpoints = tuple[Endpoint, ...]
"""A port's endpoints: that of the host that it is bound to, then others."""


class Unpublishable(Exception):  # noqa: N818 - it names what the object is
    """This one object cannot be published now; others can. The message says why."""


class PublishedPort(msgspec.Struct):
    """The record of what is in etcd for a port: its endpoint's key and its members'.

    `moves` are the keys of its endpoints on other hosts, and of the migrations; `names`
    is the key of its names in DNS, if it has any.
    """

    endpoint: str
    members: list[str] = []
    moves: list[str] = []
    names: list[str] = []
    # False while keys too many for one transaction are being written.
    complete: bool = True


class Publication:
    """Publishes objects of one region to a store. Holds no state; any thread may."""

    def __init__(self, store: Store, keys: Keys) -> None:
        self._store = store
        self._keys = keys

    def ports(
        self,
        ids: Sequence[str],
        read: Callable[[Sequence[str]], Mapping[str, Endpoints]],
    ) -> None:
        """Publish or withdraw ports; `read` reads their endpoints from the database.

        Raises Temporary where etcd cannot be reached, Unpublishable where others are
        always faster.
        """
        remaining = list(ids)
        for _ in range(ATTEMPTS):
            records = {port: self._record(port) for port in remaining}
            wanted = read(remaining)
            remaining = [
                port
                for port in remaining
                if not self._port(PortId(port), wanted.get(port), records[port])
            ]
            if not remaining:
                return
        raise Unpublishable(f"ports {remaining} are being published by others too")

    def is_current(
        self,
        port: PortId,
        wanted: Endpoints | None,
        held: Callable[[str], bytes | None],
    ) -> bool:
        """Tell whether etcd has of a port what it should; `held` says what it has."""
        record = held(self._keys.published_port(port))
        if wanted is None:
            return record is None
        listed = record and decode_record(record)
        if not listed or listed != self._published(wanted):
            return False
        return all(held(key) is not None for key in listed.members) and all(
            says_the_same(held(key), encode(held(key)))
            for key, encode in self._forms(wanted)
        )

    def correct(self, port: PortId, old: Item | None, keys: Iterable[str]) -> bool:
        """Have a port's record list keys that it should not have been without.

        The next publication of the port then writes what lacks, and deletes what is
        stale. False if somebody published the port since the record `old` was read.
        """
        first, *others = sorted(keys)
        record = PublishedPort(endpoint=first, members=others, complete=False)
        key = self._keys.published_port(port)
        put = Put(key=key, value=msgspec.json.encode(record))
        return self._swap(Compare.unchanged(key, old), [put])

    def object(self, form: Form) -> None:
        """Publish or withdraw an object that has one key; errors as for ports."""
        for _ in range(ATTEMPTS):
            old = self._store.get(form.key)
            value = form.wanted(old.value if old else None)
            if value is None and old is None:
                return
            write: Put | Delete = Delete(key=form.key)
            if value is not None:
                write = Put(key=form.key, value=value)
            if self._swap(Compare.unchanged(form.key, old), [write]):
                return
        raise Unpublishable(f"{form.key} is being published by others too")

    def _record(self, port: str) -> Item | None:
        return self._store.get(self._keys.published_port(PortId(port)))

    def _port(self, port: PortId, wanted: Endpoints | None, old: Item | None) -> bool:
        """Return whether the port is now in etcd as wanted; False after a lost race."""
        record = self._keys.published_port(port)
        before = decode_record(old.value) if old else None
        if wanted is None:
            if old is None:
                return True
            gone: Writes = [Delete(key=k) for k in all_keys(before)] if before else []
            return self._swap_port(Delete(key=record), old, gone, before)
        after = self._published(wanted)
        writes = self._differences(wanted, before, after)
        # The record is always written: its revision is what tells a slower writer that
        # it was overtaken.
        last = Put(key=record, value=msgspec.json.encode(after))
        return self._swap_port(last, old, writes, after)

    def _published(self, wanted: Endpoints) -> PublishedPort:
        keys, (active, *others) = self._keys, wanted
        moves = [keys.endpoint(one.host, one.device, one.port) for one in others]
        moves += [_migration_key(keys, target) for _, target in migrations(wanted)]
        named = names(active)
        return PublishedPort(
            endpoint=keys.endpoint(active.host, active.device, active.port),
            members=sorted(
                keys.member(m.group, m.address, m.port) for m in members(active)
            ),
            moves=sorted(moves),
            names=[keys.port_names(named.project, named.port)] if named else [],
        )

    def _differences(
        self, wanted: Endpoints, before: PublishedPort | None, after: PublishedPort
    ) -> Writes:
        """Return the writes that lead from one record to another; nothing besides."""
        known = set(before.members) if before and before.complete else set()
        new: Writes = [Put(key=k, value=b"{}") for k in after.members if k not in known]
        stale: set[str] = set(all_keys(before)) if before else set()
        stale -= set(all_keys(after))
        for key, encode in self._forms(wanted):
            new += self._change(key, encode)
        return [*(Delete(key=key) for key in sorted(stale)), *new]

    def _forms(self, wanted: Endpoints) -> Iterator[tuple[str, Encode]]:
        """Yield the keys of a port's resources, and what makes each from an old one."""
        keys = self._keys
        for one in wanted:
            key = keys.endpoint(one.host, one.device, one.port)
            yield key, partial(encode_endpoint, one, keys)
        for source, target in migrations(wanted):
            key = _migration_key(keys, target)
            yield key, partial(encode_migration, source, target, keys)
        if named := names(wanted[0]):
            key = keys.port_names(named.project, named.port)
            yield key, partial(encode_port_names, named)

    def _change(self, key: str, encode: Encode) -> Writes:
        """Return the write of a key, if it would change anything."""
        item = self._store.get(key)
        old = item.value if item else None
        value = encode(old)
        return [] if says_the_same(old, value) else [Put(key=key, value=value)]

    def _swap_port(
        self,
        last: Put | Delete,
        old: Item | None,
        writes: Writes,
        listed: PublishedPort | None,
    ) -> bool:
        """Write if the port's record is as it was read; `last` writes or deletes it.

        Where one transaction is too small, the first one marks the record, which lists
        all keys of `listed` and of `writes`, as incomplete. Whoever comes after a crash
        knows from it what may be there, and writes or deletes everything again.
        """
        if listed is None or len(writes) < MAX_OPERATIONS:
            return self._swap(Compare.unchanged(last.key, old), [last, *writes])
        written = {*all_keys(listed), *(write.key for write in writes)}
        started = PublishedPort(
            endpoint=listed.endpoint,
            members=sorted(written - {listed.endpoint}),
            complete=False,
        )
        opening = self._store.transaction(
            Transaction(
                compares=(Compare.unchanged(last.key, old),),
                writes=(Put(key=last.key, value=msgspec.json.encode(started)),),
            )
        )
        ours = Compare(key=last.key, mod_revision=opening.revision)
        remaining = iter(writes)
        steps = iter(lambda: list(islice(remaining, MAX_OPERATIONS)), [])
        return (
            opening.succeeded
            and all(self._swap(ours, step) for step in steps)
            and self._swap(ours, [last])
        )

    def _swap(self, condition: Compare, writes: Writes) -> bool:
        _refuse_oversize(writes)
        return self._store.transaction(
            Transaction(compares=(condition,), writes=tuple(writes))
        ).succeeded


def _refuse_oversize(writes: Writes) -> None:
    """Raise Unpublishable for more than etcd takes.

    Its own answer would be Broken, or for still more the same as that of an etcd that
    is overloaded, which all others would wait for.
    """
    sizes = {w.key: len(w.key) + len(w.value) for w in writes if isinstance(w, Put)}
    if sum(sizes.values()) > LARGEST_REQUEST:
        largest = max(sizes, key=lambda key: sizes[key])
        raise Unpublishable(
            f"{largest}: {sizes[largest]} bytes are too many for etcd, which takes"
            f" {LARGEST_REQUEST} at once"
        )


def decode_record(value: bytes) -> PublishedPort | None:
    """Return what a port's record says; None if it is none."""
    try:
        return msgspec.convert(parse_json(value), PublishedPort)
    except (Invalid, msgspec.ValidationError):
        return None  # somebody else's writing: what it listed cannot be known


def all_keys(record: PublishedPort) -> list[str]:
    """Return the keys that a record lists."""
    return [record.endpoint, *record.members, *record.moves, *record.names]


def migrations(endpoints: Endpoints) -> list[tuple[Endpoint, Endpoint]]:
    """Return the source and target of each migration that a port's endpoints make."""
    active, *others = endpoints
    return [(active, one) if one.arriving_from else (one, active) for one in others]


def _migration_key(keys: Keys, target: Endpoint) -> str:
    return keys.migration(target.host, target.device, target.port)
