"""What a stack's neighbour table holds: with whom it believes to share a link."""

import ipaddress
import json
from collections.abc import Collection
from dataclasses import dataclass

from calico.verify.cloud import Address, Place


@dataclass(frozen=True, slots=True, kw_only=True)
class Neighbour:
    """A resolved entry of a neighbour table."""

    address: Address
    mac: str


def neighbours(place: Place, interface: str) -> tuple[Neighbour, ...]:
    """Return the resolved entries of an interface; multicast is left out."""
    output = place.run(["ip", "-json", "neigh", "show", "dev", interface]).stdout
    return tuple(
        Neighbour(address=ipaddress.ip_address(entry["dst"]), mac=entry["lladdr"])
        for entry in json.loads(output or "[]")
        if "lladdr" in entry and not ipaddress.ip_address(entry["dst"]).is_multicast
    )


def strangers(
    found: tuple[Neighbour, ...], host_mac: str, on_link: Collection[Address] = ()
) -> str | None:
    """Return what S3 finds wrong with a table, or None.

    Every entry must hold the host-side MAC. There must be one for each address that the
    stack believes to be on its link, and one of IPv6: what is not there proves nothing.
    """
    if missing := set(on_link) - {n.address for n in found}:
        return f"no entry for {', '.join(sorted(map(str, missing)))}"
    if not any(n.address.version == 6 for n in found):
        return "the neighbour table has no IPv6 entry"
    wrong = [f"{n.address} is at {n.mac}" for n in found if n.mac != host_mac]
    return f"{'; '.join(wrong)}; the host side is {host_mac}" if wrong else None
