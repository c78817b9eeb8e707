"""Lanes in the kernel: classes of one link's queue (htb), and filters that lead there.

The link is an `ifb`, which sends on what a filter led to it from where it was led away.
The filters look at a bit of a packet's mark, in classic BPF: it is older than the
alternatives, which not every kernel has. Ours are the link by its name, classes since
they are its queue's, filters by their preference.
"""

import socket
import struct
from collections.abc import Mapping
from typing import NamedTuple

from calico.plan.lanes import LANES, MARK, Lane, LaneLink, Turn
from calico.plan.shaping import rounded
from calico.reconcile.problem import Problem
from calico.system.dump import NetState, attributes, dump_table
from calico.system.traffic_control import (
    ABSENT,
    CREATE,
    DELETE_CLASS,
    DELETE_QDISC,
    ENTRANCE,
    ETHERNET,
    GET_CLASS,
    GET_QDISC,
    GONE,
    HANDLE,
    KIND,
    LARGEST,
    NEW_CLASS,
    NEW_QDISC,
    OPTIONS,
    REPLACE,
    ROOT,
    TC,
    TICK,
    ask,
    attribute,
    drop_filter,
    drop_queue_link,
    filter_target,
    index_of,
    make_queue_link,
    open_route_socket,
    problem,
    put_filter,
    redirection,
    text,
)

_LEAVING = 0xFFFFFFF3  # of clsact
_CLASS = struct.Struct("=BBHhHIBBHhHIIIIII")  # struct tc_htb_opt
_QUEUE = struct.Struct("=IIIII")  # struct tc_htb_glob
_PARAMETERS, _START, _RATE64, _CEILING64 = 1, 2, 6, 7  # TCA_HTB_*
_VERSION, _QUANTUM = 3, 60_000  # octets in a round, where several have to wait
_ACTIONS, _LENGTH, _PROGRAM = 1, 4, 5  # TCA_BPF_*
_MINOR = 0xFFFF
_MARK_AT = 0xFFFFF000 + 20  # SKF_AD_OFF, SKF_AD_MARK
# Load the mark; has it our bit? Then it matches.
_IS_MARKED = b"".join(
    struct.pack("=HBBI", *instruction)
    for instruction in (
        (0x20, 0, 0, _MARK_AT),
        (0x45, 0, 1, MARK),
        (0x06, 0, 0, LARGEST),
        (0x06, 0, 0, 0),
    )
)

LaneItem = LaneLink | Lane | Turn


class _Queues(NamedTuple):
    """What was read of queues: exits of links, ours of the lanes, places of lanes."""

    exits: set[int]
    has_lanes: bool
    places: Mapping[int, int]


def read_lanes(net: NetState) -> list[LaneItem]:
    """Return lanes and what leads to them, whole or not; OSError if unreadable.

    Without their link there is nothing: filters that are left are about no packet, and
    replaced when there are lanes again.
    """
    ours = net.indexes.get(LANES)
    if ours is None:
        return []
    with open_route_socket() as kernel:
        queues = _queues(kernel, ours)
        link = LaneLink(whole=queues.has_lanes and LANES in net.up)
        found: list[LaneItem] = [link]
        if link.whole:
            found += _lanes(kernel, ours, queues.places)
        for name, index in net.indexes.items():
            if index in queues.exits:
                target = filter_target(kernel, index, _LEAVING, _ACTIONS, _is_ours)
                if target is not None:
                    found.append(Turn(name, whole=target == ours))
    return found


def put_lane_item(item: LaneItem) -> Problem | None:
    """Make one of them, or make it what it should be."""
    try:
        with open_route_socket() as kernel:
            match item:
                case LaneLink():
                    _make_link(kernel)
                case Lane():
                    _make_lane(kernel, index_of(LANES), item)
                case Turn(interface):
                    _lead_aside(kernel, index_of(interface), index_of(LANES))
    except OSError as e:
        return problem(_words(item), "put", e)
    return None


def drop_lane_item(item: LaneItem) -> Problem | None:
    """Remove one of them."""
    try:
        with open_route_socket() as kernel:
            match item:
                case LaneLink():
                    drop_queue_link(kernel, LANES)
                case Lane(number):
                    body = TC.pack(0, 0, 0, index_of(LANES), HANDLE | number, HANDLE, 0)
                    ask(kernel, DELETE_CLASS, 0, body)
                case Turn(interface):
                    drop_filter(kernel, index_of(interface), _LEAVING)
    except OSError as e:
        return None if e.errno in GONE else problem(_words(item), "drop", e)
    return None


def _words(item: LaneItem) -> str:
    match item:
        case LaneLink():
            return f"link {LANES}"
        case Lane(number=number, interface=interface):
            return f"lane {number:x} of {interface or 'a former port'}"
        case Turn(interface):
            return f"filter at the exit of {interface}"


def _make_link(kernel: socket.socket) -> None:
    make_queue_link(kernel, LANES)
    index = index_of(LANES)
    # One that is there cannot be changed, and what is of another kind is nobody's.
    gone = TC.pack(0, 0, 0, index, 0, ROOT, 0)
    ask(kernel, DELETE_QDISC, 0, gone, ignored=ABSENT)
    body = TC.pack(0, 0, 0, index, HANDLE, ROOT, 0) + text(KIND, "htb")
    start = attribute(_START, _QUEUE.pack(_VERSION, 10, 0, 0, 0))
    ask(kernel, NEW_QDISC, CREATE | REPLACE, body + attribute(OPTIONS, start))


def _make_lane(kernel: socket.socket, index: int, wanted: Lane) -> None:
    rate = (0, ETHERNET, 0, 0, 0, min(wanted.rate, LARGEST))
    ticks = min(round(wanted.burst * 1e9 / (TICK * wanted.rate)), LARGEST)
    parameters = _CLASS.pack(*rate, *rate, ticks, ticks, _QUANTUM, 0, 0)
    options = attribute(_PARAMETERS, parameters)
    if wanted.rate > LARGEST:
        large = struct.pack("=Q", wanted.rate)
        options += attribute(_RATE64, large) + attribute(_CEILING64, large)
    handle = HANDLE | wanted.number
    body = TC.pack(0, 0, 0, index, handle, HANDLE, 0) + text(KIND, "htb")
    ask(kernel, NEW_CLASS, CREATE, body + attribute(OPTIONS, options))
    place = TC.pack(0, 0, 0, index, 0, handle, 0) + text(KIND, "bfifo")
    limit = attribute(OPTIONS, struct.pack("=I", wanted.queue))
    ask(kernel, NEW_QDISC, CREATE | REPLACE, place + limit)


def _lead_aside(kernel: socket.socket, index: int, lanes: int) -> None:
    options = attribute(_ACTIONS, redirection(lanes))
    options += attribute(_LENGTH, struct.pack("=H", len(_IS_MARKED) // 8))
    options += attribute(_PROGRAM, _IS_MARKED)
    put_filter(kernel, index, _LEAVING, "bpf", options)


def _queues(kernel: socket.socket, ours: int) -> _Queues:
    exits = set()
    has_lanes = False
    places: dict[int, int] = {}
    for message in dump_table(kernel, GET_QDISC, TC.pack(0, 0, 0, 0, 0, 0, 0)):
        _, _, _, index, handle, parent, _ = TC.unpack_from(message)
        found = attributes(message, TC.size)
        kind = found.get(KIND, b"").rstrip(b"\0")
        if parent == ENTRANCE:
            exits.add(index)
        elif index == ours and kind == b"htb" and (handle, parent) == (HANDLE, ROOT):
            has_lanes = True
        elif index == ours and kind == b"bfifo":
            (places[parent & _MINOR],) = struct.unpack_from("=I", found[OPTIONS])
    return _Queues(exits, has_lanes, places)


def _lanes(
    kernel: socket.socket, index: int, places: Mapping[int, int]
) -> list[LaneItem]:
    found: list[LaneItem] = []
    for message in dump_table(kernel, GET_CLASS, TC.pack(0, 0, 0, index, 0, 0, 0)):
        _, _, _, _, handle, _, _ = TC.unpack_from(message)
        options = attributes(attributes(message, TC.size).get(OPTIONS, b""), 0)
        if handle & ~_MINOR != HANDLE or _PARAMETERS not in options:
            continue
        rate, ceiling, burst = _read_limit(options)
        number = handle & _MINOR
        # One whose ceiling somebody changed is none that we would make.
        limit = rate if rate == ceiling else 0
        found.append(Lane(number, limit, burst, places.get(number, 0)))
    return found


def _read_limit(options: Mapping[int, bytes]) -> tuple[int, int, int]:
    """Return rate, ceiling and burst; the kernel tells a burst as the time it takes."""
    fields = _CLASS.unpack_from(options[_PARAMETERS])
    rate, ceiling, ticks, most = fields[5], fields[11], fields[12], fields[13]
    for kind in (_RATE64, _CEILING64):
        if kind in options:
            (value,) = struct.unpack("=Q", options[kind])
            rate, ceiling = (value, ceiling) if kind == _RATE64 else (rate, value)
    if ticks != most:
        return rate, ceiling, 0
    return rate, ceiling, rounded(round(ticks * TICK * rate / 1e9), rate)


def _is_ours(options: Mapping[int, bytes]) -> bool:
    """Tell whether a filter is about our mark."""
    return options.get(_PROGRAM) == _IS_MARKED
