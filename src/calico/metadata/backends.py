"""The cloud's metadata backends: one is asked, and another where that fails.

The one that answered last is asked first. A question that a backend may have acted on
is not asked twice: after it was sent, only what changes nothing goes to the next.
"""

import asyncio
import ssl
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from urllib.parse import urlsplit

import h11

from calico.config import MetadataSettings
from calico.metadata.headers import Headers

_CONNECT = 3.0  # seconds for a connection, TLS included
_ANSWER = 30.0  # seconds until an answer begins: Nova asks others in turn
_CHUNK = 1 << 16
_BUSY = frozenset({502, 503, 504})
_HARMLESS = frozenset({b"GET", b"HEAD"})


class Unavailable(Exception):  # noqa: N818 - names what the backends are
    """No backend answered; the message says why the last one did not."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """A request as every backend gets it."""

    method: bytes
    target: bytes
    headers: Headers
    body: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a backend answers; its body is still to be read. To be closed."""

    head: h11.Response
    stream: "_Stream"

    async def body(self) -> AsyncIterator[bytes]:
        """Yield the body; Unavailable if it does not come whole."""
        while True:
            event = await self.stream.event()
            if isinstance(event, h11.Data):
                yield bytes(event.data)
            elif isinstance(event, h11.EndOfMessage):
                return

    def close(self) -> None:
        """End the connection."""
        self.stream.close()


def tls_context(settings: MetadataSettings) -> ssl.SSLContext:
    """Return how backends prove who they are, and this host to them.

    OSError for a file that cannot be read or used.
    """
    context = ssl.create_default_context(cafile=settings.ca)
    if settings.cert is not None:
        context.load_cert_chain(settings.cert, settings.key)
    return context


class Backends:
    """One or more backends, by their URLs."""

    def __init__(self, urls: Sequence[str], tls: ssl.SSLContext) -> None:
        self._urls = tuple(urls)
        self._tls = tls
        self._first = 0

    async def ask(self, question: Question) -> Answer:
        """Return an answer; Unavailable if there is none."""
        reason = "there is no backend"
        count = len(self._urls)
        for number in [(self._first + n) % count for n in range(count)]:
            try:
                stream = await self._connect(self._urls[number])
            except (OSError, ssl.SSLError) as e:
                reason = f"{self._urls[number]}: {e or type(e).__name__}"
                continue
            try:
                answer = await stream.ask(question)
            except Unavailable as e:
                reason = f"{self._urls[number]}: {e}"
                if question.method in _HARMLESS:
                    continue
                break
            self._first = number
            return answer
        raise Unavailable(reason)

    async def _connect(self, url: str) -> "_Stream":
        parts = urlsplit(url)
        tls = self._tls if parts.scheme == "https" else None
        port = parts.port or (443 if tls else 80)
        async with asyncio.timeout(_CONNECT):
            reader, writer = await asyncio.open_connection(
                parts.hostname, port, ssl=tls, limit=_CHUNK
            )
        return _Stream(parts.netloc, reader, writer)


class _Stream:
    """A connection to one backend, for one question."""

    def __init__(
        self, authority: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self._authority = authority.encode()
        self._reader = reader
        self._writer = writer
        self._http = h11.Connection(h11.CLIENT)

    async def ask(self, question: Question) -> Answer:
        """Return the beginning of the answer; Unavailable, and closed, without one."""
        try:
            async with asyncio.timeout(_ANSWER):
                await self._send(question)
                head = await self._head()
        except TimeoutError as e:
            self.close()
            raise Unavailable(f"no answer in {_ANSWER:.0f} s") from e
        except BaseException:
            self.close()
            raise
        return Answer(head=head, stream=self)

    async def _head(self) -> h11.Response:
        while not isinstance(event := await self.event(), h11.Response):
            pass  # 1xx
        if event.status_code in _BUSY:
            raise Unavailable(f"status {event.status_code}")
        return event

    async def _send(self, question: Question) -> None:
        request = h11.Request(
            method=question.method,
            target=question.target,
            headers=[(b"Host", self._authority), *question.headers],
        )
        events: list[h11.Event] = [request]
        if question.body:
            events.append(h11.Data(data=question.body))
        try:
            for event in (*events, h11.EndOfMessage()):
                self._writer.write(self._http.send(event) or b"")
            await self._writer.drain()
        except OSError as e:
            raise Unavailable(str(e)) from e

    async def event(self) -> h11.Event:
        """Return what comes next; Unavailable if that is no HTTP, or nothing."""
        try:
            while (event := self._http.next_event()) is h11.NEED_DATA:
                self._http.receive_data(await self._reader.read(_CHUNK))
        except (h11.RemoteProtocolError, OSError) as e:
            raise Unavailable(str(e)) from e
        if isinstance(event, type | h11.ConnectionClosed):
            raise Unavailable("it ended the connection")
        return event

    def close(self) -> None:
        """End the connection."""
        with suppress(OSError):
            self._writer.close()
