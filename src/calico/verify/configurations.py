"""Security group configurations that differ in all that rules can say. Pure.

Each is one group, with the rules that it is wished to have (`wish.Allow`).
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from itertools import chain

from calico.policy.evaluate import Direction
from calico.verify.wish import (
    IN,
    NUMBERS,
    OUT,
    Allow,
    OfAddresses,
    OfGroup,
    OfInstance,
    Whose,
)

HIGH = (20000, 65535)  # where shots come from, and answers go to


@dataclass(frozen=True, slots=True, kw_only=True)
class Configuration:
    """A group, and the instances in it as name and place (0 to 2)."""

    key: str
    instances: Mapping[str, int]
    allows: tuple[Allow, ...] = ()
    stateful: bool = True
    more: tuple[str, ...] = ()  # other configurations' groups that its ports are in


Made = Iterable[Allow]


def _both(make: Callable[[int], Made]) -> tuple[Allow, ...]:
    return tuple(chain(make(4), make(6)))


def _ports(
    name: str,
    ports: tuple[int, int] | None = None,
    whose: Whose = None,
    direction: Direction = IN,
    spelled: str | None = None,
) -> tuple[Allow, ...]:
    first, last = ports or (None, None)
    return _both(
        lambda version: [
            Allow(
                direction=direction,
                version=version,
                protocol=NUMBERS[name],
                spelled=spelled or name,
                first=first,
                last=last,
                whose=whose,
            )
        ]
    )


def _any(whose: Whose = None, direction: Direction = IN) -> tuple[Allow, ...]:
    return _both(lambda v: [Allow(direction=direction, version=v, whose=whose)])


def _icmp(
    types: Mapping[int, int] | None = None,
    code: int | None = None,
    whose: Whose = None,
    direction: Direction = IN,
) -> tuple[Allow, ...]:
    """Allow ICMP of both families: all of it, a type, or a type's one code."""
    return tuple(
        Allow(
            direction=direction,
            version=version,
            protocol=number,
            spelled=spelled,
            first=types[version] if types else None,
            last=code,
            whose=whose,
        )
        # A number, and a name that is out of use (P3).
        for version, number, spelled in ((4, 1, "1"), (6, 58, "icmpv6"))
    )


_ECHO = {4: 8, 6: 128}
OPEN_OUT = _any(direction=OUT)
_SERVICE = (*_ports("tcp", (8001, 8001)), *_ports("udp", (8001, 8001)), *_icmp())
DEFAULT = Configuration(
    key="default",
    instances={"default1": 0, "default2": 2},
    allows=(*_any(OfGroup("default")), *OPEN_OUT),
)
CONFIGURATIONS = (
    DEFAULT,
    Configuration(key="open", instances={"open": 1}, allows=(*_any(), *OPEN_OUT)),
    Configuration(key="closed", instances={"closed": 0}),
    Configuration(
        key="outward",
        instances={"outward": 2},
        allows=(*_any(OfAddresses("none")), *OPEN_OUT),  # P1: nobody is not everybody
    ),
    Configuration(
        key="ranges",
        instances={"ranges": 0},
        allows=(
            *_ports("tcp", (8000, 8010)),
            *_ports("udp", (9000, 9000)),
            *_icmp(_ECHO, 1),
            *OPEN_OUT,
        ),
    ),
    Configuration(
        key="group",
        instances={"group": 1},
        allows=(
            *_ports("udp", None, OfGroup("ranges")),
            *_ports("tcp", (9000, 9999), OfGroup("outward")),
            *_icmp(whose=OfGroup("default")),
            *OPEN_OUT,
        ),
    ),
    Configuration(
        key="addresses",
        instances={"addresses": 2},
        allows=(
            *_any(OfAddresses("few")),
            *_ports("udp", (8500, 9000), OfInstance("default1")),
            *_icmp(_ECHO, 0, OfGroup("group")),
            *OPEN_OUT,
        ),
    ),
    Configuration(
        key="nobody",
        instances={"nobody": 0},
        allows=(*_any(OfAddresses("none")), *_icmp(_ECHO), *OPEN_OUT),
    ),
    Configuration(
        key="prefix",
        instances={"prefix": 1},
        allows=(
            *_ports("tcp", (1, 8004), OfInstance("outward")),
            *_ports("udp", (8001, 9000), OfInstance("default1")),
            *_any(OfInstance("icmp")),
            *OPEN_OUT,
        ),
    ),
    Configuration(
        key="icmp", instances={"icmp": 2}, allows=(*_icmp(_ECHO, 0), *OPEN_OUT)
    ),
    Configuration(
        key="inward",
        instances={"inward": 0},
        allows=(
            *_any(),
            *_ports("udp", (8001, 8001), direction=OUT),
            *_ports("tcp", (8001, 9000), OfGroup("open"), OUT),
            *_icmp(_ECHO, 0, OfAddresses("few"), OUT),
        ),
    ),
    Configuration(
        key="oneway",
        instances={"oneway": 1},
        stateful=False,
        allows=_SERVICE,
    ),
    Configuration(
        key="stateless",
        instances={"stateless": 2},
        stateful=False,
        allows=(
            *_SERVICE,
            *_ports("tcp", HIGH, direction=OUT),
            *_ports("udp", HIGH, OfGroup("open"), OUT),
            *_icmp(direction=OUT),
        ),
    ),
    Configuration(
        key="several",
        instances={"several": 0},
        more=("icmp", "ranges"),
        allows=_ports("sctp", (8001, 8001)),
    ),
    Configuration(
        key="spelled",
        instances={"spelled": 1},
        allows=(
            *_ports("sctp", (8001, 8002), spelled="132"),
            *_ports("tcp", (8005, 8005), spelled="TCP"),
            *_ports("udp", spelled="17"),
            *OPEN_OUT,
        ),
    ),
)
ADDRESS_GROUPS = {"few": ("open", "ranges", "stateless"), "none": ()}
_ESSENTIAL = ("default", "open", "outward", "ranges", "group", "addresses", "stateless")
ESSENCE = tuple(c for c in CONFIGURATIONS if c.key in _ESSENTIAL)
