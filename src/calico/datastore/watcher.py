"""A live copy of some ranges of etcd, kept by one thread over one watch stream.

What the copy says is as old as the last word from etcd, and never empty for want of
one: after an outage it goes on from where it was (P32), and an idle one asks nothing of
the store but whether the stream still lives (P30).
"""

import logging
import queue
import random
import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass

import grpc

from calico.datastore.client import Client, era, prefix_range
from calico.datastore.etcd import etcd_pb2 as pb
from calico.datastore.etcd.members import is_stale_token, text
from calico.datastore.etcd.stub import Stream
from calico.datastore.store import DatastoreError, Temporary
from calico.datastore.sync import Change, Changes, Fetch, Follower, Lost, Progress

log = logging.getLogger(__name__)

_SHORTEST_PAUSE = 0.1
_LONGEST_PAUSE = 5.0
_REQUIRE_LEADER = ("hasleader", "true")
"""A member cut off from its cluster ends the stream instead of going silent."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ranges:
    """What to follow: prefixes, and single keys."""

    prefixes: frozenset[str] = frozenset()
    keys: frozenset[str] = frozenset()


Seen = Mapping[str, Mapping[str, bytes]]
"""The items of each range, by its prefix or key. A range not seen yet is not there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """All items by key, and the keys of what is not as in the picture before."""

    items: Mapping[str, bytes]
    changed: Collection[str]


class _Range:
    """One prefix or key, and the copy of it."""

    def __init__(self, name: str, *, is_prefix: bool) -> None:
        self.name = name
        self.start, self.end = prefix_range(name) if is_prefix else (name.encode(), b"")
        self.follower = Follower()


class Watch:
    """Follows prefixes and single keys; calls `notify` after what may be a change.

    `notify` is called in the watch's thread and must not block; events are hints, so it
    says nothing of what changed. `more` says, of what was seen, what else to follow: it
    is asked in the watch's thread, again and again until nothing new comes of it. A
    stream silent for `silence` seconds is given up, for the next member's. With
    `pictured`, what changes is remembered for `picture`.
    """

    def __init__(
        self,
        client: Client,
        ranges: Ranges,
        notify: Callable[[], None],
        *,
        more: Callable[[Seen], Ranges] = lambda _: Ranges(),
        silence: float = 10.0,
        pictured: bool = False,
    ) -> None:
        self._client = client
        self._notify = notify
        self._more = more
        self._silence = silence
        self._base = ranges
        self._ranges: dict[int, _Range] = {}  # by watch id
        self._next_id = 1  # 0 would let etcd choose
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        self._stream: Stream | None = None
        self._heard = 0.0
        # Something was seen, and what else to follow because of it was not worked out.
        self._unsettled = False
        self._pictured = pictured
        self._changed: set[str] = set()  # since the last picture
        self._pause = _SHORTEST_PAUSE
        self._thread = threading.Thread(target=self._run, name="watch", daemon=True)
        self._follow_only(ranges)

    def start(self) -> None:
        """Start following; once only."""
        self._thread.start()

    def stop(self) -> None:
        """End the thread. `items` stays as it is."""
        self._stopped.set()
        if stream := self._stream:
            stream.cancel()
        if self._thread.is_alive():
            self._thread.join()

    @property
    def in_sync(self) -> bool:
        """Whether every range has been seen whole."""
        with self._lock:
            return self._whole()

    def items(self) -> dict[str, bytes] | None:
        """Return a copy of all ranges' items by key; None until in sync."""
        with self._lock:
            return self._items() if self._whole() else None

    def picture(self) -> Picture | None:
        """Return all items, and which changed since the last call; None as above.

        There is one who calls this: what he was told is forgotten.
        """
        with self._lock:
            if not self._whole():
                return None
            changed, self._changed = self._changed, set()
            return Picture(items=self._items(), changed=changed)

    def _items(self) -> dict[str, bytes]:
        merged: dict[str, bytes] = {}
        for one in self._ranges.values():
            merged |= one.follower.items or {}
        return merged

    def _whole(self) -> bool:
        return not self._unsettled and all(
            one.follower.items is not None for one in self._ranges.values()
        )

    def _run(self) -> None:
        while not self._stopped.is_set():
            try:
                self._fetch()
                self._follow()
            except DatastoreError as e:
                log.warning("watch interrupted, resuming: %s", e)
            except Exception:  # the thread's edge: a dead watch nobody would notice
                log.exception("watch failed, resuming")
            # Jitter, so that a cluster that comes back is not met by all at once.
            self._stopped.wait(self._pause * random.uniform(0.5, 1.5))  # noqa: S311 - no secret
            self._pause = min(self._pause * 2, _LONGEST_PAUSE)

    def _fetch(self) -> None:
        """Take snapshots of the ranges that cannot be resumed, and of those they name.

        Leaves nothing to fetch.
        """
        while missing := self._missing():
            for one in missing:
                snapshot, history = self._client.fetch(one.start, one.end)
                with self._lock:
                    one.follower.meet(history)
                    self._note(one.follower.receive(snapshot))
            self._follow_only(self._wanted())
        self._settle()

    def _settle(self) -> None:
        """Show what was seen, now that all that it asks for was seen too."""
        with self._lock:
            changed, self._unsettled = self._unsettled, False
        if changed:
            self._notify()

    def _missing(self) -> list[_Range]:
        return [
            one
            for one in self._ranges.values()
            if isinstance(one.follower.request, Fetch)
        ]

    def _wanted(self) -> Ranges:
        """Return what is to be followed, from what was seen."""
        more = self._more(
            {
                one.name: one.follower.items
                for one in self._ranges.values()
                if one.follower.items is not None
            }
        )
        return Ranges(
            prefixes=self._base.prefixes | more.prefixes,
            keys=self._base.keys | more.keys,
        )

    def _follow_only(self, wanted: Ranges) -> frozenset[int]:
        """Begin and end ranges; return the watch ids of those that ended."""
        names = wanted.prefixes | wanted.keys
        known = {one.name for one in self._ranges.values()}
        ended = frozenset(i for i, one in self._ranges.items() if one.name not in names)
        with self._lock:
            for number in ended:
                left = self._ranges.pop(number)
                self._remember(left.follower.items or ())
            for name in sorted(names - known):
                is_prefix = name in wanted.prefixes
                self._ranges[self._next_id] = _Range(name, is_prefix=is_prefix)
                self._next_id += 1
        return ended

    def _follow(self) -> None:
        """Watch all ranges from their revisions until the stream ends or a loss."""
        members = self._client.members
        index = members.current
        stub = members.stub(index)
        outbox: queue.SimpleQueue[pb.WatchRequest | None] = queue.SimpleQueue()
        for number, one in self._ranges.items():
            outbox.put(_create(number, one))
        try:
            metadata = (*members.metadata(stub), _REQUIRE_LEADER)
            self._heard = time.monotonic()
            self._stream = stub.watch(self._requests(outbox), metadata=metadata)
            for reply in self._stream:
                self._heard = time.monotonic()
                if self._stopped.is_set() or not self._receive(reply):
                    return
                self._adjust(outbox)
        except grpc.RpcError as e:
            if self._stopped.is_set():
                return
            if is_stale_token(e):
                members.forget_token()
            members.avoid(index)
            raise Temporary(f"watch: {text(e)}") from e
        finally:
            outbox.put(None)
            if self._stream is not None:
                self._stream.cancel()

    def _adjust(self, outbox: "queue.SimpleQueue[pb.WatchRequest | None]") -> None:
        """Begin to watch what became of interest, and leave what no longer is."""
        if not self._unsettled:
            return
        before = set(self._ranges)
        self._follow_only(self._wanted())
        self._fetch()
        for number in before - self._ranges.keys():
            request = pb.WatchCancelRequest(watch_id=number)
            outbox.put(pb.WatchRequest(cancel_request=request))
        for number in self._ranges.keys() - before:
            outbox.put(_create(number, self._ranges[number]))

    def _requests(
        self, outbox: "queue.SimpleQueue[pb.WatchRequest | None]"
    ) -> Iterator[pb.WatchRequest]:
        """Yield what to send; when idle, ask for a sign of life and miss its absence.

        Runs in the stream's own thread.
        """
        while True:
            try:
                request = outbox.get(timeout=self._silence / 3)
            except queue.Empty:
                if time.monotonic() - self._heard > self._silence and self._stream:
                    self._stream.cancel()
                    return
                request = pb.WatchRequest(progress_request=pb.WatchProgressRequest())
            if request is None:
                return
            yield request

    def _receive(self, reply: pb.WatchResponse) -> bool:
        """Take one reply; return whether the stream may go on."""
        if reply.watch_id < 0 and not reply.canceled:
            # The answer to a progress request. etcd 3.4 may send it ahead of events of
            # lower revisions, so it proves life and nothing else.
            return True
        if reply.canceled and (reply.watch_id in self._ranges or reply.watch_id < 0):
            self._cancelled(reply)
            return False
        self._pause = _SHORTEST_PAUSE
        one = self._ranges.get(reply.watch_id)
        if one is None:
            return True  # the last words of a range that was left
        with self._lock:
            self._note(self._tell(one.follower, reply))
        return not isinstance(one.follower.request, Fetch)

    def _note(self, changed: frozenset[str] | None) -> None:
        """Remember what a follower says that changed; the lock is held."""
        if changed is not None:
            self._unsettled = True
            self._remember(changed)

    def _remember(self, changed: Iterable[str]) -> None:
        if self._pictured:
            self._changed.update(changed)

    def _tell(
        self, follower: Follower, reply: pb.WatchResponse
    ) -> frozenset[str] | None:
        if reply.created:
            follower.meet(era(reply.header))
            return None
        if not reply.events:
            return follower.receive(Progress(reply.header.revision))
        return follower.receive(Changes([_change(event) for event in reply.events]))

    def _cancelled(self, reply: pb.WatchResponse) -> None:
        log.warning(
            "watch cancelled by etcd: %s",
            reply.cancel_reason or f"compacted at {reply.compact_revision}",
        )
        if reply.compact_revision:
            with self._lock:
                if one := self._ranges.get(reply.watch_id):
                    one.follower.receive(Lost())
        else:
            # A token that ran out shows as a refused watch.
            self._client.members.forget_token()


def _create(number: int, one: _Range) -> pb.WatchRequest:
    request = one.follower.request
    assert not isinstance(request, Fetch), "fetched just before"  # noqa: S101
    return pb.WatchRequest(
        create_request=pb.WatchCreateRequest(
            key=one.start,
            range_end=one.end,
            start_revision=request.revision,
            progress_notify=True,
            watch_id=number,
        )
    )


def _change(event: pb.Event) -> Change:
    deleted = event.type == pb.Event.DELETE
    return Change(
        key=event.kv.key.decode(errors="surrogateescape"),
        value=None if deleted else event.kv.value,
        revision=event.kv.mod_revision,
    )
