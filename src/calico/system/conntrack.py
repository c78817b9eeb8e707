"""The kernel's connections: which there are, and the mark that cuts one off (P7).

A connection that is no longer allowed is marked, not deleted: after a deletion, the
next packet of its other end would begin it anew, the other way round, and answers would
pass. Messages are those of ctnetlink (linux/netfilter/nfnetlink_conntrack.h).
"""

import errno
import os
import socket
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address

from calico.model.ids import Address
from calico.model.records import ICMP, PORT_PROTOCOLS
from calico.plan.ruleset import CUT
from calico.policy.evaluate import Packet
from calico.policy.floating import Course
from calico.reconcile.problem import Problem
from calico.system.nfnetlink import (
    ACK,
    DONE,
    DUMP,
    ERROR,
    NESTED,
    REQUEST,
    answer_of,
    attribute,
    attributes,
    body_of,
    message,
    messages,
    open_netfilter,
)

_SUBSYSTEM = 1 << 8  # NFNL_SUBSYS_CTNETLINK
_NEW, _GET, _DELETE = (_SUBSYSTEM | kind for kind in (0, 1, 2))  # IPCTNL_MSG_CT_*
_TUPLE, _MARK, _MARK_MASK, _ZONE = 1, 8, 21, 18  # CTA_TUPLE_ORIG and so on
_REPLY, _STATUS = 2, 3
_SEEN_AS_ANOTHER, _LED_ELSEWHERE = 1 << 4, 1 << 5  # IPS_SRC_NAT, IPS_DST_NAT
_IP, _PROTO = 1, 2  # CTA_TUPLE_*
_PROTO_NUMBER, _SOURCE_PORT, _DESTINATION_PORT = 1, 2, 3  # CTA_PROTO_*
_ICMP_TYPE, _ICMP_CODE = {4: 5, 6: 8}, {4: 6, 6: 9}
_RECEIVE = 1 << 18
_BATCH = 64  # messages sent before their answers are read: fits any socket buffer


@dataclass(frozen=True, slots=True, kw_only=True)
class Connection:
    """One connection, by its first packet; `key` is what the kernel knows it by.

    `packet` is as policy saw it: to where it was led, if that is not what it `asked`
    for; from its sender, whom others know as `seen_as`, if that is another address.
    """

    packet: Packet
    cut: bool
    key: bytes
    asked: Address | None = None
    asked_port: int | None = None
    seen_as: Address | None = None

    @property
    def course(self) -> Course:
        """Return where it was to go, and where it went."""
        packet = self.packet
        port = packet.port if self.asked is None else self.asked_port
        return Course(
            protocol=packet.protocol,
            source=packet.source,
            seen_as=self.seen_as,
            asked=self.asked or packet.destination,
            asked_port=port,
            reached=packet.destination,
            reached_port=packet.port,
        )


def read_connections(concern: Callable[[Address], bool]) -> Iterator[Connection]:
    """Yield the connections with an end that is of concern; OSError if unreadable.

    One that is translated is of concern in any case.
    """
    for family in (socket.AF_INET, socket.AF_INET6):
        with open_netfilter() as kernel:
            kernel.send(message(_GET, REQUEST | DUMP, 1, b"", family=family))
            for body in _bodies(kernel):
                connection = _connection(body, concern)
                if connection is not None:
                    yield connection


def mark_connections(connections: Sequence[Connection], *, cut: bool) -> list[Problem]:
    """Cut connections off, or let them go on; return what the kernel refused.

    One that has ended meanwhile is no problem.
    """
    problems: list[Problem] = []
    with open_netfilter() as kernel:
        for start in range(0, len(connections), _BATCH):
            batch = connections[start : start + _BATCH]
            kernel.send(
                b"".join(_marking(one, cut, n) for n, one in enumerate(batch, 1))
            )
            wish = "cut" if cut else "let go on"
            problems += _refused(batch, _answers(kernel, len(batch)), wish)
    return problems


def delete_connections(connections: Sequence[Connection]) -> list[Problem]:
    """Forget connections: their next packets begin anew. Return what was refused."""
    problems: list[Problem] = []
    with open_netfilter() as kernel:
        for start in range(0, len(connections), _BATCH):
            batch = connections[start : start + _BATCH]
            kernel.send(
                b"".join(
                    message(_DELETE, REQUEST | ACK, n, one.key, family=_family(one))
                    for n, one in enumerate(batch, 1)
                )
            )
            problems += _refused(batch, _answers(kernel, len(batch)), "forget")
    return problems


def _refused(
    batch: Sequence[Connection], answers: Mapping[int, int], wish: str
) -> Iterator[Problem]:
    for number, code in answers.items():
        if code not in {0, errno.ENOENT}:
            packet = batch[number - 1].packet
            what = f"connection {packet.source} to {packet.destination}"
            yield Problem(what, wish, os.strerror(code))


def _family(connection: Connection) -> int:
    return socket.AF_INET if connection.packet.version == 4 else socket.AF_INET6


def _marking(connection: Connection, cut: bool, number: int) -> bytes:  # noqa: FBT001 - a value
    body = connection.key
    body += attribute(_MARK, struct.pack(">I", CUT if cut else 0))
    body += attribute(_MARK_MASK, struct.pack(">I", CUT))
    return message(_NEW, REQUEST | ACK, number, body, family=_family(connection))


def _answers(kernel: socket.socket, count: int) -> dict[int, int]:
    """Return the errno, or 0, of each message's answer, by its number."""
    answers: dict[int, int] = {}
    while len(answers) < count:
        for kind, number, content in messages(kernel.recv(_RECEIVE)):
            if kind == ERROR:
                answers[number] = answer_of(content)
    return answers


def _bodies(kernel: socket.socket) -> Iterator[bytes]:
    while True:
        for kind, _, content in messages(kernel.recv(_RECEIVE)):
            if kind in {ERROR, DONE}:
                if code := answer_of(content):
                    raise OSError(code, os.strerror(code))
                return
            yield body_of(content)


def _connection(body: bytes, concern: Callable[[Address], bool]) -> Connection | None:
    found = attributes(body)
    key = found[_TUPLE]
    parts = attributes(key)
    source, destination = _ends(parts)
    proto = attributes(parts[_PROTO])
    asked = asked_port = seen_as = None
    status = int.from_bytes(found[_STATUS], "big")
    if status & (_SEEN_AS_ANOTHER | _LED_ELSEWHERE):
        answer = attributes(found[_REPLY])
        answerer, answered = _ends(answer)
        if status & _LED_ELSEWHERE:
            asked, destination = destination, answerer
            if _DESTINATION_PORT in proto:
                asked_port = int.from_bytes(proto[_DESTINATION_PORT], "big")
                reached = attributes(answer[_PROTO])[_SOURCE_PORT]
                proto = {**proto, _DESTINATION_PORT: reached}
        if answered != source:  # and not a port alone
            seen_as = answered
    elif not concern(source) and not concern(destination):
        return None
    mark = int.from_bytes(found.get(_MARK, b"\0"), "big")
    zone = found.get(_ZONE)
    return Connection(
        packet=_packet(source, destination, proto),
        cut=bool(mark & CUT),
        key=attribute(_TUPLE | NESTED, key) + (attribute(_ZONE, zone) if zone else b""),
        asked=asked,
        asked_port=asked_port,
        seen_as=seen_as,
    )


def _ends(parts: dict[int, bytes]) -> tuple[Address, Address]:
    """Return the source and the destination of one direction of a connection."""
    octets = sorted(attributes(parts[_IP]).items())
    source, destination = (_address(value) for _, value in octets[:2])
    return source, destination


def _packet(source: Address, destination: Address, proto: dict[int, bytes]) -> Packet:
    protocol = proto[_PROTO_NUMBER][0]
    version = source.version
    is_icmp = protocol == ICMP[version]
    port = source_port = None
    if protocol in PORT_PROTOCOLS:
        port = int.from_bytes(proto[_DESTINATION_PORT], "big")
        source_port = int.from_bytes(proto[_SOURCE_PORT], "big")
    return Packet(
        source=source,
        destination=destination,
        protocol=protocol,
        port=port,
        icmp_type=proto[_ICMP_TYPE[version]][0] if is_icmp else None,
        icmp_code=proto[_ICMP_CODE[version]][0] if is_icmp else None,
        source_port=source_port,
    )


def _address(octets: bytes) -> Address:
    return IPv4Address(octets) if len(octets) == 4 else IPv6Address(octets)
