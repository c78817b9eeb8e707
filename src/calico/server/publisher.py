"""Works the journal off: at once in the API worker that wrote it, later in the worker.

An API worker publishes what it was woken for, in one background thread, so that the
request has long been answered. What fails stays in the journal, where the elected
worker finds it; the thread itself also tries again, for as long as it lives.
"""

import os
import threading
import time
from collections.abc import Callable, Collection
from datetime import timedelta
from itertools import groupby
from typing import Any

from oslo_log import log

from calico.datastore.client import Client
from calico.datastore.store import Broken, DatastoreError, Store, Temporary
from calico.model.ids import Invalid
from calico.model.keys import Keys
from calico.server import floating, inventory, journal
from calico.server.forms import form_of
from calico.server.journal import Entry, Kind, Subject
from calico.server.options import ServerSettings
from calico.server.publish import Publication, Unpublishable

LOG = log.getLogger(__name__)

LONGEST_PAUSE = 10.0  # seconds between tries while etcd does not answer
_BATCH = 100  # ports read from the database, and published, in one go


class Backlog:
    """The journal's rows, worked off in order of kind.

    Raises Temporary where etcd does not answer; what concerns one object is logged.
    """

    def __init__(self, store: Store, keys: Keys) -> None:
        self._keys = keys
        self._publication = Publication(store, keys)

    def work_off(
        self,
        subjects: Collection[Subject] | None = None,
        age: timedelta = timedelta(0),
    ) -> int:
        """Publish what the journal names; return how many rows there were.

        `subjects` restricts it to these, `age` to rows that are at least that old.
        """
        context, done, last = inventory.admin(), 0, 0
        while entries := journal.pending(
            context, subjects=subjects, age=age, after=last
        ):
            if added := self._publish(context, entries):
                # Rows that stood for many have left the rows of those many behind.
                age = timedelta(0)
                subjects = None if subjects is None else {*subjects, *added}
            # A row that failed stays, and is passed by until the next time.
            last = entries[-1].seq
            done += len(entries)
        return done

    def _publish(self, context: Any, entries: list[Entry]) -> list[Subject]:
        """Publish the subjects of some rows; return what their expansion added."""
        added: list[Subject] = []
        by_kind = sorted(entries, key=lambda entry: entry.subject)
        for kind, group in groupby(by_kind, key=lambda entry: entry.subject.kind):
            rows = list(group)
            if kind in {Kind.NETWORK, Kind.GROUP_PORTS, Kind.QOS_POLICY}:
                added += _expand(context, rows)
            elif kind is Kind.PORT:
                for start in range(0, len(rows), _BATCH):
                    batch = rows[start : start + _BATCH]
                    self._settle(context, batch, self._ports)
                    floating.settle({entry.subject.id for entry in batch})
            else:
                for _, same in groupby(rows, key=lambda entry: entry.subject):
                    self._settle(context, list(same), self._object)
        return added

    def _settle(
        self,
        context: Any,
        entries: list[Entry],
        publish: Callable[[list[Subject]], None],
    ) -> None:
        """Publish, then delete the rows; of several that fail, each by itself."""
        subjects = sorted({entry.subject for entry in entries})
        try:
            publish(subjects)
            journal.settle(context, entries)
        except Temporary:
            journal.note_failure(context, entries)
            raise
        except Exception as e:  # P41: one that cannot be published stops no others
            if len(subjects) > 1:
                for _, same in groupby(entries, key=lambda entry: entry.subject):
                    self._settle(context, list(same), publish)
                return
            journal.note_failure(context, entries)
            if isinstance(e, Unpublishable | Broken):
                LOG.error("%s is not published: %s", subjects[0], e)  # noqa: TRY400 - says it all
            else:
                LOG.exception("%s is not published", subjects[0])

    def _ports(self, subjects: list[Subject]) -> None:
        self._publication.ports([s.id for s in subjects], inventory.endpoints)

    def _object(self, subjects: list[Subject]) -> None:
        for subject in subjects:
            try:
                self._publication.object(form_of(subject, self._keys))
            except Invalid as e:
                # Trying again cannot help; a change of the object makes a new row.
                LOG.error("%s is not published: %s", subject, e)  # noqa: TRY400 - says it all


def _expand(context: Any, entries: list[Entry]) -> list[Subject]:
    subjects = {one for entry in entries for one in inventory.expand(entry.subject)}
    journal.expand(context, entries, sorted(subjects))
    return sorted(subjects)


class Publisher:
    """The background thread of an API worker; its first wake starts it, so after fork.

    Not to be used by two processes: a fork's copy starts a thread of its own.
    """

    def __init__(self, settings: ServerSettings) -> None:
        self._settings = settings
        self._condition = threading.Condition()
        self._woken: set[Subject] = set()
        self._owner: int | None = None  # the process whose thread runs

    def wake(self, *subjects: Subject) -> None:
        """Have these published soon, if the journal names them. Never blocks."""
        if not subjects:
            return
        with self._condition:
            self._woken.update(subjects)
            if self._owner != os.getpid():
                self._owner = os.getpid()
                threading.Thread(
                    target=self._run, name="calico-publisher", daemon=True
                ).start()
            self._condition.notify()

    def _run(self) -> None:
        client = Client(self._settings.etcd)
        backlog = Backlog(client, Keys(self._settings.region))
        pause = 0.0
        while True:
            subjects = self._next()
            try:
                backlog.work_off(subjects)
            except DatastoreError as e:
                LOG.warning("Not published yet, will try again: %s", e)
                pause = self._later(subjects, pause)
            except Exception:
                # The thread's edge: it must outlive whatever the database does.
                LOG.exception("Not published yet, will try again")
                pause = self._later(subjects, pause)
            else:
                pause = 0.0

    def _later(self, subjects: set[Subject], pause: float) -> float:
        with self._condition:
            self._woken |= subjects
        pause = min(max(pause * 2, 0.5), LONGEST_PAUSE)
        time.sleep(pause)
        return pause

    def _next(self) -> set[Subject]:
        with self._condition:
            self._condition.wait_for(lambda: self._woken)
            subjects, self._woken = self._woken, set()
        return subjects
