"""Netfilter's netlink messages: how they and their attributes are framed.

As linux/netlink.h and linux/netfilter/nfnetlink.h say; by plain struct, since a host
has a hundred thousand connections.
"""

import socket
import struct
from collections.abc import Iterator

NETFILTER = 12  # NETLINK_NETFILTER
REQUEST, ACK, DUMP = 0x1, 0x4, 0x300  # NLM_F_*
ERROR, DONE = 2, 3  # NLMSG_*
NESTED = 0x8000
_KIND = 0x3FFF
_HEADER = struct.Struct("=IHHII")
_ATTRIBUTE = struct.Struct("=HH")
_BODY_HEADER = struct.Struct(">BBH")  # struct nfgenmsg: family, version, resource
_BODY = _HEADER.size + _BODY_HEADER.size


def open_netfilter(buffer: int = 1 << 20) -> socket.socket:
    """Return a netlink socket of the thread's network namespace; OSError if none."""
    kernel = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETFILTER)
    kernel.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
    kernel.settimeout(10)
    kernel.bind((0, 0))
    return kernel


def message(
    kind: int,
    flags: int,
    number: int,
    body: bytes,
    *,
    family: int = 0,
    resource: int = 0,
) -> bytes:
    """Return a message; `number` comes back in its answer."""
    header = _HEADER.pack(_BODY + len(body), kind, flags, number, 0)
    return header + _BODY_HEADER.pack(family, 0, resource) + body


def messages(received: bytes) -> Iterator[tuple[int, int, bytes]]:
    """Yield kind, number and what follows the header, of each message received.

    `body_of` takes the family's header off as well, where there is one.
    """
    position = 0
    while position + _HEADER.size <= len(received):
        length, kind, _, number, _ = _HEADER.unpack_from(received, position)
        if length < _HEADER.size:
            return
        yield kind, number, received[position + _HEADER.size : position + length]
        position += (length + 3) & ~3


def body_of(content: bytes) -> bytes:
    """Return a message's attributes."""
    return content[_BODY_HEADER.size :]


def answer_of(content: bytes) -> int:
    """Return the errno, or 0, that an ERROR or DONE message tells."""
    (code,) = struct.unpack_from("=i", content)
    return -int(code)


def attributes(body: bytes) -> dict[int, bytes]:
    """Return attributes by their kind; of two of a kind the last."""
    found: dict[int, bytes] = {}
    position = 0
    while position + _ATTRIBUTE.size <= len(body):
        length, kind = _ATTRIBUTE.unpack_from(body, position)
        if length < _ATTRIBUTE.size:
            break
        found[kind & _KIND] = body[position + _ATTRIBUTE.size : position + length]
        position += (length + 3) & ~3
    return found


def attribute(kind: int, value: bytes) -> bytes:
    """Return an attribute, padded as the next one needs it."""
    padding = bytes(-len(value) % 4)
    return _ATTRIBUTE.pack(_ATTRIBUTE.size + len(value), kind) + value + padding
