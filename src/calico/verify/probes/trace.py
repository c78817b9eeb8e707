"""A traceroute that also learns the TTL with which its last probe arrived.

Datagrams with a growing TTL go to the target's responder; routers answer with
time-exceeded, read from the socket's error queue (ip(7), IP_RECVERR).
"""

import ipaddress
import select
import socket
import struct
import time
from dataclasses import dataclass

from calico.verify.cloud import Address
from calico.verify.probes.echo import Seen, Stack, read_answer, request

_MOST_HOPS = 16
_TRIES = 3
_PATIENCE = 1.1  # seconds; Linux sends one ICMP error a second to one peer after six
_IP_RECVERR, _IPV6_RECVERR = 11, 25  # linux/in.h, in6.h
_ORIGIN_ICMP = {4: 2, 6: 3}  # linux/errqueue.h
_TIME_EXCEEDED = {4: 11, 6: 3}
_ERROR = struct.Struct("=IBBBBII")  # struct sock_extended_err


@dataclass(frozen=True, slots=True, kw_only=True)
class Path:
    """Routers in order (None: one that did not answer) and what arrived in the end."""

    hops: tuple[Address | None, ...]
    seen: Seen | None

    def __str__(self) -> str:
        hops = " ".join(str(hop) if hop else "*" for hop in self.hops) or "no hop"
        end = f"arrives with TTL {self.seen.ttl}" if self.seen else "never arrives"
        return f"{hops}; {end}"


def trace(place: Stack, target: tuple[Address, int]) -> Path:
    """Find the routers between a stack and a responder."""
    sock = place.inside(lambda: _open(target[0].version))
    hops: list[Address | None] = []
    with sock:
        for ttl in range(1, _MOST_HOPS + 1):
            answer = _step(sock, target, ttl)
            if isinstance(answer, Seen):
                return Path(hops=tuple(hops), seen=answer)
            hops.append(answer)
            if hops[-3:] == [None, None, None]:
                break
    return Path(hops=tuple(hops), seen=None)


def judge(path: Path) -> str | None:
    """Return what S2 finds wrong with a path, or None.

    At least one hop, each of them answering, and the probe that first arrives does so
    with a TTL of 1: each hop took exactly one.
    """
    if path.seen is None or not path.hops or None in path.hops:
        return str(path)
    return None if path.seen.ttl == 1 else f"hops do not match the TTL: {path}"


def _open(version: int) -> socket.socket:
    if version == 4:
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        sock.setsockopt(socket.IPPROTO_IP, _IP_RECVERR, 1)
    else:
        sock = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
        sock.setsockopt(socket.IPPROTO_IPV6, _IPV6_RECVERR, 1)
    sock.setblocking(False)
    return sock


def _step(
    sock: socket.socket, target: tuple[Address, int], ttl: int
) -> Seen | Address | None:
    version = target[0].version
    if version == 4:
        sock.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, ttl)
    else:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_UNICAST_HOPS, ttl)
    for _ in range(_TRIES):
        nonce, payload = request()
        try:
            sock.sendto(payload, (str(target[0]), target[1]))
        except OSError:
            continue  # an error of the probe before, reported late
        answer = _await(sock, version, (nonce, payload))
        if answer is not None:
            return answer
    return None


def _await(
    sock: socket.socket, version: int, sent: tuple[str, bytes]
) -> Seen | Address | None:
    deadline = time.monotonic() + _PATIENCE
    poll = select.poll()
    poll.register(sock, select.POLLIN)
    while (left := deadline - time.monotonic()) > 0:
        for _, event in poll.poll(left * 1000):
            answer = (
                _read_error(sock, version, sent[1])
                if event & select.POLLERR
                else _read_reply(sock, sent[0])
            )
            if answer is not None:
                return answer
    return None


def _read_reply(sock: socket.socket, nonce: str) -> Seen | None:
    try:
        return read_answer(sock.recv(65535), nonce)
    except OSError:
        return None


def _read_error(sock: socket.socket, version: int, sent: bytes) -> Address | None:
    try:
        payload, ancillary, _, _ = sock.recvmsg(65535, 512, socket.MSG_ERRQUEUE)
    except OSError:
        return None
    # Routers return the beginning of what they dropped (RFC 792: eight bytes at least).
    if not sent.startswith(payload):
        return None
    wanted = {(socket.IPPROTO_IP, _IP_RECVERR), (socket.IPPROTO_IPV6, _IPV6_RECVERR)}
    for level, kind, value in ancillary:
        if (level, kind) in wanted and len(value) > _ERROR.size:
            _, origin, icmp, *_ = _ERROR.unpack_from(value)
            if (origin, icmp) == (_ORIGIN_ICMP[version], _TIME_EXCEEDED[version]):
                return _offender(version, value[_ERROR.size :])
    return None


def _offender(version: int, sockaddr: bytes) -> Address:
    if version == 4:
        return ipaddress.IPv4Address(sockaddr[4:8])
    return ipaddress.IPv6Address(sockaddr[8:24])
