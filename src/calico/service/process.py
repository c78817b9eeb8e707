"""The process of a service: `python -m calico.NAME RUN_DIR`, started by the agent.

What is private is read before, as root; what instances send is read by nobody's user.
"""

import asyncio
import logging
import resource
import signal
from collections.abc import Awaitable, Callable

from calico.service.privileges import drop_privileges
from calico.system.service import Files

_RETRY = 2.0  # seconds until what could not be listened on is tried again
_REST = 3  # how much longer instances are served than a long table was read

Follow = Callable[[bytes | None], Awaitable[bool]]
"""Follows what the service's table says, None at the end; False if that failed."""


def run(files: Files, follow: Follow) -> None:
    """Serve until SIGTERM; SIGHUP means that the table is another now."""
    logging.basicConfig(format="%(asctime)s %(levelname)s %(message)s")
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    # Whoever is told that it is ready may signal; the table is read after that.
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    files.ready.touch()
    drop_privileges()
    asyncio.run(_serve(files, follow))


async def _serve(files: Files, follow: Follow) -> None:
    loop = asyncio.get_running_loop()
    changed, ended = asyncio.Event(), asyncio.Event()
    loop.add_signal_handler(signal.SIGHUP, changed.set)
    loop.add_signal_handler(signal.SIGTERM, ended.set)
    end = asyncio.create_task(ended.wait())
    while not ended.is_set():
        changed.clear()
        began = loop.time()
        complete = await follow(files.table.read_bytes())
        await asyncio.wait({end}, timeout=_REST * (loop.time() - began))
        change = asyncio.create_task(changed.wait())
        await asyncio.wait(
            {change, end},
            timeout=None if complete else _RETRY,
            return_when=asyncio.FIRST_COMPLETED,
        )
        change.cancel()
    await follow(None)
