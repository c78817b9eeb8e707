"""S17, towards the host: an instance gets DHCP, neighbour discovery and ping, no more.

Nothing else is answered, not even refused; above all no DNS (P15).
"""

import contextlib
import json
import time
from ipaddress import ip_address

from calico.verify.cloud import Address, Place, Site
from calico.verify.probes.echo import PORT, Responder, ask_datagram, request
from calico.verify.probes.frames import transmit
from calico.verify.probes.ping import ping
from calico.verify.probes.shots import TCP, UDP, Shot, frame
from calico.verify.probes.volley import Ears, End
from calico.verify.result import Tally
from calico.verify.stage import Stage

_DNS, _SSH, _BGP = 53, 22, 179
_ASKED = ((UDP, PORT), (TCP, PORT), (UDP, _DNS), (TCP, _DNS), (TCP, _SSH), (TCP, _BGP))
_WAIT = 0.7


def check(stage: Stage, tally: Tally, site: Site) -> None:
    """Ask every address of an instance's host for services that do run there."""
    host = stage.cloud.place(site.host.name)
    with contextlib.suppress(OSError):  # it runs there already
        stage.responder.serve(host, PORT)
    with Responder() as responder:  # gone afterwards: the host may answer DNS itself
        with contextlib.suppress(OSError):  # as it does
            responder.serve(host, _DNS)
        _check(stage, tally, site, host)


def _check(stage: Stage, tally: Tally, site: Site, host: Place) -> None:
    output = host.run(["ip", "-json", "address"]).stdout
    addresses = sorted(
        {
            address
            for link in json.loads(output)
            for info in link["addr_info"]
            if not (address := ip_address(info["local"])).is_loopback
            and not address.is_link_local
        },
        key=str,
    )
    tally.case("the host has addresses", None if addresses else "none")
    for address in addresses:
        answer = ask_datagram(host, (address, PORT))
        wrong = answer if isinstance(answer, str) else None
        tally.case(f"{site.host.name} itself reaches {address}", wrong)
        tally.case(f"{site.short} pings {address}", ping(site.place, address))
    _ask_all(stage, tally, site, addresses)


def _ask_all(stage: Stage, tally: Tally, site: Site, addresses: list[Address]) -> None:
    gateway = stage.host_mac(site)
    shots = [
        Shot(
            source=site.address(address.version),
            destination=address,
            protocol=protocol,
            number=21000 + number,
            port=port,
            payload=request()[1],
        )
        for number, (address, (protocol, port)) in enumerate(
            (a, asked) for a in addresses for asked in _ASKED
        )
    ]
    end = End(place=site.place, interface=site.interface, mac=site.mac, gateway=gateway)
    with Ears({"": end}) as ears:
        frames = [frame(shot, site.mac, gateway) for shot in shots]
        transmit(site.place, site.interface, frames)
        deadline = time.monotonic() + _WAIT
        while time.monotonic() < deadline:
            ears.listen(0.05)
        for shot in shots:
            wrong = "it answers" if shot.answer in ears.heard[""] else None
            what = f"{'UDP' if shot.protocol == UDP else 'TCP'} {shot.port}"
            case = f"{site.short} to its host {shot.destination}, {what}"
            tally.case(case, wrong)
