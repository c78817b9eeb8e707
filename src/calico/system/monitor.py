"""Says when something of ours may have changed in the kernel.

That is a tap or its detour, an address of the host itself, or nftables.

Events are hints: whoever is told looks for himself. A lost event says no more than one
that came, so an overflow of the socket counts as one.
"""

import errno
import os
import select
import socket
import struct
import threading
from collections.abc import Callable

import structlog

log = structlog.get_logger()

_NETFILTER = 12  # NETLINK_NETFILTER
# As masks: RTMGRP_LINK, RTMGRP_IPV4_IFADDR, RTMGRP_IPV6_IFADDR.
_LINKS, _ADDRESSES = 1 << 0, 1 << 4 | 1 << 8
_NFTABLES = 1 << 6  # NFNLGRP_NFTABLES (7), as a mask
_NEW_GENERATION = 10 << 8 | 15
_NAME = 3  # IFLA_IFNAME
_ADDED, _REMOVED = 16, 17  # RTM_NEWLINK, RTM_DELLINK
_ADDRESS_ADDED, _ADDRESS_REMOVED = 20, 21  # RTM_NEWADDR, RTM_DELADDR
_RECEIVE = 1 << 18
# Taps, detours of what they send (plan.shaping), the lanes of floating IPs.
_OURS = (b"tap", b"lim", b"calico-lanes")


class Monitor:
    """Calls `notify`, in its own thread, after one of these changed.

    Made in the namespace that it watches: its sockets belong to it. Changes of nftables
    by this process are not told.
    """

    def __init__(self, notify: Callable[[], None]) -> None:
        self._notify = notify
        self._links = _listen(socket.NETLINK_ROUTE, _LINKS | _ADDRESSES)
        self._nftables = _listen(_NETFILTER, _NFTABLES)
        self._wake, self._waker = os.pipe()
        self._thread = threading.Thread(target=self._run, name="monitor", daemon=True)

    def start(self) -> None:
        """Start listening; once only."""
        self._thread.start()

    def stop(self) -> None:
        """End the thread."""
        os.write(self._waker, b"x")
        self._thread.join()
        self._links.close()
        self._nftables.close()
        os.close(self._wake)
        os.close(self._waker)

    def _run(self) -> None:
        checks: dict[socket.socket, Callable[[bytes], bool]] = {
            self._links: lambda received: (
                concerns_tap(received) or concerns_host(received)
            ),
            self._nftables: concerns_others,
        }
        while True:
            watched: list[socket.socket | int] = [*checks, self._wake]
            ready = select.select(watched, [], [])[0]
            if self._wake in ready:
                return
            for kernel, check in checks.items():
                if kernel in ready and self._concerns(kernel, check):
                    self._notify()

    def _concerns(self, kernel: socket.socket, check: Callable[[bytes], bool]) -> bool:
        try:
            return check(kernel.recv(_RECEIVE))
        except OSError as e:
            if e.errno != errno.ENOBUFS:
                log.warning("kernel events unreadable", reason=str(e))
            return True


def concerns_tap(received: bytes) -> bool:
    """Return whether a message of links is about a tap, its detour, or the lanes."""
    position = 0
    while position + 32 <= len(received):
        length, kind = struct.unpack_from("=IH", received, position)
        if length < 16:
            return True
        body = received[position + 32 : position + length]  # after the two headers
        if kind in {_ADDED, _REMOVED} and _name(body).startswith(_OURS):
            return True
        position += (length + 3) & ~3
    return False


def concerns_host(received: bytes) -> bool:
    """Return whether a message of addresses is about one that is not a `tap`'s.

    An interface that has gone meanwhile is taken for one that counts.
    """
    position = 0
    while position + 24 <= len(received):
        length, kind = struct.unpack_from("=IH", received, position)
        if length < 16:
            return True
        if kind in {_ADDRESS_ADDED, _ADDRESS_REMOVED}:
            (index,) = struct.unpack_from("=I", received, position + 20)
            if not _is_tap(index):
                return True
        position += (length + 3) & ~3
    return False


def _is_tap(index: int) -> bool:
    try:
        return socket.if_indextoname(index).startswith("tap")
    except OSError:
        return False


def concerns_others(received: bytes) -> bool:
    """Return whether a change of nftables was made by another process than this.

    A transaction ends with its number and who made it (NFTA_GEN_PROC_PID).
    """
    position = 0
    while position + 20 <= len(received):
        length, kind = struct.unpack_from("=IH", received, position)
        if length < 16:
            return True
        if kind == _NEW_GENERATION:
            _, pid = struct.unpack_from(">4xI4xI", received, position + 20)
            return bool(pid != os.getpid())
        position += (length + 3) & ~3
    return False


def _name(attributes: bytes) -> bytes:
    position = 0
    while position + 4 <= len(attributes):
        length, kind = struct.unpack_from("=HH", attributes, position)
        if kind == _NAME:
            return attributes[position + 4 : position + length]
        position += max((length + 3) & ~3, 4)
    return b""


def _listen(protocol: int, groups: int) -> socket.socket:
    kernel = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, protocol)
    kernel.bind((0, groups))
    return kernel
