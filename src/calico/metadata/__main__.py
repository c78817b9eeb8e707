"""The proxy's process: `python -m calico.metadata RUN_DIR`, started by the agent.

What is private is read first, as root; what instances send is read by nobody's user.
"""

import asyncio
import encodings.idna  # noqa: F401 - read before the privileges go, not at a first use
import logging
import resource
import signal
import sys
from collections.abc import Callable
from pathlib import Path

from calico.config import read_metadata
from calico.metadata.backends import Backends, tls_context
from calico.metadata.exchange import Exchange
from calico.metadata.listeners import Listeners
from calico.metadata.privileges import drop_privileges
from calico.plan.metadata import MetadataPort, decode_ports
from calico.system.metadata import PORTS, READY, SETTINGS

_RETRY = 2.0  # seconds until what could not be listened on is tried again


def main(run_dir: Path) -> None:
    """Serve until SIGTERM; SIGHUP means that the ports are others now."""
    logging.basicConfig(format="%(asctime)s %(levelname)s %(message)s")
    settings = read_metadata((run_dir / SETTINGS).read_bytes())
    backends = Backends(settings.backends, tls_context(settings))
    exchange = Exchange(backends, (settings.shared_secret or "").encode())
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    # Whoever is told that it is ready may signal; the ports are read after that.
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    (run_dir / READY).touch()
    drop_privileges()
    ports = run_dir / PORTS
    serving = _serve(lambda: decode_ports(ports.read_bytes()), exchange)
    asyncio.run(serving)


async def _serve(
    ports: Callable[[], tuple[MetadataPort, ...]], exchange: Exchange
) -> None:
    listeners = Listeners(exchange.serve)
    loop = asyncio.get_running_loop()
    changed, ended = asyncio.Event(), asyncio.Event()
    loop.add_signal_handler(signal.SIGHUP, changed.set)
    loop.add_signal_handler(signal.SIGTERM, ended.set)
    end = asyncio.create_task(ended.wait())
    while not ended.is_set():
        changed.clear()
        complete = await listeners.follow(ports())
        change = asyncio.create_task(changed.wait())
        await asyncio.wait(
            {change, end},
            timeout=None if complete else _RETRY,
            return_when=asyncio.FIRST_COMPLETED,
        )
        change.cancel()
    await listeners.follow(())


if __name__ == "__main__":
    main(Path(sys.argv[1]))
