"""The sockets that instances reach: two for each interface, bound to it.

An instance is known by the socket that its connection came by, and that by the index of
its interface: no address that a guest could claim has a say in it (P42), and a tap that
is made anew under an old name is another.
"""

import asyncio
import logging
import socket
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable
from functools import partial

from calico.plan.items import METADATA4, METADATA6
from calico.plan.metadata import MetadataPort

MOST = 16
"""Connections of one instance at a time; more are closed."""

_HTTP = 80
_BIND_TO_INDEX = 62  # SO_BINDTOIFINDEX, linux/socket.h
_FREEBIND = {4: (socket.IPPROTO_IP, 15), 6: (socket.IPPROTO_IPV6, 78)}  # *_FREEBIND

Serve = Callable[
    [MetadataPort, int, asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]
]
_Place = tuple[int, int]  # the interface's index, the version of IP

log = logging.getLogger("calico.metadata")


class Listeners:
    """Listens for the ports that there are; `serve` is given what comes."""

    def __init__(self, serve: Serve) -> None:
        self._serve = serve
        self._ports: dict[int, MetadataPort] = {}
        self._servers: dict[_Place, asyncio.Server] = {}
        self._tasks: dict[asyncio.Task[None], tuple[int, MetadataPort]] = {}
        self._open: Counter[int] = Counter()
        self._told: set[str] = set()

    async def follow(self, ports: Iterable[MetadataPort]) -> bool:
        """Listen for these ports and no others; return whether that is possible.

        Connections of a port that is gone, or another now, end.
        """
        self._ports = {port.index: port for port in ports}
        wanted = {(index, version) for index in self._ports for version in (4, 6)}
        for place in self._servers.keys() - wanted:
            self._servers.pop(place).close()
        for task, (index, port) in self._tasks.items():
            if self._ports.get(index) != port:
                task.cancel()
        failures = set()
        for place in wanted - self._servers.keys():
            try:
                self._servers[place] = await self._listen(*place)
            except OSError as e:
                name = self._ports[place[0]].interface
                failures.add(f"{name}, IPv{place[1]}: {e}")
        for failure in failures - self._told:
            log.warning("not listening on %s", failure)
        self._told = failures
        return not failures

    async def _listen(self, index: int, version: int) -> asyncio.Server:
        listening = _socket(index, version)
        accept = partial(self._accept, index, version)
        return await asyncio.start_server(
            accept, sock=listening, backlog=MOST, limit=1 << 16
        )

    async def _accept(
        self,
        index: int,
        version: int,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        task = asyncio.current_task()
        port = self._ports.get(index)
        if port is None or task is None or self._open[index] >= MOST:
            writer.transport.abort()
            return
        self._open[index] += 1
        self._tasks[task] = (index, port)
        try:
            await self._serve(port, version, reader, writer)
        except asyncio.CancelledError:
            writer.transport.abort()
        finally:
            del self._tasks[task]
            self._open[index] -= 1
            self._open += Counter()  # keeps none that is zero


def _socket(index: int, version: int) -> socket.socket:
    """Return a socket that hears of one interface only; OSError if it cannot be had.

    It needs no address yet: that comes and goes with the kernel's state.
    """
    family = socket.AF_INET if version == 4 else socket.AF_INET6
    found = socket.socket(family, socket.SOCK_STREAM)
    try:
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        found.setsockopt(socket.SOL_SOCKET, _BIND_TO_INDEX, index)
        found.setsockopt(*_FREEBIND[version], 1)
        if version == 4:
            found.bind((str(METADATA4), _HTTP))
        else:
            found.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            found.bind((str(METADATA6), _HTTP, 0, index))
        found.setblocking(False)
    except OSError:
        found.close()
        raise
    return found
