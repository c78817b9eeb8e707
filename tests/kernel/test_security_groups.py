"""What a change of security groups does to guests that talk."""

import socket
from collections.abc import Iterator
from dataclasses import replace
from ipaddress import ip_network

import pytest
from tests.endpoints import HOST
from tests.kernel.data_path import HostBed, host_bed
from tests.kernel.netns import Netns, eventually, in_netns, link
from tests.kernel.talks import (
    CLIENTS,
    QUIET,
    SERVERS,
    A,
    B,
    open_in,
    reaches,
    talks,
)

from calico.config import AgentSettings
from calico.model.groups import Groups
from calico.model.ids import AddressGroupId
from calico.model.records import (
    Policy,
    PortRange,
    Remote,
    RemoteAddressGroup,
    RemoteGroup,
    Rule,
)
from calico.system.counters import read_hits
from calico.system.nft import Nft

OFFICE = AddressGroupId("office")
EVERYTHING = tuple(Rule(version=v, id=f"any{v}") for v in (4, 6))


@pytest.fixture
def bed() -> Iterator[HostBed]:
    with host_bed() as one:
        one.plug(A)
        one.plug(B)
        yield one


def groups(
    *ingress: Rule,
    members: tuple[str, ...] = (),
    office: tuple[str, ...] = (),
    stateful: bool = True,
) -> Groups:
    """Return groups: clients may send anything, servers take what is in `ingress`."""
    return Groups(
        policies={
            CLIENTS: Policy(group=CLIENTS, name="", egress=EVERYTHING),
            SERVERS: Policy(
                group=SERVERS,
                name="",
                ingress=ingress,
                egress=EVERYTHING if stateful else (),
                stateful=stateful,
            ),
        },
        members={CLIENTS: frozenset(map(ip_network, members))},
        address_groups={OFFICE: frozenset(map(ip_network, office))},
    )


def allow(
    protocol: int, port: int, remote: Remote | None = None, version: int = 4
) -> Rule:
    return Rule(
        version=version,
        protocol=protocol,
        ports=PortRange(first=port, last=port),
        remote=remote,
        id=f"{protocol}-{port}-{version}",
    )


def serve(bed: HostBed, wanted: Groups) -> None:
    bed.groups = wanted
    assert bed.serve(A, B).problems == ()


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_DGRAM])
def test_p07_a_rule_that_goes_takes_its_connections_and_no_others(
    bed: HostBed, kind: int, version: int
) -> None:
    protocol = 6 if kind == socket.SOCK_STREAM else 17
    both = [allow(protocol, port, version=version) for port in (80, 81)]
    serve(bed, groups(*both))
    with talks(bed, kind, 80, 81, version=version) as (gone, kept):
        assert gone.passes()
        assert kept.passes()
        serve(bed, groups(both[1]))
        assert not gone.passes()
        assert not gone.passes(back=True), "and neither does an answer"
        assert kept.passes()
        assert kept.passes(back=True)
        serve(bed, groups(*both))
        eventually(gone.passes, message="allowed again")


def test_p07_a_member_that_leaves_takes_its_connections(bed: HostBed) -> None:
    rule = allow(6, 80, RemoteGroup(CLIENTS))
    members = ("10.65.0.2/32", "2001:db8:65::2/128")
    serve(bed, groups(rule, members=members))
    with talks(bed, socket.SOCK_STREAM, 80) as (talk,):
        assert talk.passes()
        serve(bed, groups(rule, members=(*members, "10.65.0.77/32")))
        assert talk.passes()
        serve(bed, groups(rule, members=members[1:]))
        assert not talk.passes()


def test_p07_what_changed_while_no_agent_ran_is_cut_at_the_next_start(
    bed: HostBed,
) -> None:
    serve(bed, groups(allow(6, 80)))
    with talks(bed, socket.SOCK_STREAM, 80) as (talk,):
        assert talk.passes()
        bed.restart()
        serve(bed, groups())
        assert not talk.passes()


def test_a_server_that_goes_on_sending_does_not_bring_a_cut_connection_back(
    bed: HostBed,
) -> None:
    serve(bed, groups(allow(17, 53)))
    with talks(bed, socket.SOCK_DGRAM, 53) as (talk,):
        assert talk.passes()
        assert talk.passes(back=True)
        serve(bed, groups())
        assert not talk.passes(back=True)
        assert not talk.passes()


@pytest.mark.parametrize(
    ("office", "reached"),
    [((), False), (("10.65.0.0/24",), True), (("10.66.0.0/24",), False)],
    ids=["empty", "holds the client", "holds others"],
)
def test_p01_an_address_group_is_those_addresses_and_not_everyone(
    bed: HostBed, office: tuple[str, ...], *, reached: bool
) -> None:
    serve(bed, groups(allow(6, 80, RemoteAddressGroup(OFFICE)), office=office))
    assert reaches(bed, 80) is reached


@pytest.mark.parametrize(
    "prefixes",
    [
        ("0.0.0.0/0", "::/0"),
        ("240.0.0.0/4", "10.0.0.0/8", "ff00::/8", "2001:db8::/32"),
        ("255.255.255.254/31", "255.255.255.255/32", "0.0.0.0/31"),
    ],
)
def test_prefixes_at_the_ends_of_all_addresses_stay_as_they_are(
    bed: HostBed, prefixes: tuple[str, ...]
) -> None:
    """What is read back is what was meant, in a group's own sets and a remote's."""
    networks = [ip_network(prefix) for prefix in prefixes]
    own = [
        replace(allow(17, 7, n, n.version), id=f"own-{i}")
        for i, n in enumerate(networks)
    ]
    named = [allow(6, 80, RemoteAddressGroup(OFFICE), version) for version in (4, 6)]
    serve(bed, groups(*own, *named, office=prefixes))
    assert bed.changes(A, B) == []


def test_p06_a_stateless_group_remembers_nothing(bed: HostBed) -> None:
    serve(bed, groups(allow(17, 53), stateful=False))
    with talks(bed, socket.SOCK_DGRAM, 53) as (talk,):
        assert talk.passes()
        assert not talk.passes(back=True), "the answer has no rule of its own"
    serve(bed, groups(allow(17, 53)))
    with talks(bed, socket.SOCK_DGRAM, 53) as (talk,):
        assert talk.passes()
        assert talk.passes(back=True)


def test_p03_a_port_bound_is_exact(bed: HostBed) -> None:
    between = Rule(version=4, protocol=6, ports=PortRange(first=80, last=82), id="r")
    serve(bed, groups(between))
    assert [reaches(bed, port) for port in (79, 80, 82, 83)] == [
        False,
        True,
        True,
        False,
    ]


def test_p05_without_port_security_a_port_is_open_and_not_a_black_hole(
    bed: HostBed,
) -> None:
    bed.groups = groups()
    opened = replace(B, port_security=False, groups=frozenset())
    assert bed.serve(A, opened).problems == ()
    assert reaches(bed, 80)


def test_a_group_that_nothing_is_known_of_allows_nothing(bed: HostBed) -> None:
    bed.groups = replace(groups(), policies={CLIENTS: groups().policies[CLIENTS]})
    assert bed.serve(A, B).problems == ()
    assert not reaches(bed, 80)


def test_p15_names_are_asked_of_no_host_and_of_others_by_rule_only(
    bed: HostBed,
) -> None:
    bed.host.ip("addr", "add", "192.0.2.1/32", "dev", "lo")
    serve(bed, groups(allow(17, 53)))
    with in_netns(bed.host), socket.socket(type=socket.SOCK_DGRAM) as at_host:
        at_host.bind(("", 53))
        at_host.settimeout(QUIET)
        with open_in(bed.guests[A.port], socket.SOCK_DGRAM, 4) as asker:
            for address in ("192.0.2.1", "10.65.0.1"):
                asker.sendto(b"name?", (address, 53))
            with pytest.raises(TimeoutError):
                at_host.recv(100)
    assert reaches(bed, 53, socket.SOCK_DGRAM), "another guest's, by its rule"


def test_a_packet_counts_for_the_rule_that_let_it_in(bed: HostBed) -> None:
    serve(bed, groups(allow(6, 80), allow(6, 81)))
    assert reaches(bed, 80)
    assert not reaches(bed, 99)
    with in_netns(bed.host):
        hits = {(h.direction, h.group, h.rule): h.packets for h in read_hits(Nft())}
    assert hits["ingress", SERVERS, "6-80-4"] == 1
    assert hits["ingress", SERVERS, "6-81-4"] == 0
    assert hits["egress", CLIENTS, "any4"] >= 2
    assert hits["ingress", "", ""] >= 1


def test_instances_are_forwarded_by_uplinks_and_no_other_interface(
    bed: HostBed,
) -> None:
    outside = {name: bed.stack.enter_context(Netns(name)) for name in ("up0", "mgmt")}
    for number, (name, there) in enumerate(outside.items(), 1):
        link(bed.host, name, there, "eth0")
        bed.host.ip("addr", "add", f"192.0.2.{number * 16}/28", "dev", name)
        there.ip("addr", "add", f"192.0.2.{number * 16 + 1}/28", "dev", "eth0")
        there.ip("route", "add", "default", "via", f"192.0.2.{number * 16}")
    bed.settings = AgentSettings(host=HOST, uplinks=("up0",))
    serve(bed, groups(Rule(version=4, id="any4")))
    b = bed.guests[B.port]
    assert b.pings("192.0.2.17"), "by the uplink"
    assert outside["up0"].pings("10.65.0.3")
    assert not b.pings("192.0.2.33"), "the host's own network"
    assert not outside["mgmt"].pings("10.65.0.3")
