"""What a host's kernel can hold of ours: items, each with a key that names it.

Every kind of item has a mark by which it is ours:

- routes by their protocol number (PROTOCOL),
- neighbours by being permanent and on an instance's interface (TAP),
- addresses by their link: `calico-dhcp`, and instances' interfaces,
- links by their names,
- shapers by the handle of their queue, and detours by their names,
- lanes by their link's name, and what leads there by its preference.
"""

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address
from typing import assert_never

from calico.model.ids import Address, Interface, InterfaceName, Mac, Prefix
from calico.plan.lanes import LANES, Lane, LaneLink, Turn
from calico.plan.shaping import Shaper

PROTOCOL = 111  # of our routes; an unassigned value of rtm_protocol
YIELDING_METRIC = 4096  # after BIRD's routes, which have 32
DHCP_BRIDGE = InterfaceName("calico-dhcp")
METADATA4 = IPv4Address("169.254.169.254")
METADATA6 = IPv6Address("fe80::a9fe:a9fe")
# "tap" and the first eleven characters of a port's UUID, as Nova names it. An
# operator's `tap0` is not an instance's.
TAP = re.compile(r"tap[0-9a-f]{8}-[0-9a-f]{2}")


@dataclass(frozen=True, slots=True)
class Bridge:
    """A bridge without ports that is up: it only holds addresses."""

    name: InterfaceName


@dataclass(frozen=True, slots=True)
class Setting:
    """A sysctl, by its path below /proc/sys.

    `at_least` leaves a higher number alone; `optional` ones may not exist here.
    """

    path: str
    value: str
    interface: InterfaceName | None = None
    at_least: bool = False
    optional: bool = False


@dataclass(frozen=True, slots=True)
class Link:
    """The host's end of a port's interface."""

    interface: InterfaceName
    mac: Mac
    up: bool = True


@dataclass(frozen=True, slots=True)
class LocalAddress:
    """An address of one of our interfaces."""

    interface: InterfaceName
    address: Interface


@dataclass(frozen=True, slots=True)
class Neighbour:
    """A permanent neighbour: the kernel never has to ask a guest (P36)."""

    interface: InterfaceName
    address: Address
    mac: Mac


@dataclass(frozen=True, slots=True)
class Route:
    """A route to something local; `source` is what the host itself answers from.

    One that is `yielding` gives way to any other: its port is on the way out.
    """

    destination: Prefix
    interface: InterfaceName
    source: Address | None = None
    yielding: bool = False


@dataclass(frozen=True, slots=True)
class Hop:
    """One of several ports that a route leads to, by a neighbour if one is named."""

    interface: InterfaceName
    via: Address | None = None


@dataclass(frozen=True, slots=True)
class Multipath:
    """A route to something that several ports have: flows are spread over them (S5).

    `hops` are sorted. As read, one whose link is down is not among them.
    """

    destination: Prefix
    hops: tuple[Hop, ...]
    source: Address | None = None
    yielding: bool = False


NetItem = Bridge | Link | LocalAddress | Neighbour | Route | Multipath
TrafficItem = Shaper | LaneLink | Lane | Turn
Item = Setting | NetItem | TrafficItem
Key = tuple[int, str, str]  # rank of the kind, and what names one of the kind
State = Mapping[Key, Item]


@lru_cache(maxsize=1 << 16)
def _text(prefix: Prefix) -> str:
    """Return a prefix as text; remembered, since each pass asks for all routes'."""
    return str(prefix)


def key_of(item: Item) -> Key:
    """Return an item's key. The rank is the order of making: see `apply_order`."""
    key: Key
    match item:
        case Bridge(name):
            key = (0, name, "")
        case Setting(path=path):
            key = (1, path, "")
        case Link(interface=interface):
            key = (2, interface, "")
        case LocalAddress(interface, address) | Neighbour(interface, address):
            rank = 3 if isinstance(item, LocalAddress) else 4
            key = (rank, interface, str(address))
        case Route(destination=destination) | Multipath(destination=destination):
            # Either replaces the other; but a metric makes it another route.
            key = (5, _text(destination), "yielding" if item.yielding else "")
        case Shaper(interface, direction):
            key = (6, interface, direction.value)
        case LaneLink():
            key = (7, LANES, "")
        case Lane(number=number):
            key = (8, f"{number:04x}", "")
        case Turn(interface=interface):
            key = (9, interface, "")
        case _:
            assert_never(item)
    return key


def interfaces_of(item: Item) -> tuple[InterfaceName, ...]:
    """Return the interfaces whose ports an item serves; none for the host's own."""
    match item:
        case Multipath(hops=hops):
            return tuple(hop.interface for hop in hops)
        case Bridge(name):
            return (name,)
        case Setting(interface=interface) | Lane(interface=interface):
            return () if interface is None else (interface,)
        case LaneLink():
            return ()
        case _:
            return (item.interface,)


def without(item: Item, blocked: Collection[InterfaceName]) -> Item | None:
    """Return what may be made of an item while some interfaces may have nothing."""
    if not isinstance(item, Multipath):
        return None if any(name in blocked for name in interfaces_of(item)) else item
    hops = tuple(hop for hop in item.hops if hop.interface not in blocked)
    return replace(item, hops=hops) if hops else None


def state_of(items: Iterable[Item]) -> dict[Key, Item]:
    """Return items by key; of two with one key the first counts."""
    state: dict[Key, Item] = {}
    for item in items:
        state.setdefault(key_of(item), item)
    return state
