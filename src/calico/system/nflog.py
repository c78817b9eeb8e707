"""Packets that the filter's rules log, as the kernel tells them (NFLOG).

Messages are those of linux/netfilter/nfnetlink_log.h. A group has one listener; what it
is too slow for, the kernel drops, and the numbers of what follows show how many.
"""

import errno
import os
import socket
import struct
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass

from calico.model.ids import InterfaceName
from calico.system.nfnetlink import (
    ACK,
    ERROR,
    REQUEST,
    answer_of,
    attribute,
    attributes,
    body_of,
    message,
    messages,
    open_netfilter,
)

_SUBSYSTEM = 4 << 8  # NFNL_SUBSYS_ULOG
_PACKET, _CONFIG = _SUBSYSTEM | 0, _SUBSYSTEM | 1  # NFULNL_MSG_*
_COMMAND, _MODE, _TIMEOUT, _FLAGS = 1, 2, 4, 6  # NFULA_CFG_*
_BIND = 1  # NFULNL_CFG_CMD_BIND
_COPY_PACKET = 2  # NFULNL_COPY_PACKET
_NUMBERED = 1  # NFULNL_CFG_F_SEQ
_IN, _OUT, _PAYLOAD, _PREFIX, _NUMBER = 4, 5, 9, 10, 12  # NFULA_*
_COPIED = 128  # octets of a packet: its headers
_DELAY = 10  # hundredths of a second that the kernel may gather messages
_RECEIVE = 1 << 17


@dataclass(frozen=True, slots=True, kw_only=True)
class LoggedPacket:
    """A packet that a rule logged: the rule's prefix, interfaces, the first octets."""

    prefix: str
    incoming: InterfaceName | None = None
    outgoing: InterfaceName | None = None
    payload: bytes = b""


class Nflog:
    """The listener of one group, in the network namespace of the thread that made it.

    OSError if it cannot be: EPERM where the group has one. `lost` counts what never
    came.
    """

    def __init__(self, group: int) -> None:
        self._kernel = open_netfilter()
        self._next = 0
        self.lost = 0
        try:
            self._configure(group)
        except OSError:
            self._kernel.close()
            raise

    def fileno(self) -> int:
        """Return what to wait for, until `receive` has something."""
        return self._kernel.fileno()

    def receive(self) -> list[LoggedPacket]:
        """Return the packets that have come; OSError if there will be no more."""
        try:
            received = self._kernel.recv(_RECEIVE)
        except OSError as e:
            if e.errno == errno.ENOBUFS:  # the next one's number says how many
                return []
            raise
        return list(self._packets(received))

    def close(self) -> None:
        """Give the group back."""
        self._kernel.close()

    def _configure(self, group: int) -> None:
        body = (
            attribute(_COMMAND, bytes([_BIND]))
            + attribute(_MODE, struct.pack(">IBx", _COPIED, _COPY_PACKET))
            + attribute(_TIMEOUT, struct.pack(">I", _DELAY))
            + attribute(_FLAGS, struct.pack(">H", _NUMBERED))
        )
        self._kernel.send(message(_CONFIG, REQUEST | ACK, 1, body, resource=group))
        while True:  # packets may come before the answer does
            for kind, _, content in messages(self._kernel.recv(_RECEIVE)):
                if kind == ERROR:
                    if code := answer_of(content):
                        raise OSError(code, f"log group {group}: {os.strerror(code)}")
                    return

    def _packets(self, received: bytes) -> Iterator[LoggedPacket]:
        for kind, _, content in messages(received):
            if kind != _PACKET:
                continue
            found = attributes(body_of(content))
            number = int.from_bytes(found.get(_NUMBER, b""), "big")
            self.lost += max(number - self._next, 0)
            self._next = number + 1
            yield LoggedPacket(
                prefix=found.get(_PREFIX, b"").rstrip(b"\0").decode(errors="replace"),
                incoming=_interface(found.get(_IN)),
                outgoing=_interface(found.get(_OUT)),
                payload=found.get(_PAYLOAD, b""),
            )


def _interface(index: bytes | None) -> InterfaceName | None:
    """Return an interface's name; None where there is none, or none any more."""
    if index:
        with suppress(OSError):
            return InterfaceName(socket.if_indextoname(int.from_bytes(index, "big")))
    return None
