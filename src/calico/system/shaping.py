"""Bandwidth limits in the kernel: token buckets (tbf), and detours for what is sent.

A tap's detour is an `ifb` link with the bucket of what its instance sends; a filter at
the tap's entrance leads all there, and the kernel then takes it as if from the tap.
Ours are buckets by their handle, detours by their names, filters by their preference.
u32 and mirred are used since they are older than matchall and police, which not every
kernel has.
"""

import socket
import struct
from collections.abc import Mapping

from calico.model.ids import InterfaceName
from calico.plan.items import TAP
from calico.plan.shaping import DETOUR, Shaper, detour_of, rounded, tap_of
from calico.policy.evaluate import Direction
from calico.reconcile.problem import Problem
from calico.system.dump import NetState, attributes, dump_table
from calico.system.traffic_control import (
    CREATE,
    DELETE_QDISC,
    ENTRANCE,
    ETHERNET,
    GET_QDISC,
    GONE,
    HANDLE,
    KIND,
    LARGEST,
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

_ENTERING = 0xFFFFFFF2  # of clsact
_BUCKET = struct.Struct("=BBHhHI12xIII")  # struct tc_tbf_qopt, no peak rate
_KEY = struct.Struct("=BBBxHHhhIIIii")  # struct tc_u32_sel with one key
_PARAMETERS, _RATE64, _BURST = 1, 4, 6  # TCA_TBF_*
_SELECTOR, _ACTION = 5, 7  # TCA_U32_*
_TERMINAL = 1  # TC_U32_TERMINAL


def read_shapers(net: NetState) -> list[Shaper]:
    """Return the shapers of taps, whole ones and remains; OSError if unreadable."""
    found: list[Shaper] = []
    with open_route_socket() as kernel:
        buckets, entrances = _queues(kernel)
        for name, index in net.indexes.items():
            if TAP.fullmatch(name) and index in buckets:
                found.append(Shaper(name, Direction.INGRESS, *buckets[index]))
        turned = {
            tap: filter_target(kernel, index, _ENTERING, _ACTION)
            for tap, index in net.indexes.items()
            if TAP.fullmatch(tap) and index in entrances
        }
    detours = {tap_of(n): i for n, i in net.indexes.items() if DETOUR.fullmatch(n)}
    for tap in {*detours, *(t for t, where in turned.items() if where is not None)}:
        index = detours.get(tap, 0)
        whole = detour_of(tap) in net.up and index and turned.get(tap) == index
        bucket = buckets.get(index, (0, 0, 0)) if whole else (0, 0, 0)
        found.append(Shaper(tap, Direction.EGRESS, *bucket))
    return found


def put_shaper(wanted: Shaper, have: Shaper | None) -> Problem | None:
    """Make a shaper; where there is one already its bucket changes, in place."""
    tap, detour = wanted.interface, detour_of(wanted.interface)
    try:
        with open_route_socket() as kernel:
            if wanted.direction is Direction.INGRESS:
                ask(kernel, *_bucket(index_of(tap), wanted))
                return None
            if have is None or not have.rate:
                make_queue_link(kernel, detour)
            ask(kernel, *_bucket(index_of(detour), wanted))
            if have is None or not have.rate:
                _lead_away(kernel, index_of(tap), index_of(detour))
    except OSError as e:
        return problem(_words(wanted), "put", e)
    return None


def drop_shaper(old: Shaper) -> Problem | None:
    """Remove a shaper, or what is left of it."""
    tap, detour = old.interface, detour_of(old.interface)
    try:
        with open_route_socket() as kernel:
            if old.direction is Direction.INGRESS:
                gone = TC.pack(0, 0, 0, index_of(tap), HANDLE, ROOT, 0)
                ask(kernel, DELETE_QDISC, 0, gone, ignored=GONE)
                return None
            _lead_back(kernel, tap)
            drop_queue_link(kernel, detour)
    except OSError as e:
        return None if e.errno in GONE else problem(_words(old), "drop", e)
    return None


def _words(shaper: Shaper) -> str:
    return f"{shaper.direction.value} limit of {shaper.interface}"


def _bucket(index: int, wanted: Shaper) -> tuple[int, int, bytes]:
    """Return the message that puts a bucket at the root of a link, or changes it."""
    rate = min(wanted.rate, LARGEST)
    parameters = _BUCKET.pack(0, ETHERNET, 0, 0, 0, rate, wanted.queue, 0, 0)
    options = attribute(_PARAMETERS, parameters)
    if wanted.rate > LARGEST:
        options += attribute(_RATE64, struct.pack("=Q", wanted.rate))
    options += attribute(_BURST, struct.pack("=I", min(wanted.burst, LARGEST)))
    body = TC.pack(0, 0, 0, index, HANDLE, ROOT, 0) + text(KIND, "tbf")
    return NEW_QDISC, CREATE | REPLACE, body + attribute(OPTIONS, options)


def _lead_away(kernel: socket.socket, tap: int, detour: int) -> None:
    everything = _KEY.pack(_TERMINAL, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0)
    options = attribute(_SELECTOR, everything)
    options += attribute(_ACTION, redirection(detour))
    put_filter(kernel, tap, _ENTERING, "u32", options)


def _lead_back(kernel: socket.socket, tap: InterfaceName) -> None:
    try:
        index = index_of(tap)
    except OSError:
        return  # the filter went with the tap
    drop_filter(kernel, index, _ENTERING)


def _queues(
    kernel: socket.socket,
) -> tuple[Mapping[int, tuple[int, int, int]], set[int]]:
    """Return our buckets by their link's index, and the links that have an entrance."""
    buckets: dict[int, tuple[int, int, int]] = {}
    entrances = set()
    for message in dump_table(kernel, GET_QDISC, TC.pack(0, 0, 0, 0, 0, 0, 0)):
        _, _, _, index, handle, parent, _ = TC.unpack_from(message)
        if parent == ENTRANCE:
            entrances.add(index)
        elif handle == HANDLE and parent == ROOT:
            options = attributes(attributes(message, TC.size).get(OPTIONS, b""), 0)
            if _PARAMETERS in options:
                buckets[index] = _read_bucket(options)
    return buckets, entrances


def _read_bucket(options: Mapping[int, bytes]) -> tuple[int, int, int]:
    """Return rate, burst and queue; the kernel tells a burst as the time it takes."""
    *_, rate, queue, ticks, _ = _BUCKET.unpack_from(options[_PARAMETERS])
    if _RATE64 in options:
        (rate,) = struct.unpack("=Q", options[_RATE64])
    return rate, rounded(round(ticks * TICK * rate / 1e9), rate), queue
