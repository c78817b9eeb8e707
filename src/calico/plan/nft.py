"""nft's words for parts of the filter, and how a part that was read is recognised.

A filter is *parts*, sets and chains, and *elements* of the sets. A part is described by
a line, made alike of what is wanted and of what was read: rules count by their
comments, which hold a checksum of their text.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from calico.plan.antispoof import Element
from calico.plan.ruleset import TABLES, Chain, Set


class Part(NamedTuple):
    """The name of a set or of a chain of one of our tables."""

    family: str
    kind: str  # "set" or "chain"
    name: str


Parts = Mapping[Part, Set | Chain]


def fixed_parts() -> dict[Part, Set | Chain]:
    """Return the parts that every host has."""
    parts: dict[Part, Set | Chain] = {}
    for table in TABLES:
        parts |= {part_of(table.family, each): each for each in table.sets}
        parts |= {part_of(table.family, each): each for each in table.chains}
    return parts


def part_of(family: str, part: Set | Chain) -> Part:
    """Return a part's name."""
    return Part(family, "set" if isinstance(part, Set) else "chain", part.name)


def describe(part: Set | Chain) -> str:
    """Return the line by which a part that was read is recognised as this one."""
    if isinstance(part, Set):
        return describe_set(part)
    return describe_chain(
        part.hook, part.priority, [rule.comment for rule in part.rules], nat=part.nat
    )


def describe_set(declared: Set) -> str:
    """Return a set's line."""
    flags = [
        name
        for name, on in (
            ("map", declared.verdicts),
            ("interval", declared.interval),
            ("counted", declared.counted),
        )
        if on
    ]
    if declared.to:
        flags.append(f"to {declared.to}")
    return " ".join([".".join(declared.types), *flags])


def describe_chain(
    hook: str | None, priority: int, comments: Sequence[str], *, nat: bool = False
) -> str:
    """Return a chain's line."""
    kind = " nat" if nat else ""
    return "; ".join([f"{hook} {priority if hook else '-'}{kind}", *comments])


def set_words(declared: Set) -> str:
    """Return a set's name and definition."""
    target = "verdict" if declared.verdicts else declared.to
    value = f" : {target}" if target else ""
    flags = " flags interval;" if declared.interval else ""
    counter = " counter;" if declared.counted else ""
    types = " . ".join(declared.types)
    return f"{declared.name} {{ type {types}{value};{flags}{counter} }}"


def hook_words(chain: Chain) -> str:
    """Return what follows a chain's name: where the kernel enters it, if it does."""
    if not chain.hook:
        return ""
    kind = "nat" if chain.nat else "filter"
    hook = f"type {kind} hook {chain.hook} priority {chain.priority}"
    return f" {{ {hook}; policy accept; }}"


def value_words(element: Element, value: str) -> str:
    """Return what follows an element's key: what a map leads to, or a comment."""
    if not value:
        return ""
    return f" : {value}" if element.of_map else f' comment "{value}"'
