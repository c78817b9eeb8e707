"""Messages of the kernel's traffic control, and links that only have a queue.

What shapers and lanes have in common: linux/pkt_sched.h and pkt_cls.h.
"""

import errno
import os
import socket
import struct
from collections.abc import Callable, Collection, Mapping

from calico.model.ids import InterfaceName
from calico.reconcile.problem import Problem
from calico.system.dump import Attributes, attributes, dump_table

_NEW_LINK, _DELETE_LINK = 16, 17
NEW_QDISC, DELETE_QDISC, GET_QDISC = 36, 37, 38
NEW_CLASS, DELETE_CLASS, GET_CLASS = 40, 41, 42
_NEW_FILTER, _DELETE_FILTER, _GET_FILTER = 44, 45, 46
CREATE, REPLACE = 0x400, 0x100  # NLM_F_*
GONE = {errno.ENOENT, errno.ENODEV}
ABSENT = {*GONE, errno.EINVAL}  # of a filter or a queue: what it hung on, too

HANDLE = 0xCA11 << 16
_PREFERENCE = 0xCA11
ROOT = 0xFFFFFFFF  # TC_H_ROOT
ENTRANCE = 0xFFFFFFF1  # clsact
_ALL_PROTOCOLS = socket.htons(3)  # ETH_P_ALL
TICK = 64  # nanoseconds (PSCHED_SHIFT)
ETHERNET = 1  # TC_LINKLAYER_ETHERNET
LARGEST = 2**32 - 1

_LINK = struct.Struct("=BBHiII")  # struct ifinfomsg
TC = struct.Struct("=BBHiIII")  # struct tcmsg
KIND, OPTIONS = 1, 2  # TCA_*, and TCA_ACT_*
_NAME = 3  # IFLA_IFNAME
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
    link = _LINK.pack(0, 0, 0, 0, 0, 0) + text(_NAME, name) + kind
    ask(kernel, _NEW_LINK, CREATE, link)
    # Nobody is to speak on it for itself: it would get an address when it is up.
    mode = attribute(_ADDRESS_MODE, _NO_ADDRESSES)
    quiet = attribute(_FAMILIES, attribute(socket.AF_INET6, mode))
    ask(kernel, _NEW_LINK, 0, _LINK.pack(0, 0, 0, index_of(name), 0, 0) + quiet)
    ask(kernel, _NEW_LINK, 0, _LINK.pack(0, 0, 0, index_of(name), _UP, _UP))


def drop_queue_link(kernel: socket.socket, name: InterfaceName) -> None:
    """Remove such a link; one that is gone is no error."""
    link = _LINK.pack(0, 0, 0, 0, 0, 0) + text(_NAME, name)
    ask(kernel, _DELETE_LINK, 0, link, ignored=GONE)


def put_filter(
    kernel: socket.socket, index: int, where: int, kind: str, options: bytes
) -> None:
    """Hang our filter on a link, at its entrance or its exit, in place of any other."""
    entrance = TC.pack(0, 0, 0, index, _ENTRANCE_HANDLE, ENTRANCE, 0)
    ask(kernel, NEW_QDISC, CREATE | REPLACE, entrance + text(KIND, "clsact"))
    drop_filter(kernel, index, where)
    body = _filter_at(index, where) + text(KIND, kind) + attribute(OPTIONS, options)
    ask(kernel, _NEW_FILTER, CREATE, body)


def drop_filter(kernel: socket.socket, index: int, where: int) -> None:
    """Take our filter away. What it hung on stays: it may be of use to others."""
    ask(kernel, _DELETE_FILTER, 0, _filter_at(index, where), ignored=ABSENT)


def filter_target(
    kernel: socket.socket,
    index: int,
    where: int,
    actions: int,
    is_right: Callable[[Attributes], bool] = lambda _: True,
) -> int | None:
    """Return the link that our filter leads to; None if there is no filter of ours.

    0 if it leads nowhere, or has other options than are right. `actions` is the
    options' attribute that holds what it does.
    """
    request = TC.pack(0, 0, 0, index, 0, where, 0)
    target = None
    for message in dump_table(kernel, _GET_FILTER, request):
        *_, info = TC.unpack_from(message)
        if info >> 16 != _PREFERENCE:
            continue
        target = target or 0
        options = attributes(attributes(message, TC.size).get(OPTIONS, b""), 0)
        if is_right(options):
            target = _redirected_to(options, actions) or target
    return target


def _filter_at(index: int, where: int) -> bytes:
    return TC.pack(0, 0, 0, index, 0, where, _PREFERENCE << 16 | _ALL_PROTOCOLS)


def redirection(target: int) -> bytes:
    """Return the action that puts a packet into another link's queue."""
    redirect = _REDIRECT.pack(0, 0, _STOLEN, 0, 0, _TO_QUEUE, target)
    options = attribute(OPTIONS, attribute(2, redirect))  # TCA_MIRRED_PARMS
    return attribute(1, text(KIND, "mirred") + options)


def _redirected_to(options: Mapping[int, bytes], actions: int) -> int | None:
    """Return the link that a filter's options lead to; None if to none."""
    # Actions, the first one, its options, its parameters: nested.
    found = options.get(actions, b"")
    for kind in (1, OPTIONS, 2):
        found = attributes(found, 0).get(kind, b"")
    if len(found) < _REDIRECT.size:
        return None
    target: int = _REDIRECT.unpack_from(found)[-1]
    return target


def problem(subject: str, wish: str, e: OSError) -> Problem:
    """Return what the kernel said to a wish, by the error's name."""
    return Problem(subject, wish, f"{errno.errorcode.get(e.errno or 0)}, {e.strerror}")


def text(kind: int, value: str) -> bytes:
    """Return an attribute that holds a text."""
    return attribute(kind, value.encode() + b"\0")


def attribute(kind: int, value: bytes) -> bytes:
    """Return an attribute."""
    return struct.pack("=HH", 4 + len(value), kind) + value + bytes(-len(value) % 4)
