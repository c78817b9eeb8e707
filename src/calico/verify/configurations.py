"""Security group configurations that differ in all that rules can say. Pure.

Each is one group, asked for through the API (`asked`) and told the judge (`judged`):
two renderings of one wish, neither made from the other, nor by what the server has.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from ipaddress import ip_network
from itertools import chain
from typing import Any

from calico.model.ids import AddressGroupId, GroupId
from calico.model.records import (
    PortRange,
    Remote,
    RemoteAddressGroup,
    RemoteGroup,
    Rule,
)
from calico.policy.evaluate import Direction
from calico.verify.cloud import Address

IN, OUT = Direction.INGRESS, Direction.EGRESS
NUMBERS = {"tcp": 6, "udp": 17, "sctp": 132}
HIGH = (20000, 65535)  # where shots come from, and answers go to


@dataclass(frozen=True, slots=True)
class OfGroup:
    """The members of a configuration's group."""

    key: str


@dataclass(frozen=True, slots=True)
class OfAddresses:
    """The addresses of an address group: those of the instances that it names."""

    key: str


@dataclass(frozen=True, slots=True)
class OfInstance:
    """The one address of an instance, as a prefix."""

    key: str


Whose = OfGroup | OfAddresses | OfInstance | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Allow:
    """A rule as a person would ask for it; `spelled` is how the API hears it."""

    direction: Direction = IN
    version: int
    protocol: int | None = None
    spelled: str | None = None
    first: int | None = None
    last: int | None = None
    whose: Whose = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Configuration:
    """A group, and the instances in it as name and place (0 to 2)."""

    key: str
    instances: Mapping[str, int]
    allows: tuple[Allow, ...] = ()
    stateful: bool = True
    more: tuple[str, ...] = ()  # other configurations' groups that its ports are in


@dataclass(frozen=True, slots=True)
class Names:
    """Ids of what configurations name, and the instances' addresses."""

    groups: Mapping[str, str]
    address_groups: Mapping[str, str]
    addresses: Mapping[str, tuple[Address, ...]]

    def one(self, instance: str, version: int) -> str:
        """Return an instance's address of an IP version, as a prefix."""
        found = next(a for a in self.addresses[instance] if a.version == version)
        return str(ip_network(found))


def asked(allow: Allow, names: Names) -> dict[str, Any]:
    """Return a rule as the Neutron API is asked for it."""
    body: dict[str, Any] = {
        "direction": allow.direction.value,
        "ether_type": f"IPv{allow.version}",
        "protocol": allow.spelled,
        "port_range_min": allow.first,
        "port_range_max": allow.last,
    }
    match allow.whose:
        case OfGroup(key=key):
            body["remote_group_id"] = names.groups[key]
        case OfAddresses(key=key):
            body["remote_address_group_id"] = names.address_groups[key]
        case OfInstance(key=key):
            body["remote_ip_prefix"] = names.one(key, allow.version)
        case None:
            pass
    return {name: value for name, value in body.items() if value is not None}


def judged(allow: Allow, names: Names) -> Rule:
    """Return a rule as the judge hears it."""
    ports = allow.first is not None and allow.protocol in NUMBERS.values()
    return Rule(
        version=allow.version,
        protocol=allow.protocol,
        ports=PortRange(first=allow.first or 0, last=allow.last or 0)
        if ports
        else None,
        icmp_type=None if ports else allow.first,
        icmp_code=None if ports else allow.last,
        remote=_remote(allow, names),
    )


def _remote(allow: Allow, names: Names) -> Remote | None:
    match allow.whose:
        case OfGroup(key=key):
            return RemoteGroup(GroupId(names.groups[key]))
        case OfAddresses(key=key):
            return RemoteAddressGroup(AddressGroupId(names.address_groups[key]))
        case OfInstance(key=key):
            return ip_network(names.one(key, allow.version))
        case None:
            return None


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
    kind: int | None = None, whose: Whose = None, direction: Direction = IN
) -> tuple[Allow, ...]:
    """Allow ICMP of both families, all of it or an echo request."""
    return tuple(
        Allow(
            direction=direction,
            version=version,
            protocol=number,
            spelled=spelled,
            first=None if kind is None else type_,
            last=kind,
            whose=whose,
        )
        # A number, and a name that is out of use (P3).
        for version, number, spelled, type_ in ((4, 1, "1", 8), (6, 58, "icmpv6", 128))
    )


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
    Configuration(key="outward", instances={"outward": 2}, allows=OPEN_OUT),
    Configuration(
        key="ranges",
        instances={"ranges": 0},
        allows=(*_ports("tcp", (8000, 8010)), *_ports("udp", (9000, 9000)), *OPEN_OUT),
    ),
    Configuration(
        key="group",
        instances={"group": 1},
        allows=(
            *_ports("udp", None, OfGroup("ranges")),
            *_ports("tcp", (9000, 9999), OfGroup("outward")),
            *_icmp(None, OfGroup("default")),
            *OPEN_OUT,
        ),
    ),
    Configuration(
        key="addresses",
        instances={"addresses": 2},
        allows=(*_any(OfAddresses("few")), *OPEN_OUT),
    ),
    Configuration(
        key="nobody",
        instances={"nobody": 0},
        allows=(*_any(OfAddresses("none")), *_icmp(0), *OPEN_OUT),
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
        key="icmp", instances={"icmp": 2}, allows=(*_icmp(0), *_any(direction=OUT))
    ),
    Configuration(
        key="inward",
        instances={"inward": 0},
        allows=(
            *_any(),
            *_ports("udp", (8001, 8001), direction=OUT),
            *_ports("tcp", (8001, 9000), OfGroup("open"), OUT),
            *_icmp(0, OfAddresses("few"), OUT),
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
