"""Which of several workers works: the one whose lease holds the election key.

Only saves work. A lease is no mutual exclusion (P56), so nothing that a leader writes
relies on it: every write carries its own compare.
"""

import threading
import time
from collections.abc import Callable
from typing import Protocol

from oslo_log import log

from calico.datastore.store import (
    Compare,
    DatastoreError,
    Leases,
    Put,
    Store,
    Transaction,
)

LOG = log.getLogger(__name__)

TTL = 10  # seconds until a dead leader is succeeded (P27)


class LeasedStore(Store, Leases, Protocol):
    """A store whose keys may hang on leases."""


def _nothing() -> None:
    """Do nothing."""


class Leadership:
    """Stands for election in a thread of its own, for as long as it runs (P28)."""

    def __init__(
        self,
        store: LeasedStore,
        key: str,
        identity: str,
        elected: Callable[[], None] = _nothing,
    ) -> None:
        """Take what to call once this worker is elected; it must not block."""
        self._elected = elected
        self._store = store
        self._key = key
        self._identity = identity.encode()
        self._lease: int | None = None
        self._until = 0.0  # when the lease ends at the latest, if not renewed
        self._stopped = threading.Event()
        self._thread = threading.Thread(
            target=self._run, name="calico-leadership", daemon=True
        )

    @property
    def leading(self) -> bool:
        """Whether this worker was elected and its lease has not run out since."""
        return time.monotonic() < self._until

    def start(self) -> None:
        """Begin to stand."""
        self._thread.start()

    def stop(self) -> None:
        """Step down at once, so that another need not wait for the lease to end."""
        self._stopped.set()
        self._thread.join()
        self._until = 0.0
        if self._lease is not None:
            try:
                self._store.lease_revoke(self._lease)
            except DatastoreError as e:
                LOG.warning("Calico election: the lease is left to run out: %s", e)

    def _run(self) -> None:
        while not self._stopped.is_set():
            try:
                self.step()
            except DatastoreError as e:
                LOG.warning("Calico election: %s", e)
            except Exception:  # the thread's edge: a dead one nobody would notice
                LOG.exception("Calico election failed, will try again")
            self._stopped.wait(TTL / 3)

    def step(self) -> None:
        """Renew the lease if it holds the key, or take the key if nobody has it."""
        asked = time.monotonic()
        holder = self._store.get(self._key)
        if holder is None:
            self._take(asked)
        elif self._lease is None or holder.lease != self._lease:
            self._until = 0.0
        elif self._store.lease_keepalive(self._lease):
            self._until = asked + TTL

    def _take(self, asked: float) -> None:
        self._until = 0.0
        self._lease = lease = self._store.lease_grant(TTL)
        put = Put(key=self._key, value=self._identity, lease=lease)
        absent = Compare.absent(self._key)
        if self._store.transaction(
            Transaction(compares=(absent,), writes=(put,))
        ).succeeded:
            self._until = asked + TTL
            LOG.info("Calico election: this worker was elected")
            self._elected()
