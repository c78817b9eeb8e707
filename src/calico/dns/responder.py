"""Answers instances: each with its own project's names.

All that one instance can use up is counted for it alone: questions a second, and those
that wait for a resolver.
"""

import asyncio
import logging
import struct
import time
from collections import Counter
from dataclasses import dataclass, field

from calico.dns.answers import Passed, Way, answer
from calico.dns.resolvers import Resolvers, Unavailable
from calico.dns.zone import Zone, zone_of
from calico.model.ids import ProjectId
from calico.plan.dns_table import DnsPort, DnsTable

MOST_WAITING = 64
"""Questions of one instance that wait for a resolver; more fail at once."""

_RATE, _BURST = 300, 600  # questions of one instance a second
_IDLE = 10.0  # seconds between the questions of a connection
_LONGEST = 4096  # octets of a question

log = logging.getLogger("calico.dns")


@dataclass(slots=True)
class _Allowance:
    """What an instance may still ask, as of a moment."""

    moment: float
    left: float = _BURST

    def take(self, now: float) -> bool:
        self.left = min(_BURST, self.left + (now - self.moment) * _RATE)
        self.moment = now
        if self.left < 1:
            return False
        self.left -= 1
        return True


@dataclass(slots=True)
class Responder:
    """What is known, and who has asked how much."""

    _table: DnsTable = field(default_factory=DnsTable)
    _zones: dict[ProjectId, Zone] = field(default_factory=dict)
    _nothing: Zone = field(default_factory=Zone)
    _resolvers: Resolvers | None = None
    _allowances: dict[int, _Allowance] = field(default_factory=dict)
    _waiting: Counter[int] = field(default_factory=Counter)
    _failing: bool = False

    def follow(self, table: DnsTable) -> None:
        """Know what a table says, and nothing else."""
        before, self._table = self._table, table
        same = table.domains == before.domains
        self._zones = {
            project: self._zones[project]
            if same and known == before.names.get(project)
            else zone_of(known, table.domains)
            for project, known in table.names.items()
        }
        self._nothing = zone_of((), table.domains)
        if table.resolvers != before.resolvers:
            self._resolvers = Resolvers(table.resolvers) if table.resolvers else None
        known = {port.index for port in table.ports}
        for index in self._allowances.keys() - known:
            del self._allowances[index]

    async def datagram(self, port: DnsPort, asked: bytes) -> bytes | None:
        """Return the answer to a datagram; None if it gets none."""
        if not self._allowed(port):
            return None
        return await self._answer(port, asked, datagram=True)

    async def serve(
        self,
        port: DnsPort,
        _version: int,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        """Answer the questions of a connection, one after the other."""
        try:
            while await self._serve_one(port, reader, writer):
                pass
        except (OSError, EOFError):  # a timeout is an OSError
            writer.transport.abort()
        finally:
            writer.close()

    async def _serve_one(
        self, port: DnsPort, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> bool:
        async with asyncio.timeout(_IDLE):
            (length,) = struct.unpack("!H", await reader.readexactly(2))
            if length > _LONGEST or not self._allowed(port):
                return False
            asked = await reader.readexactly(length)
        answered = await self._answer(port, asked, datagram=False)
        if answered is None:
            return False
        writer.write(struct.pack("!H", len(answered)) + answered)
        async with asyncio.timeout(_IDLE):
            await writer.drain()
        return True

    def _allowed(self, port: DnsPort) -> bool:
        now = time.monotonic()
        return self._allowances.setdefault(port.index, _Allowance(now)).take(now)

    async def _answer(
        self, port: DnsPort, asked: bytes, *, datagram: bool
    ) -> bytes | None:
        zone = self._zones.get(port.project, self._nothing)
        resolvers = self._resolvers
        way = Way(datagram=datagram, resolvers=resolvers is not None)
        found = answer(asked, zone, way)
        if not isinstance(found, Passed) or resolvers is None:
            return found if isinstance(found, bytes) else None
        if self._waiting[port.index] >= MOST_WAITING:
            return found.failed
        self._waiting[port.index] += 1
        try:
            told = await resolvers.ask(found.question, datagram=datagram)
        except Unavailable as e:
            self._tell(port, e)
            return found.failed
        finally:
            self._waiting[port.index] -= 1
            self._waiting += Counter()  # keeps none that is zero
        self._failing = False
        return found.answer(told)

    def _tell(self, port: DnsPort, failure: Unavailable) -> None:
        """Log that resolvers fail, once: instances may ask hundreds of times."""
        if not self._failing:
            log.warning("no answer for %s: %s", port.interface, failure)
        self._failing = True
