"""S17: an instance speaks as itself only, and neither as DHCP server nor as router."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from ipaddress import IPv4Address, IPv6Address, ip_network

from calico.model.ids import Prefix
from calico.verify.checks import claiming, host_door
from calico.verify.checks.attempts import PROJECT, Attempt, Field, judge, settled
from calico.verify.cloud import Address, Site
from calico.verify.parallel import parallel
from calico.verify.reach import VERSIONS, attempt
from calico.verify.result import Tally
from calico.verify.stage import Stage

OTHER_MAC = "02:00:5e:00:53:01"  # of the documentation range (RFC 7042), made local
_OUTSIDE: tuple[Address, ...] = (IPv4Address("203.0.113.7"), IPv6Address("2001:db8::7"))


def check(stage: Stage, tally: Tally) -> None:
    """Try to speak as somebody else, in every way that a port can be set to."""
    g = stage.sites
    field = Field(stage, tally, g["g1"], (g["g2"], g["g4"]))
    judge(field, "", [*foreign(field), *services(field)])
    claiming.check(stage, tally, (g["g1"], g["g2"], g["g4"]))
    host_door.check(stage, tally, g["g1"])
    check_refused(field)
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


def check_pairs(field: Field) -> None:
    """Allow addresses and prefixes, some of them from another MAC; take them back."""
    pairs: list[dict[str, str]] = []
    for cidr in (field.net.cidr4, field.net.cidr6):
        block, others = _blocks(cidr)
        pairs += [
            {"ip_address": str(cidr[200])},
            {"ip_address": str(cidr[201]), "mac_address": OTHER_MAC},
            {"ip_address": str(block)},
            {"ip_address": str(others), "mac_address": OTHER_MAC},
        ]
    attempts = [*_with_pairs(field, 4), *_with_pairs(field, 6)]
    field.update(allowed_address_pairs=pairs)
    settled(field, [a for a in attempts if a.arrives])
    judge(field, "with pairs: ", attempts)
    field.update(allowed_address_pairs=[])
    denied = [replace(a, arrives=a.name.endswith("own address")) for a in attempts]
    settled(field, denied)
    judge(field, "pairs taken back: ", denied)


def check_refused(field: Field) -> None:
    """P47: the API refuses a pair that is not the project's to have, as a 409."""
    stage, port = field.stage, field.spoofer.port
    theirs = [*_OUTSIDE]
    if "B" in stage.nets:  # of another project
        theirs += [stage.nets["B"].cidr4[200], stage.nets["B"].cidr6[200]]
    for address in theirs:
        pairs = [{"ip_address": str(address)}]
        reply = stage.cloud.api(PROJECT).network.put(
            f"/ports/{port}", json={"port": {"allowed_address_pairs": pairs}}
        )
        wrong = None if reply.status_code == 409 else f"HTTP {reply.status_code}"
        field.tally.case(f"pair {address}, which is another's, is refused", wrong)
    stored = stage.cloud.api(PROJECT).network.get_port(port).allowed_address_pairs
    field.tally.case("no such pair is stored", str(stored) if stored else None)


def _blocks(cidr: Prefix) -> tuple[Prefix, Prefix]:
    """Return two prefixes of eight addresses in a subnet."""
    first, second = (f"{cidr[n]}/{cidr.max_prefixlen - 3}" for n in (208, 216))
    return ip_network(first), ip_network(second)


def _with_pairs(field: Field, version: int) -> list[Attempt]:
    """Return attempts at, beside and past what the pairs of `check_pairs` allow."""
    spoofer = field.spoofer
    own, its = spoofer.address(version), OTHER_MAC
    cidr: Prefix = field.net.cidr4 if version == 4 else field.net.cidr6
    block, others = _blocks(cidr)
    shapes: tuple[tuple[str, str, Address, bool], ...] = (
        ("a pair's address", spoofer.mac, cidr[200], True),
        ("a pair's address, another MAC", its, cidr[200], False),
        ("a pair's address and MAC", its, cidr[201], True),
        ("a pair's address, not its MAC", spoofer.mac, cidr[201], False),
        ("in a pair's prefix", spoofer.mac, block[5], True),
        ("in a pair's prefix, another MAC", its, block[5], False),
        ("beside a pair's prefix", spoofer.mac, cidr[207], False),
        ("in a pair's prefix, its MAC", its, others[5], True),
        ("in a pair's prefix, not its MAC", spoofer.mac, others[5], False),
        ("own address, a pair's MAC", its, own, False),
        ("own address", spoofer.mac, own, True),
    )
    return [
        Attempt(name=f"IPv{version} {name}", mac=mac, source=source, arrives=may)
        for name, mac, source, may in shapes
    ]


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
    wrong = None if settled(field, [probe]) else "it never arrives"
    field.tally.case(probe.name, wrong)
    field.update(allowed_address_pairs=[])


def check_lifted(field: Field) -> None:
    """Without port security all of it arrives, and no group says who may come."""
    spoofer, group = field.spoofer, field.stage.groups[PROJECT]
    free = foreign(field, arrives=True)
    field.update(port_security_enabled=False, security_group_ids=[])
    try:
        settled(field, free)
        judge(field, "port security off: ", free)
        _reached(field, "without port security", lambda wrong: not wrong)
        field.update(port_security_enabled=True)
        settled(field, [a for a in foreign(field) if not a.arrives])
        _reached(field, "port security on, no group", bool)
    finally:
        field.update(port_security_enabled=True, security_group_ids=[group])
    settled(field, foreign(field))
    judge(field, "port security on again: ", foreign(field))
    _reached(field, f"{spoofer.short} is as before", lambda wrong: not wrong)


def _reached(field: Field, why: str, right: Callable[[str | None], bool]) -> None:
    """Count whether the others reach the spoofer, or do not, as is right."""

    def case(source: Site, version: int) -> None:
        wrong = attempt("UDP", source.place, field.spoofer.address(version))
        evidence = None if right(wrong) else wrong or "reached"
        field.tally.case(f"{why}: {source.short} to it, IPv{version}", evidence)

    parallel([partial(case, s, v) for s in field.targets for v in VERSIONS])
