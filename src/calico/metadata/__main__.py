"""The proxy's process, started by the agent: `python -m calico.metadata RUN_DIR`."""

import encodings.idna  # noqa: F401 - read before the privileges go, not at a first use
import sys
from pathlib import Path

from calico.config import read_metadata
from calico.metadata.backends import Backends, tls_context
from calico.metadata.exchange import Exchange
from calico.plan.items import METADATA4, METADATA6
from calico.plan.metadata import MetadataPort, decode_ports
from calico.service.listeners import Desk, Listeners
from calico.service.process import run
from calico.system.metadata import NAME
from calico.system.service import Files

_HTTP = 80


def main(run_dir: Path) -> None:
    """Serve until SIGTERM; SIGHUP means that the ports are others now."""
    files = Files(run_dir, NAME)
    settings = read_metadata(files.settings.read_bytes())
    backends = Backends(settings.backends, tls_context(settings))
    exchange = Exchange(backends, (settings.shared_secret or "").encode())
    desk: Desk[MetadataPort] = Desk(
        addresses=lambda _: (METADATA4, METADATA6), number=_HTTP, serve=exchange.serve
    )
    listeners = Listeners(desk)

    async def follow(table: bytes | None) -> bool:
        return await listeners.follow(() if table is None else decode_ports(table))

    run(files, follow)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
