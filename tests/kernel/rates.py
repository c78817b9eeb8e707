"""How much arrives of what is sent: TCP at full speed, and datagrams at once."""

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from tests.kernel.netns import Netns, in_netns

_PIECE = b"x" * 65536


@dataclass
class Stream:
    """A TCP connection that its sender fills as fast as it goes.

    What a limit allows is known strictly only from the connection's start on: a reader
    that had to wait for its turn, or for a lost segment, then gets much at once.
    """

    receiver: socket.socket
    start: float
    total: int = 0  # bits that came since

    def read(self, seconds: float) -> float:
        """Read for a while; return the bits that came in a second."""
        start, before = time.monotonic(), self.total
        while (left := start + seconds - time.monotonic()) > 0:
            self.receiver.settimeout(left)
            try:
                self.total += 8 * len(self.receiver.recv(1 << 20))
            except TimeoutError:
                break
        return (self.total - before) / (time.monotonic() - start)

    @property
    def elapsed(self) -> float:
        """Return the seconds since the start."""
        return time.monotonic() - self.start


@contextmanager
def stream(
    source: Netns | str,
    target: Netns | str,
    address: str,
    *,
    own: str | None = None,
    back: bool = False,
) -> Iterator[Stream]:
    """Keep a connection filled from one namespace to an address of another.

    `own` is the target's own address, where that is another; what goes `back` is sent
    by the target.
    """
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with in_netns(target):
        listener = socket.create_server((own or address, 0), family=family)
    start = time.monotonic()
    with listener:
        with in_netns(source):
            port = listener.getsockname()[1]
            sender = socket.create_connection((address, port), 10)
        receiver, _ = listener.accept()
        if back:
            sender, receiver = receiver, sender
    thread = threading.Thread(target=_fill, args=[sender], daemon=True)
    thread.start()
    try:
        yield Stream(receiver, start)
    finally:
        sender.shutdown(socket.SHUT_RDWR)
        thread.join()
        receiver.close()
        sender.close()


def _fill(sender: socket.socket) -> None:
    sender.setblocking(True)
    try:
        while True:
            sender.sendall(_PIECE)
    except OSError:
        pass  # it was shut down


def datagrams(
    source: Netns, target: Netns, address: str, count: int
) -> tuple[int, float]:
    """Send datagrams at once; return how many came, and within how many seconds."""
    with _receiver(target, address) as receiver:
        start = time.monotonic()
        with in_netns(source), socket.socket(receiver.family, socket.SOCK_DGRAM) as out:
            out.connect(receiver.getsockname()[:2])
            for _ in range(count):
                out.send(b"x")
        receiver.settimeout(0.3)
        arrived = 0
        try:
            while receiver.recv(16):
                arrived += 1
        except TimeoutError:
            return arrived, time.monotonic() - start
    raise AssertionError("an empty datagram")


def traffic_class(source: Netns, target: Netns, address: str) -> int:
    """Return the DSCP with which a datagram arrives."""
    with _receiver(target, address) as receiver:
        if receiver.family == socket.AF_INET:
            receiver.setsockopt(socket.IPPROTO_IP, socket.IP_RECVTOS, 1)
        else:
            receiver.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVTCLASS, 1)
        with in_netns(source), socket.socket(receiver.family, socket.SOCK_DGRAM) as out:
            out.sendto(b"x", receiver.getsockname()[:2])
        receiver.settimeout(10)
        _, ((_, _, octets),), *_ = receiver.recvmsg(16, 64)
        return octets[0] >> 2


@contextmanager
def _receiver(at: Netns, address: str) -> Iterator[socket.socket]:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with in_netns(at), socket.socket(family, socket.SOCK_DGRAM) as receiver:
        receiver.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        receiver.bind((address, 0))
        yield receiver
