"""Listens on the taps of instances that are to come, and says when one has.

A packet socket on each such tap: it hears all that comes out of it, also what the
filter drops, with no delay and no rule for it. There is one only between a migration's
preparation and its end, when the tap is silent until the instance runs.
"""

import errno
import os
import select
import socket
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import structlog

from calico.model.ids import InterfaceName
from calico.model.records import Endpoint
from calico.plan.arrival import announces

log = structlog.get_logger()

_ALL = 0x0003  # ETH_P_ALL
_RECEIVE = 256  # octets: all headers
_PATIENCE = 1.0  # seconds for a thread that opens a few sockets


@dataclass(frozen=True, slots=True)
class _Ear:
    """A socket on a tap, which had this index when it was opened."""

    index: int
    socket: socket.socket


class Arrivals:
    """Calls `notify`, in its own thread, when an awaited instance was heard.

    Started in the network namespace that it listens in.
    """

    def __init__(self, notify: Callable[[], None]) -> None:
        self._notify = notify
        self._lock = threading.Lock()
        self._wanted: dict[InterfaceName, Endpoint] = {}
        self._arrived: set[InterfaceName] = set()
        self._stopped = False
        self._listening = threading.Event()  # wherever it is wanted
        self._ears: dict[InterfaceName, _Ear] = {}  # the thread's own
        self._wake, self._waker = os.pipe()
        self._thread = threading.Thread(target=self._run, name="arrivals", daemon=True)

    def start(self) -> None:
        """Start listening; once only."""
        self._thread.start()

    def stop(self) -> None:
        """End the thread."""
        self._stopped = True
        os.write(self._waker, b"x")
        self._thread.join()
        os.close(self._wake)
        os.close(self._waker)

    def follow(self, awaited: Iterable[Endpoint]) -> None:
        """Listen for these, and for no others; from any thread but its own.

        It listens when this returns, so that what is said to be prepared is.
        """
        wanted = {endpoint.interface: endpoint for endpoint in awaited}
        with self._lock:
            if not wanted and not self._wanted:
                return
            self._wanted = wanted
            self._listening.clear()
        os.write(self._waker, b"x")
        if self._thread.is_alive():
            self._listening.wait(_PATIENCE)

    def take(self) -> frozenset[InterfaceName]:
        """Return the taps of instances heard since the last time; from any thread."""
        with self._lock:
            arrived, self._arrived = frozenset(self._arrived), set()
        return arrived

    def _run(self) -> None:
        while not self._stopped:
            self._listen_where_wanted()
            sockets = {ear.socket: name for name, ear in self._ears.items()}
            watched: list[socket.socket | int] = [*sockets, self._wake]
            ready = select.select(watched, [], [])[0]
            if self._wake in ready:
                os.read(self._wake, 4096)
            for ear, name in sockets.items():
                if ear in ready and self._hears(ear, name):
                    self._note(name)
        for name in list(self._ears):
            self._close(name)

    def _listen_where_wanted(self) -> None:
        with self._lock:
            wish = self._wanted
            wanted = set(wish)
        for name in self._ears.keys() | wanted:
            index = _index(name) if name in wanted else None
            ear = self._ears.get(name)
            if ear is not None and ear.index != index:
                self._close(name)
                ear = None
            if ear is None and index is not None:
                self._open(name, index)
        with self._lock:
            if self._wanted is wish:
                self._listening.set()

    def _open(self, name: InterfaceName, index: int) -> None:
        try:
            ear = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
            ear.bind((name, _ALL))
        except OSError as e:  # the pass after the tap's return asks again
            log.warning("arrival not heard", interface=name, reason=str(e))
            return
        ear.setblocking(False)
        self._ears[name] = _Ear(index, ear)

    def _close(self, name: InterfaceName) -> None:
        self._ears.pop(name).socket.close()

    def _hears(self, ear: socket.socket, name: InterfaceName) -> bool:
        with self._lock:
            endpoint = self._wanted.get(name)
        try:
            frame, (_, _, kind, *_) = ear.recvfrom(_RECEIVE)
        except BlockingIOError:
            return False
        except OSError as e:
            if e.errno != errno.ENETDOWN:  # told once, when the tap goes down
                log.warning("arrival not heard", interface=name, reason=str(e))
            return False
        if kind == socket.PACKET_OUTGOING or endpoint is None:
            return False
        return announces(frame, endpoint)

    def _note(self, name: InterfaceName) -> None:
        self._close(name)
        with self._lock:
            self._wanted.pop(name, None)
            self._arrived.add(name)
        self._notify()


def _index(name: InterfaceName) -> int | None:
    try:
        return socket.if_nametoindex(name)
    except OSError:
        return None
