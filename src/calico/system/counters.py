"""How often each rule of each security group let a packet in: the filter's counters.

A connection counts once: its later packets pass as established.
"""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from calico.system.nft import Nft

_DIRECTIONS = {"in": "ingress", "out": "egress"}
_DENIED = {"in_groups": "ingress", "out_groups": "egress"}


@dataclass(frozen=True, slots=True, order=True, kw_only=True)
class Hits:
    """What a rule has allowed; without group and rule, what none allowed."""

    direction: str
    group: str = ""
    rule: str = ""
    packets: int = 0
    bytes: int = 0


def read_hits(nft: Nft) -> list[Hits]:
    """Return the counters of this network namespace, summed by rule and sorted."""
    sums: dict[tuple[str, str, str], list[int]] = defaultdict(lambda: [0, 0])
    for entry in nft.list_table("inet"):
        for place, rule, counter in _counters(entry):
            found = _meaning(place, rule)
            if found:
                sums[found][0] += counter["packets"]
                sums[found][1] += counter["bytes"]
    return sorted(
        Hits(direction=direction, group=group, rule=rule, packets=packets, bytes=octets)
        for (direction, group, rule), (packets, octets) in sums.items()
    )


def _counters(entry: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, int]]]:
    """Yield the set or chain, the rule's id, and the counter, of all in an entry."""
    if body := entry.get("set"):
        for element in body.get("elem", ()):
            if isinstance(element, dict) and "counter" in element.get("elem", ()):
                written = element["elem"]
                yield body["name"], written.get("comment", ""), written["counter"]
    if body := entry.get("rule"):
        # The checksum follows the rule's id.
        rule = body.get("comment", "").rpartition(" [")[0]
        for statement in body["expr"]:
            if isinstance(statement.get("counter"), dict):
                yield body["chain"], rule, statement["counter"]


def _meaning(place: str, rule: str) -> tuple[str, str, str] | None:
    """Return direction, group and rule that a counter is of; None for others."""
    if place in _DENIED:
        return _DENIED[place], "", ""
    prefix, dot, rest = place.partition(".")
    if not dot or prefix not in _DIRECTIONS:
        return None
    return _DIRECTIONS[prefix], rest.partition(".")[0], rule
