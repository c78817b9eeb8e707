"""S17: an instance speaks as itself only, and neither as DHCP server nor as router."""

import secrets
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from ipaddress import IPv4Address, IPv6Address, ip_network
from typing import Any

from calico.verify.checks import claiming, host_door
from calico.verify.cloud import Address, Site
from calico.verify.parallel import eventually, parallel
from calico.verify.probes.capture import Capture
from calico.verify.probes.frames import mark_of, transmit
from calico.verify.probes.shots import ICMP6, UDP, Shot, frame
from calico.verify.reach import VERSIONS, attempt
from calico.verify.result import Tally
from calico.verify.stage import Net, Stage

OTHER_MAC = "02:00:5e:00:53:01"  # of the documentation range (RFC 7042), made local
_EFFECT = 10.0
_SETTLE = 0.4
_PROJECT = "demo1"
_OUTSIDE: tuple[Address, ...] = (IPv4Address("203.0.113.7"), IPv6Address("2001:db8::7"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """A packet from a source and a MAC, and whether it may arrive."""

    name: str
    mac: str
    source: Address
    arrives: bool = False
    ports: tuple[int, int] = (9, 9)
    icmp: int | None = None

    def frame(self, target: Site, gateway: str, marker: bytes) -> bytes:
        """Return it as a frame to one instance."""
        version = self.source.version
        shot = Shot(
            source=self.source,
            destination=target.address(version),
            protocol=UDP if self.icmp is None else ICMP6,
            number=self.ports[0],
            port=self.ports[1],
            icmp=(self.icmp or 0, 0),
            hop_limit=255,
            payload=marker,
        )
        return frame(shot, self.mac, gateway)


@dataclass(frozen=True, slots=True)
class Field:
    """Who tries, and at whom: one on its host and one in another rack, if there is."""

    stage: Stage
    tally: Tally
    spoofer: Site
    targets: tuple[Site, ...]

    @property
    def net(self) -> Net:
        """The network of all of them."""
        return self.stage.net_of(self.spoofer)

    def update(self, **details: Any) -> None:
        """Change the spoofer's port."""
        api = self.stage.cloud.api(_PROJECT).network
        api.update_port(self.spoofer.port, **details)


def check(stage: Stage, tally: Tally) -> None:
    """Try to speak as somebody else, in every way that a port can be set to."""
    g = stage.sites
    field = Field(stage, tally, g["g1"], (g["g2"], g["g4"]))
    judge(field, "", [*foreign(field), *services(field)])
    claiming.check(stage, tally, (g["g1"], g["g2"], g["g4"]))
    host_door.check(stage, tally, g["g1"])
    check_pairs(field)
    check_owner(field)
    check_lifted(field)


def foreign(field: Field, *, arrives: bool = False) -> list[Attempt]:
    """Return attempts with addresses and MACs that are another's, and the own."""
    spoofer, net = field.spoofer, field.net
    found = []
    for version, cidr in ((4, net.cidr4), (6, net.cidr6)):
        own = spoofer.address(version)
        other = field.stage.sites["g3"].address(version)
        sources = {
            "another instance's address": other,
            "a free address": cidr[-9],
            "an outside address": _OUTSIDE[VERSIONS.index(version)],
        }
        if not arrives:
            sources["the gateway's address"] = cidr[1]
            sources["no address"] = type(own)(0)
        found += [
            Attempt(
                name=f"IPv{version} {name}", mac=spoofer.mac, source=s, arrives=arrives
            )
            for name, s in sources.items()
        ]
        found += [
            Attempt(
                name=f"IPv{version} {name}", mac=mac, source=own, arrives=may or arrives
            )
            for name, mac, may in (
                ("own address and MAC", spoofer.mac, True),
                ("own address, another MAC", OTHER_MAC, False),
            )
        ]
    return found


def services(field: Field) -> list[Attempt]:
    """Return what DHCP servers and routers say, with a harmless twin of each."""
    own = field.spoofer
    four, six = own.address(4), own.address(6)
    shapes = (
        ("DHCP server", four, (67, 68), None, False),
        ("like DHCP, not from its port", four, (9, 68), None, True),
        ("DHCPv6 server", six, (547, 546), None, False),
        ("like DHCPv6, not from its port", six, (9, 546), None, True),
        ("router advertisement", six, (1, 1), 134, False),
        ("redirect", six, (1, 1), 137, False),
        ("echo request", six, (1, 1), 128, True),
    )
    return [
        Attempt(
            name=name, mac=own.mac, source=source, ports=ports, icmp=icmp, arrives=may
        )
        for name, source, ports, icmp, may in shapes
    ]


def judge(field: Field, why: str, attempts: Sequence[Attempt]) -> None:
    """Make all attempts at every target, and count what arrived and what did not.

    What may arrive is what proves that a capture would have seen the rest.
    """
    seen = send(field, attempts)
    missing = [a for a in attempts if a.arrives and len(seen[a]) < len(field.targets)]
    if missing:  # a busy machine is not a broken network
        seen |= send(field, missing)
    for each in attempts:
        for target in field.targets:
            got = target in seen[each]
            wrong = "it arrived" if got else "it did not arrive"
            case = f"{why}{each.name}, to {target.short}"
            field.tally.case(case, None if got is each.arrives else wrong)


def send(field: Field, attempts: Iterable[Attempt]) -> dict[Attempt, set[Site]]:
    """Make attempts; return at which targets each was seen."""
    spoofer, attempts = field.spoofer, list(attempts)
    gateway = field.stage.host_mac(spoofer)
    mark = secrets.token_hex(8).encode()
    with ExitStack() as stack:
        captures = {
            t: stack.enter_context(Capture(t.place, t.interface)) for t in field.targets
        }
        frames = [
            each.frame(target, gateway, mark_of(mark, each.name))
            for each in attempts
            for target in field.targets
        ]
        transmit(spoofer.place, spoofer.interface, frames)

        def seen() -> dict[Attempt, set[Site]]:
            return {
                each: {
                    t for t, c in captures.items() if c.marked(mark_of(mark, each.name))
                }
                for each in attempts
            }

        # Long enough for what may arrive, and a little more for what may not.
        eventually(lambda: all(f for a, f in seen().items() if a.arrives), 1.0)
        eventually(lambda: False, _SETTLE)
        return seen()


def _settled(field: Field, attempts: Iterable[Attempt]) -> bool:
    """Wait until attempts have the outcome that they should have."""
    attempts = list(attempts)

    def as_wished() -> bool:
        found = send(field, attempts)
        return all(bool(seen) is a.arrives for a, seen in found.items())

    return eventually(as_wished, _EFFECT)


def check_pairs(field: Field) -> None:
    """Allow addresses and prefixes, some of them from another MAC; take them back."""
    own = field.spoofer.mac
    attempts, pairs = [], []
    for cidr in (field.net.cidr4, field.net.cidr6):
        single, its = cidr[200], cidr[201]
        block, others = (
            ip_network((cidr[n], cidr.max_prefixlen - 3)) for n in (208, 216)
        )
        pairs += [
            {"ip_address": str(single)},
            {"ip_address": str(its), "mac_address": OTHER_MAC},
            {"ip_address": str(block)},
            {"ip_address": str(others), "mac_address": OTHER_MAC},
        ]
        shapes = (
            ("a pair's address", own, single, True),
            ("a pair's address, another MAC", OTHER_MAC, single, False),
            ("a pair's address and MAC", OTHER_MAC, its, True),
            ("a pair's address, not its MAC", own, its, False),
            ("in a pair's prefix", own, block[5], True),
            ("in a pair's prefix, another MAC", OTHER_MAC, block[5], False),
            ("beside a pair's prefix", own, cidr[207], False),
            ("in a pair's prefix, its MAC", OTHER_MAC, others[5], True),
            ("in a pair's prefix, not its MAC", own, others[5], False),
            ("own address, a pair's MAC", OTHER_MAC, None, False),
            ("own address", own, None, True),
        )
        attempts += [
            Attempt(
                name=f"IPv{cidr.version} {name}",
                mac=mac,
                source=source or field.spoofer.address(cidr.version),
                arrives=may,
            )
            for name, mac, source, may in shapes
        ]
    field.update(allowed_address_pairs=pairs)
    _settled(field, [a for a in attempts if a.arrives])
    judge(field, "with pairs: ", attempts)
    field.update(allowed_address_pairs=[])
    denied = [
        Attempt(
            name=a.name,
            mac=a.mac,
            source=a.source,
            arrives=a.name.endswith("own address"),
        )
        for a in attempts
    ]
    _settled(field, denied)
    judge(field, "pairs taken back: ", denied)


def check_owner(field: Field) -> None:
    """P53: whatever the device owner says, nobody is excused."""
    api = field.stage.cloud.api("admin").network
    before = api.get_port(field.spoofer.port).device_owner
    try:
        for owner in ("network:dhcp", "neutron:odd"):
            api.update_port(field.spoofer.port, device_owner=owner)
            # Only what comes after the host has taken it in proves anything.
            _taken_in(field)
            judge(field, f"owned by {owner}: ", foreign(field))
    finally:
        api.update_port(field.spoofer.port, device_owner=before)


def _taken_in(field: Field) -> None:
    """Wait until a host has what the API said: a pair, made later, works."""
    pair = field.net.cidr4[202]
    field.update(allowed_address_pairs=[{"ip_address": str(pair)}])
    probe = Attempt(
        name="a pair made later", mac=field.spoofer.mac, source=pair, arrives=True
    )
    wrong = None if _settled(field, [probe]) else "it never arrives"
    field.tally.case(probe.name, wrong)
    field.update(allowed_address_pairs=[])


def check_lifted(field: Field) -> None:
    """Without port security all of it arrives, and no group says who may come."""
    spoofer, group = field.spoofer, field.stage.groups[_PROJECT]
    free = foreign(field, arrives=True)
    field.update(port_security_enabled=False, security_group_ids=[])
    try:
        _settled(field, free)
        judge(field, "port security off: ", free)
        _reached(field, "without port security", lambda wrong: not wrong)
        field.update(port_security_enabled=True)
        _settled(field, [a for a in foreign(field) if not a.arrives])
        _reached(field, "port security on, no group", bool)
    finally:
        field.update(port_security_enabled=True, security_group_ids=[group])
    _settled(field, foreign(field))
    judge(field, "port security on again: ", foreign(field))
    _reached(field, f"{spoofer.short} is as before", lambda wrong: not wrong)


def _reached(field: Field, why: str, right: Callable[[str | None], bool]) -> None:
    """Count whether the others reach the spoofer, or do not, as is right."""

    def case(source: Site, version: int) -> None:
        wrong = attempt("UDP", source.place, field.spoofer.address(version))
        evidence = None if right(wrong) else wrong or "reached"
        field.tally.case(f"{why}: {source.short} to it, IPv{version}", evidence)

    parallel([partial(case, s, v) for s in field.targets for v in VERSIONS])
