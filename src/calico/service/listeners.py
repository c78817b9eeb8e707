"""The sockets that instances reach: of each interface its own, bound to it.

An instance is known by the socket that it was heard on, and that by the index of its
interface: no address that a guest could claim has a say in it (P42), and a tap that is
made anew under an old name is another.
"""

import asyncio
import logging
import socket
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Generic, Protocol, TypeVar, cast

from calico.model.ids import Address
from calico.service.sockets import bound

MOST = 16
"""Connections of one instance at a time; more are closed."""

log = logging.getLogger("calico.service")


class Port(Protocol):
    """A port whose instance is listened to."""

    @property
    def interface(self) -> str:
        """The interface's name, for people."""

    @property
    def index(self) -> int:
        """The interface itself."""


P = TypeVar("P", bound=Port)
Serve = Callable[[P, int, asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
Answer = Callable[[P, bytes], Awaitable[bytes | None]]
_Place = tuple[int, Address]  # the interface's index, the host's address
_Where = tuple[object, ...]  # whom a datagram came from, as the socket has it


@dataclass(frozen=True, slots=True, kw_only=True)
class Desk(Generic[P]):
    """A service: `addresses` of the host, for each port, and the `number` of its own.

    `serve` is given a connection and its version of IP; `answer`, where there is one,
    datagrams, and returns what is sent back.
    """

    addresses: Callable[[P], Iterable[Address]]
    number: int
    serve: Serve[P]
    answer: Answer[P] | None = None


class Listeners(Generic[P]):
    """Listens for the ports that there are."""

    def __init__(self, desk: Desk[P]) -> None:
        self._desk = desk
        self._ports: dict[int, P] = {}
        self._open: dict[_Place, list[_Closable]] = {}
        self._tasks: dict[asyncio.Task[None], tuple[int, P]] = {}
        self._connections: Counter[int] = Counter()
        self._told: set[str] = set()

    async def follow(self, ports: Iterable[P]) -> bool:
        """Listen for these ports and no others; return whether that is possible.

        What a port asked that is gone, or another now, is not answered any more.
        """
        self._ports = {port.index: port for port in ports}
        wanted = {
            (index, address)
            for index, port in self._ports.items()
            for address in self._desk.addresses(port)
        }
        for place in self._open.keys() - wanted:
            for each in self._open.pop(place):
                each.close()
        for task, (index, port) in self._tasks.items():
            if self._ports.get(index) != port:
                task.cancel()
        failures = set()
        for place in wanted - self._open.keys():
            try:
                self._open[place] = await self._listen(*place)
            except OSError as e:
                name = self._ports[place[0]].interface
                failures.add(f"{name}, {place[1]}: {e}")
        for failure in failures - self._told:
            log.warning("not listening on %s", failure)
        self._told = failures
        return not failures

    async def _listen(self, index: int, address: Address) -> "list[_Closable]":
        number = self._desk.number
        listening = bound(socket.SOCK_STREAM, index, address, number)
        accept = partial(self._accept, index, address.version)
        server = await asyncio.start_server(
            accept, sock=listening, backlog=MOST, limit=1 << 16
        )
        if self._desk.answer is None:
            return [server]
        try:
            hearing = bound(socket.SOCK_DGRAM, index, address, number)
        except OSError:
            server.close()
            raise
        protocol = _Datagrams(partial(self._heard, self._desk.answer, index))
        loop = asyncio.get_running_loop()
        transport, _ = await loop.create_datagram_endpoint(
            lambda: protocol, sock=hearing
        )
        return [server, transport]

    async def _accept(
        self,
        index: int,
        version: int,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        task = asyncio.current_task()
        port = self._ports.get(index)
        if port is None or task is None or self._connections[index] >= MOST:
            writer.transport.abort()
            return
        self._connections[index] += 1
        self._tasks[task] = (index, port)
        try:
            await self._desk.serve(port, version, reader, writer)
        except asyncio.CancelledError:
            writer.transport.abort()
        finally:
            del self._tasks[task]
            self._connections[index] -= 1
            self._connections += Counter()  # keeps none that is zero

    def _heard(
        self,
        answer: Answer[P],
        index: int,
        asked: bytes,
        reply: Callable[[bytes], None],
    ) -> None:
        """Have a datagram answered.

        One is read of each socket in turn: nobody waits for another's flood.
        """
        port = self._ports.get(index)
        if port is None:
            return

        async def respond() -> None:
            answered = await answer(port, asked)
            if answered is not None:
                reply(answered)

        task = asyncio.create_task(respond())
        self._tasks[task] = (index, port)
        task.add_done_callback(self._tasks.pop)


class _Closable(Protocol):
    def close(self) -> None: ...


class _Datagrams(asyncio.DatagramProtocol):
    """Datagrams of one socket, each with what sends the answer to it."""

    def __init__(self, heard: Callable[[bytes, Callable[[bytes], None]], None]) -> None:
        self._heard = heard
        self._transport: asyncio.DatagramTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep what sends."""
        # It is one by its methods only: asyncio's own class does not say so.
        self._transport = cast("asyncio.DatagramTransport", transport)

    def datagram_received(self, data: bytes, addr: tuple[object, ...]) -> None:
        """Hand over what was heard."""
        self._heard(data, partial(self._send, addr))

    def _send(self, to: _Where, answer: bytes) -> None:
        if self._transport is not None and not self._transport.is_closing():
            with suppress(OSError):  # the interface may have gone meanwhile
                self._transport.sendto(answer, to)
