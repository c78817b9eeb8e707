"""What the agent says of its ports: up, down or error, one transaction a pass (S20).

Written by a thread of its own: an etcd that is slow or away never holds up the kernel,
and of several passes meanwhile only the last one's word is written.
"""

import threading
from collections.abc import Iterator, Mapping

import msgspec
import structlog

from calico.agent.keeper import Outcome
from calico.datastore.store import (
    MAX_OPERATIONS,
    DatastoreError,
    Delete,
    Put,
    Store,
    Transaction,
)
from calico.model.ids import DeviceId, HostName, Invalid, PortId
from calico.model.keys import Keys
from calico.model.world import Rejected
from calico.reconcile.diff import diff

log = structlog.get_logger()

# A port whose instance is to come is not up here, whatever it lacks no more.
_VALUES = {
    **{s: msgspec.json.encode({"status": s}) for s in ("up", "down", "error")},
    "prepared": msgspec.json.encode({"status": "down", "prepared": True}),
}
_FIRST_RETRY, _LAST_RETRY = 0.5, 10.0  # seconds


def statuses(
    host: HostName, keys: Keys, outcome: Outcome, rejected: tuple[Rejected, ...] = ()
) -> dict[str, bytes]:
    """Return the value of each port's status key after a pass."""
    return {
        keys.port_status(host, device, port): _VALUES[status]
        for (device, port), status in _statuses(outcome, rejected)
    }


def _statuses(
    outcome: Outcome, rejected: tuple[Rejected, ...]
) -> Iterator[tuple[tuple[DeviceId, PortId], str]]:
    for one in rejected:
        if one.port is not None:
            yield one.port, "error"
    for refused in outcome.plan.refused:
        yield (refused.device, refused.port), "error"
    for endpoint in outcome.plan.absent:
        yield (endpoint.device, endpoint.port), "down"
    for endpoint in outcome.plan.served:
        status = "prepared" if endpoint.arriving_from else "up"
        if endpoint.interface in outcome.failed:
            status = "error"
        yield (endpoint.device, endpoint.port), status


class StatusWriter:
    """Makes one host's port statuses in the datastore what was last offered.

    Other keys below the host's prefix are not ours, and are left alone.
    """

    def __init__(self, store: Store, keys: Keys, host: HostName) -> None:
        self._store = store
        self._keys = keys
        self._prefix = keys.port_statuses(host)
        self._have: dict[str, bytes] | None = None  # None: to be read
        self._offered: dict[str, bytes] | None = None
        self._forget = False
        self._changed = threading.Condition()
        self._stopped = False
        self._thread = threading.Thread(target=self._run, name="statuses", daemon=True)

    def start(self) -> None:
        """Start writing what is offered; once only."""
        self._thread.start()

    def offer(self, wanted: Mapping[str, bytes], *, resync: bool) -> None:
        """Say what the statuses are now; returns at once. A resync reads them anew."""
        with self._changed:
            self._offered = dict(wanted)
            self._forget = self._forget or resync
            self._changed.notify()

    def stop(self, patience: float) -> None:
        """End, having written what was offered if that works within `patience` s."""
        with self._changed:
            self._stopped = True
            self._changed.notify()
        self._thread.join(patience)

    def write(self, wanted: Mapping[str, bytes]) -> None:
        """Write what differs; DatastoreError if that fails, and nothing is assumed."""
        have, self._have = self._have, None
        if have is None:
            snapshot = self._store.get_prefix(self._prefix)
            have = {k: i.value for k, i in snapshot.items.items() if self._is_ours(k)}
        change = diff(dict(wanted), have)
        writes: list[Put | Delete] = [
            *(Put(key=key, value=value) for key, value in sorted(change.put.items())),
            *(Delete(key=key) for key in sorted(change.drop)),
        ]
        for start in range(0, len(writes), MAX_OPERATIONS):
            part = tuple(writes[start : start + MAX_OPERATIONS])
            self._store.transaction(Transaction(writes=part))
        self._have = dict(wanted)

    def _run(self) -> None:
        delay = 0.0
        while (wanted := self._next(delay)) is not None:
            if self._attempt(wanted):
                delay = 0.0
            else:
                delay = min(max(2 * delay, _FIRST_RETRY), _LAST_RETRY)
                self._offer_again(wanted)

    def _attempt(self, wanted: dict[str, bytes]) -> bool:
        """Write; whatever goes wrong is logged, and the thread lives to try again."""
        try:
            self.write(wanted)
        except DatastoreError as e:
            log.warning("port statuses not written", reason=str(e))
            return False
        except Exception:
            log.exception("port statuses not written")
            return False
        return True

    def _is_ours(self, key: str) -> bool:
        try:
            self._keys.parse_port_status(key)
            key.encode()  # one that is no text cannot be written either
        except (Invalid, UnicodeEncodeError):
            return False
        return True

    def _offer_again(self, wanted: dict[str, bytes]) -> None:
        with self._changed:
            if self._offered is None and not self._stopped:
                self._offered = wanted

    def _next(self, delay: float) -> dict[str, bytes] | None:
        """Wait for an offer, after a failure `delay` s at least; None when stopped."""
        with self._changed:
            if delay:
                self._changed.wait_for(lambda: self._stopped, delay)
            self._changed.wait_for(lambda: self._stopped or self._offered is not None)
            wanted, self._offered = self._offered, None
            if self._forget:
                self._have, self._forget = None, False
            return wanted
