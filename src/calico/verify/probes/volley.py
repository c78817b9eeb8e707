"""A volley: all shots at once, and one wait for all that arrives and is answered.

What is denied costs one common wait, whatever the number of shots.
"""

import selectors
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Self

from calico.verify.probes.capture import Capture
from calico.verify.probes.echo import Stack
from calico.verify.probes.frames import transmit
from calico.verify.probes.shots import Key, Shot, frame, read_key

_QUIET = 0.8  # seconds without news, after which nothing more is expected
_CHUNK = (
    100  # frames at a time: a host's queue holds 1,000 (net.core.netdev_max_backlog)
)


@dataclass(frozen=True, slots=True, kw_only=True)
class End:
    """An instance's end of the wire: its interface and MAC, and its host's MAC."""

    place: Stack
    interface: str
    mac: str
    gateway: str


@dataclass(frozen=True, slots=True)
class Aim:
    """A shot, from whom and at whom."""

    source: str
    target: str
    shot: Shot


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a shot: seen at its target, and its answer at its source."""

    arrived: bool
    answered: bool


class Ears:
    """What arrives at ends, by key. Use as a context manager."""

    def __init__(self, ends: Mapping[str, End]) -> None:
        self._ends = ends
        self._stack = ExitStack()
        self._captures: dict[str, Capture] = {}
        self._selector = selectors.DefaultSelector()
        self.heard: dict[str, set[Key]] = {name: set() for name in ends}

    def __enter__(self) -> Self:
        for name, end in self._ends.items():
            capture = self._stack.enter_context(Capture(end.place, end.interface))
            self._captures[name] = capture
            self._selector.register(capture, selectors.EVENT_READ, name)
        return self

    def __exit__(self, *exc: object) -> None:
        self._selector.close()
        self._stack.close()

    def listen(self, within: float) -> bool:
        """Wait for frames and note them; tell whether any of them was new."""
        before = sum(map(len, self.heard.values()))
        for key, _ in self._selector.select(within):
            for each in self._captures[key.data].take():
                if not each.outgoing and (found := read_key(each.octets)):
                    self.heard[key.data].add(found)
        return sum(map(len, self.heard.values())) > before


def fire(ends: Mapping[str, End], aims: Sequence[Aim]) -> list[Outcome]:
    """Fire all shots, listen until there is no more news, and return what became."""
    with Ears(ends) as ears:
        for begin in range(0, len(aims), _CHUNK):
            _send(ends, aims[begin : begin + _CHUNK])
            ears.listen(0)
        quiet = time.monotonic()
        while time.monotonic() < quiet + _QUIET and not _all(ears, aims):
            if ears.listen(0.05):
                quiet = time.monotonic()
        return [_outcome(ears, aim) for aim in aims]


def _send(ends: Mapping[str, End], aims: Iterable[Aim]) -> None:
    by_source: dict[str, list[bytes]] = {}
    for aim in aims:
        end = ends[aim.source]
        sent = frame(aim.shot, end.mac, end.gateway)
        by_source.setdefault(aim.source, []).append(sent)
    for name, frames in by_source.items():
        transmit(ends[name].place, ends[name].interface, frames)


def _outcome(ears: Ears, aim: Aim) -> Outcome:
    return Outcome(
        arrived=aim.shot.key in ears.heard[aim.target],
        answered=aim.shot.answer in ears.heard[aim.source],
    )


def _all(ears: Ears, aims: Iterable[Aim]) -> bool:
    outcomes = (_outcome(ears, aim) for aim in aims)
    return all(o.arrived and o.answered for o in outcomes)
