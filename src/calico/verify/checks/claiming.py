"""S17, below IP: ARP and neighbour discovery in the name of another."""

import json
from functools import partial
from ipaddress import IPv6Address

from calico.verify.cloud import Address, Site
from calico.verify.parallel import eventually, parallel
from calico.verify.probes.claims import Claim, announced, asked, is_answered
from calico.verify.probes.frames import transmit
from calico.verify.reach import VERSIONS, attempt
from calico.verify.result import Tally
from calico.verify.stage import Stage

_OTHER_MAC = "02:00:5e:00:53:02"
Three = tuple[Site, Site, Site]


def check(stage: Stage, tally: Tally, sites: Three) -> None:
    """Ask and announce as oneself and as others.

    In: who claims, who is on its host, and an observer elsewhere.
    """
    parallel(
        [partial(_questions, stage, tally, sites, version) for version in VERSIONS]
    )
    for version in VERSIONS:
        _announcements(stage, tally, sites, version)


def _questions(stage: Stage, tally: Tally, sites: Three, version: int) -> None:
    """Ask for the gateway: the true sender is answered, nobody else is."""
    one, other, _ = sites
    wanted = _gateway(stage, one, version)
    own, foreign = one.address(version), other.address(version)
    claims = [
        ("as itself", (one.mac, one.mac, own), True),
        ("with a foreign address", (one.mac, one.mac, foreign), False),
        ("in a foreign frame", (_OTHER_MAC, one.mac, own), False),
        ("as another", (other.mac, other.mac, foreign), False),
    ]
    if version == 4:  # what ND says of a MAC is not believed, if heard
        claims.append(("naming a foreign MAC", (one.mac, _OTHER_MAC, own), False))
    for name, (outer, inner, address), expected in claims:
        claim = Claim(ethernet=outer, mac=inner, address=address)
        question = asked(claim, wanted, stage.host_mac(one))
        ask = partial(is_answered, one.place, one.interface, question, wanted)
        got = ask() or (expected and ask())
        wrong = "answered" if got else "no answer"
        case = f"{_protocol(version)} asked by {one.short} {name}"
        tally.case(case, None if got is expected else wrong)


def _announcements(stage: Stage, tally: Tally, sites: Three, version: int) -> None:
    """Announce a neighbour's address as one's own: it stays where it is."""
    one, other, observer = sites
    taken = other.address(version)
    claim = Claim(ethernet=one.mac, mac=one.mac, address=taken)
    said = announced(claim, _gateway(stage, one, version), stage.host_mac(one))
    transmit(one.place, one.interface, [said] * 3)
    eventually(lambda: False, 0.2)  # whoever believes it has done so by then
    protocol = _protocol(version)
    known = _neighbours(stage, one)
    wrong = f"{one.tap} has {taken}" if str(taken) in known else None
    tally.case(f"{protocol} announcement by {one.short} is not believed", wrong)
    for source in (observer, one):
        wrong = attempt("UDP", source.place, taken)
        case = f"{protocol} announcement: {source.short} still reaches {other.short}"
        tally.case(case, wrong)


def _gateway(stage: Stage, site: Site, version: int) -> Address:
    """Return what an instance has to ask for: its gateway."""
    if version == 4:
        return stage.net_of(site).cidr4[1]
    return _link_local(stage.host_mac(site))


def _link_local(mac: str) -> Address:
    """Return the link-local address that follows from a MAC (RFC 4291, appendix A)."""
    octets = bytearray.fromhex(mac.replace(":", ""))
    octets[0] ^= 2
    return IPv6Address(b"\xfe\x80" + bytes(6) + octets[:3] + b"\xff\xfe" + octets[3:])


def _neighbours(stage: Stage, site: Site) -> set[str]:
    argv = ["ip", "-json", "neigh", "show", "dev", site.tap]
    output = stage.cloud.place(site.host.name).run(argv).stdout
    return {entry["dst"] for entry in json.loads(output or "[]")}


def _protocol(version: int) -> str:
    return "ARP" if version == 4 else "ND"
