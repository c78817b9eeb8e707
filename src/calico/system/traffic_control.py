"""Messages of the kernel's traffic control, and links that only have a queue.

What shapers and lanes have in common: linux/pkt_sched.h and pkt_cls.h.
"""

import errno
import os
import socket
import struct
from collections.abc import Collection, Mapping

from calico.model.ids import InterfaceName
from calico.system.dump import attributes

NEW_LINK, DELETE_LINK = 16, 17
NEW_QDISC, DELETE_QDISC, GET_QDISC = 36, 37, 38
NEW_CLASS, DELETE_CLASS, GET_CLASS = 40, 41, 42
NEW_FILTER, DELETE_FILTER, GET_FILTER = 44, 45, 46
CREATE, REPLACE = 0x400, 0x100  # NLM_F_*
GONE = {errno.ENOENT, errno.ENODEV}
ABSENT = {*GONE, errno.EINVAL}  # of a filter: its entrance may be absent too

HANDLE = 0xCA11 << 16
PREFERENCE = 0xCA11
ROOT = 0xFFFFFFFF  # TC_H_ROOT
ENTRANCE = 0xFFFFFFF1  # clsact
ALL_PROTOCOLS = socket.htons(3)  # ETH_P_ALL
TICK = 64  # nanoseconds (PSCHED_SHIFT)
ETHERNET = 1  # TC_LINKLAYER_ETHERNET
LARGEST = 2**32 - 1

LINK = struct.Struct("=BBHiII")  # struct ifinfomsg
TC = struct.Struct("=BBHiIII")  # struct tcmsg
KIND, OPTIONS = 1, 2  # TCA_*, and TCA_ACT_*
NAME = 3  # IFLA_IFNAME
_REDIRECT = struct.Struct("=IIiiiiI")  # struct tc_mirred
_HEADER = struct.Struct("=IHHII")
_REQUEST, _ACK = 0x1, 0x4  # NLM_F_*
_ENTRANCE_HANDLE = 0xFFFF0000
_STOLEN, _TO_QUEUE = 4, 1  # TC_ACT_STOLEN, TCA_EGRESS_REDIR
_LINK_INFO, _FAMILIES = 18, 26  # IFLA_*
_INFO_KIND, _ADDRESS_MODE = 1, 8  # IFLA_INFO_KIND, IFLA_INET6_ADDR_GEN_MODE
_NO_ADDRESSES = b"\x01"  # IN6_ADDR_GEN_MODE_NONE
_UP = 1


def open_route_socket() -> socket.socket:
    """Return a socket that speaks to the kernel of links, queues and filters."""
    kernel = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)
    kernel.settimeout(10)
    kernel.bind((0, 0))
    return kernel


def index_of(name: InterfaceName) -> int:
    """Return the number of a link; OSError (ENODEV) if there is none."""
    try:
        return socket.if_nametoindex(name)
    except OSError as e:
        raise OSError(errno.ENODEV, os.strerror(errno.ENODEV)) from e


def ask(
    kernel: socket.socket,
    kind: int,
    flags: int,
    body: bytes,
    *,
    ignored: Collection[int] = (),
) -> None:
    """Have the kernel do something; OSError says why it did not."""
    length = _HEADER.size + len(body)
    kernel.send(_HEADER.pack(length, kind, _REQUEST | _ACK | flags, 1, 0) + body)
    (code,) = struct.unpack_from("=i", kernel.recv(1 << 16), _HEADER.size)
    if code and -code not in ignored:
        raise OSError(-code, os.strerror(-code))


def make_queue_link(kernel: socket.socket, name: InterfaceName) -> None:
    """Make a link that is there for its queue (ifb), and set it up."""
    kind = attribute(_LINK_INFO, text(_INFO_KIND, "ifb"))
    link = LINK.pack(0, 0, 0, 0, 0, 0) + text(NAME, name) + kind
    ask(kernel, NEW_LINK, CREATE, link)
    # Nobody is to speak on it for itself: it would get an address when it is up.
    mode = attribute(_ADDRESS_MODE, _NO_ADDRESSES)
    quiet = attribute(_FAMILIES, attribute(socket.AF_INET6, mode))
    ask(kernel, NEW_LINK, 0, LINK.pack(0, 0, 0, index_of(name), 0, 0) + quiet)
    ask(kernel, NEW_LINK, 0, LINK.pack(0, 0, 0, index_of(name), _UP, _UP))


def make_entrance(kernel: socket.socket, index: int) -> None:
    """Give a link what filters hang on, at its entrance and at its exit."""
    entrance = TC.pack(0, 0, 0, index, _ENTRANCE_HANDLE, ENTRANCE, 0)
    ask(kernel, NEW_QDISC, CREATE | REPLACE, entrance + text(KIND, "clsact"))


def filter_at(index: int, where: int) -> bytes:
    """Return what names our filter of a link, at its entrance or its exit."""
    return TC.pack(0, 0, 0, index, 0, where, PREFERENCE << 16 | ALL_PROTOCOLS)


def redirection(target: int) -> bytes:
    """Return the action that puts a packet into another link's queue."""
    redirect = _REDIRECT.pack(0, 0, _STOLEN, 0, 0, _TO_QUEUE, target)
    options = attribute(OPTIONS, attribute(2, redirect))  # TCA_MIRRED_PARMS
    return attribute(1, text(KIND, "mirred") + options)


def redirected_to(options: Mapping[int, bytes], actions: int) -> int | None:
    """Return the link that a filter's options lead to; None if to none.

    `actions` is the options' attribute that holds them.
    """
    # Actions, the first one, its options, its parameters: nested.
    found = options.get(actions, b"")
    for kind in (1, OPTIONS, 2):
        found = attributes(found, 0).get(kind, b"")
    if len(found) < _REDIRECT.size:
        return None
    target: int = _REDIRECT.unpack_from(found)[-1]
    return target


def text(kind: int, value: str) -> bytes:
    """Return an attribute that holds a text."""
    return attribute(kind, value.encode() + b"\0")


def attribute(kind: int, value: bytes) -> bytes:
    """Return an attribute."""
    return struct.pack("=HH", 4 + len(value), kind) + value + bytes(-len(value) % 4)
