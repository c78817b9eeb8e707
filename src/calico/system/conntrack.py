"""The kernel's connections: which there are, and the mark that cuts one off (P7).

A connection that is no longer allowed is marked, not deleted: after a deletion, the
next packet of its other end would begin it anew, the other way round, and answers would
pass. Messages are those of ctnetlink (linux/netfilter/nfnetlink_conntrack.h), by plain
struct: a host has a hundred thousand connections.
"""

import errno
import os
import socket
import struct
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address

from calico.model.ids import Address
from calico.model.records import ICMP, PORT_PROTOCOLS
from calico.plan.ruleset import CUT
from calico.policy.evaluate import Packet
from calico.reconcile.problem import Problem

_NETFILTER = 12  # NETLINK_NETFILTER
_SUBSYSTEM = 1 << 8  # NFNL_SUBSYS_CTNETLINK
_NEW, _GET = _SUBSYSTEM | 0, _SUBSYSTEM | 1  # IPCTNL_MSG_CT_*
_REQUEST, _ACK, _DUMP = 0x1, 0x4, 0x300  # NLM_F_*
_ERROR, _DONE = 2, 3  # NLMSG_*
_TUPLE, _MARK, _MARK_MASK, _ZONE = 1, 8, 21, 18  # CTA_TUPLE_ORIG and so on
_IP, _PROTO = 1, 2  # CTA_TUPLE_*
_PROTO_NUMBER, _SOURCE_PORT, _DESTINATION_PORT = 1, 2, 3  # CTA_PROTO_*
_ICMP_TYPE, _ICMP_CODE = {4: 5, 6: 8}, {4: 6, 6: 9}
_NESTED, _KIND = 0x8000, 0x3FFF
_HEADER = struct.Struct("=IHHII")
_ATTRIBUTE = struct.Struct("=HH")
_FAMILY_HEADER = struct.Struct("=BBH")
_BODY = _HEADER.size + _FAMILY_HEADER.size
_RECEIVE = 1 << 18
_BATCH = 64  # messages sent before their answers are read: fits any socket buffer


@dataclass(frozen=True, slots=True, kw_only=True)
class Connection:
    """One connection, by its first packet; `key` is what the kernel knows it by."""

    packet: Packet
    cut: bool
    key: bytes


def read_connections(concern: Callable[[Address], bool]) -> Iterator[Connection]:
    """Yield the connections with an end that is of concern; OSError if unreadable."""
    for family in (socket.AF_INET, socket.AF_INET6):
        with _socket() as kernel:
            message = _message(_GET, _REQUEST | _DUMP, family, b"", 1)
            kernel.send(message)
            for body in _bodies(kernel):
                connection = _connection(body, concern)
                if connection is not None:
                    yield connection


def mark_connections(connections: Sequence[Connection], *, cut: bool) -> list[Problem]:
    """Cut connections off, or let them go on; return what the kernel refused.

    One that has ended meanwhile is no problem.
    """
    problems: list[Problem] = []
    with _socket() as kernel:
        for start in range(0, len(connections), _BATCH):
            batch = connections[start : start + _BATCH]
            kernel.send(
                b"".join(_marking(one, cut, n) for n, one in enumerate(batch, 1))
            )
            for number, code in _answers(kernel, len(batch)).items():
                if code not in {0, errno.ENOENT}:
                    packet = batch[number - 1].packet
                    what = f"connection {packet.source} to {packet.destination}"
                    wish = "cut" if cut else "let go on"
                    problems.append(Problem(what, wish, os.strerror(code)))
    return problems


def _socket() -> socket.socket:
    kernel = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETFILTER)
    kernel.settimeout(10)
    kernel.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
    kernel.bind((0, 0))
    return kernel


def _message(kind: int, flags: int, family: int, body: bytes, number: int) -> bytes:
    length = _BODY + len(body)
    header = _HEADER.pack(length, kind, flags, number, 0)
    return header + _FAMILY_HEADER.pack(family, 0, 0) + body


def _marking(connection: Connection, cut: bool, number: int) -> bytes:  # noqa: FBT001 - a value
    version = connection.packet.version
    family = socket.AF_INET if version == 4 else socket.AF_INET6
    body = connection.key
    body += _ATTRIBUTE.pack(8, _MARK) + struct.pack(">I", CUT if cut else 0)
    body += _ATTRIBUTE.pack(8, _MARK_MASK) + struct.pack(">I", CUT)
    return _message(_NEW, _REQUEST | _ACK, family, body, number)


def _answers(kernel: socket.socket, count: int) -> dict[int, int]:
    """Return the errno, or 0, of each message's answer, by its number."""
    answers: dict[int, int] = {}
    while len(answers) < count:
        for kind, number, body in _each(kernel.recv(_RECEIVE)):
            if kind == _ERROR:
                answers[number] = -struct.unpack_from("=i", body)[0]
    return answers


def _bodies(kernel: socket.socket) -> Iterator[bytes]:
    while True:
        for kind, _, body in _each(kernel.recv(_RECEIVE)):
            if kind in {_ERROR, _DONE}:
                code = -struct.unpack_from("=i", body)[0]
                if code:
                    raise OSError(code, os.strerror(code))
                return
            yield body[_FAMILY_HEADER.size :]


def _each(received: bytes) -> Iterator[tuple[int, int, bytes]]:
    position = 0
    while position < len(received):
        length, kind, _, number, _ = _HEADER.unpack_from(received, position)
        yield kind, number, received[position + _HEADER.size : position + length]
        position += (length + 3) & ~3


def _connection(body: bytes, concern: Callable[[Address], bool]) -> Connection | None:
    found = _attributes(body)
    key = found[_TUPLE]
    parts = _attributes(key)
    addresses = _attributes(parts[_IP])
    octets = sorted(addresses.items())
    source, destination = (_address(value) for _, value in octets[:2])
    if not concern(source) and not concern(destination):
        return None
    mark = int.from_bytes(found.get(_MARK, b"\0"), "big")
    zone = found.get(_ZONE)
    return Connection(
        packet=_packet(source, destination, _attributes(parts[_PROTO])),
        cut=bool(mark & CUT),
        key=_attribute(_TUPLE | _NESTED, key)
        + (_attribute(_ZONE, zone) if zone else b""),
    )


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


def _attributes(message: bytes) -> dict[int, bytes]:
    found: dict[int, bytes] = {}
    position = 0
    while position + 4 <= len(message):
        length, kind = _ATTRIBUTE.unpack_from(message, position)
        if length < 4:
            break
        found[kind & _KIND] = message[position + 4 : position + length]
        position += (length + 3) & ~3
    return found


def _attribute(kind: int, value: bytes) -> bytes:
    padding = bytes(-len(value) % 4)
    return _ATTRIBUTE.pack(4 + len(value), kind) + value + padding
