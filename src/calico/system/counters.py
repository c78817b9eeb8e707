"""How often rules of groups and of an operator's policies met a packet.

A connection counts once: its later packets pass as established.
"""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from calico.system.nft import Nft

_DIRECTIONS = {"in": "ingress", "out": "egress"}
_POLICIES = {"policy", "host_policy"}
_DENIED = {"in_groups": "ingress", "out_groups": "egress"}


@dataclass(frozen=True, slots=True, order=True, kw_only=True)
class Hits:
    """What a rule has met. Without group and policy, what no group allowed.

    A group's rules have ids, those of an operator's `policy` are numbered from 1.
    """

    direction: str
    group: str = ""
    policy: str = ""
    rule: str = ""
    packets: int = 0
    bytes: int = 0


def read_hits(nft: Nft) -> list[Hits]:
    """Return the counters of this network namespace, summed by rule and sorted."""
    sums: dict[Hits, list[int]] = defaultdict(lambda: [0, 0])
    for entry in nft.list_table("inet"):
        for place, rule, counter in _counters(entry):
            found = _meaning(place, rule)
            if found:
                sums[found][0] += counter["packets"]
                sums[found][1] += counter["bytes"]
    return sorted(
        replace(hits, packets=packets, bytes=octets)
        for hits, (packets, octets) in sums.items()
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


def _meaning(place: str, rule: str) -> Hits | None:
    """Return what a counter is of, without its numbers; None for others."""
    if place in _DENIED:
        return Hits(direction=_DENIED[place])
    kind, dot, rest = place.partition(".")
    if kind in _POLICIES:
        direction = _DIRECTIONS[rest.rpartition(".")[2]]
        number, _, policy = rule.partition(" ")
        return Hits(direction=direction, policy=policy, rule=number)
    if not dot or kind not in _DIRECTIONS:
        return None
    return Hits(direction=_DIRECTIONS[kind], group=rest.partition(".")[0], rule=rule)
