"""Text to selector, by Calico's grammar; what is wrong is pointed at.

    or         = and { "||" and }
    and        = not { "&&" not }
    not        = { "!" } ( "(" or ")" | "all()" | "global()" | "has(" NAME ")"
                         | NAME comparison STRING | NAME ["not"] "in" set )
    comparison = "==" | "!=" | "contains" | "starts" "with" | "ends" "with"
    set        = "{" [ STRING { "," STRING } [ "," ] ] "}"

White space is blanks and tabs, as there. Words are names unless they stand after a
name: `in in {'a'}` compares a label called `in`.
"""

import re
from dataclasses import dataclass

from calico.model.ids import Invalid
from calico.model.selectors import (
    EVERYTHING,
    LABEL_NAME,
    All,
    And,
    Compare,
    Comparison,
    Global,
    Has,
    In,
    Not,
    Or,
    Selector,
)

# Far more than people write, far less than what makes Python's stack overflow: a
# selector is read by every host.
MAX_LENGTH = 1 << 16
MAX_DEPTH = 50

_TOKEN = re.compile(
    r"[ \t]*(?:"
    rf"(?P<name>{LABEL_NAME.pattern})"
    r"""|"(?P<double>[^"]*)"|'(?P<single>[^']*)'"""
    r"|(?P<symbol>==|!=|&&|\|\||[!(){},])"
    r"|(?P<end>\Z)"
    r")"
)
_SPACE = re.compile(r"[ \t]*")
_END = "the end"
_OPERATORS = "==, !=, in, not in, contains, starts with or ends with"
_CALLS: dict[str, Selector] = {"all": All(), "global": Global()}
_BY_WORDS = {
    "==": Comparison.EQUAL,
    "!=": Comparison.NOT_EQUAL,
    "contains": Comparison.CONTAINS,
    "starts with": Comparison.STARTS_WITH,
    "startswith": Comparison.STARTS_WITH,
    "ends with": Comparison.ENDS_WITH,
    "endswith": Comparison.ENDS_WITH,
}
_FIRST_WORDS = {"starts": "with", "ends": "with", "not": "in"}
_SHOWN = 30  # characters to either side of what is pointed at


class BadSelector(Invalid):
    """A text that is no selector. `pointer` shows where, in two lines."""

    def __init__(self, text: str, position: int, found: str, expected: str) -> None:
        """Say what was found at a position, and what could have been there."""
        super().__init__(
            f"character {position + 1}: found {found}, expected {expected}"
        )
        start = max(0, position - _SHOWN)
        # As many characters as there were, so that the mark is where it should be.
        shown = re.sub(r"[^ -~]", "?", text[start : position + _SHOWN])
        self.pointer = f"{shown}\n{' ' * (position - start)}^"


def parse_selector(text: str) -> Selector:
    """Return the selector that a text says; an empty one selects everything.

    BadSelector for what is none, or too long or too deep to be meant.
    """
    if len(text) > MAX_LENGTH:
        raise Invalid(f"{len(text)} characters, more than {MAX_LENGTH}")
    tokens = _Tokens(text)
    if tokens.next.kind == _END:
        return EVERYTHING
    selector = _parse_or(tokens, 0)
    if tokens.next.kind != _END:
        raise tokens.unexpected("&&, || or the end")
    return selector


@dataclass(frozen=True, slots=True)
class _Token:
    """A word of the text: `kind` is "name", "text", the symbol itself, or the end."""

    kind: str
    value: str
    start: int
    end: int


class _Tokens:
    """The words of a text, one ahead."""

    def __init__(self, text: str) -> None:
        self._text = text
        self.next = self._read(0)

    def take(self) -> _Token:
        """Return the next word, and go on."""
        taken = self.next
        if taken.kind != _END:
            self.next = self._read(taken.end)
        return taken

    def accept(self, kind: str) -> bool:
        """Go on if the next word is of the kind; tell whether it was."""
        if self.next.kind != kind:
            return False
        self.take()
        return True

    def expect(self, kind: str, expected: str) -> str:
        """Return the next word's value, and go on; BadSelector if it is another."""
        if self.next.kind != kind:
            raise self.unexpected(expected)
        return self.take().value

    def follows_at_once(self, token: _Token, symbol: str) -> bool:
        """Tell whether a symbol stands right behind a word."""
        return self.next.kind == symbol and self.next.start == token.end

    def unexpected(self, expected: str, token: _Token | None = None) -> BadSelector:
        """Return the error of a word that should be another, the next if not given."""
        token = token or self.next
        found = self._text[token.start : token.end] or _END
        shown = found if found == _END else repr(found[:_SHOWN])
        return BadSelector(self._text, token.start, shown, expected)

    def _read(self, position: int) -> _Token:
        match = _TOKEN.match(self._text, position)
        if match is None:
            raise self._unreadable(position)
        # Every way to match has a group of its own.
        group = match.lastgroup or ""
        start, end = match.span(group)
        if group in {"double", "single"}:
            return _Token("text", match[group], start - 1, end + 1)
        kinds = {"name": "name", "end": _END}
        return _Token(kinds.get(group, match[group]), match[group], start, end)

    def _unreadable(self, position: int) -> BadSelector:
        blanks = _SPACE.match(self._text, position)
        start = blanks.end() if blanks else position
        character = self._text[start]
        expected = {
            "=": "==",
            "&": "&&",
            "|": "||",
            "'": "a text with a closing '",
            '"': 'a text with a closing "',
            "\n": "a selector in one line",
        }.get(character, "a label's name, an operator or a text in quotes")
        return BadSelector(self._text, start, repr(character), expected)


def _parse_or(tokens: _Tokens, depth: int) -> Selector:
    operands = [_parse_and(tokens, depth)]
    while tokens.accept("||"):
        operands.append(_parse_and(tokens, depth))
    return operands[0] if len(operands) == 1 else Or(tuple(operands))


def _parse_and(tokens: _Tokens, depth: int) -> Selector:
    operands = [_parse_not(tokens, depth)]
    while tokens.accept("&&"):
        operands.append(_parse_not(tokens, depth))
    return operands[0] if len(operands) == 1 else And(tuple(operands))


def _parse_not(tokens: _Tokens, depth: int) -> Selector:
    if depth > MAX_DEPTH:
        raise tokens.unexpected(f"no more than {MAX_DEPTH} ( and ! within each other")
    if tokens.accept("!"):
        return Not(_parse_not(tokens, depth + 1))
    if tokens.accept("("):
        inner = _parse_or(tokens, depth + 1)
        tokens.expect(")", "&&, || or )")
        return inner
    if tokens.next.kind != "name":
        raise tokens.unexpected("a label's name, has(, all(), global(), ! or (")
    name = tokens.take()
    if name.value in {"has", *_CALLS} and tokens.follows_at_once(name, "("):
        return _parse_call(tokens, name.value)
    return _parse_comparison(tokens, name.value)


def _parse_call(tokens: _Tokens, function: str) -> Selector:
    tokens.take()
    if function in _CALLS:
        tokens.expect(")", ")")
        return _CALLS[function]
    label = tokens.expect("name", "a label's name")
    tokens.expect(")", ")")
    return Has(label)


def _parse_comparison(tokens: _Tokens, name: str) -> Selector:
    operator = tokens.next
    words = operator.value
    if operator.kind not in {"name", "==", "!="}:
        raise tokens.unexpected(_OPERATORS)
    tokens.take()
    if words in _FIRST_WORDS:
        second = _FIRST_WORDS[words]
        if tokens.next.kind != "name" or tokens.next.value != second:
            raise tokens.unexpected(second)
        words += f" {tokens.take().value}"
    if words in _BY_WORDS:
        return Compare(
            name, _BY_WORDS[words], tokens.expect("text", "a text in quotes")
        )
    if words == "in":
        return In(name, _parse_set(tokens))
    if words in {"not in", "notin"}:
        return In(name, _parse_set(tokens), wanted=False)
    raise tokens.unexpected(_OPERATORS, operator)


def _parse_set(tokens: _Tokens) -> frozenset[str]:
    tokens.expect("{", "{")
    values: set[str] = set()
    while tokens.next.kind == "text":
        values.add(tokens.take().value)
        if not tokens.accept(","):
            break
    if not tokens.accept("}"):
        raise tokens.unexpected(", or }" if values else "a text in quotes or }")
    return frozenset(values)
