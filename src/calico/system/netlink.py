"""Changes to routes, neighbours, addresses and links of this network namespace.

They go out in batches of netlink messages, which pyroute2 encodes, and the kernel's
answers are collected afterwards (P51). What there is, `system.dump` reads.
"""

import errno
import os
import socket
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, assert_never

from pyroute2.netlink.rtnl.ifaddrmsg import ifaddrmsg
from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg
from pyroute2.netlink.rtnl.ndmsg import ndmsg
from pyroute2.netlink.rtnl.rtmsg import rtmsg

from calico.model.ids import InterfaceName, Prefix
from calico.plan.items import (
    PROTOCOL,
    YIELDING_METRIC,
    Bridge,
    Link,
    LocalAddress,
    Multipath,
    Neighbour,
    NetItem,
    Route,
)
from calico.reconcile.problem import Problem

_NEW_LINK, _NEW_ADDRESS, _NEW_ROUTE, _NEW_NEIGHBOUR = 16, 20, 24, 28  # RTM_NEW*
_REQUEST, _ACK = 0x1, 0x4  # NLM_F_*
_REPLACE, _EXCLUSIVE, _CREATE = 0x100, 0x200, 0x400
_ERROR = 2  # NLMSG_ERROR
_PERMANENT = 0x80  # NUD_PERMANENT
_NOPREFIXROUTE, _NODAD = 0x200, 0x02  # IFA_F_*
_UP = 1  # IFF_UP
_MAIN_TABLE, _UNICAST, _LINK_SCOPE, _UNIVERSE = 254, 1, 253, 0
_METRIC6 = 1
_BATCH = 64  # messages sent before their answers are read: fits any socket buffer
_RECEIVE = 1 << 20
_HEADER = struct.Struct("=IHHII")
_FAMILY = {4: socket.AF_INET, 6: socket.AF_INET6}
# What is gone already, or is there already, is as it was wanted.
_GONE = {errno.ENOENT, errno.ESRCH, errno.ENODEV, errno.EADDRNOTAVAIL}


def _describe(item: NetItem) -> str:
    match item:
        case Bridge(name):
            return f"bridge {name}"
        case Link(interface=interface):
            return f"link {interface}"
        case LocalAddress(interface, address):
            return f"address {address} dev {interface}"
        case Neighbour(interface, address):
            return f"neighbour {address} dev {interface}"
        case Route(destination, interface):
            return f"route {destination} dev {interface}"
        case Multipath(destination, hops):
            names = " and ".join(hop.interface for hop in hops)
            return f"route {destination} dev {names}"
        case _:
            assert_never(item)


@dataclass(frozen=True, slots=True)
class Change:
    """One item to put (or, where not `put`, to drop).

    A `new` route is put only where there is no other, of whomever, with the same
    destination and metric: what there is is not ours to replace (P47).
    """

    item: NetItem
    put: bool
    new: bool = False

    def problem(self, code: int) -> Problem:
        """Return the kernel's refusal of this change as a problem."""
        wish = "put" if self.put else "drop"
        reply = f"{errno.errorcode.get(code, code)}, {os.strerror(code)}"
        if self.new and code == errno.EEXIST:
            reply += ": a route that is not ours is there"
        return Problem(_describe(self.item), wish, reply)


def apply_changes(
    changes: Sequence[Change], indexes: dict[InterfaceName, int]
) -> list[tuple[Change, Problem]]:
    """Make changes in their order; return those that the kernel refused, and why.

    `indexes` are the interfaces as last read. One refused change stops no other.
    """
    failures: list[tuple[Change, Problem]] = []
    encoded: list[tuple[Change, bytes]] = []
    for change in changes:
        message = _encode(change, indexes)
        if message is not None:
            encoded.append((change, message))
        elif change.put:
            failures.append((change, change.problem(errno.ENODEV)))
    with _socket() as kernel:
        for start in range(0, len(encoded), _BATCH):
            failures += _send(kernel, encoded[start : start + _BATCH])
    return failures


def _socket() -> socket.socket:
    kernel = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)
    kernel.settimeout(10)
    kernel.bind((0, 0))
    return kernel


def _send(
    kernel: socket.socket, batch: Sequence[tuple[Change, bytes]]
) -> Iterator[tuple[Change, Problem]]:
    frames = bytearray()
    for number, (_, message) in enumerate(batch):
        length, kind, flags, _, _ = _HEADER.unpack_from(message)
        frames += _HEADER.pack(length, kind, flags, number + 1, 0) + message[16:]
        frames += bytes(-len(frames) % 4)
    kernel.send(frames)
    answered: dict[int, int] = {}
    while len(answered) < len(batch):
        answered |= dict(_answers(kernel.recv(_RECEIVE)))
    for number, (change, _) in enumerate(batch):
        code = answered[number + 1]
        if code and not (not change.put and code in _GONE):
            yield change, change.problem(code)


def _answers(received: bytes) -> Iterator[tuple[int, int]]:
    """Yield (sequence number, errno or 0) of each answer in what was received."""
    position = 0
    while position < len(received):
        length, kind, _, number, _ = _HEADER.unpack_from(received, position)
        if kind == _ERROR:
            (code,) = struct.unpack_from("=i", received, position + _HEADER.size)
            yield number, -code
        position += (length + 3) & ~3


def _encode(change: Change, indexes: dict[InterfaceName, int]) -> bytes | None:
    """Return the netlink message of a change; None if its interface is not there."""
    item = change.item
    match item:
        case Bridge(name):
            return _bridge(name)
        case Multipath(hops=hops):
            if change.put and any(hop.interface not in indexes for hop in hops):
                return None
            message = _multipath_message(item, indexes if change.put else None)
            return _finish(message, *_verb(change, _NEW_ROUTE))
        case Route(interface=interface) | Link(interface=interface):
            pass
        case LocalAddress(interface=interface) | Neighbour(interface=interface):
            pass
        case _:
            assert_never(item)
    index = indexes.get(interface)
    if index is None:
        return None
    encoders: dict[type, Callable[[Any, int], tuple[Any, int]]] = {
        Link: _link_message,
        LocalAddress: _address_message,
        Neighbour: _neighbour_message,
        Route: _route_message,
    }
    message, kind = encoders[type(item)](item, index)
    return _finish(message, *_verb(change, kind))


def _verb(change: Change, kind: int) -> tuple[int, int]:
    """Return the type of a change's message, where `kind` puts, and its flags."""
    flags = _REQUEST | _ACK
    if change.put and kind != _NEW_LINK:
        flags |= _CREATE | (_EXCLUSIVE if change.new else _REPLACE)
    return kind if change.put else kind + 1, flags


def _finish(message: Any, kind: int, flags: int) -> bytes:
    message["header"] = {"type": kind, "flags": flags, "sequence_number": 0, "pid": 0}
    message.encode()
    return bytes(message.data)


def _bridge(name: InterfaceName) -> bytes:
    message = ifinfmsg()
    message["flags"] = message["change"] = _UP
    message["attrs"] = [
        ("IFLA_IFNAME", name),
        ("IFLA_LINKINFO", {"attrs": [("IFLA_INFO_KIND", "bridge")]}),
    ]
    return _finish(message, _NEW_LINK, _REQUEST | _ACK | _CREATE)


def _link_message(link: Link, index: int) -> tuple[Any, int]:
    message = ifinfmsg()
    message["index"] = index
    message["change"] = _UP
    message["flags"] = _UP if link.up else 0
    message["attrs"] = [("IFLA_ADDRESS", link.mac)]
    return message, _NEW_LINK


def _address_message(item: LocalAddress, index: int) -> tuple[Any, int]:
    message = ifaddrmsg()
    message["family"] = _FAMILY[item.address.version]
    message["prefixlen"] = item.address.network.prefixlen
    message["scope"] = _LINK_SCOPE if item.address.is_link_local else _UNIVERSE
    message["index"] = index
    address = str(item.address.ip)
    message["attrs"] = [
        ("IFA_ADDRESS", address),
        ("IFA_LOCAL", address),
        # No connected route: a subnet is not on this host's link, its instances are
        # behind host routes.
        ("IFA_FLAGS", _NOPREFIXROUTE | _NODAD),
    ]
    if item.address.is_link_local:
        message["attrs"][-1] = ("IFA_FLAGS", _NODAD)
    return message, _NEW_ADDRESS


def _neighbour_message(item: Neighbour, index: int) -> tuple[Any, int]:
    message = ndmsg()
    message["family"] = _FAMILY[item.address.version]
    message["ifindex"] = index
    message["state"] = _PERMANENT
    message["attrs"] = [("NDA_DST", str(item.address)), ("NDA_LLADDR", item.mac)]
    return message, _NEW_NEIGHBOUR


def _route_message(item: Route, index: int) -> tuple[Any, int]:
    message = _destination_message(item)
    message["attrs"].append(("RTA_OIF", index))
    return message, _NEW_ROUTE


def _multipath_message(
    item: Multipath, indexes: Mapping[InterfaceName, int] | None
) -> Any:
    """Return the message of a route with its hops; without `indexes`, with any hops."""
    message = _destination_message(item)
    if indexes is not None:
        hops = []
        for hop in item.hops:
            via = [("RTA_GATEWAY", str(hop.via))] if hop.via else []
            hops.append({"hops": 0, "oif": indexes[hop.interface], "attrs": via})
        message["attrs"].append(("RTA_MULTIPATH", hops))
    return message


def _destination_message(item: Route | Multipath) -> Any:
    """Return all of a route's message but the way."""
    destination: Prefix = item.destination
    message = rtmsg()
    message["family"] = _FAMILY[destination.version]
    message["dst_len"] = destination.prefixlen
    message["table"] = _MAIN_TABLE
    message["proto"] = PROTOCOL
    message["type"] = _UNICAST
    message["scope"] = _LINK_SCOPE if destination.version == 4 else _UNIVERSE
    message["attrs"] = [("RTA_DST", str(destination.network_address))]
    if item.yielding:
        message["attrs"].append(("RTA_PRIORITY", YIELDING_METRIC))
    elif destination.version == 6:
        # IPv4 routes without a metric go before BIRD's; IPv6's default would go after.
        message["attrs"].append(("RTA_PRIORITY", _METRIC6))
    if item.source is not None:
        message["attrs"].append(("RTA_PREFSRC", str(item.source)))
    return message
