"""S3: no two instances share a link, on one host either."""

import secrets
import time
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from functools import partial
from ipaddress import IPv4Address, IPv4Network, IPv6Address
from itertools import permutations

from calico.verify.cloud import Site
from calico.verify.parallel import eventually, parallel
from calico.verify.probes.capture import Capture
from calico.verify.probes.echo import PORT, ask_datagram
from calico.verify.probes.frames import Sender, Target, mark_of, transmit, trespasses
from calico.verify.probes.neighbours import neighbours, strangers
from calico.verify.probes.ospf import DEAD, Ospf, is_hello
from calico.verify.probes.ping import ping
from calico.verify.reach import VERSIONS, Pair, title
from calico.verify.result import Tally
from calico.verify.stage import Stage

_SETTLE = 0.7  # seconds in which what is to arrive after the control has arrived
_ARP = 0x0806
_NOWHERE = IPv4Network("192.0.2.0/24")

Captures = dict[str, Capture]


def check(stage: Stage, tally: Tally) -> None:
    """Neighbour tables, trespassing frames and OSPF within one network."""
    sites = stage.on("A")
    check_neighbours(stage, tally, list(permutations(sites, 2)))
    check_frames(stage, tally, [(sites[0], other) for other in sites[1:]])
    check_ospf(tally, sites)


def check_neighbours(stage: Stage, tally: Tally, pairs: Sequence[Pair]) -> None:
    """After a word to each peer, a table may hold host-side MACs only.

    It has to hold one for each peer of the same network: an IPv4 subnet is on-link, as
    DHCP hands it out.
    """
    words = [
        partial(ping, one.place, other.address(version))
        for one, other in pairs
        for version in VERSIONS
    ]
    parallel(words)
    for site in {one.name: one for one, _ in pairs}.values():
        found = neighbours(site.place, site.interface)
        on_link = {
            other.address(4)
            for one, other in pairs
            if one is site and other.network == one.network
        }
        wrong = strangers(found, stage.host_mac(site), on_link)
        tally.case(f"neighbour table of {site.short}", wrong)


def check_frames(stage: Stage, tally: Tally, pairs: Iterable[Pair]) -> None:
    """Send what only a shared link would carry; no instance at all may see it."""
    with ExitStack() as stack:
        captures = {
            key: stack.enter_context(Capture(site.place, site.interface))
            for key, site in stage.sites.items()
        }
        sent = [(pair, _trespass(stage, pair)) for pair in pairs]
        for pair, mark in sent:
            tally.case(f"captures see {title(pair)}", _control(captures, pair, mark))
        time.sleep(_SETTLE)
        for pair, mark in sent:
            _judge_frames(stage, tally, captures, (pair, mark))
        for key, capture in captures.items():
            wrong = _foreign(capture, stage.host_mac(stage.sites[key]))
            tally.case(f"all that {key} gets comes from its host", wrong)


def check_ospf(tally: Tally, sites: Sequence[Site]) -> None:
    """Run OSPF in instances: each speaks, none hears another."""
    with ExitStack() as stack:
        captures = {
            site.short: stack.enter_context(Capture(site.place, site.interface))
            for site in sites
        }
        daemons = {
            site.short: stack.enter_context(
                Ospf(site.place, site.interface, f"192.0.2.{number}")
            )
            for number, site in enumerate(sites, 1)
        }
        for key in daemons:
            said = eventually(partial(_versions, captures[key]), 15.0)
            tally.case(f"OSPF speaks in {key}", None if said else "it says nothing")
        time.sleep(DEAD + 1)
        for key, daemon in daemons.items():
            found = daemon.neighbours()
            wrong = f"neighbours: {found}" if found else None
            tally.case(f"OSPF in {key} has no neighbour", wrong)
            heard = [
                str(frame)
                for frame in captures[key].frames()
                if not frame.outgoing and is_hello(frame.octets)
            ]
            tally.case(f"no OSPF packet comes to {key}", "; ".join(heard[:3]) or None)


def _versions(capture: Capture) -> bool:
    """Whether hellos of both OSPF versions have gone out."""
    sent = {is_hello(f.octets) for f in capture.frames() if f.outgoing}
    return {4, 6} <= sent


def _trespass(stage: Stage, pair: Pair) -> bytes:
    one, other = pair
    mark = secrets.token_hex(8).encode()
    ipv4, ipv6 = _addresses(one)
    sender = Sender(interface=one.interface, mac=one.mac, ipv4=ipv4, ipv6=ipv6)
    ipv4, ipv6 = _addresses(other)
    target = Target(
        mac=other.mac,
        gateway_mac=stage.host_mac(one),
        ipv4=ipv4,
        ipv6=ipv6,
        subnet4=stage.net_of(other).cidr4,
    )
    frames = trespasses(sender, target, mark)
    transmit(one.place, one.interface, list(frames.values()))
    return mark


def _addresses(site: Site) -> tuple[IPv4Address, IPv6Address]:
    ipv4, ipv6 = site.address(4), site.address(6)
    assert isinstance(ipv4, IPv4Address)  # noqa: S101 - asked for by version
    assert isinstance(ipv6, IPv6Address)  # noqa: S101 - likewise
    return ipv4, ipv6


def _control(captures: Captures, pair: Pair, mark: bytes) -> str | None:
    """Prove that the capture would see a frame: a permitted datagram has to show."""
    one, other = pair
    marker = mark_of(mark, "control")
    answer = ask_datagram(one.place, (other.address(4), PORT), marker)
    if isinstance(answer, str):
        return answer
    seen = captures[other.short].marked(marker)
    return None if seen else "the capture missed a datagram that arrived"


def _judge_frames(
    stage: Stage, tally: Tally, captures: Captures, sent: tuple[Pair, bytes]
) -> None:
    (one, other), mark = sent
    others = {k: c for k, c in captures.items() if stage.sites[k] is not one}
    for name in trespass_names():
        hits = [
            f"{key} got {frame}"
            for key, capture in others.items()
            for frame in capture.frames()
            if mark_of(mark, name) in frame.octets
        ]
        tally.case(f"{name}: {title((one, other))}", "; ".join(hits[:3]) or None)
    arps = [
        f"{key} got {frame}"
        for key, capture in others.items()
        for frame in capture.frames()
        if frame.ethertype == _ARP and frame.source == one.mac
    ]
    tally.case(f"ARP: {title((one, other))}", "; ".join(arps[:3]) or None)


def trespass_names() -> list[str]:
    """Return the names of all marked frames."""
    four, six = IPv4Address("192.0.2.1"), IPv6Address("::1")
    sender = Sender(interface="", mac="", ipv4=four, ipv6=six)
    target = Target(mac="", gateway_mac="", ipv4=four, ipv6=six, subnet4=_NOWHERE)
    return [n for n in trespasses(sender, target, b"") if not n.startswith("ARP")]


def _foreign(capture: Capture, host_mac: str) -> str | None:
    wrong = [
        str(frame)
        for frame in capture.frames()
        if not frame.outgoing and frame.source != host_mac
    ]
    return "; ".join(wrong[:3]) or None
