"""Selectors mean what Calico's do, and a text that is none is pointed at."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from calico.model.ids import Invalid
from calico.model.selector_parser import (
    MAX_DEPTH,
    MAX_LENGTH,
    BadSelector,
    parse_selector,
)
from calico.model.selectors import (
    And,
    Compare,
    Comparison,
    Has,
    In,
    Not,
    Or,
    possible,
)

Labels = Mapping[str, str]

# Few names and values, so that a selector and labels drawn apart do meet.
NAMES = ["a", "in", "has", "not", "p/a", "p/b-c", "p", "q.r/x"]
VALUES = ["", "a", "ab", "ba", "it's", 'say "a"', "{a, b}", "a && b", "ü"]
PREFIXES = ["p/", "q.r/"]

labels = st.dictionaries(st.sampled_from(NAMES), st.sampled_from(VALUES))


@dataclass(frozen=True)
class Case:
    """A selector's text with its meaning, and how tightly its text is bound."""

    text: str
    judge: Callable[[Labels], bool]
    level: int  # 0: has || outside parentheses, 1: &&, 2: neither


def quoted(draw: st.DrawFn, value: str) -> str:
    quotes = [q for q in "'\"" if q not in value]
    quote = draw(st.sampled_from(quotes))
    return f"{quote}{value}{quote}"


def blanks(draw: st.DrawFn, least: str = "") -> str:
    return draw(st.sampled_from([least, " ", " \t "]))


JUDGES: dict[str, Callable[[str | None, str], bool]] = {
    "==": lambda has, text: has == text,
    "!=": lambda has, text: has != text,
    "contains": lambda has, text: has is not None and text in has,
    "starts with": lambda has, text: has is not None and has[: len(text)] == text,
    "ends with": lambda has, text: has is not None and has.endswith(text),
}


@st.composite
def comparisons(draw: st.DrawFn) -> Case:
    name, value = draw(st.sampled_from(NAMES)), draw(st.sampled_from(VALUES))
    operator = draw(st.sampled_from(sorted(JUDGES)))
    judge = JUDGES[operator]
    words = operator.replace(" ", blanks(draw)) if "with" in operator else operator
    after = blanks(draw, " ")
    text = f"{name}{after}{words}{blanks(draw)}{quoted(draw, value)}"
    return Case(text, lambda it: judge(it.get(name), value), 2)


@st.composite
def memberships(draw: st.DrawFn) -> Case:
    name = draw(st.sampled_from(NAMES))
    values = draw(st.lists(st.sampled_from(VALUES), max_size=3))
    negated = draw(st.booleans())
    comma = f"{blanks(draw)},{blanks(draw)}"
    inside = comma.join(quoted(draw, value) for value in values)
    if draw(st.booleans()) and values:
        inside += comma
    words = draw(st.sampled_from(["not in", "notin"])) if negated else "in"
    text = f"{name} {words}{blanks(draw)}{{{blanks(draw)}{inside}}}"
    return Case(text, lambda it: (it.get(name) in values) != negated, 2)


@st.composite
def calls(draw: st.DrawFn) -> Case:
    name = draw(st.sampled_from([*NAMES, None]))
    if name is None:
        function = draw(st.sampled_from(["all", "global"]))
        return Case(f"{function}({blanks(draw)})", lambda _: True, 2)
    return Case(f"has({blanks(draw)}{name}{blanks(draw)})", lambda it: name in it, 2)


@st.composite
def joined(draw: st.DrawFn, inner: st.SearchStrategy[Case]) -> Case:
    kind = draw(st.sampled_from(["!", "&&", "||"]))
    if kind == "!":
        case = bound(draw, draw(inner), 2)
        judge = case.judge
        return Case(f"!{blanks(draw)}{case.text}", lambda it: not judge(it), 2)
    level = 1 if kind == "&&" else 0
    parts = [
        bound(draw, case, level)
        for case in draw(st.lists(inner, min_size=2, max_size=3))
    ]
    decide = all if kind == "&&" else any
    text = f"{blanks(draw)}{kind}{blanks(draw)}".join(part.text for part in parts)
    return Case(text, lambda it: decide(part.judge(it) for part in parts), level)


def bound(draw: st.DrawFn, case: Case, level: int) -> Case:
    """Put parentheses where they have to be, and now and then where not."""
    if case.level >= level and draw(st.booleans()):
        return case
    return Case(f"({case.text})", case.judge, 2)


cases = st.recursive(comparisons() | memberships() | calls(), joined, max_leaves=6)


@given(cases, labels)
def test_a_selector_selects_what_the_slow_judge_says(case: Case, it: Labels) -> None:
    assert parse_selector(case.text).matches(it) == case.judge(it)


@pytest.mark.parametrize("operator", JUDGES)
def test_each_comparison_is_right_for_each_pair_of_values(operator: str) -> None:
    for text, value in product(VALUES, [*VALUES, None]):
        quote = '"' if "'" in text else "'"
        selector = parse_selector(f"a {operator} {quote}{text}{quote}")
        it = {} if value is None else {"a": value}
        assert selector.matches(it) == JUDGES[operator](value, text), (text, value)


@given(cases)
def test_the_canonical_text_says_the_same_selector(case: Case) -> None:
    selector = parse_selector(case.text)
    assert parse_selector(str(selector)) == selector


def only(prefixes: list[str]) -> list[str]:
    return [name for name in NAMES if name.startswith(tuple(prefixes))]


@given(cases, st.data(), st.sampled_from([PREFIXES, ["p/"], []]))
def test_what_is_selected_was_possible(
    case: Case, data: st.DataObject, prefixes: list[str]
) -> None:
    keys = st.sampled_from(only(prefixes)) if prefixes else st.nothing()
    it = data.draw(st.dictionaries(keys, st.sampled_from(VALUES)))
    if case.judge(it):
        assert possible(parse_selector(case.text), prefixes)


@pytest.mark.parametrize(
    ("text", "could"),
    [
        ("role == 'monitoring'", False),
        ("has(role)", False),
        ("!has(role)", True),
        ("role != 'x'", True),
        ("!(role != 'x')", False),
        ("role in {'a'} || has(p/a)", True),
        ("role in {'a'} && has(p/a)", False),
        ("role not in {'a'} && p/a starts with 'x'", True),
        ("!(has(p/a) || role not in {'x'})", False),
        ("all()", True),
        ("!all()", False),
    ],
)
def test_what_ports_cannot_have_is_not_possible(text: str, could: bool) -> None:  # noqa: FBT001
    assert possible(parse_selector(text), PREFIXES) == could


@pytest.mark.parametrize(
    ("text", "selector"),
    [
        ("has(a) || has(b) && !has(c)", Or((Has("a"), And((Has("b"), Not(Has("c"))))))),
        ("!a == 'x'", Not(Compare("a", Comparison.EQUAL, "x"))),
        ("a in {'z', \"x\", 'z'}", In("a", frozenset({"x", "z"}))),
        ("(has(a) && has(b)) && has(c)", And((And((Has("a"), Has("b"))), Has("c")))),
    ],
)
def test_the_grammar_is_calicos(text: str, selector: object) -> None:
    assert parse_selector(text) == selector


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("b == b", "character 6: found 'b', expected a text in quotes"),
        ("'b1' == b", "character 1: found \"'b1'\", expected a label's name"),
        ("b", "character 2: found the end, expected ==, !=, in"),
        ("a b", "character 3: found 'b', expected ==, !=, in"),
        ("a 'b'", "character 3: found \"'b'\", expected ==, !=, in"),
        ("a = 'b'", "character 3: found '=', expected =="),
        ("!", "character 2: found the end, expected a label's name"),
        ("has(a) &", "character 8: found '&', expected &&"),
        ("has(a) |", "character 8: found '|', expected ||"),
        ("has(a) &&", "character 10: found the end, expected a label's name"),
        ("has(a) has(b)", "character 8: found 'has', expected &&, || or the end"),
        ("has (a)", "character 5: found '(', expected ==, !=, in"),
        ("has()", "character 5: found ')', expected a label's name"),
        ("all(a)", "character 5: found 'a', expected )"),
        ("(has(a)", "character 8: found the end, expected &&, || or )"),
        ("()", "character 2: found ')', expected a label's name"),
        (")", "character 1: found ')', expected a label's name"),
        ("a in 'b'", "character 6: found \"'b'\", expected {"),
        ("a in {'b' 'c'}", "character 11: found \"'c'\", expected , or }"),
        ("a in {b}", "character 7: found 'b', expected a text in quotes or }"),
        ("a not 'b'", "character 7: found \"'b'\", expected in"),
        ("a starts 'b'", "character 10: found \"'b'\", expected with"),
        ("a == 'b", "character 6: found \"'\", expected a text with a closing '"),
        ("%", "character 1: found '%', expected a label's name"),
        ("all()\n", "character 6: found '\\n', expected a selector in one line"),
    ],
)
def test_what_is_wrong_is_pointed_at(text: str, message: str) -> None:
    with pytest.raises(BadSelector) as caught:
        parse_selector(text)
    assert str(caught.value).startswith(message)
    line, mark = caught.value.pointer.split("\n")
    assert line == text.replace("\n", "?")
    assert f"character {mark.index('^') + 1}:" in message


def test_hostile_text_is_refused_without_harm() -> None:
    deepest = "(" * MAX_DEPTH + "has(a)" + ")" * MAX_DEPTH
    assert parse_selector(deepest) == Has("a")
    for text in (f"({deepest})", f"!{deepest}", "!" * 50_000, "(" * 50_000):
        with pytest.raises(BadSelector, match=f"no more than {MAX_DEPTH}"):
            parse_selector(text)
    with pytest.raises(Invalid, match=f"more than {MAX_LENGTH}"):
        parse_selector(" " * (MAX_LENGTH + 1))
    long = " || ".join(["has(a)"] * 6000)
    assert parse_selector(long).matches({"a": ""})


def test_a_long_selector_is_shown_around_the_mark() -> None:
    with pytest.raises(BadSelector) as caught:
        parse_selector("has(a) && " * 20 + "b = 'x' && " + "has(c)" * 20)
    line, mark = caught.value.pointer.split("\n")
    assert len(line) <= 60
    assert line[mark.index("^")] == "="


@pytest.mark.parametrize(
    "make",
    [
        lambda: Has("a b"),
        lambda: Has(""),
        lambda: Compare("a", Comparison.EQUAL, "'\""),
        lambda: In("a", frozenset({"'\""})),
        lambda: And((Has("a"),)),
    ],
    ids=["name", "no name", "quotes", "quotes in a set", "one operand"],
)
def test_a_selector_that_could_not_be_written_cannot_exist(
    make: Callable[[], object],
) -> None:
    with pytest.raises(Invalid):
        make()
