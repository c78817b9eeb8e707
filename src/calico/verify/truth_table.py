"""A table of thousands of cases: who may send what to whom, and what the packets do.

Instances of every configuration send each other every kind of packet, both families.
What is expected is the judge's word (`policy.evaluate`) on what the API was asked for.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import permutations
from typing import Any

from calico.policy.evaluate import Direction, Packet, evaluate
from calico.verify.cloud import Site
from calico.verify.configurations import ESSENCE
from calico.verify.probes.echo import request
from calico.verify.probes.shots import ECHO, ICMP4, ICMP6, SCTP, TCP, UDP, Shot
from calico.verify.probes.volley import Aim, Outcome, fire
from calico.verify.reach import title
from calico.verify.result import Tally
from calico.verify.roster import Roster, assemble
from calico.verify.stage import Stage
from calico.verify.wish import IN, OUT

PORTS = {TCP: (8001, 8005, 9000), UDP: (8001, 9000), SCTP: (8001,)}
_FIRST_NUMBER = 20000
_TRIES = 4  # for what is missed; what must not happen is tried once
# Timestamps and node information queries (RFC 792, RFC 4620): no echo, yet a request.
_OTHER_ICMP = {4: (13, 0), 6: (139, 0)}


@dataclass(frozen=True, slots=True)
class Case:
    """A shot between two instances, and what is expected of it."""

    pair: tuple[Site, Site]
    shot: Shot
    expected: Outcome

    @property
    def name(self) -> str:
        """How a failure names it."""
        shot = self.shot
        what = {TCP: "TCP", UDP: "UDP", SCTP: "SCTP"}.get(shot.protocol, "ICMP")
        detail = shot.port or f"type {shot.icmp[0]}"
        return f"{title(self.pair)}, IPv{shot.source.version} {what} {detail}"


def expect(roster: Roster, pair: tuple[str, str], shot: Shot) -> Outcome:
    """Return what the groups at both ends make of a shot and of its answer."""
    source, target = pair
    forth = [(source, OUT), (target, IN)]
    arrived = all(_allows(roster, *end, _packet(shot)) for end in forth)
    if not arrived or shot.answer is None:
        return Outcome(arrived=arrived, answered=False)
    # A group without connections looks at answers as at anything else (P6).
    back = [end for end in ((target, OUT), (source, IN)) if not _stateful(roster, end)]
    answered = all(_allows(roster, *end, _answer(shot)) for end in back)
    return Outcome(arrived=True, answered=answered)


def _allows(roster: Roster, key: str, direction: Direction, packet: Packet) -> bool:
    of_port = roster.of_site[key]
    return evaluate(roster.groups, of_port, direction, packet).allowed


def _stateful(roster: Roster, end: tuple[str, Direction]) -> bool:
    found = [roster.groups.policies[group] for group in roster.of_site[end[0]]]
    return all(policy.stateful for policy in found)


def _packet(shot: Shot) -> Packet:
    with_ports = shot.protocol in PORTS
    return Packet(
        source=shot.source,
        destination=shot.destination,
        protocol=shot.protocol,
        port=shot.port if with_ports else None,
        icmp_type=None if with_ports else shot.icmp[0],
        icmp_code=None if with_ports else shot.icmp[1],
    )


def _answer(shot: Shot) -> Packet:
    with_ports = shot.protocol in PORTS
    reply = 0 if shot.protocol == ICMP4 else 129
    return Packet(
        source=shot.destination,
        destination=shot.source,
        protocol=shot.protocol,
        port=shot.number if with_ports else None,
        icmp_type=None if with_ports else reply,
        icmp_code=None if with_ports else 0,
    )


def check(stage: Stage, tally: Tally) -> None:
    """Make a smaller table's instances, and count a case for each of its lines."""
    roster = assemble(stage, ESSENCE)
    for case, wrong in run(roster, list(cases(roster))):
        tally.case(case.name, wrong)


def cases(roster: Roster) -> Iterator[Case]:
    """Yield the table: every ordered pair, every kind of packet, both families."""
    number = _FIRST_NUMBER
    for source, target in permutations(roster.sites, 2):
        pair = roster.sites[source], roster.sites[target]
        for version in (4, 6):
            for details in _kinds(version):
                number += 1
                shot = Shot(
                    source=pair[0].address(version),
                    destination=pair[1].address(version),
                    number=number,
                    payload=request()[1],
                    **details,
                )
                yield Case(pair, shot, expect(roster, (source, target), shot))


def _kinds(version: int) -> Iterator[dict[str, Any]]:
    for protocol, ports in PORTS.items():
        yield from ({"protocol": protocol, "port": port} for port in ports)
    icmp = ICMP4 if version == 4 else ICMP6
    for kind in ((ECHO[version], 0), _OTHER_ICMP[version]):
        yield {"protocol": icmp, "icmp": kind}


def run(roster: Roster, wanted: Sequence[Case]) -> list[tuple[Case, str | None]]:
    """Send all, and return each case with what was wrong with it, or None.

    What is missed is sent again; what came though it must not is not forgiven.
    """
    keys = {site.name: key for key, site in roster.sites.items()}
    found: dict[Case, str | None] = {}
    left = list(wanted)
    for _ in range(_TRIES):
        aims = [Aim(keys[c.pair[0].name], keys[c.pair[1].name], c.shot) for c in left]
        outcomes = fire(roster.ends, aims)
        for case, outcome in zip(left, outcomes, strict=True):
            found[case] = _judge(case.expected, outcome)
        left = [case for case in left if (found[case] or "").startswith("missed")]
        if not left:
            break
    return [(case, found[case]) for case in wanted]


def _judge(expected: Outcome, outcome: Outcome) -> str | None:
    for what, want, got in (
        ("shot", expected.arrived, outcome.arrived),
        ("answer", expected.answered, outcome.answered),
    ):
        if got and not want:
            return f"the {what} came, and should not have"
        if want and not got:
            return f"missed: the {what} should have come"
    return None
