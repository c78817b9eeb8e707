"""A long way to a server on loopback: a TCP relay with a delay, that can be stalled."""

import asyncio
import contextlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

_CHUNK = 65536


class SlowRelay:
    """Carries bytes both ways, each portion `delay` seconds late: none at first."""

    def __init__(self, target: str) -> None:
        self._target = urlsplit(target)
        self.delay = 0.0
        self._runner = asyncio.Runner()
        self._open = asyncio.Event()
        self._ended = asyncio.Event()
        self._port = 0

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    def stall(self) -> None:
        """Carry nothing, on connections that stay open."""
        self._runner.get_loop().call_soon_threadsafe(self._open.clear)

    def flow(self) -> None:
        """Carry on with what was held."""
        self._runner.get_loop().call_soon_threadsafe(self._open.set)

    def run(self, ready: threading.Event) -> None:
        with self._runner:
            self._runner.run(self._serve(ready))

    def end(self) -> None:
        self._runner.get_loop().call_soon_threadsafe(self._ended.set)

    async def _serve(self, ready: threading.Event) -> None:
        self._open.set()
        server = await asyncio.start_server(self._carry, "127.0.0.1", 0)
        self._port = server.sockets[0].getsockname()[1]
        ready.set()
        await self._ended.wait()
        server.close()

    async def _carry(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        host, port = self._target.hostname, self._target.port
        inner = await asyncio.open_connection(host, port)
        with contextlib.suppress(asyncio.CancelledError, OSError):
            await asyncio.gather(
                self._pump(reader, inner[1]), self._pump(inner[0], writer)
            )
        inner[1].close()
        writer.close()

    async def _pump(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        while data := await reader.read(_CHUNK):
            await asyncio.sleep(self.delay)
            await self._open.wait()
            writer.write(data)
            await writer.drain()
        writer.close()


@contextmanager
def slow_relay(target: str) -> Iterator[SlowRelay]:
    relay, ready = SlowRelay(target), threading.Event()
    thread = threading.Thread(target=relay.run, args=(ready,))
    thread.start()
    try:
        assert ready.wait(10)
        yield relay
    finally:
        relay.end()
        thread.join()
