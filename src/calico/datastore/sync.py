"""How a range is followed: a snapshot, then changes, whatever happens to the stream.

Sans-IO: a Follower says what to ask next and is told the answer. One etcd transaction
changes many keys at one revision, so what was seen already is judged against the
revision reached before a reply, never against the one that the reply just reached.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from calico.datastore.store import Snapshot


@dataclass(frozen=True, slots=True)
class Fetch:
    """Ask for a snapshot of the range."""


@dataclass(frozen=True, slots=True)
class Resume:
    """Ask for all changes from this revision on."""

    revision: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """A key's new value (None: deleted) at a revision."""

    key: str
    value: bytes | None
    revision: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Era:
    """Which history a server speaks of: its cluster, Raft term and revision.

    Within one history, term and revision never go back. A cluster restored from a
    snapshot begins another history at an older point; both of etcd's numbers are then
    lower, or its cluster id is another.
    """

    cluster: int
    term: int
    revision: int


@dataclass(frozen=True, slots=True)
class Changes:
    """What a watch said, in order, and the revision that is complete with it."""

    changes: Sequence[Change]


@dataclass(frozen=True, slots=True)
class Progress:
    """The server's word that the watch has been sent all up to this revision."""

    revision: int


@dataclass(frozen=True, slots=True)
class Lost:
    """The changes after the follower's revision cannot be had (compaction)."""


class Follower:
    """A copy of one range. `items` is None until the first snapshot.

    After a loss it keeps what it has until the next snapshot: unknown is not empty.
    """

    def __init__(self) -> None:
        self.items: dict[str, bytes] | None = None
        self._revision: int | None = None
        self._cluster: int | None = None
        self._term = 0

    @property
    def request(self) -> Fetch | Resume:
        """Return what to ask now."""
        return Fetch() if self._revision is None else Resume(self._revision + 1)

    def receive(
        self, reply: Snapshot | Changes | Progress | Lost
    ) -> frozenset[str] | None:
        """Take an answer; return the keys of what changed, None if nothing did.

        The first snapshot changes what is known even where it is empty.
        """
        match reply:
            case Snapshot():
                items = {key: item.value for key, item in reply.items.items()}
                before, self.items, self._revision = self.items, items, reply.revision
                if before is None:
                    return frozenset(items)
                return _differing(before, items) or None
            case Changes():
                return self._apply(reply.changes)
            case Progress():
                if self._revision is not None:
                    self._revision = max(self._revision, reply.revision)
                return None
            case Lost():
                self._revision = None
                return None

    def meet(self, era: Era) -> None:
        """Take note of the history that the next replies are of.

        To be called before a snapshot is received, and when a stream begins. In another
        history, or an older state of this one, revisions mean other things: the range
        must be fetched again.
        """
        if self._revision is not None and (
            era.cluster != self._cluster
            or era.term < self._term
            or era.revision < self._revision
        ):
            self._revision = None
        self._cluster, self._term = era.cluster, era.term

    def _apply(self, changes: Sequence[Change]) -> frozenset[str] | None:
        if self.items is None or self._revision is None:
            return None
        known = self._revision
        fresh = [change for change in changes if change.revision > known]
        for change in fresh:
            if change.value is None:
                self.items.pop(change.key, None)
            else:
                self.items[change.key] = change.value
            self._revision = max(self._revision, change.revision)
        return frozenset(change.key for change in fresh) or None


def _differing(
    some: Mapping[str, bytes], others: Mapping[str, bytes]
) -> frozenset[str]:
    keys = some.keys() | others.keys()
    return frozenset(key for key in keys if some.get(key) != others.get(key))
