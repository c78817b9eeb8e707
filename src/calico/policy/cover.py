"""Rules of one group cut into pieces that never overlap, each with the rule it is of.

The kernel's interval sets refuse elements that overlap, and a piece that stands for one
rule makes that rule's counter true: a packet counts for the first rule that allows it.
"""

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network

from calico.model.ids import Prefix
from calico.model.records import Rule

Range = tuple[int, int]
"""First and last number, both included."""

_WHOLE: Range = (0, 0)  # of what has no numbers to choose from


class Cover:
    """A set of numbers, kept as ranges that neither overlap nor touch."""

    def __init__(self) -> None:
        self._firsts: list[int] = []
        self._lasts: list[int] = []

    @property
    def ranges(self) -> list[Range]:
        """Return the ranges that the set consists of, in order."""
        return list(zip(self._firsts, self._lasts, strict=True))

    def missing(self, first: int, last: int) -> list[Range]:
        """Return the parts of a range that are not in the set yet."""
        parts = []
        at = bisect_left(self._lasts, first)
        while at < len(self._firsts) and self._firsts[at] <= last:
            if first < self._firsts[at]:
                parts.append((first, self._firsts[at] - 1))
            first = self._lasts[at] + 1
            at += 1
        if first <= last:
            parts.append((first, last))
        return parts

    def add(self, first: int, last: int) -> None:
        """Put a range into the set."""
        low = bisect_left(self._lasts, first - 1)
        high = low
        while high < len(self._firsts) and self._firsts[high] <= last + 1:
            first = min(first, self._firsts[high])
            last = max(last, self._lasts[high])
            high += 1
        self._firsts[low:high] = [first]
        self._lasts[low:high] = [last]


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """A part of what a rule allows, that no other piece allows in the same kind.

    `kind` says what is looked at: "all" (any packet), "protos" (the protocol), "ports"
    (protocol and port), "icmp" (type and code). `number` is the protocol or the ICMP
    type, `within` the range of ports or codes. `prefix` is the rule's, if it has one.
    """

    kind: str
    rule: Rule
    prefix: Prefix | None = None
    number: int = 0
    within: Range = _WHOLE


def pieces(rules: Iterable[Rule]) -> Iterator[Piece]:
    """Yield the pieces of rules of one IP version, with the same remote or prefixes.

    Of rules that overlap, the one with the shorter prefix, then the earlier one, has
    what both allow.
    """
    covers: defaultdict[tuple[str, int, Prefix | None], Cover] = defaultdict(Cover)
    ordered = sorted(rules, key=_prefix_length)
    lengths = sorted({_prefix_length(rule) for rule in ordered})
    for rule in ordered:
        kind, number, (first, last) = _kind(rule)
        prefix = _prefix(rule)
        left = [(first, last)]
        for wider in _widening(prefix, lengths):
            if cover := covers.get((kind, number, wider)):
                left = [part for piece in left for part in cover.missing(*piece)]
        covers[kind, number, prefix].add(first, last)
        for within in left:
            yield Piece(
                kind=kind, rule=rule, prefix=prefix, number=number, within=within
            )


def _kind(rule: Rule) -> tuple[str, int, Range]:
    if rule.protocol is None:
        return "all", 0, _WHOLE
    if rule.ports is not None:
        return "ports", rule.protocol, (rule.ports.first, rule.ports.last)
    if rule.icmp_type is not None:
        code = rule.icmp_code
        return "icmp", rule.icmp_type, (0, 255) if code is None else (code, code)
    return "protos", rule.protocol, _WHOLE


def _prefix(rule: Rule) -> Prefix | None:
    """Return a rule's prefix; one that holds every address is none."""
    remote = rule.remote
    if isinstance(remote, IPv4Network | IPv6Network) and remote.prefixlen > 0:
        return remote
    return None


def _prefix_length(rule: Rule) -> int:
    prefix = _prefix(rule)
    return prefix.prefixlen if prefix else 0


def _widening(prefix: Prefix | None, lengths: Iterable[int]) -> Iterator[Prefix | None]:
    """Yield a prefix and, of these lengths, all that hold it."""
    yield None
    if prefix is not None:
        for length in lengths:
            if 0 < length <= prefix.prefixlen:
                yield prefix.supernet(new_prefix=length)
