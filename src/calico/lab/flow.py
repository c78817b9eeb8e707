"""A flow of numbered packets between two instances, and what of it was lost."""

import socket
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Self

from calico.lab import inside

RATE = 1000  # packets a second: one lost is a millisecond of traffic
_PORT = 17171
_GRACE = 0.3  # seconds that a packet may take


@dataclass(frozen=True, slots=True, kw_only=True)
class Loss:
    """Packets sent and lost, and the most that were lost in a row."""

    sent: int
    lost: int
    longest: int

    @property
    def milliseconds(self) -> float:
        """Return how much traffic was lost, as the time that it takes to send."""
        return 1000 * self.lost / RATE


@dataclass(kw_only=True)
class Flow:
    """UDP from one network namespace to an address in another, while it is entered.

    Both sockets live through anything that becomes of the interfaces. What was lost is
    known after the end.
    """

    source: str
    destination: str
    address: str
    _stopped: threading.Event = field(default_factory=threading.Event)
    _seen: set[int] = field(default_factory=set)
    _sent: int = 0
    _threads: list[threading.Thread] = field(default_factory=list)

    def __enter__(self) -> Self:
        receiver, sender = self._socket(self.destination), self._socket(self.source)
        family = receiver.family
        receiver.bind(("::" if family == socket.AF_INET6 else "0.0.0.0", _PORT))  # noqa: S104 - in the guest
        receiver.settimeout(0.1)
        for target, each in ((self._receive, receiver), (self._send, sender)):
            thread = threading.Thread(target=target, args=(each,), daemon=True)
            self._threads.append(thread)
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        for thread in self._threads:
            thread.join()

    @property
    def received(self) -> int:
        """Return how many packets have come."""
        return len(self._seen)

    @property
    def loss(self) -> Loss:
        """Return what was lost, of a flow that has ended."""
        longest = run = 0
        for number in range(self._sent):
            run = 0 if number in self._seen else run + 1
            longest = max(longest, run)
        lost = self._sent - len(self._seen)
        return Loss(sent=self._sent, lost=lost, longest=longest)

    def _socket(self, netns: str) -> socket.socket:
        family = socket.AF_INET6 if ":" in self.address else socket.AF_INET
        return inside.udp_socket(netns, family)

    def _send(self, sender: socket.socket) -> None:
        began = time.monotonic()
        with sender:
            while not self._stopped.is_set():
                due = int((time.monotonic() - began) * RATE)
                while self._sent < due:
                    packet = self._sent.to_bytes(8, "big")
                    with suppress(OSError):  # what cannot be sent is lost too
                        sender.sendto(packet, (self.address, _PORT))
                    self._sent += 1
                time.sleep(0.5 / RATE)

    def _receive(self, receiver: socket.socket) -> None:
        end = None
        with receiver:
            while end is None or time.monotonic() < end:
                if end is None and self._stopped.is_set():
                    end = time.monotonic() + _GRACE
                try:
                    self._seen.add(int.from_bytes(receiver.recv(64), "big"))
                except TimeoutError:
                    continue
