"""Connections in memory, in the place of the kernel's: for tests of logic."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace

from calico.model.ids import Address
from calico.policy.evaluate import Packet
from calico.reconcile.problem import Problem
from calico.system.conntrack import Connection


class FakeConnections:
    """Connections that began with these packets. Counts how often it was read.

    Reading them raises `failure`, if there is one.
    """

    def __init__(self, packets: Iterable[Packet] = ()) -> None:
        self._connections = {
            bytes([number]): Connection(packet=packet, cut=False, key=bytes([number]))
            for number, packet in enumerate(packets)
        }
        self.reads = 0
        self.failure: Exception | None = None

    def read(self, concern: Callable[[Address], bool]) -> Iterator[Connection]:
        """Yield those with an end that is of concern."""
        self.reads += 1
        if self.failure is not None:
            raise self.failure
        for one in tuple(self._connections.values()):
            if concern(one.packet.source) or concern(one.packet.destination):
                yield one

    def mark(self, connections: Sequence[Connection], *, cut: bool) -> list[Problem]:
        """Cut connections off, or let them go on."""
        for one in connections:
            assert self._connections[one.key].cut is not cut, "marked so already"  # noqa: S101
            self._connections[one.key] = replace(one, cut=cut)
        return []

    def forget(self, connections: Sequence[Connection]) -> list[Problem]:
        """Let them begin anew: they are gone."""
        for one in connections:
            del self._connections[one.key]
        return []

    @property
    def cut(self) -> list[Packet]:
        """The connections that are cut off."""
        return [one.packet for one in self._connections.values() if one.cut]
