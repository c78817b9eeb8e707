"""Operators' documents into the datastore: all of them in one transaction, or none.

What was read is compared when it is written, so that nobody's change is lost between.
"""

import enum
from collections.abc import Sequence
from dataclasses import dataclass, replace

from calico.datastore.store import (
    MAX_OPERATIONS,
    Compare,
    Delete,
    Item,
    Put,
    Store,
    Transaction,
)
from calico.model.ids import Invalid
from calico.model.keys import Keys
from calico.model.operator_codec import encode_document
from calico.model.resource import says_the_same
from calico.operator.documents import Document
from calico.operator.kinds import Kind


class Outcome(enum.StrEnum):
    """What became of a resource."""

    CREATED = "created"
    CONFIGURED = "configured"
    UNCHANGED = "unchanged"
    DELETED = "deleted"
    ABSENT = "not there"


class Conflict(Exception):  # noqa: N818 - it names what happened
    """Somebody else changed what was to be changed; nothing was written."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """What is to become of a resource: `found` by key before, `writes` to be made."""

    subject: str
    outcome: Outcome
    found: tuple[tuple[str, Item | None], ...]
    writes: tuple[Put | Delete, ...] = ()


def plan_apply(
    store: Store, documents: Sequence[Document], keys: Keys, now: str
) -> list[Change]:
    """Return what storing documents would change. `now` is when new ones are made."""
    return [_plan_one(store, document, keys, now) for document in documents]


def _plan_one(store: Store, document: Document, keys: Keys, now: str) -> Change:
    found = _found(store, document.kind, document.name, keys)
    stored = [(key, item) for key, item in found if item is not None]
    if len(stored) > 1:
        names = " and ".join(key for key, _ in stored)
        raise Invalid(f"{document} is stored twice, as {names}: delete it first")
    key, old = stored[0] if stored else found[0]
    resource = replace(
        document.resource, name=key.rpartition("/")[2], created=None if old else now
    )
    value = encode_document(resource, old.value if old else None)
    if old is not None and says_the_same(old.value, value):
        return Change(subject=str(document), outcome=Outcome.UNCHANGED, found=found)
    return Change(
        subject=str(document),
        outcome=Outcome.CREATED if old is None else Outcome.CONFIGURED,
        found=found,
        writes=(Put(key=key, value=value),),
    )


def plan_delete(
    store: Store, names: Sequence[tuple[Kind, str]], keys: Keys
) -> list[Change]:
    """Return what deleting resources would change; Invalid for Neutron's."""
    changes = []
    for kind, name in dict.fromkeys(names):
        kind.check_owner(name)
        found = _found(store, kind, name, keys)
        gone = tuple(Delete(key=key) for key, item in found if item is not None)
        changes.append(
            Change(
                subject=f"{kind.name} {name}",
                outcome=Outcome.DELETED if gone else Outcome.ABSENT,
                found=found,
                writes=gone,
            )
        )
    return changes


def commit(store: Store, changes: Sequence[Change]) -> None:
    """Write changes, all or none; Conflict where what was read is no more.

    Invalid where there are more than one transaction holds.
    """
    writes = tuple(write for change in changes for write in change.writes)
    compares = tuple(
        Compare.unchanged(key, item)
        for change in changes
        if change.writes
        for key, item in change.found
    )
    if not writes:
        return
    if len(compares) > MAX_OPERATIONS:
        raise Invalid(
            f"{len(changes)} resources at once are too many for one transaction of the"
            f" datastore: do it in parts, a policy counts for two of {MAX_OPERATIONS}"
        )
    if store.transaction(Transaction(compares=compares, writes=writes)).succeeded:
        return
    # A write whose answer was lost was tried again, and found itself done.
    if all(_is_done(store, write) for write in writes):
        return
    meddled = [change.subject for change in changes if _is_changed(store, change)]
    raise Conflict(
        f"{', '.join(meddled)}: changed by somebody else meanwhile, so nothing was"
        f" written; look at it, then try again"
    )


def _is_done(store: Store, write: Put | Delete) -> bool:
    item = store.get(write.key)
    return (item and item.value) == (write.value if isinstance(write, Put) else None)


def _is_changed(store: Store, change: Change) -> bool:
    return any(store.get(key) != item for key, item in change.found)


def _found(
    store: Store, kind: Kind, name: str, keys: Keys
) -> tuple[tuple[str, Item | None], ...]:
    return tuple((key, store.get(key)) for key in kind.keys_of(name, keys))
