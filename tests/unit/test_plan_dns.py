"""Whom instances are told to ask for names, and what their host's responder knows."""

from dataclasses import replace
from ipaddress import ip_address, ip_network

import pytest
from tests.endpoints import HOST, NETWORK, PROJECT, endpoint

from calico.model.groups import Groups
from calico.model.ids import InterfaceName, NetworkId, PortId, ProjectId, SubnetId
from calico.model.names import PortNames
from calico.model.records import Endpoint, Subnet
from calico.model.world import World
from calico.plan.dns import asked, dns_servers
from calico.plan.dns_table import Known, decode_table, encode_table, plan_dns
from calico.plan.filter import FilterFacts, FilterPlanner, merged
from calico.plan.ruleset import DNS

ONE, TWO = endpoint(1), endpoint(2)
FOUR = Subnet(
    id=SubnetId("s4"),
    network=NETWORK,
    prefix=ip_network("10.65.0.0/24"),
    gateway=ip_address("10.65.0.1"),
)
SIX = Subnet(
    id=SubnetId("s6"),
    network=NETWORK,
    prefix=ip_network("2001:db8:65::/64"),
    gateway=ip_address("2001:db8:65::1"),
    ra_mode="slaac",
    address_mode="slaac",
)
GATEWAYS = (ip_address("10.65.0.1"), ip_address("2001:db8:65::1"))


def world(*subnets: Subnet, endpoints: tuple[Endpoint, ...] = (ONE,)) -> World:
    indexed = {subnet.id: subnet for subnet in subnets}
    return World(host=HOST, endpoints=endpoints, subnets=indexed)


CASES = {
    "no servers: the host": ((FOUR, SIX), GATEWAYS),
    "servers: they alone": (
        (
            replace(FOUR, dns_servers=(ip_address("192.0.2.53"),)),
            replace(SIX, dns_servers=(ip_address("2001:db8::53"),)),
        ),
        (),
    ),
    "the unspecified one: none": (
        (
            replace(FOUR, dns_servers=(ip_address("0.0.0.0"),)),
            replace(SIX, dns_servers=(ip_address("::"),)),
        ),
        (),
    ),
    "without DHCP nothing is told": (
        (replace(FOUR, dhcp=False), replace(SIX, dhcp=False)),
        (),
    ),
    "by subnet": (
        (FOUR, replace(SIX, dns_servers=(ip_address("2001:db8::53"),))),
        GATEWAYS[:1],
    ),
    "no gateway, no IPv4 address of the host's": (
        (replace(FOUR, gateway=None), replace(SIX, gateway=None)),
        (),
    ),
    "a gateway elsewhere": (
        (
            replace(FOUR, gateway=ip_address("10.1.1.1")),
            replace(SIX, gateway=ip_address("fe80::1")),
        ),
        (ip_address("2001:db8:65::"),),
    ),
    "another network's": (
        tuple(replace(each, network=NetworkId("x")) for each in (FOUR, SIX)),
        (),
    ),
}


@pytest.mark.parametrize(("subnets", "wanted"), CASES.values(), ids=CASES)
def test_p15_a_port_asks_what_it_was_told_and_nothing_else(
    subnets: tuple[Subnet, ...], wanted: tuple[object, ...]
) -> None:
    found = world(*subnets)
    assert asked(found).get(ONE.port, ()) == wanted
    planner = FilterPlanner()
    facts = FilterFacts(taps=frozenset({ONE.interface}), dns=asked(found))
    elements = merged(planner.plan((ONE,), (), Groups(), facts).values()).elements
    assert {e.key for e in elements if e.set in DNS.values()} == {
        f'"{ONE.interface}" . {address}' for address in wanted
    }


@pytest.mark.parametrize("case", CASES)
def test_what_asks_its_host_is_told_of_nobody_else(case: str) -> None:
    subnets, wanted = CASES[case]
    told = {s for subnet in subnets for s in dns_servers(subnet)}
    listed = {s for subnet in subnets for s in subnet.dns_servers}
    named = {server for server in listed if not server.is_unspecified}
    if case == "another network's":
        wanted = GATEWAYS
    assert told == {*wanted} | named


def test_dhcp_announces_the_host_for_the_first_address_of_ipv4_only() -> None:
    other = replace(
        FOUR,
        id=SubnetId("other"),
        prefix=ip_network("10.66.0.0/24"),
        gateway=ip_address("10.66.0.1"),
    )
    addresses = (ip_address("10.65.0.5"), ip_address("10.66.0.5"))
    port = replace(ONE, addresses=addresses)
    assert asked(world(FOUR, other, endpoints=(port,))) == {port.port: GATEWAYS[:1]}


def test_p52_a_port_whose_tap_is_not_there_is_not_open() -> None:
    facts = FilterFacts(dns=asked(world(FOUR)))
    elements = merged(FilterPlanner().plan((ONE,), (), Groups(), facts).values())
    assert not [e for e in elements.elements if e.set in DNS.values()]


def index(interface: InterfaceName) -> int | None:
    return {ONE.interface: 7, TWO.interface: None}.get(interface)


def test_p29_the_responder_knows_the_names_of_those_who_ask_it() -> None:
    other = ProjectId("other")
    names = [
        PortNames(
            project=project,
            port=PortId(f"p-{project}"),
            names=("web.example",),
            addresses=(ip_address(address),),
        )
        for project, address in ((PROJECT, "10.0.0.1"), (other, "10.0.0.2"))
    ]
    found = replace(world(FOUR, SIX, endpoints=(ONE, TWO)), names=tuple(names))
    table = plan_dns(found, index, ["192.0.2.53"], ["Cloud.Example."])
    assert [(p.index, p.project, p.addresses) for p in table.ports] == [
        (7, PROJECT, tuple(map(str, GATEWAYS)))
    ], "the second has no interface"
    known = Known(names=("web.example",), addresses=("10.0.0.1",))
    assert table.names == {PROJECT: (known,)}
    assert (table.resolvers, table.domains) == (("192.0.2.53",), ("cloud.example",))
    assert decode_table(encode_table(table)) == table


def test_of_two_ports_with_one_interface_the_served_one_asks() -> None:
    double = replace(TWO, interface=ONE.interface, project=ProjectId("other"))
    table = plan_dns(world(FOUR, endpoints=(ONE, double)), index)
    assert [port.project for port in table.ports] == [PROJECT]
