"""A store in memory, for tests: strict as etcd, printable, failing on request."""

from collections.abc import Iterator
from dataclasses import replace
from itertools import count

from calico.datastore.store import (
    Compare,
    DatastoreError,
    Delete,
    Item,
    LeaseLost,
    Put,
    Result,
    Snapshot,
    Transaction,
)


class MemoryStore:
    """A Store with Leases. Time stands still: leases end by `expire` only."""

    def __init__(self) -> None:
        self._items: dict[str, Item] = {}
        self._revision = 1  # an empty etcd's
        self._leases: dict[int, int] = {}
        self._lease_ids: Iterator[int] = count(1)
        self._failures: list[DatastoreError | None] = []

    def __str__(self) -> str:
        return "\n".join(
            f"{key} = {item.value!r}" for key, item in sorted(self._items.items())
        )

    def fail(self, *errors: DatastoreError | None) -> None:
        """Have the next calls raise these, one each, and do nothing.

        None lets a call pass, so that a later one fails.
        """
        self._failures += errors

    def expire(self, lease: int) -> None:
        """Let a lease's time run out: its keys go."""
        if self._leases.pop(lease, None) is None:
            raise LeaseLost(f"lease {lease:x} is gone already")
        keys = [key for key, item in self._items.items() if item.lease == lease]
        if keys:
            self._revision += 1
        for key in keys:
            del self._items[key]

    def get(self, key: str) -> Item | None:
        """Return a key's item, None if there is none."""
        self._enter()
        return self._items.get(key)

    def get_prefix(self, prefix: str) -> Snapshot:
        """Return all items whose keys start with `prefix`."""
        self._enter()
        found = {k: self._items[k] for k in sorted(self._items) if k.startswith(prefix)}
        return Snapshot(items=found, revision=self._revision)

    def transaction(self, transaction: Transaction) -> Result:
        """Do all of a transaction or nothing."""
        self._enter()
        if not all(map(self._holds, transaction.compares)):
            return Result(succeeded=False, revision=self._revision)
        for write in transaction.writes:
            self._refuse_lost_lease(write)
        # etcd counts a revision only where something changes.
        at = self._revision + 1
        changed = [self._write(write, at) for write in transaction.writes]
        if any(changed):
            self._revision = at
        return Result(succeeded=True, revision=self._revision)

    def put(self, key: str, value: bytes, lease: int | None = None) -> int:
        """Write one key whatever it holds; return the revision."""
        write = Put(key=key, value=value, lease=lease)
        return self.transaction(Transaction(writes=(write,))).revision

    def delete(self, key: str) -> int:
        """Remove one key whatever it holds; return the revision."""
        return self.transaction(Transaction(writes=(Delete(key=key),))).revision

    def lease_grant(self, ttl: int) -> int:
        """Return a new lease's id."""
        self._enter()
        lease = next(self._lease_ids)
        self._leases[lease] = ttl
        return lease

    def lease_keepalive(self, lease: int) -> int:
        """Return the lease's seconds, 0 if it is gone."""
        self._enter()
        return self._leases.get(lease, 0)

    def lease_revoke(self, lease: int) -> None:
        """End a lease and delete its keys; nothing happens if it is gone."""
        self._enter()
        if lease in self._leases:
            self.expire(lease)

    def _enter(self) -> None:
        if self._failures and (error := self._failures.pop(0)) is not None:
            raise error

    def _holds(self, compare: Compare) -> bool:
        item = self._items.get(compare.key)
        modified = item.mod_revision if item else 0
        created = item.create_revision if item else 0
        return compare.mod_revision in {None, modified} and (
            compare.create_revision in {None, created}
        )

    def _refuse_lost_lease(self, write: Put | Delete) -> None:
        if isinstance(write, Put) and write.lease and write.lease not in self._leases:
            raise LeaseLost(f"put {write.key}: lease {write.lease:x} is gone")

    def _write(self, write: Put | Delete, at: int) -> bool:
        old = self._items.get(write.key)
        if isinstance(write, Delete):
            return self._items.pop(write.key, None) is not None
        new = Item(
            key=write.key,
            value=write.value,
            mod_revision=at,
            create_revision=at,
            lease=write.lease or 0,
        )
        if old is not None:
            new = replace(new, create_revision=old.create_revision)
        self._items[write.key] = new
        return True
