"""What the kernel has of links, addresses, neighbours and routes, over netlink.

Each pass of the agent reads it all, so it is read by plain `struct`, which is twenty
times as fast as a general library, and routes are filtered by the kernel: a table full
of BGP's routes costs nothing (P51). The messages are those of rtnetlink(7).
"""

import errno
import os
import socket
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_interface,
)

from calico.model.ids import Address, Interface, InterfaceName, Mac, Prefix
from calico.plan.items import (
    DHCP_BRIDGE,
    PROTOCOL,
    TAP,
    YIELDING_METRIC,
    Bridge,
    Hop,
    Key,
    Link,
    LocalAddress,
    Multipath,
    Neighbour,
    NetItem,
    Route,
    key_of,
)

Attributes = dict[int, bytes]

_GET_LINK, _GET_ADDRESS, _GET_ROUTE, _GET_NEIGHBOUR = 18, 22, 26, 30  # RTM_GET*
_DUMP = 0x1 | 0x300  # NLM_F_REQUEST | NLM_F_DUMP
_ERROR, _DONE, _INTERRUPTED = 2, 3, 0x10  # NLMSG_ERROR, NLMSG_DONE, NLM_F_DUMP_INTR
_SOL_NETLINK, _STRICT = 270, 12  # NETLINK_GET_STRICT_CHK: let the kernel filter
_HEADER = struct.Struct("=IHHII")
_ATTRIBUTE = struct.Struct("=HH")
_LINK = struct.Struct("=BBHiII")
_ADDRESS = struct.Struct("=BBBBI")
_ROUTE = struct.Struct("=BBBBBBBBI")
_NEIGHBOUR = struct.Struct("=BBHiHBB")
_HOP = struct.Struct("=HBBi")  # struct rtnexthop
_DEAD = 1  # RTNH_F_DEAD
_EXT_MASK, _SKIP_STATISTICS = 29, 1 << 3
_UP = 1  # IFF_UP
_PERMANENT = 0x80  # NUD_PERMANENT
_MAIN_TABLE = 254
_RECEIVE = 1 << 18
_ATTEMPTS = 5  # a dump that the kernel says was interrupted is not a picture


@dataclass(frozen=True, slots=True, kw_only=True)
class NetState:
    """What the kernel has: our items by key, indexes, the other links' addresses.

    `up` are the links that are.
    """

    items: dict[Key, NetItem]
    indexes: dict[InterfaceName, int]
    up: frozenset[InterfaceName]
    addresses: tuple[tuple[InterfaceName, Interface], ...] = ()

    @property
    def taps(self) -> frozenset[InterfaceName]:
        """Return the interfaces that are named as taps."""
        return frozenset(name for name in self.indexes if TAP.fullmatch(name))


class _Interrupted(Exception):  # noqa: N818 - names what the dump was
    """The tables changed while they were dumped."""


def read_state() -> NetState:
    """Return what there is in this network namespace; OSError if unreadable."""
    with socket.socket(
        socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE
    ) as kernel:
        kernel.settimeout(10)
        kernel.setsockopt(_SOL_NETLINK, _STRICT, 1)
        kernel.bind((0, 0))
        for _ in range(_ATTEMPTS - 1):
            try:
                return _read(kernel)
            except _Interrupted:
                continue
        try:
            return _read(kernel)
        except _Interrupted as e:
            raise OSError(errno.EINTR, "links or routes change all the time") from e


def _read(kernel: socket.socket) -> NetState:
    items: list[NetItem] = []
    names: dict[int, InterfaceName] = {}
    ups = set()
    for name, index, up, item in _links(kernel):
        names[index] = name
        if up:
            ups.add(name)
        if item is not None:
            items.append(item)
    others = []
    for name, address in _addresses(kernel, names):
        if _is_ours(name, address):
            items.append(LocalAddress(name, address))
        else:
            others.append((name, address))
    for family in (socket.AF_INET, socket.AF_INET6):
        items += _neighbours(kernel, family, names)
        items += _routes(kernel, family, names)
    return NetState(
        items={key_of(item): item for item in items},
        indexes={name: index for index, name in names.items()},
        up=frozenset(ups),
        addresses=tuple(others),
    )


def _is_ours(name: InterfaceName, address: Interface) -> bool:
    if name == DHCP_BRIDGE:
        return address.version == 4 or not address.is_link_local
    return bool(TAP.fullmatch(name))


def _links(
    kernel: socket.socket,
) -> Iterator[tuple[InterfaceName, int, bool, Bridge | Link | None]]:
    mask = struct.pack("=HHI", 8, _EXT_MASK, _SKIP_STATISTICS)
    request = _LINK.pack(0, 0, 0, 0, 0, 0) + mask
    for message in dump_table(kernel, _GET_LINK, request):
        _, _, _, index, flags, _ = _LINK.unpack_from(message)
        found = attributes(message, _LINK.size)
        name = InterfaceName(found[3].rstrip(b"\0").decode(errors="replace"))
        up = bool(flags & _UP)
        if name == DHCP_BRIDGE:
            yield name, index, up, Bridge(name) if up else None
        elif TAP.fullmatch(name):
            yield name, index, up, Link(name, _mac(found.get(1, b"")), up)
        else:
            yield name, index, up, None


def _addresses(
    kernel: socket.socket, names: dict[int, InterfaceName]
) -> Iterator[tuple[InterfaceName, Interface]]:
    for message in dump_table(kernel, _GET_ADDRESS, _ADDRESS.pack(0, 0, 0, 0, 0)):
        _, length, _, _, index = _ADDRESS.unpack_from(message)
        found = attributes(message, _ADDRESS.size)
        octets = found.get(2) or found.get(1)  # IFA_LOCAL is the own end's
        if index in names and octets is not None:
            yield names[index], ip_interface((_ip(octets), length))


def _neighbours(
    kernel: socket.socket, family: int, names: dict[int, InterfaceName]
) -> Iterator[Neighbour]:
    request = _NEIGHBOUR.pack(family, 0, 0, 0, 0, 0, 0)
    for message in dump_table(kernel, _GET_NEIGHBOUR, request):
        _, _, _, index, state, _, _ = _NEIGHBOUR.unpack_from(message)
        if not state & _PERMANENT or not TAP.fullmatch(names.get(index, "")):
            continue
        found = attributes(message, _NEIGHBOUR.size)
        if 1 in found:
            mac = _mac(found.get(2, b""))
            yield Neighbour(names[index], _ip(found[1]), mac)


def _routes(
    kernel: socket.socket, family: int, names: dict[int, InterfaceName]
) -> Iterator[Route | Multipath]:
    # Not filtered by table: a namespace that never had a route has no main table, and
    # asking for it is an error.
    request = _ROUTE.pack(family, 0, 0, 0, 0, PROTOCOL, 0, 0, 0)
    for message in dump_table(kernel, _GET_ROUTE, request):
        _, length, _, _, table, protocol, *_ = _ROUTE.unpack_from(message)
        if protocol != PROTOCOL or table != _MAIN_TABLE:
            continue
        # Those of IPv6 say when they were last used.
        read = _remembered if family == socket.AF_INET else attributes
        found = read(message, _ROUTE.size)
        (index,) = struct.unpack("=i", found.get(4, b"\0\0\0\0"))
        name = names.get(index, InterfaceName(""))
        source = _ip(found[7]) if 7 in found else None
        (metric,) = struct.unpack("=I", found.get(6, bytes(4)))  # RTA_PRIORITY
        yielding = metric == YIELDING_METRIC
        size = 4 if family == socket.AF_INET else 16
        destination = _prefix(found.get(1, bytes(size)), length)
        if 9 in found:  # RTA_MULTIPATH
            hops = sorted(
                _hops(found[9], names), key=lambda h: (h.interface, str(h.via))
            )
            yield Multipath(destination, tuple(hops), source, yielding)
        elif 5 in found:  # RTA_GATEWAY: all that is left of a multipath route
            hop = Hop(name, _ip(found[5]))
            yield Multipath(destination, (hop,), source, yielding)
        else:
            yield Route(destination, name, source, yielding)


def _hops(octets: bytes, names: dict[int, InterfaceName]) -> Iterator[Hop]:
    position = 0
    while position < len(octets):
        length, flags, _, index = _HOP.unpack_from(octets, position)
        found = attributes(octets[position : position + length], _HOP.size)
        if not flags & _DEAD:
            via = _ip(found[5]) if 5 in found else None
            yield Hop(names.get(index, InterfaceName("")), via)
        position += (length + 3) & ~3


def _ip(octets: bytes) -> Address:
    return IPv4Address(octets) if len(octets) == 4 else IPv6Address(octets)


@lru_cache(maxsize=1 << 16)
def _prefix(octets: bytes, length: int) -> Prefix:
    """Return a prefix; remembered, since most routes are the last pass's."""
    if len(octets) == 4:
        return IPv4Network((octets, length))
    return IPv6Network((octets, length))


def _mac(octets: bytes) -> Mac:
    return Mac(octets.hex(":"))


def attributes(message: bytes, position: int) -> Attributes:
    """Return a message's attributes by number, the first 32 numbers' alone.

    What `position` is at the first of them.
    """
    found: Attributes = {}
    end = len(message)
    while position + 4 <= end:
        length, kind = _ATTRIBUTE.unpack_from(message, position)
        if length < 4:
            break
        if kind < 32:
            found[kind] = message[position + 4 : position + length]
        position += (length + 3) & ~3
    return found


_remembered = lru_cache(maxsize=1 << 16)(attributes)
"""Attributes of messages, most of which are the last pass's; not to be changed."""


def dump_table(kernel: socket.socket, kind: int, request: bytes) -> Iterator[bytes]:
    """Yield the bodies of a table's messages."""
    header = _HEADER.pack(_HEADER.size + len(request), kind, _DUMP, 1, 0)
    kernel.send(header + request)
    bodies: list[bytes] = []
    interrupted = False

    def take(kind: int, flags: int, body: bytes) -> bool:
        nonlocal interrupted
        interrupted = interrupted or bool(flags & _INTERRUPTED)
        if kind in {_ERROR, _DONE}:
            _check(body)
            return True
        bodies.append(body)
        return False

    while not _each(kernel.recv(_RECEIVE), take):
        pass
    if interrupted:
        raise _Interrupted
    yield from bodies


def _each(received: bytes, take: Callable[[int, int, bytes], bool]) -> bool:
    """Hand over each message; return whether the last one was among them."""
    position = 0
    while position < len(received):
        length, kind, flags, _, _ = _HEADER.unpack_from(received, position)
        body = received[position + _HEADER.size : position + length]
        if take(kind, flags, body):
            return True
        position += (length + 3) & ~3
    return False


def _check(body: bytes) -> None:
    """Raise what an error message says; the end of a dump says 0."""
    (code,) = struct.unpack_from("=i", body)
    if code:
        raise OSError(-code, os.strerror(-code))
