"""Changes of set elements alone, as one batch of netlink messages.

libnftables reads all sets and chains of a table before it adds one element: 15 ms where
there are 4,000 of each, and most changes are an element or two. Elements of hash sets
and of sets of concatenated ranges are encoded here; all else is libnftables' work.
Messages are those of linux/netfilter/nf_tables.h.
"""

import os
import socket
import struct
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from ipaddress import ip_network

from calico.plan.antispoof import Element
from calico.plan.ruleset import TABLE, Set
from calico.reconcile.diff import Diff

MOST = 1000
"""Elements: with more, the whole costs more than what libnftables reads first."""

_NETFILTER = 12  # NETLINK_NETFILTER
_SUBSYSTEM = 10  # NFNL_SUBSYS_NFTABLES
_BEGIN, _END = 16, 17  # NFNL_MSG_BATCH_*
_ADD, _DELETE = _SUBSYSTEM << 8 | 12, _SUBSYSTEM << 8 | 14  # NFT_MSG_*SETELEM
_REQUEST, _ACK, _CREATE = 0x1, 0x4, 0x400  # NLM_F_*
_ERROR = 2  # NLMSG_ERROR
_LIST_TABLE, _LIST_SET, _LIST_ELEMENTS = 1, 2, 3  # NFTA_SET_ELEM_LIST_*
_LIST_ELEMENT = 1  # NFTA_LIST_ELEM
_KEY, _DATA, _USERDATA, _KEY_END = 1, 2, 6, 10  # NFTA_SET_ELEM_*
_VALUE, _VERDICT = 1, 2  # NFTA_DATA_*
_CODE, _CHAIN = 1, 2  # NFTA_VERDICT_*
_VERDICTS = {"accept": 1, "jump": -3, "goto": -4}  # NF_ACCEPT, NFT_JUMP, NFT_GOTO
_FAMILIES = {"inet": 1, "arp": 3}  # NFPROTO_*
_SIZES = {"inet_service": 2}  # octets of a number; one for all others
_HEADER = struct.Struct("=IHHII")
_ATTRIBUTE = struct.Struct("=HH")
_NESTED = 0x8000
_PER_MESSAGE = 200  # elements: an attribute holds 64 KiB

Sets = Mapping[tuple[str, str], Set]
"""Sets by family and name."""


def can_encode(change: Diff[Element, str], sets: Sets) -> bool:
    """Tell whether a change is small, and of sets whose elements are encoded here."""
    elements = (*change.put, *change.drop)
    return len(elements) <= MOST and all(
        (declared := sets.get((element.family, element.set))) is not None
        and not (declared.interval and len(declared.types) == 1)
        for element in elements
    )


def change_elements(change: Diff[Element, str], sets: Sets) -> None:
    """Make a change in one transaction; OSError if the kernel refuses it, whole.

    ValueError for an element that is none of its set's types.
    """
    stale = {**change.drop, **change.replaced}
    messages = [*_messages(_DELETE, stale, sets), *_messages(_ADD, change.put, sets)]
    frames = [_frame(_BEGIN, _REQUEST, 0, struct.pack(">BBH", 0, 0, _SUBSYSTEM))]
    last = len(messages)
    for number, (kind, body) in enumerate(messages, 1):
        flags = _REQUEST | (_CREATE if kind == _ADD else 0)
        flags |= _ACK if number == last else 0
        frames.append(_frame(kind, flags, number, body))
    frames.append(
        _frame(_END, _REQUEST, last + 1, struct.pack(">BBH", 0, 0, _SUBSYSTEM))
    )
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETFILTER) as kernel:
        kernel.settimeout(10)
        kernel.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
        kernel.bind((0, 0))
        kernel.send(b"".join(frames))
        _await_answer(kernel, last)


def _await_answer(kernel: socket.socket, last: int) -> None:
    """Read answers until the last message's; raise the first refusal."""
    refused = 0
    while True:
        received = kernel.recv(1 << 16)
        position = 0
        answered = False
        while position < len(received):
            length, kind, _, number, _ = _HEADER.unpack_from(received, position)
            if kind == _ERROR:
                (code,) = struct.unpack_from("=i", received, position + _HEADER.size)
                refused = refused or -code
                # An error of the batch itself bears its first message's number.
                answered = answered or number in {0, last}
            position += (length + 3) & ~3
        if answered:
            break
    if refused:
        raise OSError(refused, os.strerror(refused))


def _messages(
    kind: int, elements: Mapping[Element, str], sets: Sets
) -> Iterator[tuple[int, bytes]]:
    by_set: dict[tuple[str, str], list[Element]] = defaultdict(list)
    for element in sorted(elements):
        by_set[element.family, element.set].append(element)
    for (family, name), some in by_set.items():
        declared = sets[family, name]
        for part in _portions(some):
            encoded = b"".join(
                _nest(
                    _LIST_ELEMENT,
                    encode_key(element.key, declared)
                    + (
                        _value(element, elements[element], declared)
                        if kind == _ADD
                        else b""
                    ),
                )
                for element in part
            )
            body = struct.pack(">BBH", _FAMILIES[family], 0, 0)
            body += _attribute(_LIST_TABLE, TABLE.encode() + b"\0")
            body += _attribute(_LIST_SET, name.encode() + b"\0")
            yield kind, body + _nest(_LIST_ELEMENTS, encoded)


def encode_key(key: str, declared: Set) -> bytes:
    """Return an element's key, as the plan writes it, as attributes.

    In a concatenation each part begins at a multiple of four octets.
    """
    bounds = [
        _bounds(text, type_)
        for text, type_ in zip(key.split(" . "), declared.types, strict=True)
    ]
    if len(bounds) == 1:
        return _nest(_KEY, _attribute(_VALUE, bounds[0][0]))
    low, high = (b"".join(_padded(b[end]) for b in bounds) for end in (0, 1))
    encoded = _nest(_KEY, _attribute(_VALUE, low))
    if declared.interval:
        encoded += _nest(_KEY_END, _attribute(_VALUE, high))
    return encoded


def _bounds(text: str, type_: str) -> tuple[bytes, bytes]:
    """Return the first and the last value that a part of a key stands for."""
    match type_:
        case "ifname":
            name = text.strip('"').encode().ljust(16, b"\0")
            return name, name
        case "ether_addr":
            mac = bytes.fromhex(text.replace(":", ""))
            return mac, mac
        case "ipv4_addr" | "ipv6_addr":
            network = ip_network(text)
            return network[0].packed, network[-1].packed
        case _:
            first, _, last = text.partition("-")
            size = _SIZES.get(type_, 1)
            return (
                int(first).to_bytes(size, "big"),
                int(last or first).to_bytes(size, "big"),
            )


def _value(element: Element, value: str, declared: Set) -> bytes:
    """Return what an element leads to, or its comment."""
    if not value:
        return b""
    if not element.of_map:
        text = value.encode() + b"\0"
        return _attribute(_USERDATA, bytes([0, len(text)]) + text)  # NFTNL_UDATA_*
    if declared.to == "classid":
        major, minor = (int(part, 16) for part in value.split(":"))
        return _nest(_DATA, _attribute(_VALUE, struct.pack("=I", major << 16 | minor)))
    if not element.to_verdict:
        types = declared.to.split(" . ")
        parts = [
            _bounds(text, type_)[0]
            for text, type_ in zip(value.split(" . "), types, strict=True)
        ]
        data = parts[0] if len(parts) == 1 else b"".join(map(_padded, parts))
        return _nest(_DATA, _attribute(_VALUE, data))
    verb, _, chain = value.partition(" ")
    verdict = _attribute(_CODE, struct.pack(">i", _VERDICTS[verb]))
    if chain:
        verdict += _attribute(_CHAIN, chain.encode() + b"\0")
    return _nest(_DATA, _nest(_VERDICT, verdict))


def _portions(elements: Sequence[Element]) -> Iterator[Sequence[Element]]:
    for start in range(0, len(elements), _PER_MESSAGE):
        yield elements[start : start + _PER_MESSAGE]


def _frame(kind: int, flags: int, number: int, body: bytes) -> bytes:
    return _HEADER.pack(_HEADER.size + len(body), kind, flags, number, 0) + body


def _nest(kind: int, body: bytes) -> bytes:
    return _attribute(kind | _NESTED, body)


def _attribute(kind: int, value: bytes) -> bytes:
    return _padded(_ATTRIBUTE.pack(4 + len(value), kind) + value)


def _padded(value: bytes) -> bytes:
    return value + bytes(-len(value) % 4)
