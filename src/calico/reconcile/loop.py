"""When to look again: dirty flag, throttle, resync and backoff, with the clock given.

Sans-I/O: the owner asks how long to wait, waits however it likes, and says when a pass
began and how it ended. Events only set the dirty flag; the pass finds out what changed.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Intervals:
    """Seconds: between passes, between resyncs, and between retries (doubling)."""

    throttle: float = 0.1
    resync: float = 60.0
    first_retry: float = 0.5
    last_retry: float = 30.0


class Pacer:
    """Says when the next pass is due. The first one is due at once, as a resync."""

    def __init__(self, intervals: Intervals) -> None:
        self.intervals = intervals
        self._dirty = True
        self._resync_at = 0.0
        self._began: float | None = None
        self._retry_at: float | None = None
        self._delay = 0.0

    def mark(self) -> None:
        """Note that something may have changed."""
        self._dirty = True

    def demand_resync(self) -> None:
        """Make the next pass a resync, and due."""
        self._resync_at = 0.0
        self._dirty = True

    def wait(self, now: float) -> float:
        """Return the seconds until the next pass is due; 0 when it is."""
        due = self._resync_at
        if self._retry_at is not None:
            due = min(due, self._retry_at)
        if self._dirty:
            due = now
        if self._began is not None:
            due = max(due, self._began + self.intervals.throttle)
        return max(0.0, due - now)

    def begin(self, now: float) -> bool:
        """Note that a pass begins; return whether it is to trust no memory (resync)."""
        resync = now >= self._resync_at
        if resync:
            self._resync_at = now + self.intervals.resync
        self._began = now
        self._dirty = False
        self._retry_at = None
        return resync

    def succeed(self) -> None:
        """Note that the pass left nothing undone."""
        self._delay = 0.0

    def fail(self, now: float) -> None:
        """Note that the pass left something undone: try again, later each time."""
        first, last = self.intervals.first_retry, self.intervals.last_retry
        self._delay = min(max(2 * self._delay, first), last)
        self._retry_at = now + self._delay
