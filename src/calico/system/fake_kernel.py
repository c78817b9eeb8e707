"""A host in memory for tests of logic: strict, printable, and failing on request.

It refuses what the kernel refuses (a route through a link that is down, an element that
is not there), and remembers whether a port was ever open without all that protects it.
"""

import errno
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace

from calico.model.ids import Interface, InterfaceName, Mac
from calico.plan.antispoof import Element, is_gate
from calico.plan.items import (
    Bridge,
    Item,
    Key,
    Link,
    LocalAddress,
    Multipath,
    Neighbour,
    Route,
    Setting,
    interfaces_of,
    key_of,
    state_of,
)
from calico.plan.nft import Part
from calico.plan.ruleset import TABLES
from calico.plan.shaping import Shaper
from calico.policy.evaluate import Direction
from calico.reconcile.filter import FilterChange, FilterState
from calico.reconcile.problem import Problem
from calico.system.kernel import Failure, Have
from calico.system.nft import NftError


class FakeKernel:
    """A host with the given `tap` links, down and with a MAC that is not ours.

    `refuse` is asked before each change of an item, `refuse_filter` before each
    transaction; what they return true for fails.
    """

    def __init__(self, taps: Iterable[InterfaceName] = ()) -> None:
        self.items: dict[Key, Item] = {}
        self.elements: dict[Element, str] = {}
        self.parts: dict[Part, str] = {}
        self.addresses: tuple[tuple[InterfaceName, Interface], ...] = ()
        self.refuse: Callable[[Item], bool] = lambda _: False
        self.refuse_filter: Callable[[FilterChange], bool] = lambda _: False
        self.unreadable = False
        self.reads: list[bool] = []  # whether each was a resync
        self.exposed: list[str] = []  # ports open without their protection
        for tap in taps:
            self.plug(tap)

    def plug(self, tap: InterfaceName) -> None:
        """Add a link, or make it anew: all that was on the old one is gone."""
        self.unplug(tap)
        link = Link(tap, Mac("02:00:00:00:00:99"), up=False)
        self.items[key_of(link)] = link

    def unplug(self, tap: InterfaceName) -> None:
        """Remove a link, and with it all that is on it, as the kernel does.

        A detour is a link of its own: it stays, and leads nowhere.
        """
        detours = [
            replace(item, rate=0, burst=0, queue=0)
            for item in self.items.values()
            if isinstance(item, Shaper)
            and item.direction is Direction.EGRESS
            and item.interface == tap
        ]
        self.items = {
            k: i for k, i in self.items.items() if tap not in interfaces_of(i)
        } | state_of(detours)

    def read(self, *, resync: bool) -> Have:
        """Return what there is."""
        self.reads.append(resync)  # there is no memory to distrust
        if self.unreadable:
            raise OSError(errno.EINTR, "unreadable on request")
        return Have(
            items={k: i for k, i in self.items.items() if not isinstance(i, Setting)},
            taps=frozenset(self._links()),
            filter=FilterState(parts=dict(self.parts), elements=dict(self.elements)),
            absent=frozenset(t.family for t in TABLES)
            - {part.family for part in self.parts},
            addresses=self.addresses,
        )

    def read_settings(self, wanted: Iterable[Setting]) -> Mapping[Key, Setting]:
        """Return those of the settings that were written."""
        keys = [key_of(setting) for setting in wanted]
        found = {key: self.items[key] for key in keys if key in self.items}
        return {k: i for k, i in found.items() if isinstance(i, Setting)}

    def put(self, items: Sequence[Item]) -> list[Failure]:
        """Make items, in their order."""
        failures = []
        for item in items:
            code = errno.EPERM if self.refuse(item) else self._obstacle(item)
            if code:
                failures.append(_failure(item, "put", code))
            else:
                self.items[key_of(item)] = item
        return failures

    def drop(self, items: Sequence[Item]) -> list[Failure]:
        """Remove items, in their order; what must never be removed is an error."""
        failures = []
        for item in items:
            assert not isinstance(item, Link | Bridge | Setting), item  # noqa: S101
            if self.refuse(item):
                failures.append(_failure(item, "drop", errno.EPERM))
            else:
                self.items.pop(key_of(item), None)
        return failures

    def change_filter(self, change: FilterChange) -> None:
        """Change the filter in one transaction."""
        if self.refuse_filter(change):
            raise NftError("refused on request")
        before = FilterState(parts=self.parts, elements=self.elements)
        for element in (*change.elements.drop, *change.elements.replaced):
            if element not in self.elements and element.family not in change.renewed:
                raise NftError(f"{element} is not there")
        after = change.applied_to(before)
        for element in change.elements.put:
            if Part(element.family, "set", element.set) not in after.parts:
                raise NftError(f"no set for {element}")
        self._note_exposed(after.elements)
        self.parts, self.elements = dict(after.parts), dict(after.elements)

    def __str__(self) -> str:
        lines = [str(self.items[key]) for key in sorted(self.items)]
        lines += [f"{e.family} {e.set} {e.key}" for e in sorted(self.elements)]
        families = {part.family for part in self.parts}
        lines += [f"no table {t.family}" for t in TABLES if t.family not in families]
        return "\n".join(lines)

    def _links(self) -> dict[InterfaceName, Link]:
        return {i.interface: i for i in self.items.values() if isinstance(i, Link)}

    def _obstacle(self, item: Item) -> int:
        """Return why the kernel would refuse to make an item; 0 if it would not."""
        if isinstance(item, Bridge):
            return 0
        if isinstance(item, LocalAddress) and (0, item.interface, "") in self.items:
            return 0
        links = [self._links().get(name) for name in interfaces_of(item)]
        needs_up = isinstance(item, Route | Multipath | Neighbour | LocalAddress)
        for link in links:
            if link is None:
                return errno.ENODEV
            if needs_up and not link.up:
                return errno.ENETDOWN
        return 0

    def _note_exposed(self, elements: Mapping[Element, str]) -> None:
        """Remember ports whose gate opens now while something of them is missing."""
        for gate in elements:
            if not is_gate(gate) or gate in self.elements:
                continue
            name = gate.interface
            if not any(e.set == "macs" and e.interface == name for e in elements):
                self.exposed.append(f"{name}: no policy")
            kinds = {type(i) for i in self.items.values() if name in interfaces_of(i)}
            if not {Link, Neighbour, Route} <= kinds:
                self.exposed.append(f"{name}: no route")


def _failure(item: Item, wish: str, code: int) -> Failure:
    return Failure(item, Problem(str(item), wish, os.strerror(code)))
