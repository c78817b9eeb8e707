"""A responder in every instance that answers what it saw, and the clients for it.

The answer to a datagram or a stream names the source address, the source port and the
TTL that arrived: reachability, absence of NAT and the count of hops from one exchange.
"""

import contextlib
import json
import secrets
import selectors
import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, Self, TypeVar

from calico.verify.cloud import Address

PORT = 7047
STREAM_BYTES = 20_000  # several full segments: a black hole for big packets shows
_IP_RECVTTL = 12  # linux/in.h
_IPV6_RECVHOPLIMIT, _IPV6_HOPLIMIT = 51, 52  # linux/in6.h
_ANCILLARY = 64
_REQUEST = b"verify "

T = TypeVar("T")


class Stack(Protocol):
    """Something with a network stack (cloud.Place)."""

    def inside(self, call: Callable[[], T]) -> T:
        """Call with the stack as the thread's own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What the responder saw of a request; `size` in bytes, `ttl` 0 for a stream."""

    address: str
    port: int
    ttl: int
    size: int


class Responder:
    """Answers on UDP and TCP port PORT, IPv4 and IPv6, in any number of stacks.

    One thread serves all of them. Use as a context manager.
    """

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        self._lock = threading.Lock()
        self._wake, self._woken = socket.socketpair()
        self._selector.register(self._woken, selectors.EVENT_READ, None)
        self._stopping = False
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._stopping = True
        self._wake.send(b"x")
        self._thread.join()
        with self._lock:
            for key in list(self._selector.get_map().values()):
                key.fileobj.close()  # type: ignore[union-attr]  # all are sockets
            self._selector.close()
        self._wake.close()

    def serve(self, place: Stack, port: int = PORT) -> None:
        """Begin to answer in a stack. OSError if the port is taken there."""
        sockets = place.inside(lambda: _listeners(port))
        with self._lock:
            for sock, answer in sockets:
                self._selector.register(sock, selectors.EVENT_READ, answer)
        self._wake.send(b"x")

    def _serve(self) -> None:
        while not self._stopping:
            for key, _ in self._selector.select():
                assert isinstance(key.fileobj, socket.socket)  # noqa: S101 - ours
                if key.data is None:
                    key.fileobj.recv(64)
                    continue
                # A client that is gone again concerns nobody but itself.
                with contextlib.suppress(OSError):
                    key.data(key.fileobj)


def _listeners(
    port: int,
) -> list[tuple[socket.socket, Callable[[socket.socket], None]]]:
    made: list[tuple[socket.socket, Callable[[socket.socket], None]]] = []
    for family in (socket.AF_INET, socket.AF_INET6):
        datagram = socket.socket(family, socket.SOCK_DGRAM)
        stream = socket.socket(family, socket.SOCK_STREAM)
        stream.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            for sock in (datagram, stream):
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            datagram.setsockopt(socket.IPPROTO_IPV6, _IPV6_RECVHOPLIMIT, 1)
        else:
            datagram.setsockopt(socket.IPPROTO_IP, _IP_RECVTTL, 1)
        for sock in (datagram, stream):
            sock.bind(("", port))
        stream.listen(64)
        made += [(datagram, _answer_datagram), (stream, _answer_stream)]
    return made


def _answer_datagram(sock: socket.socket) -> None:
    payload, ancillary, _, source = sock.recvmsg(65535, _ANCILLARY)
    if not payload.startswith(_REQUEST):
        return  # as multicast and broadcast frames of our own may be
    ttl = next(
        (
            int.from_bytes(value[:4], "little")
            for level, kind, value in ancillary
            if (level, kind)
            in {
                (socket.IPPROTO_IP, socket.IP_TTL),
                (socket.IPPROTO_IPV6, _IPV6_HOPLIMIT),
            }
        ),
        0,
    )
    sock.sendto(_answer(payload, source, ttl), source)


def _answer_stream(listener: socket.socket) -> None:
    connection, source = listener.accept()

    def converse() -> None:
        with connection, contextlib.suppress(OSError):
            connection.settimeout(5)
            received = bytearray()
            while chunk := connection.recv(65535):
                received += chunk
            connection.sendall(_answer(bytes(received), source, 0))

    threading.Thread(target=converse, daemon=True).start()


def _answer(payload: bytes, source: tuple[str, int], ttl: int) -> bytes:
    nonce = payload[len(_REQUEST) :].split(b" ", 1)[0].decode(errors="replace")
    return json.dumps(
        {
            "nonce": nonce,
            "address": source[0],
            "port": source[1],
            "ttl": ttl,
            "size": len(payload),
        }
    ).encode()


def request(marker: bytes = b"", size: int = 0) -> tuple[str, bytes]:
    """Return a fresh request (nonce, payload) that carries a marker, padded to size."""
    nonce = secrets.token_hex(8)
    payload = _REQUEST + nonce.encode() + b" " + marker
    return nonce, payload.ljust(size, b".")


def read_answer(reply: bytes, nonce: str) -> Seen | None:
    """Return what a reply says, or None if it answers another request."""
    try:
        fields = json.loads(reply)
        if fields.pop("nonce") != nonce:
            return None
        return Seen(**fields)
    except (ValueError, KeyError, TypeError):
        return None


def ask_datagram(
    place: Stack,
    target: tuple[Address, int],
    marker: bytes = b"",
    within: float = 1.0,
) -> Seen | str:
    """Send a datagram and wait for the answer; a string says what went wrong."""
    family = _family(target[0])
    sock = place.inside(lambda: socket.socket(family, socket.SOCK_DGRAM))
    nonce, payload = request(marker)
    with sock:
        try:
            sock.settimeout(within)
            sock.connect((str(target[0]), target[1]))
            sock.send(payload)
            seen = read_answer(sock.recv(65535), nonce)
        except OSError as e:
            return f"UDP to {target[0]}: {e}"
    return seen or f"UDP to {target[0]}: an answer to another request"


def ask_stream(
    place: Stack,
    target: tuple[Address, int],
    marker: bytes = b"",
    within: float = 2.0,
) -> Seen | str:
    """Open a stream, send STREAM_BYTES, read the answer; a string if that fails."""
    family = _family(target[0])
    sock = place.inside(lambda: socket.socket(family, socket.SOCK_STREAM))
    nonce, payload = request(marker, STREAM_BYTES)
    with sock:
        try:
            sock.settimeout(within)
            sock.connect((str(target[0]), target[1]))
            sock.sendall(payload)
            sock.shutdown(socket.SHUT_WR)
            reply = b""
            while chunk := sock.recv(65535):
                reply += chunk
        except OSError as e:
            return f"TCP to {target[0]}: {e}"
    seen = read_answer(reply, nonce)
    if seen is None:
        return f"TCP to {target[0]}: no answer after {len(reply)} bytes"
    if seen.size != len(payload):
        return f"TCP to {target[0]}: {seen.size} of {len(payload)} bytes arrived"
    return seen


def _family(address: Address) -> socket.AddressFamily:
    return socket.AF_INET if address.version == 4 else socket.AF_INET6
