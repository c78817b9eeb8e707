"""What is not yet in etcd: rows written in the transaction that makes them necessary.

Neither an outage of etcd (P20) nor the death of an API worker can lose a change, since
the row commits or rolls back with it. A row names an object, never its contents:
whoever works it off reads the database again, so order does not matter.
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from typing import Any

import sqlalchemy as sa
from neutron.db.models.address_group import AddressAssociation
from neutron.db.models.address_group import AddressGroup as AddressGroupRow
from neutron.db.models.loggingapi import Log as LogRow
from neutron_lib.db import api as db_api
from oslo_utils import timeutils

from calico.server.db.models import JournalRow

_MOMENTS = ("after_insert", "after_update", "after_delete")


class Kind(StrEnum):
    """What a row is about.

    NETWORK, GROUP_PORTS and QOS_POLICY stand for many: they become rows of the
    network's subnets and ports, of the group's ports, or of the ports that the policy
    holds for, when they are worked off.
    """

    PORT = "port"
    SUBNET = "subnet"
    GROUP = "group"
    ADDRESS_GROUP = "address-group"
    LOG = "log"
    NETWORK = "network"
    GROUP_PORTS = "group-ports"
    QOS_POLICY = "qos-policy"


@dataclass(frozen=True, slots=True, order=True)
class Subject:
    """One object that changed."""

    kind: Kind
    id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A row of the journal, read."""

    seq: int
    subject: Subject
    attempts: int


def mark(context: Any, *subjects: Subject) -> None:
    """Remember objects in the caller's transaction; call it from a precommit hook."""
    for subject in subjects:
        context.session.add(JournalRow(kind=subject.kind.value, id=subject.id))


def mark_now(context: Any, subjects: Collection[Subject]) -> None:
    """Remember objects in a transaction of its own."""
    with db_api.CONTEXT_WRITER.using(context):
        mark(context, *subjects)


def pending(
    context: Any,
    *,
    subjects: Collection[Subject] | None = None,
    age: timedelta = timedelta(0),
    after: int = 0,
    limit: int = 1000,
) -> list[Entry]:
    """Return rows that are at least that old, oldest first.

    `subjects` restricts them to rows of these objects, `after` to those beyond a seq.
    """
    query: Any = sa.select(JournalRow).order_by(JournalRow.seq).limit(limit)
    query = query.where(JournalRow.seq > after)
    if age:
        query = query.where(JournalRow.created <= timeutils.utcnow() - age)
    if subjects is not None:
        wanted = sa.tuple_(JournalRow.kind, JournalRow.id)
        query = query.where(wanted.in_([(s.kind.value, s.id) for s in subjects]))
    with db_api.CONTEXT_READER.using(context):
        return [
            Entry(
                seq=row.seq,
                subject=Subject(Kind(row.kind), row.id),
                attempts=row.attempts,
            )
            for row in context.session.scalars(query)
        ]


def settle(context: Any, entries: Sequence[Entry]) -> None:
    """Delete rows that were worked off; mark all again if another had deleted some.

    Then somebody published the same objects at the same time, and neither knows whose
    reading of the database was newer: they are to be published once more. That is
    remembered in the same transaction, lest it be forgotten where it fails.
    """
    with db_api.CONTEXT_WRITER.using(context):
        if _write(context, sa.delete(JournalRow), entries) != len(entries):
            mark(context, *sorted({entry.subject for entry in entries}))


def note_failure(context: Any, entries: Sequence[Entry]) -> None:
    """Count an attempt that did not succeed."""
    change = sa.update(JournalRow).values(attempts=JournalRow.attempts + 1)
    _write(context, change, entries)


def expand(context: Any, entries: Sequence[Entry], subjects: Sequence[Subject]) -> None:
    """Replace rows that stand for many by rows of those many, in one transaction."""
    with db_api.CONTEXT_WRITER.using(context):
        mark(context, *subjects)
        # Whether or not another did the same: each of the many has a row of its own.
        _write(context, sa.delete(JournalRow), entries)


def _write(context: Any, statement: Any, entries: Sequence[Entry]) -> int:
    rows = statement.where(JournalRow.seq.in_([entry.seq for entry in entries]))
    with db_api.CONTEXT_WRITER.using(context):
        result = context.session.execute(
            rows.execution_options(synchronize_session=False)
        )
    return int(result.rowcount)


def watch_address_groups(listen: Callable[..., Any]) -> None:
    """Journal each change of an address group, as the row itself is written.

    Neutron announces these changes only after their commit, when a journal row would
    already be too late to be safe. `listen` is `sqlalchemy.event.listen`.
    """
    kind = Kind.ADDRESS_GROUP
    for moment in _MOMENTS:
        listen(
            AddressGroupRow, moment, lambda _m, c, row: note(c, Subject(kind, row.id))
        )
        listen(
            AddressAssociation,
            moment,
            lambda _m, c, row: note(c, Subject(kind, row.address_group_id)),
        )


def watch_logs(listen: Callable[..., Any]) -> None:
    """Journal each change of a log, as the row itself is written.

    Neutron tells a driver of no log that is made disabled, and of no new name. `listen`
    is `sqlalchemy.event.listen`.
    """
    for moment in _MOMENTS:
        listen(LogRow, moment, lambda _m, c, row: note(c, Subject(Kind.LOG, row.id)))


def note(connection: Any, subject: Subject) -> None:
    """Remember an object in the transaction of a connection, from a mapper's event."""
    values = {"kind": subject.kind.value, "id": subject.id}
    connection.execute(sa.insert(JournalRow).values(**values))
