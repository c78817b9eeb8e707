"""Finds what etcd and Neutron's database differ in, and has the journal mend it.

Reads only, in small portions and with pauses; writes nothing that an API call could
wait for, or that could undo a newer write (P25). What differs gets a row in the
journal, and is published like any other change. So etcd converges whatever became of
it: restored from a backup, edited by hand, or written by another Neutron side of the
same model, whose endpoints stay the keys they are.
"""

import math
import threading
import time
from collections.abc import Collection, Iterable, Sequence
from itertools import islice
from typing import Any

from oslo_log import log

from calico.datastore.store import Compare, DatastoreError, Put, Store, Transaction
from calico.model.ids import Invalid, PortId
from calico.model.keys import Keys
from calico.model.resource import says_the_same
from calico.server import holdings, inventory, journal
from calico.server.forms import form_of
from calico.server.holdings import Holdings
from calico.server.journal import Kind, Subject
from calico.server.publish import Publication
from calico.server.publisher import Backlog

LOG = log.getLogger(__name__)

_PORTION = 100  # objects that are compared before a pause as long as that took
_SECOND_LOOK = 5.0  # seconds after a resync that found something
_HOPELESS = 3  # attempts after which an object is not waited for
# Hosts make nothing of ports without these.
_ORDER = (Kind.SUBNET, Kind.ADDRESS_GROUP, Kind.GROUP, Kind.PORT, Kind.LOG)


class Resync:
    """Resyncs of one region; to be called again and again by one thread."""

    def __init__(
        self, store: Store, keys: Keys, backlog: Backlog, interval: float
    ) -> None:
        """Take seconds between resyncs; 0 for one at the start only."""
        self._store = store
        self._keys = keys
        self._backlog = backlog
        self._publication = Publication(store, keys)
        self._interval = interval
        self._due: float | None = 0.0
        self._stopped = threading.Event()

    def stop(self) -> None:
        """Have one that is under way end soon."""
        self._stopped.set()

    def step(self) -> None:
        """Resync, if it is time for it. What it raises, it is to be tried again after.

        A second look follows until nothing is found; then hosts need no longer make do
        with what another Neutron side left them.
        """
        if self._due is None or time.monotonic() < self._due:
            return
        found = self.run()
        if self._stopped.is_set():
            return
        if found:
            self._due = time.monotonic() + min(_SECOND_LOOK, self._interval or math.inf)
            return
        self._declare_adopted()
        self._due = time.monotonic() + self._interval if self._interval else None

    def run(self) -> int:
        """Compare everything once; return how many objects were not as they should."""
        begun, held = time.monotonic(), holdings.read(self._store, self._keys)
        # Their publication, below, then deletes what is stale, and writes what lacks.
        for port, there in held.unlisted().items():
            self._publication.correct(port, held.record(port), there)
        found = sum(self._kind(kind, held) for kind in _ORDER)
        level = log.INFO if found else log.DEBUG
        seconds = time.monotonic() - begun
        LOG.log(level, "Resync: %d objects differed, %.1f s", found, seconds)
        return found

    def _kind(self, kind: Kind, held: Holdings) -> int:
        found = 0
        ids = iter(sorted(inventory.ids(kind) | self._held(kind, held)))
        while portion := list(islice(ids, _PORTION)):
            begun = time.monotonic()
            differing = self._differing([Subject(kind, one) for one in portion], held)
            found += self._mend(differing)
            if self._stopped.wait(time.monotonic() - begun):
                break
        return found

    def _held(self, kind: Kind, held: Holdings) -> set[str]:
        keys = self._keys
        match kind:
            case Kind.PORT:
                return held.ports()
            case Kind.GROUP:
                return holdings.groups(held.names(keys.policies), keys)
            case Kind.SUBNET:
                return held.names(keys.subnets)
            case Kind.ADDRESS_GROUP:
                return held.names(keys.address_groups)
            case _:
                return held.names(keys.logs)

    def _differing(self, subjects: Sequence[Subject], held: Holdings) -> list[Subject]:
        """Return those that differ; one that cannot be looked at stops no others."""
        try:
            if subjects[0].kind is Kind.PORT:
                return self._differing_ports(subjects, held)
            return [one for one in subjects if self._differs(one, held)]
        except DatastoreError:
            raise
        except Exception:  # P41, as in Backlog
            if len(subjects) > 1:
                found = (self._differing([one], held) for one in subjects)
                return [subject for some in found for subject in some]
            LOG.exception("%s cannot be compared", subjects[0])
            return []

    def _differing_ports(
        self, subjects: Iterable[Subject], held: Holdings
    ) -> list[Subject]:
        ids = [subject.id for subject in subjects]
        wanted = inventory.endpoints(ids)
        current = self._publication.is_current
        ids = [i for i in ids if not current(PortId(i), wanted.get(i), held.value)]
        if not ids:
            return []
        # What was listed has grown old meanwhile: look again at what there is now.
        wanted = inventory.endpoints(ids)
        return [
            Subject(Kind.PORT, i)
            for i in ids
            if not current(PortId(i), wanted.get(i), self._value)
        ]

    def _value(self, key: str) -> bytes | None:
        item = self._store.get(key)
        return item.value if item else None

    def _differs(self, subject: Subject, held: Holdings) -> bool:
        form = form_of(subject, self._keys)
        old = held.value(form.key)
        try:
            new = form.wanted(old)
        except Invalid:
            return False  # it is not published, which was logged when it changed
        if new is None:
            return old is not None
        return not says_the_same(old, new)

    def _mend(self, subjects: Collection[Subject]) -> int:
        """Journal what differs, and publish it; return how much is to be waited for.

        What is in the journal already is the journal's business.
        """
        if not subjects:
            return 0
        context: Any = inventory.admin()
        rows = journal.pending(context, subjects=subjects)
        attempts = {row.subject: row.attempts for row in rows}
        journal.mark_now(context, [one for one in subjects if one not in attempts])
        self._backlog.work_off(subjects)
        return sum(attempts.get(one, 0) < _HOPELESS for one in subjects)

    def _declare_adopted(self) -> None:
        key = self._keys.adopted
        if self._store.get(key) is None:
            self._store.transaction(
                Transaction(
                    compares=(Compare.absent(key),),
                    writes=(Put(key=key, value=b"{}"),),
                )
            )
