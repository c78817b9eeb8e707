"""One connection of an instance: one question, the backend's answer, the end.

There is never a second question on a connection, so nothing that a guest hides behind
the first is taken for anything. All has its limit: what one may send, how long it may
take; how many at once, the listeners say.
"""

import asyncio
import logging

import h11

from calico.metadata.backends import Answer, Backends, Question, Unavailable
from calico.metadata.headers import METHODS, identity, to_backend, to_guest
from calico.plan.metadata import MetadataPort

MAX_HEAD = 16 << 10  # octets of a request's first line and headers
MAX_BODY = 64 << 10  # of its body: a password, at most
_ASK = 10.0  # seconds for a guest to have asked
_WHOLE = 90.0  # seconds from then until it has read its answer
_CHUNK = 1 << 14

log = logging.getLogger("calico.metadata")


class Refused(Exception):  # noqa: N818 - names what became of the request
    """A request that is not passed on, with the HTTP status that says so."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status


class Exchange:
    """Answers instances by asking the backends."""

    def __init__(self, backends: Backends, secret: bytes) -> None:
        self._backends = backends
        self._secret = secret

    async def serve(
        self,
        port: MetadataPort,
        version: int,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        """Answer what comes on a port's connection over this version of IP."""
        guest = h11.Connection(h11.SERVER, max_incomplete_event_size=MAX_HEAD)
        # What is sent is the kernel's before the connection counts as done: one that
        # does not read would otherwise have more of them than it may.
        writer.transport.set_write_buffer_limits(high=0)
        try:
            async with asyncio.timeout(_ASK):
                asked, body = await _read(guest, reader, writer)
            async with asyncio.timeout(_WHOLE):
                await self._pass_on(port, version, (asked, body), (guest, writer))
        except Refused as e:
            await _refuse(guest, writer, e.status, str(e))
        except Unavailable as e:
            log.warning("no metadata for %s: %s", port.interface, e)
            await _refuse(guest, writer, 503, "the metadata service does not answer")
        except (TimeoutError, OSError, h11.ProtocolError):
            writer.transport.abort()
        finally:
            writer.close()

    async def _pass_on(
        self,
        port: MetadataPort,
        version: int,
        asked: tuple[h11.Request, bytes],
        to: tuple[h11.Connection, asyncio.StreamWriter],
    ) -> None:
        request, body = asked
        who = identity(port, self._secret, version)
        question = Question(
            method=bytes(request.method),
            target=bytes(request.target),
            headers=to_backend(request, body, who),
            body=body,
        )
        answer = await self._backends.ask(question)
        try:
            await _relay(answer, *to)
        finally:
            answer.close()


async def _read(
    guest: h11.Connection, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> tuple[h11.Request, bytes]:
    """Return what a guest asks; Refused if that is nothing to pass on."""
    request, body = None, b""
    while True:
        event = await _next(guest, reader, writer)
        if isinstance(event, h11.Request):
            request = event
            _check(event)
        elif isinstance(event, h11.Data):
            body += event.data
            if len(body) > MAX_BODY:
                raise Refused(413, "too long")
        elif isinstance(event, h11.EndOfMessage) and request is not None:
            return request, body
        else:
            raise ConnectionResetError("the guest asks nothing")


async def _next(
    guest: h11.Connection, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> object:
    """Return what comes next, an event of h11's; Refused where that is no HTTP."""
    try:
        while (event := guest.next_event()) is h11.NEED_DATA:
            if guest.they_are_waiting_for_100_continue:
                go_on = h11.InformationalResponse(status_code=100, headers=[])
                writer.write(guest.send(go_on) or b"")
            guest.receive_data(await reader.read(_CHUNK))
    except h11.RemoteProtocolError as e:
        raise Refused(e.error_status_hint, "not understood") from e
    return event


def _check(request: h11.Request) -> None:
    if request.method not in METHODS:
        raise Refused(405, "no such method here")
    if not request.target.startswith(b"/"):  # a proxy's form, or `*`
        raise Refused(400, "not a path")


async def _relay(
    answer: Answer, guest: h11.Connection, writer: asyncio.StreamWriter
) -> None:
    """Hand an answer to the guest; one that breaks off is broken off there as well."""
    head = h11.Response(
        status_code=answer.head.status_code,
        headers=to_guest(answer.head),
        reason=answer.head.reason,
    )
    writer.write(guest.send(head) or b"")
    try:
        async for part in answer.body():
            writer.write(guest.send(h11.Data(data=part)) or b"")
            await writer.drain()
    except Unavailable as e:
        raise ConnectionResetError(str(e)) from e
    writer.write(guest.send(h11.EndOfMessage()) or b"")
    await writer.drain()


async def _refuse(
    guest: h11.Connection, writer: asyncio.StreamWriter, status: int, reason: str
) -> None:
    if guest.our_state not in {h11.IDLE, h11.SEND_RESPONSE}:
        writer.transport.abort()
        return
    text = f"{reason}\n".encode()
    headers = {
        "Content-Type": "text/plain",
        "Content-Length": str(len(text)),
        "Connection": "close",
    }
    head = h11.Response(status_code=status, headers=list(headers.items()))
    for event in (head, h11.Data(data=text), h11.EndOfMessage()):
        writer.write(guest.send(event) or b"")
