"""Neutron's dictionaries become records; what cannot be expressed is never widened."""

from dataclasses import replace
from ipaddress import ip_address, ip_network
from typing import Any

import pytest

from calico.model.ids import AddressGroupId, GroupId, Invalid, ProjectId
from calico.model.records import Nat, PortRange, RemoteAddressGroup, RemoteGroup
from calico.policy.ownership import Grounds, Space
from calico.server import translate
from calico.server.translate import Surroundings

NOTHING = Surroundings(subnets={}, networks={}, group_names={})
PROJECT = ProjectId("project")
GROUNDS = Grounds(
    space=Space(owned={PROJECT: frozenset({ip_network("10.9.0.0/24")})}),
    reserved={PROJECT: frozenset({ip_address("10.8.0.5")})},
)


def port(**changes: Any) -> dict[str, Any]:
    written = {
        "id": "11111111-2222-3333-4444-555555555555",
        "network_id": "net",
        "project_id": "project",
        "device_id": "instance",
        "device_owner": "compute:nova",
        "mac_address": "fa:16:3e:00:00:01",
        "admin_state_up": True,
        "fixed_ips": [{"subnet_id": "s4", "ip_address": "10.0.0.2"}],
        "security_groups": ["sg"],
        "binding:host_id": "h1",
        "binding:vif_type": "tap",
        "binding:vif_details": {"bound_drivers": {"0": "calico"}},
    }
    return written | changes


def rule(**changes: Any) -> dict[str, Any]:
    written = {
        "id": "rule",
        "direction": "ingress",
        "ethertype": "IPv4",
        "protocol": None,
        "port_range_min": None,
        "port_range_max": None,
        "remote_ip_prefix": None,
        "remote_group_id": None,
        "remote_address_group_id": None,
    }
    return written | changes


def group(*rules: dict[str, Any], **changes: Any) -> dict[str, Any]:
    return {"id": "sg", "name": "web", "security_group_rules": list(rules)} | changes


@pytest.mark.parametrize(
    "changes",
    [
        {"admin_state_up": False},
        {"binding:host_id": ""},
        {"device_id": ""},
    ],
    ids=["down", "no host", "unused"],
)
def test_only_ports_that_are_in_use_are_published(
    changes: dict[str, Any],
) -> None:
    assert translate.is_published(port())
    assert not translate.is_published(port(**changes))


def test_an_endpoint_has_addresses_gateways_names_and_pairs() -> None:
    written = port(
        fixed_ips=[
            {"subnet_id": "s6", "ip_address": "2001:db8::2"},
            {"subnet_id": "s4", "ip_address": "10.0.0.2"},
        ],
        allowed_address_pairs=[
            {"ip_address": "10.9.0.0/24", "mac_address": "FA:16:3E:00:00:09"},
            {"ip_address": "10.8.0.5", "mac_address": "FA:16:3E:00:00:09"},
        ],
        port_security_enabled=False,
    )
    around = Surroundings(
        subnets={"s4": {"gateway_ip": "10.0.0.1"}, "s6": {"gateway_ip": None}},
        networks={"net": {"name": "blue"}},
        group_names={"sg": "web"},
        grounds=GROUNDS,
    )

    endpoint, omitted = translate.endpoint(written, around)

    assert omitted == []
    assert endpoint.addresses == (ip_address("10.0.0.2"), ip_address("2001:db8::2"))
    assert (endpoint.gateway4, endpoint.gateway6) == (ip_address("10.0.0.1"), None)
    assert endpoint.network_name == "blue"
    assert endpoint.group_names == (("sg", "web"),)
    assert not endpoint.port_security
    assert endpoint.interface == "tap11111111-22"
    assert [(p.prefix, p.mac) for p in endpoint.pairs] == [
        (ip_network("10.9.0.0/24"), "fa:16:3e:00:00:09"),
        (ip_network("10.8.0.5/32"), "fa:16:3e:00:00:09"),
    ]
    assert endpoint.granted == (ip_network("10.8.0.5/32"),)
    assert {str(m.address) for m in translate.members(endpoint)} == {
        "10.0.0.2/32",
        "2001:db8::2/128",
        "10.9.0.0/24",
        "10.8.0.5/32",
    }


def test_a_floating_ip_of_an_address_that_the_port_has_not_is_left_out() -> None:
    written = port()
    floating = [
        {"fixed_ip_address": fixed, "floating_ip_address": external}
        for fixed, external in (
            ("10.0.0.2", "172.16.0.9"),
            ("10.0.0.3", "172.16.0.8"),
            ("10.0.0.2", "172.16.0.10"),
        )
    ]
    around = Surroundings(
        subnets={}, networks={}, group_names={}, floating={written["id"]: floating}
    )
    endpoint, omitted = translate.endpoint(written, around)
    assert endpoint.nats == tuple(
        Nat(internal=ip_address("10.0.0.2"), external=ip_address(external))
        for external in ("172.16.0.9", "172.16.0.10")
    )
    assert [one.reason for one in omitted] == ["10.0.0.3 is no address of the port"]


def test_p41_a_forwarding_that_hosts_cannot_do_is_left_out() -> None:
    written = port()

    def row(protocol: str, first: int) -> dict[str, object]:
        return {
            "floating_ip_address": "172.16.0.9",
            "protocol": protocol,
            "external_port_start": first,
            "external_port_end": first + 1,
            "internal_ip_address": "10.0.0.9",
            "internal_port_start": 80,
            "internal_port_end": 80,
        }

    rows = [row("udp", 90), row("tcp", 90), row("tcp", 80), row("icmp", 1)]
    around = Surroundings(
        subnets={}, networks={}, group_names={}, forwardings={written["id"]: rows}
    )
    endpoint, omitted = translate.endpoint(written, around)
    assert [str(one) for one in endpoint.forwardings] == [
        f"forwarding of 172.16.0.9:{ports} to 10.0.0.9:80"
        for ports in ("80-81", "90-91", "90-91")
    ]
    assert [one.protocol for one in endpoint.forwardings] == [6, 6, 17]
    (one,) = omitted
    assert "protocol 1 has no ports" in one.reason


def test_p47_a_pair_of_anothers_space_is_in_neither_endpoint_nor_index() -> None:
    written = port(
        project_id="another",
        allowed_address_pairs=[
            {"ip_address": address, "mac_address": "fa:16:3e:00:00:09"}
            for address in ("10.9.0.0/24", "10.8.0.5", "10.9.0.1", "10.0.0.2")
        ],
    )
    around = Surroundings(subnets={}, networks={}, group_names={}, grounds=GROUNDS)
    endpoint, omitted = translate.endpoint(written, around)
    assert [str(p.prefix) for p in endpoint.pairs] == ["10.0.0.2/32"]
    assert endpoint.granted == ()
    assert {str(m.address) for m in translate.members(endpoint)} == {"10.0.0.2/32"}
    assert [one.what for one in omitted] == [
        "pair 10.9.0.0/24",
        "pair 10.8.0.5/32",
        "pair 10.9.0.1/32",
    ]


@pytest.mark.parametrize("owner", ["network:dhcp", "network:routed", "trunk:subport"])
def test_p53_no_device_owner_lifts_the_checks_of_a_port(owner: str) -> None:
    pairs = [{"ip_address": "0.0.0.0/0", "mac_address": "fa:16:3e:00:00:09"}]
    written = port(device_owner=owner, allowed_address_pairs=pairs)
    endpoint, omitted = translate.endpoint(written, NOTHING)
    assert endpoint.port_security
    assert endpoint.pairs == ()
    assert len(omitted) == 1


def test_p54_a_dhcp_option_with_a_newline_is_left_out_alone() -> None:
    written = port(
        extra_dhcp_opts=[
            {"opt_name": "domain-name", "opt_value": "a\nb", "ip_version": 4},
            {"opt_name": "mtu", "opt_value": "1400", "ip_version": 4},
        ]
    )
    endpoint, omitted = translate.endpoint(written, NOTHING)
    assert [option.name for option in endpoint.dhcp_options] == ["mtu"]
    assert "control character" in str(omitted[0])


def test_p01_a_remote_address_group_is_the_rules_remote_end() -> None:
    assert translate.rule(
        rule(remote_address_group_id="ag")
    ).remote == RemoteAddressGroup(AddressGroupId("ag"))
    assert translate.rule(rule(remote_group_id="sg")).remote == RemoteGroup(
        GroupId("sg")
    )


def test_p01_what_is_not_understood_allows_nothing() -> None:
    bad = rule(id="bad", protocol="quic")
    policy, omitted = translate.policy(group(bad, rule(id="good", protocol="tcp")))
    assert [r.id for r in policy.ingress] == ["good"]
    assert "quic" in str(omitted[0])


@pytest.mark.parametrize(
    ("protocol", "ethertype", "number"),
    [
        (None, "IPv4", None),
        ("any", "IPv6", None),
        ("tcp", "IPv4", 6),
        ("TCP", "IPv4", 6),
        ("6", "IPv4", 6),
        (6, "IPv4", 6),
        ("+6", "IPv4", 6),  # Neutron takes whatever int() does
        (" 6", "IPv4", 6),
        ("0", "IPv4", 0),
        ("icmp", "IPv4", 1),
        ("icmp", "IPv6", 58),
        ("icmpv6", "IPv6", 58),
        ("ipv6-icmp", "IPv6", 58),
        ("1", "IPv6", 58),
        ("58", "IPv6", 58),
        ("58", "IPv4", 58),
        ("sctp", "IPv6", 132),
        ("vrrp", "IPv4", 112),
        ("255", "IPv4", 255),
    ],
)
def test_p03_p55_every_name_of_a_protocol_has_one_number(
    protocol: str | int | None, ethertype: str, number: int | None
) -> None:
    written = rule(protocol=protocol, ethertype=ethertype)
    assert translate.rule(written).protocol == number


def test_p03_a_numeric_icmp_protocol_keeps_type_and_code() -> None:
    found = translate.rule(rule(protocol="1", port_range_min=8, port_range_max=0))
    assert (found.icmp_type, found.icmp_code, found.ports) == (8, 0, None)


@pytest.mark.parametrize(
    "changes",
    [
        {"protocol": "nonsense"},
        {"protocol": "256"},
        {"protocol": "-1"},
        {"protocol": "dccp", "port_range_min": 1, "port_range_max": 2},
        {"protocol": "udplite", "port_range_min": 1, "port_range_max": 2},
        {"protocol": "58", "port_range_min": 128},
        {"protocol": "vrrp", "port_range_min": 1, "port_range_max": 2},
        {"port_range_min": 1, "port_range_max": 2},
        {"protocol": "tcp", "port_range_min": 1},
        {"ethertype": "ARP"},
        {"remote_ip_prefix": "2001:db8::/32"},
        {"remote_ip_prefix": "nonsense"},
    ],
    ids=str,
)
def test_p55_a_rule_that_cannot_be_expressed_is_refused(
    changes: dict[str, Any],
) -> None:
    with pytest.raises(Invalid):
        translate.rule(rule(**changes))


def test_ports_and_prefixes_are_parsed() -> None:
    found = translate.rule(
        rule(
            protocol="udp",
            port_range_min=53,
            port_range_max=54,
            remote_ip_prefix="10.0.0.1/8",
        )
    )
    assert found.ports == PortRange(first=53, last=54)
    assert found.remote == ip_network("10.0.0.0/8")


def test_p06_a_stateless_group_stays_stateless() -> None:
    assert not translate.policy(group(stateful=False))[0].stateful
    assert translate.policy(group())[0].stateful


@pytest.mark.parametrize(
    ("dns_name", "assigned", "wanted"),
    [
        ("web", "web.blue.example.", "web.blue.example"),
        ("", "host-10-0-0-2.cloud.example.", None),  # of Neutron's own making
        (None, "", None),
    ],
    ids=["named", "nameless", "without the extension"],
)
def test_only_a_name_that_was_given_is_a_ports_name(
    dns_name: str | None, assigned: str, wanted: str | None
) -> None:
    names = {} if dns_name is None else {"dns_name": dns_name}
    assignment = [{"ip_address": "10.0.0.2", "fqdn": assigned}] if assigned else []
    written = port(**names, dns_assignment=assignment)
    found, _ = translate.endpoint(written, NOTHING)
    assert found.fqdn == wanted


@pytest.mark.parametrize(
    ("names", "domain", "wanted"),
    [
        ({"dns_name": "web"}, "blue.example.", ("web.blue.example",)),
        (
            {"dns_name": "web", "dns_domain": "own.example."},
            "blue.example.",
            ("web.own.example", "web.blue.example"),
        ),
        ({"dns_name": "web"}, "cloud.example.", ()),
        ({"dns_name": "web"}, "", ()),
        ({"dns_name": "web.cloud.example."}, "blue.example.", ()),
        ({"dns_name": ""}, "blue.example.", ()),
        ({}, None, ()),
    ],
    ids=["network's", "own", "cloud's", "none", "whole name", "nameless", "no such"],
)
def test_a_port_has_its_name_in_the_domains_of_its_own_and_its_networks(
    names: dict[str, str], domain: str | None, wanted: tuple[str, ...]
) -> None:
    assignment = [{"ip_address": "10.0.0.2", "fqdn": "web.cloud.example."}]
    written = port(**names, network_id="net", dns_assignment=assignment)
    around = replace(NOTHING, networks={"net": {"dns_domain": domain}})
    found, _ = translate.endpoint(written, around)
    assert found.aliases == wanted


def test_names_in_dns_are_a_ports_that_has_an_address_and_a_project() -> None:
    assignment = [{"ip_address": "10.0.0.2", "fqdn": "Web.cloud.example."}]
    written = port(dns_name="Web", dns_assignment=assignment)
    found, _ = translate.endpoint(written, NOTHING)
    named = translate.names(found)
    assert named is not None
    assert named.names == ("web.cloud.example",)
    assert named.addresses == found.addresses
    for without in (
        replace(found, addresses=()),
        replace(found, project=ProjectId("")),
        replace(found, fqdn=None),
        replace(found, fqdn="no name"),
    ):
        assert translate.names(without) is None


def test_a_subnet_carries_what_dhcp_needs() -> None:
    found = translate.subnet(
        {
            "id": "s6",
            "network_id": "net",
            "cidr": "2001:db8::/64",
            "project_id": "project",
            "gateway_ip": "2001:db8::1",
            "enable_dhcp": True,
            "dns_nameservers": ["2001:db8::53"],
            "host_routes": [
                {"destination": "2001:db8:1::/64", "nexthop": "2001:db8::9"}
            ],
            "ipv6_ra_mode": "slaac",
            "ipv6_address_mode": "slaac",
        },
        {"mtu": 1450, "dns_domain": "example.org."},
    )
    assert (found.mtu, found.dns_domain, found.ra_mode) == (
        1450,
        "example.org",
        "slaac",
    )
    assert found.project == "project"
    assert found.dns_servers == (ip_address("2001:db8::53"),)
    assert found.host_routes[0].nexthop == ip_address("2001:db8::9")


def test_an_address_group_is_sorted_and_without_doubles() -> None:
    found = translate.address_group(
        {"id": "ag", "name": "x", "addresses": ["2001:db8::/32", "10.0.0.0/8"] * 2}
    )
    assert [str(p) for p in found.prefixes] == ["10.0.0.0/8", "2001:db8::/32"]
