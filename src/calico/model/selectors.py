"""The selector language of the Calico v3 model: which labels a thing must have.

A selector is a tree of frozen values. Its text is canonical and parses to the same tree
(`model.selector_parser`). A label that is absent is not equal to anything: `!=` and
`not in` are true of it, every other comparison is false.
"""

import enum
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Union, assert_never

from calico.model.ids import Invalid

LABEL_NAME = re.compile(r"[A-Za-z0-9_./-]+")


@dataclass(frozen=True, slots=True)
class All:
    """`all()`: everything."""

    def matches(self, labels: Mapping[str, str]) -> bool:
        """Tell whether a thing with these labels is selected: it is."""
        del labels
        return True

    def __str__(self) -> str:
        return "all()"


@dataclass(frozen=True, slots=True)
class Global:
    """`global()`: everything too; it differs as a namespace's selector only."""

    def matches(self, labels: Mapping[str, str]) -> bool:
        """Tell whether a thing with these labels is selected: it is."""
        del labels
        return True

    def __str__(self) -> str:
        return "global()"


@dataclass(frozen=True, slots=True)
class Has:
    """`has(name)`: whatever has the label, of any value."""

    name: str

    def __post_init__(self) -> None:
        _check_name(self.name)

    def matches(self, labels: Mapping[str, str]) -> bool:
        """Tell whether a thing with these labels is selected."""
        return self.name in labels

    def __str__(self) -> str:
        return f"has({self.name})"


class Comparison(enum.Enum):
    """How a label's value is compared with one text; the value is how it is written."""

    EQUAL = "=="
    NOT_EQUAL = "!="
    CONTAINS = "contains"
    STARTS_WITH = "starts with"
    ENDS_WITH = "ends with"


@dataclass(frozen=True, slots=True)
class Compare:
    """`name == 'text'` and the like."""

    name: str
    comparison: Comparison
    text: str

    def __post_init__(self) -> None:
        _check_name(self.name)
        _quoted(self.text)

    def matches(self, labels: Mapping[str, str]) -> bool:
        """Tell whether a thing with these labels is selected."""
        value = labels.get(self.name)
        if value is None:
            return self.comparison is Comparison.NOT_EQUAL
        match self.comparison:
            case Comparison.EQUAL:
                return value == self.text
            case Comparison.NOT_EQUAL:
                return value != self.text
            case Comparison.CONTAINS:
                return self.text in value
            case Comparison.STARTS_WITH:
                return value.startswith(self.text)
            case Comparison.ENDS_WITH:
                return value.endswith(self.text)
            case never:
                assert_never(never)

    def __str__(self) -> str:
        return f"{self.name} {self.comparison.value} {_quoted(self.text)}"


@dataclass(frozen=True, slots=True)
class In:
    """`name in {'a', 'b'}`: the label has one of the values.

    Not `wanted` is `not in`: it has another value, or is absent.
    """

    name: str
    values: frozenset[str]
    wanted: bool = True

    def __post_init__(self) -> None:
        _check_name(self.name)
        _set_text(self.values)

    def matches(self, labels: Mapping[str, str]) -> bool:
        """Tell whether a thing with these labels is selected."""
        return (labels.get(self.name) in self.values) is self.wanted

    def __str__(self) -> str:
        words = "in" if self.wanted else "not in"
        return f"{self.name} {words} {_set_text(self.values)}"


@dataclass(frozen=True, slots=True)
class Not:
    """`!...`: whatever the operand does not select."""

    operand: "Selector"

    def matches(self, labels: Mapping[str, str]) -> bool:
        """Tell whether a thing with these labels is selected."""
        return not self.operand.matches(labels)

    def __str__(self) -> str:
        return f"!{_inner(self.operand)}"


@dataclass(frozen=True, slots=True)
class And:
    """`... && ...`: what all of two or more operands select."""

    operands: tuple["Selector", ...]

    def __post_init__(self) -> None:
        _check_operands(self.operands)

    def matches(self, labels: Mapping[str, str]) -> bool:
        """Tell whether a thing with these labels is selected."""
        return all(operand.matches(labels) for operand in self.operands)

    def __str__(self) -> str:
        return " && ".join(map(_inner, self.operands))


@dataclass(frozen=True, slots=True)
class Or:
    """`... || ...`: what any of two or more operands selects."""

    operands: tuple["Selector", ...]

    def __post_init__(self) -> None:
        _check_operands(self.operands)

    def matches(self, labels: Mapping[str, str]) -> bool:
        """Tell whether a thing with these labels is selected."""
        return any(operand.matches(labels) for operand in self.operands)

    def __str__(self) -> str:
        return " || ".join(map(_inner, self.operands))


Selector = Union[All, Global, Has, Compare, In, Not, And, Or]  # noqa: UP007
"""A condition on labels. (`|` cannot join classes that name the union themselves.)"""

EVERYTHING: Selector = All()


def possible(selector: Selector, prefixes: Collection[str]) -> bool:
    """Tell whether a selector could select something of limited labels.

    All names of its labels begin with one of `prefixes`; nothing else is known of them.
    False only where nothing of the kind is selected for certain: each comparison is
    judged by itself, so `has(a) && !has(a)` counts as possible.
    """
    return True in _outcomes(selector, tuple(prefixes))


_NEITHER_KNOWN = frozenset({True, False})


def _outcomes(selector: Selector, prefixes: tuple[str, ...]) -> frozenset[bool]:
    """Return what a selector may come to."""
    match selector:
        case All() | Global():
            return frozenset({True})
        case Has(name=name) | Compare(name=name) | In(name=name):
            if name.startswith(prefixes):
                return _NEITHER_KNOWN
            return frozenset({selector.matches({})})
        case Not(operand=operand):
            return frozenset(not each for each in _outcomes(operand, prefixes))
        case And(operands=operands):
            return _joined(operands, prefixes, decisive=False)
        case Or(operands=operands):
            return _joined(operands, prefixes, decisive=True)
        case never:
            assert_never(never)


def _joined(
    operands: tuple[Selector, ...], prefixes: tuple[str, ...], *, decisive: bool
) -> frozenset[bool]:
    # One operand that is `decisive` decides; else all have to be the opposite.
    each = [_outcomes(operand, prefixes) for operand in operands]
    some = {decisive} if any(decisive in one for one in each) else set()
    rest = {not decisive} if all((not decisive) in one for one in each) else set()
    return frozenset(some | rest)


def _check_name(name: str) -> None:
    if not LABEL_NAME.fullmatch(name):
        raise Invalid(f"{name!r} is no name of a label")


def _check_operands(operands: tuple[Selector, ...]) -> None:
    if len(operands) < 2:
        raise Invalid(f"{len(operands)} operands of && or ||, not two or more")


def _inner(operand: Selector) -> str:
    return f"({operand})" if isinstance(operand, And | Or) else str(operand)


def _quoted(text: str) -> str:
    if "'" not in text:
        return f"'{text}'"
    if '"' in text:
        raise Invalid(f"{text!r} has both kinds of quotes")
    return f'"{text}"'


def _set_text(values: frozenset[str]) -> str:
    return "{" + ", ".join(map(_quoted, sorted(values))) + "}"
