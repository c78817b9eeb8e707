"""The responder's process, started by the agent: `python -m calico.dns RUN_DIR`."""

import encodings.idna  # noqa: F401 - read before the privileges go, not at a first use
import sys
from collections.abc import Iterable
from ipaddress import ip_address
from pathlib import Path

import dns.rdtypes.ANY.OPT  # likewise: dnspython reads types as it meets them
import dns.rdtypes.ANY.PTR
import dns.rdtypes.ANY.SOA
import dns.rdtypes.IN.A
import dns.rdtypes.IN.AAAA  # noqa: F401

from calico.dns.responder import Responder
from calico.model.ids import Address
from calico.plan.dns_table import DnsPort, DnsTable, decode_table
from calico.service.listeners import Desk, Listeners
from calico.service.process import run
from calico.system.dns import NAME
from calico.system.service import Files

_DOMAIN = 53


def main(run_dir: Path) -> None:
    """Serve until SIGTERM; SIGHUP means that ports or names are others now."""
    responder = Responder()
    listeners = Listeners(
        Desk(
            addresses=_addresses,
            number=_DOMAIN,
            serve=responder.serve,
            answer=responder.datagram,
        )
    )

    async def follow(written: bytes | None) -> bool:
        table = DnsTable() if written is None else decode_table(written)
        responder.follow(table)
        return await listeners.follow(table.ports)

    run(Files(run_dir, NAME), follow)


def _addresses(port: DnsPort) -> Iterable[Address]:
    return map(ip_address, port.addresses)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
