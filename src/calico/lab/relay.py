"""A relay from the machine's loopback into a namespace that has no way in.

It listens on 127.0.0.1 in the namespace it is started in, then moves into the other
one; the listening sockets stay where they were made, the connections it opens from
then on belong inside. So a cloud's API is there for programs on the machine, and for
nothing else, with no interface between the two.

A port has the same number on both sides: then one URL, the one in Keystone's
catalogue, is right on the machine as well as inside.

Run as `python -m calico.lab.relay NETNS PORTS_FILE PORT...`: it takes each PORT, or,
where that is taken or 0, another; the file gets what it took, a JSON list, as soon as
all are open.
"""

import asyncio
import contextlib
import json
import os
import signal
import socket
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from calico.lab.inside import enter

LOOPBACK = "127.0.0.1"
# Below what the kernel gives to outgoing connections (ip_local_port_range), so that
# the same number is free inside as well.
_PORTS = range(18500, 19500)
_CHUNK = 65536


class NoPort(OSError):  # noqa: N818 - names what there is none of
    """All the ports that a relay may take are taken."""


def listen(wanted: int) -> socket.socket:
    """Listen on a port of loopback: the wanted one, else the first that is free."""
    for port in (wanted, *_PORTS) if wanted else _PORTS:
        with contextlib.suppress(OSError):
            return socket.create_server((LOOPBACK, port), backlog=128)
    raise NoPort(f"no free port on {LOOPBACK} in {_PORTS.start}-{_PORTS.stop - 1}")


def read_ports(file: Path) -> tuple[int, ...]:
    """Return the ports that a relay wrote down; none if it has not yet."""
    try:
        return tuple(json.loads(file.read_text()))
    except FileNotFoundError:
        return ()


async def relay(netns: str, file: Path, wanted: Sequence[int]) -> None:
    """Serve until cancelled; the ports stand in the file once they are open."""
    listeners = [listen(port) for port in wanted]
    ports = [listener.getsockname()[1] for listener in listeners]
    enter(netns)
    for listener, port in zip(listeners, ports, strict=True):
        await asyncio.start_server(partial(_forward, port), sock=listener)
    fresh = file.with_suffix(".new")
    fresh.write_text(json.dumps(ports))
    fresh.replace(file)
    await asyncio.Event().wait()


async def _forward(
    port: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    """Serve a connection by one to `port` inside, bytes both ways until both end."""
    with contextlib.closing(writer):
        try:
            inner = await asyncio.open_connection(LOOPBACK, port)
        except OSError:
            return  # closed at once: the server inside is not there
        with contextlib.closing(inner[1]):
            await asyncio.gather(_pump(reader, inner[1]), _pump(inner[0], writer))


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Copy until the source ends, then say so to the sink: half-closed is legal."""
    with contextlib.suppress(OSError):
        while chunk := await reader.read(_CHUNK):
            writer.write(chunk)
            await writer.drain()
        writer.write_eof()


def main(netns: str, file: str, *wanted: str) -> None:
    """Run a relay until SIGTERM."""
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    asyncio.run(relay(netns, Path(file), [int(port) for port in wanted]))


if __name__ == "__main__":
    main(*sys.argv[1:])
