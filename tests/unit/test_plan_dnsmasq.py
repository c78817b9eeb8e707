"""What dnsmasq and radvd are told, from a host's world."""

from ipaddress import ip_address, ip_interface, ip_network
from typing import Any

import pytest

from calico.model.ids import (
    DeviceId,
    HostName,
    Invalid,
    Mac,
    NetworkId,
    PortId,
    ProjectId,
    SubnetId,
    host_side_mac,
    tap_name,
)
from calico.model.records import DhcpOption, Endpoint, HostRoute, Subnet
from calico.model.world import World
from calico.plan.dhcp_options import MAX_LINE, render_option, render_routes
from calico.plan.dhcp_ports import mac_settings
from calico.plan.dnsmasq import DhcpState, plan_dnsmasq
from calico.plan.host import link_local
from calico.plan.radvd import plan_radvd

HOST = HostName("host-1")
TAGS = "tag:m0fa,tag:m116,tag:m23e,tag:m300,tag:m400,tag:m501"


def port(number: int, *addresses: str, **rest: Any) -> Endpoint:
    identifier = PortId(f"{number:08x}-0000-4000-8000-000000000000")
    fields: dict[str, Any] = {
        "host": HOST,
        "device": DeviceId("device"),
        "port": identifier,
        "interface": tap_name(identifier),
        "mac": Mac(f"fa:16:3e:00:00:{number:02x}"),
        "network": NetworkId("net"),
        "project": ProjectId("project"),
        "addresses": tuple(map(ip_address, addresses)),
    }
    return Endpoint(**(fields | rest))


def subnet(prefix: str, gateway: str | None, **rest: Any) -> Subnet:
    fields: dict[str, Any] = {
        "id": SubnetId(f"id-{prefix}"),
        "network": NetworkId("net"),
        "prefix": ip_network(prefix),
        "gateway": ip_address(gateway) if gateway else None,
    }
    return Subnet(**(fields | rest))


def world(ports: list[Endpoint], subnets: list[Subnet]) -> World:
    indexed = {s.id: s for s in subnets}
    return World(host=HOST, endpoints=tuple(ports), subnets=indexed)


def plan(ports: list[Endpoint], subnets: list[Subnet]) -> DhcpState:
    return plan_dnsmasq(world(ports, subnets))


FOUR = subnet("10.65.0.0/24", "10.65.0.1")
SIX = subnet("2001:db8::/64", "2001:db8::1", ra_mode="dhcpv6-stateful")


def test_one_port_one_subnet() -> None:
    state = plan([port(1, "10.65.0.5")], [FOUR])
    assert state.gateways == (ip_interface("10.65.0.1/24"),)
    assert state.ranges == ("dhcp-range=10.65.0.0,static,255.255.255.0,24h",)
    assert state.hosts == "fa:16:3e:00:00:01,10.65.0.5\n"
    assert state.options.splitlines() == [
        f"{TAGS},option:router,10.65.0.1",
        f"{TAGS},option:dns-server,10.65.0.1",
        f"{TAGS},option:mtu,1500",
        f"{TAGS},121,00:0a:41:00:01",
        f"{TAGS},249,00:0a:41:00:01",
    ]
    assert state.refused == ()


def test_a_host_without_ports_of_a_subnet_knows_nothing_of_it() -> None:
    assert plan([], [FOUR, SIX]) == DhcpState()
    other = subnet("10.66.0.0/24", "10.66.0.1", network=NetworkId("other"))
    assert plan([port(1, "10.66.0.5")], [other]) == DhcpState()


def test_no_dhcp_where_it_is_off() -> None:
    off = subnet("10.65.0.0/24", "10.65.0.1", dhcp=False)
    state = plan([port(1, "10.65.0.5")], [off])
    assert (state.ranges, state.hosts, state.options) == ((), "", "")
    assert state.refused == ()


@pytest.mark.parametrize(
    ("gateway", "reason"),
    [(None, "no gateway"), ("192.0.2.1", "192.0.2.1 is not in 10.65.0.0/24")],
)
def test_s19_an_ipv4_subnet_without_a_gateway_in_it_is_told_of(
    gateway: str | None, reason: str
) -> None:
    state = plan([port(1, "10.65.0.5")], [subnet("10.65.0.0/24", gateway)])
    assert (state.ranges, state.hosts, state.options) == ((), "", "")
    (refused,) = state.refused
    assert (refused.subject, refused.wish) == ("subnet id-10.65.0.0/24", "DHCPv4")
    assert reason in refused.reason


@pytest.mark.parametrize("dhcp", [True, False])
def test_p47_a_gateway_outside_of_its_subnet_is_never_the_hosts_own(
    dhcp: bool,  # noqa: FBT001 - a case of the test
) -> None:
    outside = subnet("10.65.0.0/24", "192.0.2.1", dhcp=dhcp)
    six = subnet("2001:db8::/64", "2001:db8:ffff::1", dhcp=dhcp)
    state = plan([port(1, "10.65.0.5", "2001:db8::5")], [outside, six])
    assert state.gateways == (ip_interface("2001:db8::/64"),)


def test_s19_an_ipv6_subnet_is_served_without_a_gateway_too() -> None:
    state = plan([port(1, "2001:db8::5")], [subnet("2001:db8::/64", None)])
    assert state.gateways == (ip_interface("2001:db8::/64"),)
    assert state.ranges == ("dhcp-range=2001:db8::,static,64,1h",)
    assert "[2001:db8::5]" in state.hosts
    assert state.refused == ()


def test_a_subnet_without_dhcp_keeps_its_gateway_address() -> None:
    state = plan(
        [port(1, "10.65.0.5")], [subnet("10.65.0.0/24", "10.65.0.1", dhcp=False)]
    )
    assert state.gateways == (ip_interface("10.65.0.1/24"),)


def test_a_link_local_gateway_is_stood_for_by_the_routers_anycast_address() -> None:
    state = plan([port(1, "2001:db8::5")], [subnet("2001:db8::/64", "fe80::1")])
    assert state.gateways == (ip_interface("2001:db8::/64"),)


def test_p14_a_stateless_port_has_no_address_in_dhcpv6() -> None:
    stateless = subnet("2001:db8::/64", "2001:db8::1", ra_mode="dhcpv6-stateless")
    state = plan([port(1, "10.65.0.5", "2001:db8::77")], [FOUR, stateless])
    # The last match counts for IPv4, and it is the one with the address.
    assert state.hosts.splitlines() == [
        "fa:16:3e:00:00:01",
        "fa:16:3e:00:00:01,10.65.0.5",
    ]
    assert ip_address("2001:db8::77") not in state.holders


def test_p14_prefixes_of_all_lengths_have_ranges() -> None:
    def ranges(prefix: str, *addresses: str) -> tuple[str, ...]:
        of = subnet(prefix, "2001:db8::1", ra_mode="dhcpv6-stateful")
        return plan([port(1, *addresses)], [of]).ranges

    assert ranges("2001:db8::/80", "2001:db8::5") == (
        "dhcp-range=2001:db8::,static,80,1h",
    )
    assert ranges("2001:db8::/56", "2001:db8::5", "2001:db8:0:9::5") == (
        "dhcp-range=2001:db8:0:9::,static,64,1h",
        "dhcp-range=2001:db8::,static,64,1h",
        "shared-network=calico-dhcp,2001:db8:0:9::",
        "shared-network=calico-dhcp,2001:db8::",
    )


def test_a_slaac_subnet_is_none_of_dhcps_business() -> None:
    slaac = subnet(
        "2001:db8::/64", "2001:db8::1", ra_mode="slaac", address_mode="slaac"
    )
    state = plan([port(1, "2001:db8::5")], [slaac])
    assert (state.ranges, state.hosts) == ((), "")


def test_ports_of_one_mac_are_told_apart_by_refusing_the_second() -> None:
    twin = port(2, "10.65.0.6", mac=Mac("fa:16:3e:00:00:01"))
    state = plan([port(1, "10.65.0.5"), twin], [FOUR])
    assert "10.65.0.6" not in state.hosts
    assert [r.subject for r in state.refused] == [f"port {twin.port}"]


def test_s19_all_that_a_subnet_says_is_handed_out() -> None:
    route = HostRoute(
        destination=ip_network("172.16.0.0/12"), nexthop=ip_address("10.65.0.9")
    )
    full = subnet(
        "10.65.0.0/24",
        "10.65.0.1",
        dns_servers=(ip_address("192.0.2.1"), ip_address("192.0.2.2")),
        host_routes=(route,),
        mtu=1442,
        dns_domain="example.org.",
    )
    options = plan([port(1, "10.65.0.5")], [full]).options.splitlines()
    assert f"{TAGS},option:dns-server,192.0.2.1,192.0.2.2" in options
    assert f"{TAGS},option:mtu,1442" in options
    assert f'{TAGS},option:domain-name,"example.org"' in options
    assert f"{TAGS},121,0c:ac:10:0a:41:00:09:00:0a:41:00:01" in options


def test_the_unspecified_dns_server_means_none() -> None:
    none = subnet("10.65.0.0/24", "10.65.0.1", dns_servers=(ip_address("0.0.0.0"),))
    assert "dns-server" not in plan([port(1, "10.65.0.5")], [none]).options


def test_routes_that_do_not_fit_are_refused_and_the_rest_is_served() -> None:
    routes = tuple(
        HostRoute(
            destination=ip_network(f"172.16.{n}.0/24"), nexthop=ip_address("10.65.0.9")
        )
        for n in range(40)
    )
    state = plan(
        [port(1, "10.65.0.5")],
        [subnet("10.65.0.0/24", "10.65.0.1", host_routes=routes)],
    )
    assert [(r.subject, r.wish) for r in state.refused] == [
        ("subnet id-10.65.0.0/24", "host routes")
    ]
    assert "option:router" in state.options


def test_p12_a_refused_option_names_the_port_and_the_option() -> None:
    options = (
        DhcpOption(name="bogus", value="1", version=4),
        DhcpOption(name="mtu", value="1400", version=4),
    )
    one = port(1, "10.65.0.5", dhcp_options=options)
    state = plan([one], [FOUR])
    assert [(r.subject, r.wish) for r in state.refused] == [
        (f"port {one.port}", "DHCPv4 option 'bogus'")
    ]
    # After the subnet's own, as dnsmasq takes the last.
    assert state.options.splitlines()[-1] == f"{TAGS},26,1400s"


@pytest.mark.parametrize(
    ("version", "name", "value", "line"),
    [
        (4, "ntp-server", "192.0.2.1, 192.0.2.2", "42,192.0.2.1,192.0.2.2"),
        (4, "option:router", "10.0.0.9", "3,10.0.0.9"),
        (4, "router", "", "3"),
        (4, "server-ip-address", "10.0.0.9", "option:server-ip-address,10.0.0.9"),
        (4, "tag:ipxe,67", "a", 'tag:ipxe,67,"a"'),
        (4, "tag:!ipxe,bootfile-name", "b", 'tag:!ipxe,67,"b"'),
        (4, "domain-search", "a.test,b.test", "119,a.test,b.test"),
        (4, "121", "10.0.0.0/8,192.0.2.1", "121,08:0a:c0:00:02:01"),
        (4, "224", "01:02:fF", "224,01:02:fF"),
        (4, "224", "text, with comma", '224,"text, with comma"'),
        (4, "150", "10.0.0.9", "150,10.0.0.9"),
        (4, "T1", "300", "58,300"),
        (6, "dns-server", "2001::1,[2001::2]", "option6:23,[2001::1],[2001::2]"),
        (6, "59", "http://a/b", 'option6:59,"http://a/b"'),
        (6, "option6:sntp-server", "2001:db8::1", "option6:31,[2001:db8::1]"),
    ],
)  # fmt: skip
def test_p12_options_by_name_and_number(
    version: int, name: str, value: str, line: str
) -> None:
    option = DhcpOption(name=name, value=value, version=version)
    assert render_option("tag:x", option) == f"tag:x,{line}"


@pytest.mark.parametrize(
    ("version", "name", "value"),
    [
        (4, "mtu", "big"),
        (4, "mtu", "65536"),
        (4, "dns-server", "2001:db8::1"),
        (6, "dns-server", "192.0.2.1"),
        (6, "dns-server", "fe80::1%eth0"),
        (4, "51", "3600"),
        (4, "54", "10.0.0.1"),
        (4, "255", "10.0.0.1"),
        (6, "3", "1"),
        (6, "bootfile-name", "a"),
        (4, "tag:known,67", "a"),
        (4, "vendor:x,67", "a"),
        (4, "3,tag:x", "10.0.0.1"),
        (4, "domain-search", "a b"),
        (4, "67", "x" * 256),
        (6, "59", "x" * MAX_LINE),
        (4, "67", "ü"),
    ],
)
def test_p54_what_is_no_value_of_its_option_is_refused(
    version: int, name: str, value: str
) -> None:
    with pytest.raises(Invalid):
        render_option("tag:x", DhcpOption(name=name, value=value, version=version))


def test_p54_quotes_and_backslashes_are_escaped() -> None:
    option = DhcpOption(name="67", value='a",3,1.2.3.4 \\" #', version=4)
    assert render_option("tag:x", option) == ('tag:x,67,"a\\",3,1.2.3.4 \\\\\\" #"')


def test_p54_a_host_name_or_domain_of_strange_characters_is_left_out() -> None:
    strange = subnet("10.65.0.0/24", "10.65.0.1", dns_domain='a",b\n')
    state = plan([port(1, "10.65.0.5", fqdn="we,b\n.x y")], [strange])
    assert state.hosts == "fa:16:3e:00:00:01,10.65.0.5\n"
    assert "domain" not in state.options


def test_routes_as_rfc_3442_writes_them() -> None:
    def route(to: str) -> HostRoute:
        return HostRoute(destination=ip_network(to), nexthop=ip_address("10.0.0.1"))

    assert render_routes([route("10.17.0.0/16"), route("10.27.129.0/24")]) == (
        "10:0a:11:0a:00:00:01:18:0a:1b:81:0a:00:00:01"
    )


def test_every_octet_of_a_mac_is_a_tag() -> None:
    settings = mac_settings().splitlines()
    assert len(settings) == 6 * 256
    assert "dhcp-mac=set:m23e,*:*:3e:*:*:*" in settings


def test_s19_advertisements_by_mode() -> None:
    def flags(mode: str) -> tuple[bool, ...]:
        six = subnet("2001:db8::/64", "2001:db8::1", ra_mode=mode, address_mode=mode)
        text = plan_radvd(world([port(1, "2001:db8::5")], [six]))
        names = ("AdvManagedFlag", "AdvOtherConfigFlag", "AdvAutonomous")
        return tuple(f"{name} on;" in text for name in names)

    assert flags("slaac") == (False, False, True)
    assert flags("dhcpv6-stateless") == (False, True, True)
    assert flags("dhcpv6-stateful") == (True, True, False)


def test_s19_a_tap_is_told_of_its_own_prefixes_never_on_link() -> None:
    other = subnet(
        "2001:db8:9::/64", "2001:db8:9::1", ra_mode="slaac", network=NetworkId("other")
    )
    ports = [
        port(1, "2001:db8::5"),
        port(2, "2001:db8:9::5", network=NetworkId("other")),
    ]
    stanzas = plan_radvd(world(ports, [SIX, other])).split("interface ")[1:]
    assert [("2001:db8::/64" in s, "2001:db8:9::/64" in s) for s in stanzas] == [
        (True, False),
        (False, True),
    ]
    assert all(s.count("AdvOnLink off;") == s.count("prefix ") == 1 for s in stanzas)


def test_s19_a_host_is_no_default_router_of_a_subnet_without_a_gateway() -> None:
    def advertised(*subnets: Subnet) -> str:
        addresses = [str(s.prefix[5]) for s in subnets]
        return plan_radvd(world([port(1, *addresses)], list(subnets)))

    closed, open_ = subnet("2001:db8::/64", None), subnet("2001:db8:1::/64", "fe80::1")
    alone, both = advertised(closed), advertised(closed, open_)
    assert "AdvDefaultLifetime 0;" in alone
    assert "prefix 2001:db8::/64" in alone
    assert "route 2001:db8::/64" in alone
    assert "AdvDefaultLifetime 9000;" in both
    assert "route 2001:db8:1::/64" not in both


def test_advertisements_come_from_the_taps_own_address() -> None:
    one = port(1, "2001:db8::5")
    source = link_local(host_side_mac(one.mac))
    text = plan_radvd(world([one], [SIX]))
    assert f"AdvRASrcAddress {{ {source}; }};" in text


def test_no_advertisement_without_ipv6_dhcp() -> None:
    off = subnet("2001:db8::/64", "2001:db8::1", dhcp=False)
    assert plan_radvd(world([port(1, "10.65.0.5", "2001:db8::5")], [FOUR, off])) == ""
