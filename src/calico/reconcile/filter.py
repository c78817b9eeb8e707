"""How the filter of a host differs from what it should be, as one transaction."""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from calico.plan.antispoof import FROM_RATE, TO_RATE, Element
from calico.plan.filter import Sections, merged
from calico.plan.nft import (
    Part,
    Parts,
    describe,
    hook_words,
    set_words,
    value_words,
)
from calico.plan.ruleset import TABLE, Chain, Set
from calico.reconcile.diff import Diff, diff

# What parts are about, by the first word of their names, and when they are made.
_SUBJECTS = {
    "in": (2, "group"),
    "out": (2, "group"),
    "policy": (2, "policy"),
    "before": (3, "policies"),
    "after": (3, "policies"),
    "host_policy": (3, "host endpoint"),
    "host_before": (3, "host endpoint"),
    "host_after": (3, "host endpoint"),
    "host_in": (4, "the host itself"),
    "host_out": (4, "the host itself"),
}
_NO_ELEMENTS: Diff[Element, str] = Diff(put={}, drop={}, replaced={})


@dataclass(frozen=True, slots=True, kw_only=True)
class FilterState:
    """What the kernel has of our tables: parts by their descriptions, and elements."""

    parts: Mapping[Part, str] = field(default_factory=dict)
    elements: Mapping[Element, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class FilterChange:
    """One transaction. `renewed` are families whose table is made anew, whole.

    `put` are parts to make or, if in `present`, to fill anew; `drop` are parts to
    remove.
    """

    renewed: frozenset[str] = frozenset()
    put: Parts = field(default_factory=dict)
    present: frozenset[Part] = frozenset()
    drop: frozenset[Part] = frozenset()
    elements: Diff[Element, str] = _NO_ELEMENTS

    def __bool__(self) -> bool:
        return bool(self.has_parts or self.elements)

    @property
    def has_parts(self) -> bool:
        """Return whether more than elements changes."""
        return bool(self.renewed or self.put or self.drop)

    def applied_to(self, state: FilterState) -> FilterState:
        """Return what there is after the change, where `state` was before."""
        gone = {(p.family, p.name) for p in self.drop if p.kind == "set"}
        parts = {
            part: line
            for part, line in state.parts.items()
            if part not in self.drop and part.family not in self.renewed
        }
        elements = {
            element: value
            for element, value in state.elements.items()
            if element not in self.elements.drop
            and element.family not in self.renewed
            and (element.family, element.set) not in gone
        }
        return FilterState(
            parts={**parts, **{p: describe(part) for p, part in self.put.items()}},
            elements={**elements, **self.elements.put},
        )

    def lines(self) -> list[str]:
        """Return what the change does, as text, a line each."""
        return [
            *(f"replace table {family} {TABLE}" for family in sorted(self.renewed)),
            *(f"- {p.family} {p.kind} {p.name}" for p in sorted(self.drop)),
            *(
                f"+ {p.family} {p.kind} {p.name}"
                for p in sorted(self.put)
                if p.family not in self.renewed
            ),
            *(f"- {e.family} {e.set} {e.key}" for e in sorted(self.elements.drop)),
            *(f"+ {e.family} {e.set} {e.key}" for e in sorted(self.elements.put)),
        ]


def compare(
    parts: Parts, elements: Mapping[Element, str], have: FilterState
) -> FilterChange:
    """Return the transaction that makes the filter what it should be.

    A table is made anew where it is not there, or where a set or the hook of a chain is
    another than it should be: neither can be changed in place.
    """
    absent = {p.family for p in parts} - {p.family for p in have.parts}
    return _compare(parts, elements, have, frozenset(absent))


def _compare(
    parts: Parts,
    elements: Mapping[Element, str],
    have: FilterState,
    absent: frozenset[str] = frozenset(),
) -> FilterChange:
    """Compare, where the tables of `absent` families are not there."""
    put = {p: part for p, part in parts.items() if have.parts.get(p) != describe(part)}
    renewed = absent | {
        p.family
        for p, part in put.items()
        if p in have.parts and not _can_become(part, have.parts[p])
    }
    put = {p: part for p, part in parts.items() if p in put or p.family in renewed}
    drop = frozenset(
        p for p in have.parts if p not in parts and p.family not in renewed
    )
    gone = {(p.family, p.name) for p in drop if p.kind == "set"}
    elements_there = {
        element: value
        for element, value in have.elements.items()
        if element.family not in renewed and (element.family, element.set) not in gone
    }
    return FilterChange(
        renewed=renewed,
        put=put,
        present=frozenset(
            p for p in put if p in have.parts and p.family not in renewed
        ),
        drop=drop,
        elements=diff(elements, elements_there),
    )


def _can_become(part: Set | Chain, line: str) -> bool:
    """Tell whether the part that a line describes can be changed into this one."""
    hook, _, _ = describe(part).partition(";")
    return isinstance(part, Chain) and line.partition(";")[0] == hook


def compare_sections(want: Sections, left: Sections) -> FilterChange:
    """Return the transaction that leads from sections to sections.

    Those that are the same object are not looked at: a change costs its own sections.
    """
    new = merged(s for name, s in want.items() if s is not left.get(name))
    old = merged(s for name, s in left.items() if s is not want.get(name))
    have = FilterState(
        parts={name: describe(part) for name, part in old.parts.items()},
        elements=old.elements,
    )
    return _compare(new.parts, new.elements, have)


def steps(change: FilterChange) -> Iterator[tuple[str, FilterChange]]:
    """Yield a change in small steps, each with what it is about, in a safe order.

    For a change that was refused as a whole: what is refused then is that thing alone
    (P41). What every port needs comes first, under no name; then what rules refer to,
    then groups and policies, then what calls policies, then interfaces. Parts that go
    stay, until a whole change succeeds.
    """
    parts: dict[_Subject, dict[Part, Set | Chain]] = defaultdict(dict)
    for part, made in change.put.items():
        parts[_subject_of(part.name, None)][part] = made
    elements: dict[_Subject, tuple[dict[Element, str], ...]] = defaultdict(
        lambda: ({}, {}, {})
    )
    diffs = (change.elements.put, change.elements.drop, change.elements.replaced)
    for position, some in enumerate(diffs):
        for element, value in some.items():
            subject = _subject_of(element.set, element.interface)
            elements[subject][position][element] = value
    common = _Subject(0, "")
    for subject in sorted({common, *parts, *elements}):
        put, drop, replaced = elements[subject]
        yield (
            subject.name,
            FilterChange(
                renewed=change.renewed if subject == common else frozenset(),
                put=parts[subject],
                present=change.present & parts[subject].keys(),
                elements=Diff(put=put, drop=drop, replaced=replaced),
            ),
        )


class _Subject(NamedTuple):
    rank: int
    name: str


def _subject_of(name: str, interface: str | None) -> _Subject:
    """Return what a part, or an element of it, is about."""
    if interface is not None:
        return _Subject(5, interface)
    kind, _, rest = name.partition(".")
    if kind in {FROM_RATE, TO_RATE} and rest:
        return _Subject(5, rest.partition(".")[0])  # with the element that leads to it
    rank, what = _SUBJECTS.get(kind, (1, "group") if rest else (0, ""))
    return _Subject(rank, f"{what} {rest.partition('.')[0]}".rstrip())


def render(change: FilterChange) -> str:
    """Return a transaction in nft's language; empty if there is nothing to do."""
    return "\n".join(_commands(change))


def _commands(change: FilterChange) -> Iterator[str]:
    """Yield commands, in an order in which each one's references exist."""
    for family in sorted(change.renewed):
        # Declaring it first makes the deletion legal where there is none.
        yield f"table {family} {TABLE}"
        yield f"delete table {family} {TABLE}"
        yield f"table {family} {TABLE}"
    sets = {p: s for p, s in sorted(change.put.items()) if isinstance(s, Set)}
    chains = {p: c for p, c in sorted(change.put.items()) if isinstance(c, Chain)}
    for part, declared in sets.items():
        yield f"add set {part.family} {TABLE} {set_words(declared)}".replace(
            "add set", "add map" if declared.is_map else "add set"
        )
    for part, chain in chains.items():
        yield f"add chain {part.family} {TABLE} {part.name}{hook_words(chain)}"
    stale = {**change.elements.drop, **change.elements.replaced}
    yield from _element_commands("delete", stale)
    dropped = sorted(change.drop)
    refilled = [p for p in chains if p in change.present]
    for part in [*(p for p in dropped if p.kind == "chain"), *refilled]:
        if part.family not in change.renewed:
            yield f"flush chain {part.family} {TABLE} {part.name}"
    for part, chain in chains.items():
        for rule in chain.rules:
            where = f"{part.family} {TABLE} {part.name}"
            yield f'add rule {where} {rule.text} comment "{rule.comment}"'
    yield from _element_commands("add", change.elements.put)
    for part in dropped:
        yield f"delete {part.kind} {part.family} {TABLE} {part.name}"


def _element_commands(verb: str, elements: Mapping[Element, str]) -> Iterator[str]:
    by_set = defaultdict(list)
    for element, value in sorted(elements.items()):
        words = value_words(element, value) if verb == "add" else ""
        by_set[element.family, element.set].append(element.key + words)
    for (family, name), keys in by_set.items():
        yield f"{verb} element {family} {TABLE} {name} {{ {', '.join(keys)} }}"
