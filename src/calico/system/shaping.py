"""Bandwidth limits in the kernel: token buckets (tbf), and detours for what is sent.

A tap's detour is an `ifb` link with the bucket of what its instance sends; a filter at
the tap's entrance leads all there, and the kernel then takes it as if from the tap.
Ours are buckets by their handle, detours by their names, filters by their preference.
Messages are those of linux/pkt_sched.h and pkt_cls.h. u32 and mirred are used since
they are older than matchall and police, which not every kernel has.
"""

import errno
import os
import socket
import struct
from collections.abc import Collection, Mapping

from calico.model.ids import InterfaceName
from calico.plan.items import TAP
from calico.plan.shaping import DETOUR, Shaper, detour_of, rounded, tap_of
from calico.policy.evaluate import Direction
from calico.reconcile.problem import Problem
from calico.system.dump import NetState, attributes, dump_table

_NEW_LINK, _DELETE_LINK = 16, 17
_NEW_QDISC, _DELETE_QDISC, _GET_QDISC = 36, 37, 38
_NEW_FILTER, _DELETE_FILTER, _GET_FILTER = 44, 45, 46
_REQUEST, _ACK, _REPLACE, _CREATE = 0x1, 0x4, 0x100, 0x400  # NLM_F_*
_GONE = {errno.ENOENT, errno.ENODEV}

_HANDLE = 0xCA11 << 16
_PREFERENCE = 0xCA11
_ROOT = 0xFFFFFFFF  # TC_H_ROOT
_ENTRANCE, _ENTRANCE_HANDLE, _ENTERING = 0xFFFFFFF1, 0xFFFF0000, 0xFFFFFFF2  # clsact
_ALL_PROTOCOLS = socket.htons(3)  # ETH_P_ALL

_HEADER = struct.Struct("=IHHII")
_LINK = struct.Struct("=BBHiII")  # struct ifinfomsg
_TC = struct.Struct("=BBHiIII")  # struct tcmsg
_BUCKET = struct.Struct("=BBHhHI12xIII")  # struct tc_tbf_qopt, no peak rate
_KEY = struct.Struct("=BBBxHHhhIIIii")  # struct tc_u32_sel with one key
_REDIRECT = struct.Struct("=IIiiiiI")  # struct tc_mirred
_KIND, _OPTIONS = 1, 2  # TCA_*, and TCA_ACT_*
_PARAMETERS, _RATE64, _BURST = 1, 4, 6  # TCA_TBF_*
_SELECTOR, _ACTION = 5, 7  # TCA_U32_*
_TERMINAL, _STOLEN, _TO_QUEUE = 1, 4, 1  # TC_U32_*, TC_ACT_*, TCA_EGRESS_REDIR
_ETHERNET = 1  # TC_LINKLAYER_ETHERNET
_NAME, _LINK_INFO, _FAMILIES = 3, 18, 26  # IFLA_*
_INFO_KIND, _ADDRESS_MODE = 1, 8  # IFLA_INFO_KIND, IFLA_INET6_ADDR_GEN_MODE
_NO_ADDRESSES = b"\x01"  # IN6_ADDR_GEN_MODE_NONE
_UP = 1
_TICK = 64  # nanoseconds (PSCHED_SHIFT)
_LARGEST = 2**32 - 1


def read_shapers(net: NetState) -> list[Shaper]:
    """Return the shapers of taps, whole ones and remains; OSError if unreadable."""
    found: list[Shaper] = []
    with _open() as kernel:
        buckets, entrances = _queues(kernel)
        for name, index in net.indexes.items():
            if TAP.fullmatch(name) and index in buckets:
                found.append(Shaper(name, Direction.INGRESS, *buckets[index]))
        turned = {
            tap: _turned_to(kernel, index)
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
        with _open() as kernel:
            if wanted.direction is Direction.INGRESS:
                _ask(kernel, *_bucket(_index(tap), wanted))
                return None
            if have is None or not have.rate:
                _make_detour(kernel, detour)
            _ask(kernel, *_bucket(_index(detour), wanted))
            if have is None or not have.rate:
                _lead_away(kernel, _index(tap), _index(detour))
    except OSError as e:
        return _problem(wanted, "put", e)
    return None


def drop_shaper(old: Shaper) -> Problem | None:
    """Remove a shaper, or what is left of it.

    The entrance that its filter hung on stays: it may be of use to others.
    """
    tap, detour = old.interface, detour_of(old.interface)
    try:
        with _open() as kernel:
            if old.direction is Direction.INGRESS:
                gone = _TC.pack(0, 0, 0, _index(tap), _HANDLE, _ROOT, 0)
                _ask(kernel, _DELETE_QDISC, 0, gone, ignored=_GONE)
                return None
            _lead_back(kernel, tap)
            link = _LINK.pack(0, 0, 0, 0, 0, 0) + _text(_NAME, detour)
            _ask(kernel, _DELETE_LINK, 0, link, ignored=_GONE)
    except OSError as e:
        return None if e.errno in _GONE else _problem(old, "drop", e)
    return None


def _problem(shaper: Shaper, wish: str, e: OSError) -> Problem:
    subject = f"{shaper.direction.value} limit of {shaper.interface}"
    return Problem(subject, wish, f"{errno.errorcode.get(e.errno or 0)}, {e.strerror}")


def _make_detour(kernel: socket.socket, name: InterfaceName) -> None:
    kind = _attribute(_LINK_INFO, _text(_INFO_KIND, "ifb"))
    link = _LINK.pack(0, 0, 0, 0, 0, 0) + _text(_NAME, name) + kind
    _ask(kernel, _NEW_LINK, _CREATE, link)
    # Nobody is to speak on it for itself: it would get an address when it is up.
    mode = _attribute(_ADDRESS_MODE, _NO_ADDRESSES)
    quiet = _attribute(_FAMILIES, _attribute(socket.AF_INET6, mode))
    _ask(kernel, _NEW_LINK, 0, _LINK.pack(0, 0, 0, _index(name), 0, 0) + quiet)
    _ask(kernel, _NEW_LINK, 0, _LINK.pack(0, 0, 0, _index(name), _UP, _UP))


def _bucket(index: int, wanted: Shaper) -> tuple[int, int, bytes]:
    """Return the message that puts a bucket at the root of a link, or changes it."""
    rate = min(wanted.rate, _LARGEST)
    parameters = _BUCKET.pack(0, _ETHERNET, 0, 0, 0, rate, wanted.queue, 0, 0)
    options = _attribute(_PARAMETERS, parameters)
    if wanted.rate > _LARGEST:
        options += _attribute(_RATE64, struct.pack("=Q", wanted.rate))
    options += _attribute(_BURST, struct.pack("=I", min(wanted.burst, _LARGEST)))
    body = _TC.pack(0, 0, 0, index, _HANDLE, _ROOT, 0) + _text(_KIND, "tbf")
    return _NEW_QDISC, _CREATE | _REPLACE, body + _attribute(_OPTIONS, options)


def _lead_away(kernel: socket.socket, tap: int, detour: int) -> None:
    entrance = _TC.pack(0, 0, 0, tap, _ENTRANCE_HANDLE, _ENTRANCE, 0)
    _ask(kernel, _NEW_QDISC, _CREATE | _REPLACE, entrance + _text(_KIND, "clsact"))
    _ask(kernel, _DELETE_FILTER, 0, _filter(tap), ignored={*_GONE, errno.EINVAL})
    redirect = _REDIRECT.pack(0, 0, _STOLEN, 0, 0, _TO_QUEUE, detour)
    action = _text(_KIND, "mirred") + _attribute(
        _OPTIONS,
        _attribute(2, redirect),  # TCA_MIRRED_PARMS
    )
    options = _attribute(
        _SELECTOR, _KEY.pack(_TERMINAL, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0)
    )
    options += _attribute(_ACTION, _attribute(1, action))
    body = _filter(tap) + _text(_KIND, "u32") + _attribute(_OPTIONS, options)
    _ask(kernel, _NEW_FILTER, _CREATE, body)


def _lead_back(kernel: socket.socket, tap: InterfaceName) -> None:
    try:
        index = _index(tap)
    except OSError:
        return  # the filter went with the tap
    _ask(kernel, _DELETE_FILTER, 0, _filter(index), ignored={*_GONE, errno.EINVAL})


def _filter(tap: int) -> bytes:
    where = _PREFERENCE << 16 | _ALL_PROTOCOLS
    return _TC.pack(0, 0, 0, tap, 0, _ENTERING, where)


def _queues(
    kernel: socket.socket,
) -> tuple[Mapping[int, tuple[int, int, int]], set[int]]:
    """Return our buckets by their link's index, and the links that have an entrance."""
    buckets: dict[int, tuple[int, int, int]] = {}
    entrances = set()
    for message in dump_table(kernel, _GET_QDISC, _TC.pack(0, 0, 0, 0, 0, 0, 0)):
        _, _, _, index, handle, parent, _ = _TC.unpack_from(message)
        if parent == _ENTRANCE:
            entrances.add(index)
        elif handle == _HANDLE and parent == _ROOT:
            options = attributes(attributes(message, _TC.size).get(_OPTIONS, b""), 0)
            if _PARAMETERS in options:
                buckets[index] = _read_bucket(options)
    return buckets, entrances


def _read_bucket(options: Mapping[int, bytes]) -> tuple[int, int, int]:
    """Return rate, burst and queue; the kernel tells a burst as the time it takes."""
    *_, rate, queue, ticks, _ = _BUCKET.unpack_from(options[_PARAMETERS])
    if _RATE64 in options:
        (rate,) = struct.unpack("=Q", options[_RATE64])
    return rate, rounded(round(ticks * _TICK * rate / 1e9), rate), queue


def _turned_to(kernel: socket.socket, tap: int) -> int | None:
    """Return the link that our filter of a tap leads to; None if there is no filter."""
    request = _TC.pack(0, 0, 0, tap, 0, _ENTERING, 0)
    where = None
    for message in dump_table(kernel, _GET_FILTER, request):
        *_, info = _TC.unpack_from(message)
        if info >> 16 != _PREFERENCE:
            continue
        where = where or 0  # there is something of ours
        found = attributes(message, _TC.size).get(_OPTIONS, b"")
        # Options, actions, the first one, its options, its parameters: nested.
        for kind in (_ACTION, 1, _OPTIONS, 2):
            found = attributes(found, 0).get(kind, b"")
        if len(found) >= _REDIRECT.size:
            where = _REDIRECT.unpack_from(found)[-1]
    return where


def _open() -> socket.socket:
    kernel = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)
    kernel.settimeout(10)
    kernel.bind((0, 0))
    return kernel


def _index(name: InterfaceName) -> int:
    try:
        return socket.if_nametoindex(name)
    except OSError as e:
        raise OSError(errno.ENODEV, os.strerror(errno.ENODEV)) from e


def _ask(
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


def _text(kind: int, value: str) -> bytes:
    return _attribute(kind, value.encode() + b"\0")


def _attribute(kind: int, value: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(value), kind) + value + bytes(-len(value) % 4)
