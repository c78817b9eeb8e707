"""The agent's sign of life: a key on a lease, kept by a thread that does nothing else.

It never queues behind events or passes (P31). A clean stop leaves the lease to run out,
so that a restart is not seen as a death.
"""

import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Protocol

import msgspec
import structlog

from calico.datastore.store import DatastoreError, LeaseLost, Leases, Store

log = structlog.get_logger()

_SHORTEST_RETRY = 1.0  # seconds


class LeasedStore(Store, Leases, Protocol):
    """A store that has leases."""


class Heartbeat:
    """Keeps `key` alive in the datastore, renewed every `interval` seconds."""

    def __init__(
        self,
        store: LeasedStore,
        key: str,
        *,
        interval: float,
        ttl: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self._key = key
        self.interval = interval
        self._ttl = ttl
        self._clock = clock
        self._born = clock()
        self._lease: int | None = None
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="heartbeat", daemon=True)

    def start(self) -> None:
        """Start beating; once only."""
        self._thread.start()

    def stop(self, patience: float = 1.0) -> None:
        """Stop beating; the key stays until its lease runs out."""
        self._stopped.set()
        self._thread.join(patience)

    def beat(self) -> None:
        """Renew the lease, or take one and write the key; DatastoreError if neither.

        The key is written each time: somebody may have deleted it.
        """
        first = self._lease is None
        if self._lease is not None and not self._renewed(self._lease):
            self._lease = None
        if self._lease is None:
            self._lease = self._store.lease_grant(self._ttl)
        try:
            self._store.put(self._key, self._value(first=first), self._lease)
        except LeaseLost:
            self._lease = None
            raise

    def _renewed(self, lease: int) -> bool:
        try:
            return self._store.lease_keepalive(lease) > 0
        except LeaseLost:
            return False

    def _value(self, *, first: bool) -> bytes:
        return msgspec.json.encode(
            {
                "time": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
                "uptime": round(self._clock() - self._born, 1),
                "first_update": first,
            }
        )

    def _run(self) -> None:
        pause = 0.0
        while not self._stopped.wait(pause):
            pause = self.interval
            try:
                self.beat()
            except DatastoreError as e:
                pause = min(_SHORTEST_RETRY, self.interval)
                log.warning("heartbeat failed", reason=str(e))
            except Exception:  # the thread must live: nobody else would beat
                pause = self.interval
                log.exception("heartbeat failed")
