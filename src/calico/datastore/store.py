"""What a datastore is: versioned keys, changed by compare-and-swap transactions.

Every change of the store has a revision, one number for the whole store that only
grows; one transaction changes all its keys at one revision.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol, Self

MAX_OPERATIONS = 128
"""The most compares, and the most writes, of one transaction (etcd's default)."""


class DatastoreError(Exception):
    """Base of what a store raises."""


class Temporary(DatastoreError):  # noqa: N818 - named by who must act: try again later
    """No member answered, or none could now. A write may or may not have happened."""


class LeaseLost(Temporary):
    """The lease has ended: grant another, then try again."""


class Broken(DatastoreError):  # noqa: N818 - named by who must act: the operator
    """The store refuses us (TLS, user, permission, request): trying again is no use."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """A key's value, when it was created and last changed, its lease (0: none)."""

    key: str
    value: bytes
    mod_revision: int
    create_revision: int
    lease: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """All items of a range as they were at one revision of the store, by key."""

    items: Mapping[str, Item]
    revision: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Compare:
    """A condition on one key: the revision of its last change, or of its creation.

    Revision 0 is a key that does not exist. A key deleted and created again has another
    creation revision, which is what makes it a fencing token.
    """

    key: str
    mod_revision: int | None = None
    create_revision: int | None = None

    def __post_init__(self) -> None:
        if self.mod_revision is None and self.create_revision is None:
            raise ValueError(f"compare of {self.key} says nothing to compare with")

    @classmethod
    def absent(cls, key: str) -> Self:
        """Return the condition that a key does not exist."""
        return cls(key=key, mod_revision=0)

    @classmethod
    def unchanged(cls, key: str, item: Item | None) -> Self:
        """Return the condition that a key is still as it was read (None: absent)."""
        return cls(key=key, mod_revision=item.mod_revision if item else 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Put:
    """Write a key; with a lease, it goes when the lease does."""

    key: str
    value: bytes
    lease: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Delete:
    """Remove a key; nothing happens where there is none."""

    key: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Transaction:
    """Writes that all happen, at one revision, if all compares hold; else none.

    A key may be written once only, and there is a limit to both lists: etcd's rules,
    refused here with ValueError so that every store refuses them alike.
    """

    compares: tuple[Compare, ...] = ()
    writes: tuple[Put | Delete, ...] = ()

    def __post_init__(self) -> None:
        conditions = sum(
            (c.mod_revision is not None) + (c.create_revision is not None)
            for c in self.compares
        )
        if conditions > MAX_OPERATIONS or len(self.writes) > MAX_OPERATIONS:
            raise ValueError(
                f"transaction of {conditions} compares and {len(self.writes)} writes;"
                f" at most {MAX_OPERATIONS} of each"
            )
        keys = [w.key for w in self.writes]
        if len(set(keys)) != len(keys):
            raise ValueError("transaction writes one key twice")


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """Whether a transaction's compares held, and the store's revision after it."""

    succeeded: bool
    revision: int


class Store(Protocol):
    """The seam. All methods raise Temporary or Broken."""

    def get(self, key: str) -> Item | None:
        """Return a key's item, None if there is none."""
        ...

    def get_prefix(self, prefix: str) -> Snapshot:
        """Return all items whose keys start with `prefix`."""
        ...

    def transaction(self, transaction: Transaction) -> Result:
        """Do all of a transaction or nothing."""
        ...

    def put(self, key: str, value: bytes, lease: int | None = None) -> int:
        """Write one key whatever it holds; return the revision."""
        ...

    def delete(self, key: str) -> int:
        """Remove one key whatever it holds; return the revision."""
        ...


class Leases(Protocol):
    """Promises to be alive: keys put with a lease vanish when it is not kept alive."""

    def lease_grant(self, ttl: int) -> int:
        """Return a new lease's id; it lives `ttl` seconds."""
        ...

    def lease_keepalive(self, lease: int) -> int:
        """Renew a lease; return the seconds it now has, 0 if it is gone."""
        ...

    def lease_revoke(self, lease: int) -> None:
        """End a lease and delete its keys; nothing happens if it is gone."""
        ...
