"""One host's kernel behind one seam: what it has of ours, and changes to it.

`Kernel` is the network namespace of the thread that made it, which must be the only one
that uses it. `FakeKernel` (`system.fake_kernel`) stands for it in tests of logic.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from calico.model.ids import Interface, InterfaceName
from calico.plan.items import (
    Bridge,
    Item,
    Key,
    Multipath,
    Route,
    Setting,
    State,
    TrafficItem,
    key_of,
    state_of,
)
from calico.plan.ruleset import TABLE, TABLES
from calico.plan.shaping import Shaper
from calico.reconcile.filter import FilterChange, FilterState
from calico.reconcile.problem import Problem
from calico.system.dump import NetState, read_state
from calico.system.lanes import drop_lane_item, put_lane_item, read_lanes
from calico.system.netlink import Change, apply_changes
from calico.system.nft import Nft
from calico.system.nft_tables import has_table
from calico.system.shaping import drop_shaper, put_shaper, read_shapers
from calico.system.sysctl import read_settings, write_setting


@dataclass(frozen=True, slots=True, kw_only=True)
class Have:
    """What a host has of ours, the `tap` links it has, and others' addresses.

    `filter` is None where it is as our last change of it left it.

    `absent` are the families without a table of ours, be it whole or not.
    """

    items: State
    taps: frozenset[InterfaceName]
    filter: FilterState | None
    absent: frozenset[str] = frozenset()
    addresses: tuple[tuple[InterfaceName, Interface], ...] = ()


@dataclass(frozen=True, slots=True)
class Failure:
    """An item that could not be put or dropped."""

    item: Item
    problem: Problem


class Host(Protocol):
    """The seam between what is decided and what is done."""

    def read(self, *, resync: bool) -> Have:
        """Return what there is; a resync trusts no memory. OSError if unreadable."""

    def read_settings(self, wanted: Iterable[Setting]) -> Mapping[Key, Setting]:
        """Return the settings as they are, those that hold as they are wanted."""

    def put(self, items: Sequence[Item]) -> list[Failure]:
        """Make items, in their order; return those that failed."""

    def drop(self, items: Sequence[Item]) -> list[Failure]:
        """Remove items, in their order; return those that failed."""

    def change_filter(self, change: FilterChange) -> None:
        """Change the filter in one transaction; NftError if it is refused, whole."""


class Kernel:
    """The kernel, as the calling thread's network namespace shows it."""

    def __init__(self) -> None:
        self._nft = Nft()
        self._net: NetState | None = None
        self._traffic: State = {}

    def read(self, *, resync: bool) -> Have:
        """Return what there is of ours."""
        self._net = net = read_state()
        self._traffic = state_of([*read_shapers(net), *read_lanes(net)])
        return Have(
            items={**net.items, **self._traffic},
            taps=net.taps,
            filter=self._nft.read(resync=resync),
            absent=frozenset(
                t.family for t in TABLES if not has_table(t.family, TABLE)
            ),
            addresses=net.addresses,
        )

    def read_settings(self, wanted: Iterable[Setting]) -> Mapping[Key, Setting]:
        """Return the settings as they are."""
        return read_settings(wanted)

    def put(self, items: Sequence[Item]) -> list[Failure]:
        """Make items, in their order."""
        failures = [
            Failure(item, problem)
            for item in items
            if isinstance(item, Setting) and (problem := write_setting(item))
        ]
        ours = self._net.items if self._net else {}
        changes = [
            Change(item, put=True, new=_is_new_route(item, ours))
            for item in items
            if not isinstance(item, Setting | TrafficItem)
        ]
        traffic = (item for item in items if isinstance(item, TrafficItem))
        shaped = [
            Failure(item, problem) for item in traffic if (problem := self._shape(item))
        ]
        return failures + self._apply(changes) + shaped

    def _shape(self, item: TrafficItem) -> Problem | None:
        if not isinstance(item, Shaper):
            return put_lane_item(item)
        have = self._traffic.get(key_of(item))
        assert isinstance(have, Shaper | None)  # noqa: S101 - by its key
        return put_shaper(item, have)

    def drop(self, items: Sequence[Item]) -> list[Failure]:
        """Remove items, in their order. A setting has nothing to go back to."""
        failures = [
            Failure(item, problem)
            for item in items
            if isinstance(item, TrafficItem) and (problem := _unshape(item))
        ]
        changes = [
            Change(item, put=False)
            for item in items
            if not isinstance(item, Setting | TrafficItem)
        ]
        return failures + self._apply(changes)

    def change_filter(self, change: FilterChange) -> None:
        """Change the filter in one transaction."""
        self._nft.apply(change)

    def _apply(self, changes: Sequence[Change]) -> list[Failure]:
        failures = []
        for bridge in (c for c in changes if isinstance(c.item, Bridge)):
            failures += apply_changes([bridge], {})
            self._net = None  # it has an index only now
        if self._net is None:
            self._net = read_state()
        rest = [c for c in changes if not isinstance(c.item, Bridge)]
        failures += apply_changes(rest, self._net.indexes)
        return [Failure(change.item, problem) for change, problem in failures]


def _unshape(item: TrafficItem) -> Problem | None:
    return drop_shaper(item) if isinstance(item, Shaper) else drop_lane_item(item)


def _is_new_route(item: Item, ours: State) -> bool:
    return isinstance(item, Route | Multipath) and key_of(item) not in ours
