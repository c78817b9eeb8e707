"""Exchanges that go on: connections and datagrams both ways, and when they stopped.

Both ends of a flow say something every tenth of a second, and note when they last heard
the other. One thread drives all flows.
"""

import contextlib
import selectors
import socket
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Self

from calico.verify.cloud import Address
from calico.verify.probes.echo import Stack

_TICK = 0.1
_SILENCE = 0.6  # seconds of it mean that a flow has ended
_PATIENCE = 2.0
_WORD = b"on "


class FlowFailed(Exception):  # noqa: N818 - says what happened
    """A flow did not begin; the message says which and why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Course:
    """Where a flow goes: from one stack to an address and port of another.

    `bound` is that other's own address, where it is reached by one that leads to it.
    """

    name: str
    kind: str  # "TCP" or "UDP"
    source: Stack
    target: Stack
    address: Address
    port: int
    bound: Address | None = None

    @property
    def listens(self) -> tuple[str, int]:
        """Return what the target binds to."""
        return str(self.bound or self.address), self.port


@dataclass(slots=True, eq=False)
class Flow:
    """A flow that began; `heard` is when each end last heard the other."""

    course: Course
    ends: tuple[socket.socket, socket.socket]
    heard: list[float] = field(default_factory=lambda: [0.0, 0.0])

    @property
    def last(self) -> float:
        """When anything last arrived, in either direction."""
        return max(self.heard)

    @property
    def first(self) -> float:
        """When the worse of both directions last carried anything."""
        return min(self.heard)


class Flows:
    """Flows that are kept going until the end. Use as a context manager."""

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        self._lock = threading.Lock()
        self._flows: list[Flow] = []
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._drive, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._stopping.set()
        self._thread.join()
        for flow in self._flows:
            for end in flow.ends:
                end.close()
        self._selector.close()

    def begin(self, course: Course) -> Flow:
        """Begin a flow; FlowFailed where nothing comes through in either direction."""
        try:
            ends = _stream(course) if course.kind == "TCP" else _datagrams(course)
        except OSError as e:
            raise FlowFailed(f"{course.name}: {e}") from e
        flow = Flow(course, ends)
        with self._lock:
            self._flows.append(flow)
            for number, end in enumerate(ends):
                end.setblocking(False)
                self._selector.register(end, selectors.EVENT_READ, (flow, number))
        deadline = time.monotonic() + _PATIENCE
        while not flow.first and time.monotonic() < deadline:
            time.sleep(_TICK / 2)
        if not flow.first:
            raise FlowFailed(f"{course.name}: it began, and then nothing came")
        return flow

    def end(self, flows: Iterable[Flow]) -> None:
        """End flows, so that others can have their ports."""
        with self._lock:
            for flow in flows:
                self._flows.remove(flow)
                for end in flow.ends:
                    if end in self._selector.get_map():
                        self._selector.unregister(end)
                    end.close()

    def _drive(self) -> None:
        while not self._stopping.is_set():
            following = time.monotonic() + _TICK
            with self._lock:
                for flow in self._flows:
                    for end in flow.ends:
                        # A flow that is cut has no room left, or is gone.
                        with contextlib.suppress(OSError):
                            end.send(_WORD)
            while (left := following - time.monotonic()) > 0:
                self._read(left)

    def _read(self, within: float) -> None:
        for key, _ in self._selector.select(within):
            flow, number = key.data
            assert isinstance(key.fileobj, socket.socket)  # noqa: S101 - ours
            try:
                if key.fileobj.recv(65535):
                    flow.heard[number] = time.monotonic()
                    continue
            except ConnectionRefusedError:
                continue  # an ICMP error concerns one datagram only
            except OSError:
                pass
            with self._lock, contextlib.suppress(KeyError, ValueError):
                self._selector.unregister(key.fileobj)


def cut(flows: Iterable[Flow], since: float, within: float) -> dict[Flow, str | None]:
    """Wait for flows to fall silent; return what is wrong with each, or None.

    They have to be silent `within` seconds of `since`, both ways.
    """
    flows = list(flows)
    deadline = since + within + 2 * _SILENCE
    while time.monotonic() < deadline:
        if all(time.monotonic() - flow.last > _SILENCE for flow in flows):
            break
        time.sleep(_TICK)
    now = time.monotonic()
    return {flow: _late(flow, since, within, now) for flow in flows}


def _late(flow: Flow, since: float, within: float, now: float) -> str | None:
    if now - flow.last <= _SILENCE:
        return f"goes on {now - since:.1f} s later"
    late = flow.last - since
    return f"was cut after {late:.1f} s" if late > within else None


def goes_on(flows: Iterable[Flow]) -> dict[Flow, str | None]:
    """Return what is wrong with flows that should go on, or None for each."""
    flows = list(flows)
    begin = time.monotonic()
    while time.monotonic() < begin + _PATIENCE:
        if all(flow.first > begin for flow in flows):
            break
        time.sleep(_TICK / 2)
    return {f: None if f.first > begin else "it was interrupted" for f in flows}


def _stream(course: Course) -> tuple[socket.socket, socket.socket]:
    where = (str(course.address), course.port)
    with course.target.inside(lambda: _socket(course, course.listens)) as listener:
        listener.listen()
        listener.settimeout(_PATIENCE)
        near = course.source.inside(lambda: _socket(course))
        try:
            near.settimeout(_PATIENCE)
            near.connect(where)
            far, _ = listener.accept()
        except OSError:
            near.close()
            raise
    return near, far


def _datagrams(course: Course) -> tuple[socket.socket, socket.socket]:
    where = (str(course.address), course.port)
    far = course.target.inside(lambda: _socket(course, course.listens))
    near = course.source.inside(lambda: _socket(course))
    try:
        far.settimeout(_PATIENCE)
        near.connect(where)
        near.send(_WORD)
        _, peer = far.recvfrom(64)
        far.connect(peer)
    except OSError:
        near.close()
        far.close()
        raise
    return near, far


def _socket(course: Course, bind: tuple[str, int] | None = None) -> socket.socket:
    family = socket.AF_INET if course.address.version == 4 else socket.AF_INET6
    kind = socket.SOCK_STREAM if course.kind == "TCP" else socket.SOCK_DGRAM
    sock = socket.socket(family, kind)
    if bind is not None:
        if course.kind == "TCP":
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(bind)
    return sock
