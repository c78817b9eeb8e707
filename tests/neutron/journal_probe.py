"""Run by test_journal, outside of pytest: the journal in a process that has Neutron.

Prints what it saw as JSON.
"""

import json
import sys
from collections.abc import Callable

from neutron.common import config
from neutron_lib.db import api as db_api

from calico.config import EtcdSettings
from calico.datastore.client import Client
from calico.datastore.store import Broken, DatastoreError, Temporary
from calico.model.keys import Keys
from calico.server import inventory, journal
from calico.server.journal import Entry, Kind, Subject
from calico.server.publish import Unpublishable
from calico.server.publisher import Backlog

ONE, TWO, THREE = (Subject(Kind.PORT, name) for name in ("1", "2", "3"))

Publish = Callable[[list[Subject]], None]


def rolled_back() -> list[Entry]:
    context = inventory.admin()
    try:
        with db_api.CONTEXT_WRITER.using(context):
            journal.mark(context, ONE)
            raise LookupError("the API call fails")  # noqa: TRY301 - it stands for one
    except LookupError:
        return journal.pending(inventory.admin(), subjects=[ONE])


def settle(publish: Publish, *subjects: Subject) -> list[Entry]:
    """Work subjects off once, as given; return what is left of them in the journal."""
    context = inventory.admin()
    if not journal.pending(context, subjects=subjects):
        journal.mark_now(context, subjects)
    entries = journal.pending(context, subjects=subjects)
    Backlog(Client(EtcdSettings()), Keys())._settle(context, entries, publish)
    return journal.pending(context, subjects=subjects)


def forget(*subjects: Subject) -> None:
    context = inventory.admin()
    while entries := journal.pending(context, subjects=subjects):
        journal.settle(context, entries)


def left(*, beside_another: bool) -> int:
    """Return the rows left of an object that was published, alone or beside another."""

    def publish(subjects: list[Subject]) -> None:
        if beside_another:
            context = inventory.admin()
            journal.settle(context, journal.pending(context, subjects=subjects))

    rows = len(settle(publish, ONE))
    forget(ONE)
    return rows


def failures(error: Exception) -> list[int]:
    """Return the attempts after each of two failures of one object."""

    def publish(_subjects: list[Subject]) -> None:
        raise error

    seen = [entry.attempts for _ in range(2) for entry in settle(publish, ONE)]
    forget(ONE)
    return seen


def raised(error: Exception) -> str:
    """Return the name of what a failure of one object ends a pass with."""
    try:
        failures(error)
    except DatastoreError as e:
        forget(ONE)
        return type(e).__name__
    return "nothing"


def batch() -> dict[str, list[str]]:
    """Return which of three ports are published, and left, if the second cannot be."""
    published: list[str] = []

    def publish(subjects: list[Subject]) -> None:
        if TWO in subjects:
            raise LookupError("cannot be published")
        published.extend(subject.id for subject in subjects)

    rows = settle(publish, ONE, TWO, THREE)
    forget(ONE, TWO, THREE)
    return {"published": published, "left": [row.subject.id for row in rows]}


config.register_common_config_options()
config.init(["--config-file", sys.argv[1]])
print(  # noqa: T201 - how it answers
    json.dumps(
        {
            "rolled back": len(rolled_back()),
            "alone": left(beside_another=False),
            "beside another": left(beside_another=True),
            "attempts": {
                type(error).__name__: failures(error)
                for error in (
                    LookupError("cannot be published"),
                    Unpublishable("too large"),
                    Broken("request is too large"),
                )
            },
            "raised": [raised(Temporary("etcd is away")), raised(Broken("no"))],
            "batch": batch(),
        }
    )
)
