"""S14: the network that is chosen decides an instance's addresses."""

import ipaddress
import json
from functools import partial

from calico.verify.cloud import Address, Site
from calico.verify.layout import EXAMPLE_HOSTS
from calico.verify.parallel import parallel
from calico.verify.result import Tally
from calico.verify.stage import Stage


def check(stage: Stage, tally: Tally) -> None:
    """Compare what instances have with what their networks are."""
    sites = stage.on("ABCPQ")
    kinds = {stage.net_of(site).plan.provider for site in sites}
    tally.case("both kinds exist side by side", None if len(kinds) == 2 else str(kinds))
    parallel([partial(_case, stage, tally, site) for site in sites])


def _case(stage: Stage, tally: Tally, site: Site) -> None:
    net = stage.net_of(site)
    for version, cidr in ((4, net.cidr4), (6, net.cidr6)):
        own = site.address(version)
        wrong = None if own in cidr else f"{own} is not in {cidr}"
        tally.case(f"{site.short} has an address of {cidr}", wrong)
    found = addresses(site)
    wanted = set(site.addresses)
    wrong = None if found == wanted else f"has {_text(found)}, not {_text(wanted)}"
    tally.case(f"{site.short} has these addresses alone", wrong)
    fixed = EXAMPLE_HOSTS.get(site.short)
    if fixed and fixed in net.cidr4:
        tally.case(
            f"{site.short} has the address asked for",
            None if fixed in found else f"{fixed} is not among {_text(found)}",
        )


def addresses(site: Site) -> set[Address]:
    """Return the addresses of an instance's interface that are not link-local."""
    argv = ["ip", "-json", "address", "show", "dev", site.interface]
    links = json.loads(site.place.run(argv).stdout or "[]")
    found = {
        ipaddress.ip_address(entry["local"])
        for link in links
        for entry in link.get("addr_info", ())
    }
    return {address for address in found if not address.is_link_local}


def _text(found: set[Address]) -> str:
    return ", ".join(sorted(map(str, found))) or "none"
