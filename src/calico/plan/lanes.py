"""Bandwidth limits of floating IPs: a lane for each way of each, shaped as ports' are.

Whether a packet is a floating IP's is known of its connection, and so only after it was
received. It is led aside where it leaves the host, by whatever link: it is marked, a
filter at that link's exit leads what is marked over one link, whose queue has a class
for each lane, and from there it leaves as it would have.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Address
from zlib import crc32

from calico.model.ids import Address, InterfaceName
from calico.model.records import Endpoint, Nat
from calico.plan.antispoof import LANES_FROM, LANES_TO, Element
from calico.plan.ruleset import Chain, Rule, Set
from calico.plan.shaping import shaper
from calico.policy.evaluate import Direction
from calico.policy.floating import RefusedNat, refuse_nats

LANES = InterfaceName("calico-lanes")
MAJOR = 0xCA11  # of the queue's handle
MARK = 0x02000000
"""The bit of a packet's mark that says: it has a lane."""

_MOST = 0x7FFF  # floating IPs with lanes: a class has 16 bits, one for the direction
_LAST = 200  # after all translation
_ASIDE = f"meta mark set meta mark | {MARK:#010x}"
_MAPS = {Direction.INGRESS: LANES_TO, Direction.EGRESS: LANES_FROM}


def _rule(way: str, ends: str, to: str, note: str) -> Rule:
    where = f"ct {ends} ip daddr map @{to}"
    return Rule(f"ct direction {way} meta priority set {where} {_ASIDE}", note)


PARTS: tuple[Set | Chain, ...] = (
    Set(LANES_TO, ("ipv4_addr",), to="classid"),
    Set(LANES_FROM, ("ipv4_addr",), to="classid"),
    Chain(
        "lanes",
        (
            _rule("original", "original", LANES_TO, "to a limited floating IP"),
            _rule("reply", "reply", LANES_TO, "an answer to one"),
            _rule("original", "reply", LANES_FROM, "from a limited floating IP"),
            _rule("reply", "original", LANES_FROM, "an answer from one"),
        ),
        "postrouting",
        _LAST,
    ),
)


@dataclass(frozen=True, slots=True)
class LaneLink:
    """The link that lanes are of; not `whole` where it is read, and must be remade."""

    whole: bool = True


@dataclass(frozen=True, slots=True)
class Lane:
    """A limit, in octets a second, with its number in the queue of the lanes' link.

    `burst` and `queue` are as a shaper's; `interface` is that of the port, as planned.
    """

    number: int
    rate: int
    burst: int
    queue: int
    interface: InterfaceName | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class Turn:
    """The filter at a link's exit that leads marked packets to the lanes' link.

    Not `whole` where one is read that leads elsewhere.
    """

    interface: InterfaceName
    whole: bool = True


@dataclass(frozen=True, slots=True)
class Limited:
    """A way of a floating IP that has a lane."""

    external: Address
    direction: Direction
    lane: Lane


Lanes = Mapping[InterfaceName, tuple[Limited, ...]]
"""The lanes of ports, by their interface."""


def refuse_unlimited(
    endpoints: Iterable[Endpoint], uplinks: Iterable[str]
) -> tuple[tuple[Endpoint, ...], tuple[RefusedNat, ...]]:
    """Take away the floating IPs whose limits cannot be kept; say which and why."""
    endpoints, uplinks = tuple(endpoints), tuple(uplinks)
    limited = _limited(endpoints)
    if not limited:
        return endpoints, ()
    lucky = {nat.external for nat in limited[:_MOST]}

    def objection(nat: Nat, _of: Endpoint) -> str | None:
        if nat.qos.egress and not uplinks:
            return "its limit needs `uplinks` in the agent's settings"
        is_limited = nat.qos.egress or nat.qos.ingress
        has_lane = nat.external in lucky
        return None if has_lane or not is_limited else f"{_MOST} others have limits"

    return refuse_nats(endpoints, objection)


def lanes_of(endpoints: Iterable[Endpoint]) -> Lanes:
    """Return the lanes of the ports that are given."""
    endpoints = tuple(endpoints)
    limited = _limited(endpoints)
    if not limited:
        return {}
    slots = _slots(nat.external for nat in limited)
    found = {
        one.interface: tuple(
            lane for nat in one.nats for lane in _lanes(one, nat, slots)
        )
        for one in endpoints
    }
    return {interface: lanes for interface, lanes in found.items() if lanes}


def _limited(endpoints: Iterable[Endpoint]) -> list[Nat]:
    """Return the floating IPs with limits, by their address."""
    found = (nat for e in endpoints for nat in e.nats)
    limited = (nat for nat in found if nat.qos.ingress or nat.qos.egress)
    return sorted(limited, key=lambda nat: (nat.external.version, nat.external))


def _slots(externals: Iterable[Address]) -> Mapping[Address, int]:
    """Return a number for each address, which others that come and go seldom change.

    Of two that hash alike the higher gives way.
    """
    slots: dict[Address, int] = {}
    taken: set[int] = set()
    for external in externals:
        slot = crc32(external.packed) % _MOST
        while slot in taken:
            slot = (slot + 1) % _MOST
        taken.add(slot)
        slots[external] = slot + 1
    return slots


def _lanes(
    endpoint: Endpoint, nat: Nat, slots: Mapping[Address, int]
) -> Iterator[Limited]:
    limits = {Direction.INGRESS: nat.qos.ingress, Direction.EGRESS: nat.qos.egress}
    for bit, (direction, limit) in enumerate(limits.items()):
        if limit and isinstance(nat.external, IPv4Address):
            bucket = shaper(endpoint.interface, direction, limit)
            lane = Lane(
                number=2 * slots[nat.external] + bit,
                rate=bucket.rate,
                burst=bucket.burst,
                queue=bucket.queue,
                interface=endpoint.interface,
            )
            yield Limited(nat.external, direction, lane)


def lane_items(
    lanes: Lanes, links: Iterable[InterfaceName]
) -> Iterator[LaneLink | Lane | Turn]:
    """Yield the lanes, and what leads to them at the exits of links."""
    if not lanes:
        return
    yield LaneLink()
    for some in lanes.values():
        yield from (limited.lane for limited in some)
    yield from map(Turn, links)


def lane_elements(lanes: Iterable[Limited]) -> Iterator[tuple[Element, str]]:
    """Yield what leads a port's packets to their lanes."""
    for limited in lanes:
        element = Element("inet", _MAPS[limited.direction], str(limited.external))
        yield element, f"{MAJOR:x}:{limited.lane.number:x}"
