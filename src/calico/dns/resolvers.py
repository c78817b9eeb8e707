"""The cloud's resolvers: one is asked, and another where that is silent or unable.

The one that answered last is asked first. Each question has a socket of its own, whose
port the kernel draws, and an id drawn here: who does not see it cannot answer it.
"""

import asyncio
import secrets
import struct
from collections.abc import Sequence

from calico.dns.answers import matches

_PORT = 53
_PATIENCE = 2.0  # seconds for one to answer
_MOST_ASKED = 3  # resolvers for one question: the guest waits some 5 seconds
_RCODE = 0x000F
_UNABLE = frozenset({2, 5})  # SERVFAIL, REFUSED


class Unavailable(Exception):  # noqa: N818 - names what the resolvers are
    """No resolver answered; the message says why the last one did not."""


class Resolvers:
    """One or more resolvers, by their addresses."""

    def __init__(self, addresses: Sequence[str]) -> None:
        self._addresses = tuple(addresses)
        self._first = 0

    async def ask(self, question: bytes, *, datagram: bool) -> bytes:
        """Return the answer to a question, whose id does not count.

        Unavailable if there is none.
        """
        count = len(self._addresses)
        order = [(self._first + n) % count for n in range(count)][:_MOST_ASKED]
        ask = _by_datagram if datagram else _by_stream
        reason, answer = "there is no resolver", None
        for number in order:
            address = self._addresses[number]
            try:
                async with asyncio.timeout(_PATIENCE):
                    answer = await ask(address, _with_new_id(question))
            except (OSError, EOFError) as e:  # a timeout is an OSError
                reason = f"{address}: {e or type(e).__name__}"
                continue
            if answer[3] & _RCODE not in _UNABLE:
                self._first = number
                return answer
        if answer is None:
            raise Unavailable(reason)
        return answer


def _with_new_id(question: bytes) -> bytes:
    return secrets.token_bytes(2) + question[2:]


class _Waiting(asyncio.DatagramProtocol):
    """Waits for the one datagram that answers a question."""

    def __init__(self, question: bytes) -> None:
        self._question = question
        self.answered: asyncio.Future[bytes] = (
            asyncio.get_running_loop().create_future()
        )

    def datagram_received(self, data: bytes, _addr: object) -> None:
        if matches(self._question, data) and not self.answered.done():
            self.answered.set_result(data)

    def error_received(self, exc: Exception) -> None:
        if not self.answered.done():
            self.answered.set_exception(exc)


async def _by_datagram(address: str, question: bytes) -> bytes:
    loop = asyncio.get_running_loop()
    transport, waiting = await loop.create_datagram_endpoint(
        lambda: _Waiting(question), remote_addr=(address, _PORT)
    )
    try:
        transport.sendto(question)
        return await waiting.answered
    finally:
        transport.close()


async def _by_stream(address: str, question: bytes) -> bytes:
    reader, writer = await asyncio.open_connection(address, _PORT)
    try:
        writer.write(struct.pack("!H", len(question)) + question)
        (length,) = struct.unpack("!H", await reader.readexactly(2))
        answer = await reader.readexactly(length)
    finally:
        writer.close()
    if not matches(question, answer):
        raise ConnectionResetError("it answers another question")
    return answer
