"""Run by test_journal, outside of pytest: the journal in a process that has Neutron.

Prints what it saw as JSON.
"""

import json
import sys

from neutron.common import config
from neutron_lib.db import api as db_api

from calico.config import EtcdSettings
from calico.datastore.client import Client
from calico.model.keys import Keys
from calico.server import inventory, journal
from calico.server.journal import Entry, Kind, Subject
from calico.server.publisher import Backlog

ONE = Subject(Kind.PORT, "one")


def rolled_back() -> list[Entry]:
    context = inventory.admin()
    try:
        with db_api.CONTEXT_WRITER.using(context):
            journal.mark(context, ONE)
            raise LookupError("the API call fails")  # noqa: TRY301 - it stands for one
    except LookupError:
        return journal.pending(inventory.admin(), subjects=[ONE])


def publications(*, beside_another: bool) -> int:
    """Return how often an object is published, alone or beside another worker."""
    context = inventory.admin()
    journal.mark_now(context, [ONE])
    entries = journal.pending(context, subjects=[ONE])
    calls = []

    def publish(subjects: list[Subject]) -> None:
        calls.append(subjects)
        if beside_another and len(calls) == 1:
            journal.settle(inventory.admin(), entries)

    Backlog(Client(EtcdSettings()), Keys())._settle(context, entries, publish)
    return len(calls)


def failures() -> list[int]:
    """Return the attempts after each of two failures of one object."""
    context = inventory.admin()
    journal.mark_now(context, [ONE])

    def publish(_subjects: list[Subject]) -> None:
        raise LookupError("cannot be published")

    seen = []
    for _ in range(2):
        entries = journal.pending(context, subjects=[ONE])
        Backlog(Client(EtcdSettings()), Keys())._settle(context, entries, publish)
        seen += [e.attempts for e in journal.pending(context, subjects=[ONE])]
    journal.settle(context, journal.pending(context, subjects=[ONE]))
    return seen


config.register_common_config_options()
config.init(["--config-file", sys.argv[1]])
print(  # noqa: T201 - how it answers
    json.dumps(
        {
            "rolled back": len(rolled_back()),
            "alone": publications(beside_another=False),
            "beside another": publications(beside_another=True),
            "attempts": failures(),
        }
    )
)
