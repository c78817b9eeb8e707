"""DHCP, router advertisements and what clients make of them, with the real programs."""

import os
import re
import signal
from collections.abc import Iterator
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

import pytest
from tests.kernel.dhcp_host import Asking, DhcpHost, Guest, dhcp_host, endpoint, world
from tests.kernel.netns import eventually, in_netns

from calico.lab import dhclient
from calico.model.ids import NetworkId, SubnetId
from calico.model.records import DhcpOption, HostRoute, Subnet
from calico.system.dhcp import DhcpService

STATEFUL = {"ra_mode": "dhcpv6-stateful", "address_mode": "dhcpv6-stateful"}
STATELESS = {"ra_mode": "dhcpv6-stateless", "address_mode": "dhcpv6-stateless"}
SLAAC = {"ra_mode": "slaac", "address_mode": "slaac"}
OUTSIDE4, OUTSIDE6 = "198.51.100.80", "2001:db8:ffff::80"


@pytest.fixture
def host(tmp_path: Path) -> Iterator[DhcpHost]:
    with dhcp_host(tmp_path) as made:
        yield made


def subnet(
    prefix: str,
    gateway: str | None,
    name: str = "a",
    *,
    network: str = "net-1",
    **rest: Any,
) -> Subnet:
    rest["dns_servers"] = tuple(map(ip_address, rest.pop("dns", ())))
    return Subnet(
        id=SubnetId(f"subnet-{name}"),
        network=NetworkId(network),
        prefix=ip_network(prefix),
        gateway=ip_address(gateway) if gateway else None,
        **rest,
    )


V4 = subnet("10.65.0.0/24", "10.65.0.1", dns=["192.0.2.53"])


def test_s19_ipv4_gets_address_gateway_dns_routes_mtu_and_name(host: DhcpHost) -> None:
    route = HostRoute(
        destination=ip_network("203.0.113.0/25"), nexthop=ip_address("10.65.0.9")
    )
    net = subnet(
        "10.65.0.0/24",
        "10.65.0.1",
        dns=["192.0.2.53", "192.0.2.54"],
        host_routes=(route,),
        mtu=1442,
        dns_domain="example.org.",
    )
    port = endpoint(1, "10.65.0.5", fqdn="web.example.org.")
    assert host.apply(world([port], [net])) == []
    guest = host.guest(port)
    guest.start_client()
    lease = guest.lease("dhcp4")
    assert lease["ip_address"] == "10.65.0.5"
    assert lease["subnet_cidr"] == "24"
    assert lease["routers"] == lease["dhcp_server_identifier"] == "10.65.0.1"
    assert lease["domain_name_servers"] == "192.0.2.53 192.0.2.54"
    assert lease["classless_static_routes"].split() == (
        ["203.0.113.0/25", "10.65.0.9", "0.0.0.0/0", "10.65.0.1"]
    )
    assert lease["interface_mtu"] == "1442"
    assert lease["domain_name"] == "example.org"
    assert lease["host_name"] == "web"
    guest.has("10.65.0.5/24", "address")
    guest.has("default via 10.65.0.1", "route")
    assert guest.netns.pings(OUTSIDE4)
    resolver = guest.state / "resolv.conf"
    eventually(lambda: "nameserver 192.0.2.54" in resolver.read_text())
    assert "192.0.2.54" not in Path("/etc/resolv.conf").read_text()


def test_s19_ipv6_stateful_gets_its_ports_address(host: DhcpHost) -> None:
    net = subnet(
        "2001:db8:1::/64", "2001:db8:1::1", dns=["2001:db8::53"], mtu=1442,
        dns_domain="example.org", **STATEFUL,
    )  # fmt: skip
    port = endpoint(1, "2001:db8:1::a:5")
    assert host.apply(world([port], [net])) == []
    guest = host.guest(port)
    guest.start_client()
    lease = guest.lease("dhcp6")
    assert lease["dhcp6_ia_na1_ia_addr1"] == "2001:db8:1::a:5"
    assert int(lease["dhcp6_ia_na1_ia_addr1_pltime"]) > 0
    assert lease["dhcp6_name_servers"] == "2001:db8::53"
    assert lease["dhcp6_domain_search"] == "example.org"
    assert_advertised(guest.lease("ra"), flags="MO", prefix="2001:db8:1::", auto=False)
    assert guest.lease("ra")["nd1_mtu"] == "1442"
    guest.has("2001:db8:1::a:5/128", "-6", "address")
    # Nothing is on-link, and the router is the host's end of the tap.
    assert "2001:db8:1::/64 dev" not in guest.netns.ip("-6", "route")
    guest.has("default via fe80::fc16:3eff:fe00:1", "-6", "route")
    eventually(lambda: guest.netns.pings(OUTSIDE6))


def test_s19_ipv6_without_a_gateway_gets_an_address_and_no_default_route(
    host: DhcpHost,
) -> None:
    net = subnet("2001:db8:1::/64", None, **STATEFUL)
    port = endpoint(1, "2001:db8:1::a:5")
    assert host.apply(world([port], [net])) == []
    guest = host.guest(port)
    guest.start_client()
    assert guest.lease("dhcp6")["dhcp6_ia_na1_ia_addr1"] == "2001:db8:1::a:5"
    guest.has("2001:db8:1::a:5/128", "-6", "address")
    assert "default" not in guest.netns.ip("-6", "route")


def test_s19_ipv6_slaac_forms_the_ports_address(host: DhcpHost) -> None:
    net = subnet(
        "2001:db8:1::/64", "2001:db8:1::1", dns=["2001:db8::53"], dns_domain="a.test",
        **SLAAC,
    )  # fmt: skip
    port = endpoint(1, "2001:db8:1::f816:3eff:fe00:1")
    assert host.apply(world([port], [net])) == []
    guest = host.guest(port)
    guest.start_client()
    ra = guest.lease("ra")
    assert_advertised(ra, flags="", prefix="2001:db8:1::", auto=True)
    assert ra["nd1_rdnss1_servers"] == "2001:db8::53"
    assert ra["nd1_dnssl1_search"] == "a.test"
    guest.has("2001:db8:1:0:f816:3eff:fe00:1/64", "-6", "address")
    eventually(lambda: guest.netns.pings(OUTSIDE6))
    assert "2001:db8:1::/64 dev" not in guest.netns.ip("-6", "route")


def test_p14_stateless_gives_options_and_never_an_address(host: DhcpHost) -> None:
    net = subnet("2001:db8:1::/64", "2001:db8:1::1", dns=["2001:db8::53"], **STATELESS)
    port = endpoint(1, "10.65.0.5", "2001:db8:1::f816:3eff:fe00:1")
    four = subnet("10.65.0.0/24", "10.65.0.1", "four")
    assert host.apply(world([port], [net, four])) == []
    guest = host.guest(port)
    guest.start_client()
    assert_advertised(guest.lease("ra"), flags="O", prefix="2001:db8:1::", auto=True)
    lease = guest.lease("dhcp6")
    assert lease["dhcp6_name_servers"] == "2001:db8::53"
    assert not [name for name in lease if "ia_na" in name]
    guest.has("2001:db8:1:0:f816:3eff:fe00:1/64", "-6", "address")
    assert guest.lease("dhcp4")["ip_address"] == "10.65.0.5"


@pytest.mark.parametrize(
    ("prefix", "address"),
    [
        ("2001:db8:1::/80", "2001:db8:1::beef"),
        ("2001:db8:1::/120", "2001:db8:1::77"),
        ("2001:db8:1::/56", "2001:db8:1:9::77"),
    ],
)
def test_p14_stateful_serves_prefixes_other_than_64(
    host: DhcpHost, prefix: str, address: str
) -> None:
    net = subnet(prefix, "2001:db8:1::1", **STATEFUL)
    port = endpoint(1, address)
    assert host.apply(world([port], [net])) == []
    guest = host.guest(port)
    guest.start_client()
    assert guest.lease("dhcp6")["dhcp6_ia_na1_ia_addr1"] == address


def test_s19_a_port_is_told_of_its_own_subnets_only(host: DhcpHost) -> None:
    one = subnet("2001:db8:1::/64", "2001:db8:1::1", "one", **SLAAC)
    two = subnet("2001:db8:2::/64", "2001:db8:2::1", "two", network="net-2", **STATEFUL)
    ports = [
        endpoint(1, "2001:db8:1::f816:3eff:fe00:1"),
        endpoint(2, "2001:db8:2::22", network="net-2"),
    ]
    assert host.apply(world(ports, [one, two])) == []
    first, second = (host.guest(port) for port in ports)
    for guest in (first, second):
        guest.start_client()
    assert_advertised(first.lease("ra"), flags="", prefix="2001:db8:1::", auto=True)
    assert_advertised(second.lease("ra"), flags="MO", prefix="2001:db8:2::", auto=False)
    assert second.lease("dhcp6")["dhcp6_ia_na1_ia_addr1"] == "2001:db8:2::22"


def test_p12_extra_options_reach_the_port_and_bad_ones_are_named(
    host: DhcpHost,
) -> None:
    options = (
        DhcpOption(name="ntp-server", value="192.0.2.1,192.0.2.2", version=4),
        DhcpOption(name="67", value="pxe,linux.0", version=4),
        DhcpOption(name="option:tftp-server", value="boot.example.org", version=4),
        DhcpOption(name="dns-server", value="192.0.2.99", version=4),
        DhcpOption(name="sntp-server", value="2001:db8::123", version=6),
        DhcpOption(name="59", value="http://boot.example.org/a", version=6),
        DhcpOption(name="no-such-option", value="1", version=4),
    )
    six = subnet("2001:db8:1::/64", "2001:db8:1::1", "six", **STATEFUL)
    plain = endpoint(1, "10.65.0.5")
    special = endpoint(2, "10.65.0.6", "2001:db8:1::6", options=options)
    problems = host.apply(world([plain, special], [V4, six]))
    assert [(p.subject, p.wish) for p in problems] == [
        (f"port {special.port}", "DHCPv4 option 'no-such-option'")
    ]
    guest = host.guest(special)
    guest.start_client()
    lease = guest.lease("dhcp4")
    assert lease["ntp_servers"] == "192.0.2.1 192.0.2.2"
    assert lease["bootfile_name"] == "pxe,linux.0"
    assert lease["tftp_server_name"] == "boot.example.org"
    assert lease["domain_name_servers"] == "192.0.2.99"
    lease6 = guest.lease("dhcp6")
    assert lease6["dhcp6_sntp_servers"] == "2001:db8::123"
    assert lease6["dhcp6_bootfile_url"] == "http://boot.example.org/a"
    other = host.guest(plain)
    other.start_client()
    assert other.lease("dhcp4")["domain_name_servers"] == "192.0.2.53"
    assert "ntp_servers" not in other.lease("dhcp4")


def test_p13_a_changed_subnet_reaches_new_leases_by_itself(host: DhcpHost) -> None:
    port = endpoint(1, "10.65.0.5")
    host.apply(world([port], [V4]))
    pid = host.service.dnsmasq.pid()
    guest = host.guest(port)
    guest.start_client()
    assert guest.lease("dhcp4")["domain_name_servers"] == "192.0.2.53"
    guest.stop_client()
    route = HostRoute(
        destination=ip_network("203.0.113.0/24"), nexthop=ip_address("10.65.0.9")
    )
    changed = subnet(
        "10.65.0.0/24", "10.65.0.2", dns=["192.0.2.60"], host_routes=(route,)
    )
    host.remove_gateway("10.65.0.1/24")
    assert host.apply(world([port], [changed])) == []
    guest.start_client()
    lease = guest.lease("dhcp4")
    assert lease["domain_name_servers"] == "192.0.2.60"
    assert lease["routers"] == lease["dhcp_server_identifier"] == "10.65.0.2"
    assert lease["classless_static_routes"].startswith("203.0.113.0/24 10.65.0.9")
    assert host.service.dnsmasq.pid() == pid


def test_p33_no_restart_and_no_silence_while_ports_come_and_go(host: DhcpHost) -> None:
    fixed = endpoint(1, "10.65.0.5")
    host.apply(world([fixed], [V4]))
    pids = host.service.dnsmasq.pid()
    guest = host.guest(fixed)
    for number in range(2, 8):
        new = endpoint(number, f"10.65.0.{number + 10}")
        assert host.apply(world([fixed, new], [V4])) == []
        guest.start_client()
        assert guest.lease("dhcp4")["ip_address"] == "10.65.0.5"
        guest.stop_client()
        arrived = host.guest(new)
        arrived.start_client()
        assert arrived.lease("dhcp4")["ip_address"] == f"10.65.0.{number + 10}"
        host.remove(new)
        assert host.apply(world([fixed], [V4])) == []
    assert host.service.dnsmasq.pid() == pids


def test_p33_a_new_subnet_loses_no_answer(host: DhcpHost) -> None:
    """A new range needs a new process; it answers before the old one goes."""
    ports = [endpoint(1, "10.65.0.5")]
    subnets = [V4]
    host.apply(world(ports, subnets))
    guest = host.guest(ports[0])
    before = host.service.dnsmasq.pid()
    with Asking(guest.netns) as asking:
        for number in range(2, 6):
            name = f"net-{number}"
            ports.append(endpoint(number, f"10.66.{number}.5", network=name))
            subnets.append(
                subnet(f"10.66.{number}.0/24", f"10.66.{number}.1", name, network=name)
            )
            assert host.apply(world(ports, subnets)) == []
    assert asking.answered > 4
    assert asking.unanswered == 0
    assert host.service.dnsmasq.pid() != before
    last = host.guest(ports[-1])
    last.start_client()
    assert last.lease("dhcp4")["ip_address"] == "10.66.5.5"
    assert host.running("dnsmasq") == 1


def test_p34_a_reused_cidr_is_served_at_once(host: DhcpHost) -> None:
    six = subnet("2001:db8:1::/64", "2001:db8:1::1", "six", **STATEFUL)
    old = endpoint(1, "10.65.0.5", "2001:db8:1::5")
    host.apply(world([old], [V4, six]))
    guest = host.guest(old)
    guest.start_client()
    guest.lease("dhcp4")
    guest.lease("dhcp6")
    host.remove(old)
    assert host.apply(world([], [])) == []
    new = endpoint(2, "10.65.0.5", "2001:db8:1::5", network="net-2")
    four = subnet(
        "10.65.0.0/24", "10.65.0.254", "b", network="net-2", dns=["192.0.2.7"]
    )
    six = subnet("2001:db8:1::/64", "2001:db8:1::1", "c", network="net-2", **STATEFUL)
    host.remove_gateway("10.65.0.1/24")
    assert host.apply(world([new], [four, six])) == []
    guest = host.guest(new)
    guest.start_client()
    lease = guest.lease("dhcp4")
    assert lease["ip_address"] == "10.65.0.5"
    assert lease["routers"] == "10.65.0.254"
    assert lease["domain_name_servers"] == "192.0.2.7"
    assert guest.lease("dhcp6")["dhcp6_ia_na1_ia_addr1"] == "2001:db8:1::5"


def test_p34_a_rebuilt_guest_with_another_duid_gets_its_address(host: DhcpHost) -> None:
    net = subnet("2001:db8:1::/64", "2001:db8:1::1", **STATEFUL)
    port = endpoint(1, "2001:db8:1::5")
    guest = host.guest(port)
    host.apply(world([port], [net]))
    guest.start_client()
    guest.lease("dhcp6")
    host.remove(port)
    guest = host.guest(port)
    assert host.apply(world([port], [net])) == []
    guest.start_client("--duid")  # a new one, of the time it was made
    assert guest.lease("dhcp6")["dhcp6_ia_na1_ia_addr1"] == "2001:db8:1::5"


def test_p54_text_in_an_option_stays_text(host: DhcpHost) -> None:
    value = '",tag:x,3,10.66.6.6 # \\" ; dhcp-range=10.1.0.0,static'
    port = endpoint(
        1,
        "10.65.0.5",
        options=(DhcpOption(name="bootfile-name", value=value, version=4),),
    )
    assert host.apply(world([port], [V4])) == []
    guest = host.guest(port)
    guest.start_client()
    lease = guest.lease("dhcp4")
    assert lease["routers"] == "10.65.0.1"
    assert lease["bootfile_name"].replace("\\", "") == value.replace("\\", "")


def test_a_subnet_without_dhcp_is_silent_and_static_addresses_work(
    host: DhcpHost,
) -> None:
    nets = [
        subnet("10.65.0.0/24", "10.65.0.1", dhcp=False),
        subnet("2001:db8:1::/64", "2001:db8:1::1", "six", dhcp=False),
        subnet("10.77.0.0/24", "10.77.0.1", "seven", network="net-7"),
    ]
    port = endpoint(1, "10.65.0.5", "2001:db8:1::5")
    served = endpoint(2, "10.77.0.5", network="net-7")
    assert host.apply(world([port, served], nets)) == []
    guest = host.guest(port)
    assert_unanswered(guest, host.guest(served))
    assert host.service.radvd.pid() is None
    guest.netns.ip("address", "add", "10.65.0.5/24", "dev", "eth0")
    guest.netns.ip("route", "add", "default", "via", "10.65.0.1")
    assert guest.netns.pings(OUTSIDE4)


def test_a_mac_of_no_port_gets_no_answer(host: DhcpHost) -> None:
    port = endpoint(1, "10.65.0.5")
    host.apply(world([port], [V4]))
    stranger = endpoint(2, "10.65.0.6")
    assert_unanswered(host.guest(stranger), host.guest(port))


def assert_unanswered(guest: Guest, served: Guest) -> None:
    """Assert that a guest gets no answer where one that asked later got one."""
    guest.start_client()
    eventually(lambda: "soliciting a DHCP lease" in guest.said(), message=guest.said)
    served.start_client()
    served.lease("dhcp4")
    assert "dhcp4" not in dhclient.lease(guest.state), guest.said()


def test_the_log_of_a_service_that_runs_has_a_limit(host: DhcpHost) -> None:
    six = subnet("2001:db8:1::/64", "2001:db8:1::1", "six", **SLAAC)
    wanted = world([endpoint(1, "10.65.0.5", "2001:db8:1::5")], [V4, six])
    host.apply(wanted)
    logs = [host.run_dir / name for name in ("dnsmasq-a.log", "radvd.log")]
    for log in logs:
        with log.open("ab") as file:
            file.write(b"x" * (2 << 20))
    pids = host.service.dnsmasq.pid(), host.service.radvd.pid()
    assert host.apply(wanted) == []
    # It may have said a line since.
    assert max(log.stat().st_size for log in logs) < 1 << 20
    assert (host.service.dnsmasq.pid(), host.service.radvd.pid()) == pids


def test_what_an_instance_asks_for_and_gets_is_not_logged(host: DhcpHost) -> None:
    six = subnet("2001:db8:1::/64", "2001:db8:1::1", "six", **STATEFUL)
    port = endpoint(1, "10.65.0.5", "2001:db8:1::5")
    assert host.apply(world([port], [V4, six])) == []
    guest = host.guest(port)
    guest.start_client()
    guest.lease("dhcp4")
    guest.lease("dhcp6")
    assert re.findall(r"DHCP[A-Z]+\(.*", host.log()) == []


def test_dead_daemons_are_replaced_and_living_ones_adopted(host: DhcpHost) -> None:
    six = subnet("2001:db8:1::/64", "2001:db8:1::1", "six", **SLAAC)
    port = endpoint(1, "10.65.0.5", "2001:db8:1::f816:3eff:fe00:1")
    wanted = world([port], [V4, six])
    host.apply(wanted)
    pids = host.service.dnsmasq.pid(), host.service.radvd.pid()
    host.service = DhcpService(host.run_dir)  # the agent's next life
    assert host.apply(wanted) == []
    assert (host.service.dnsmasq.pid(), host.service.radvd.pid()) == pids
    for pid in pids:
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
    eventually(lambda: host.service.dnsmasq.pid() is host.service.radvd.pid() is None)
    assert host.apply(wanted) == []
    guest = host.guest(port)
    guest.start_client()
    guest.lease("dhcp4")
    guest.lease("ra")


def test_a_successor_that_does_not_come_up_is_started_after_growing_delays(
    host: DhcpHost,
) -> None:
    host.apply(world([endpoint(1, "10.65.0.5")], [V4]))
    before = host.service.dnsmasq.pid()
    six = subnet("2001:db8:1::/64", "2001:db8:1::1", "six", **STATEFUL)
    wanted = world([endpoint(1, "10.65.0.5", "2001:db8:1::5")], [V4, six])
    broken = host.run_dir / "broken"
    broken.mkdir()
    (broken / "dnsmasq").symlink_to("/bin/false")
    path = os.environ["PATH"]
    os.environ["PATH"] = f"{broken}:{path}"
    try:
        said = [str(host.apply(wanted)[0]) for _ in range(3)]
    finally:
        os.environ["PATH"] = path
    assert "next start in" in said[2]
    assert host.service.dnsmasq.pid() == before, "it serves what it knows"
    eventually(lambda: host.apply(wanted) == [])
    assert host.service.dnsmasq.pid() != before


def test_files_that_the_daemon_cannot_read_are_a_clear_problem(host: DhcpHost) -> None:
    wanted = world([endpoint(1, "10.65.0.5")], [V4])
    host.run_dir.chmod(0o700)
    problems = host.apply(wanted)
    assert [(p.subject, p.wish) for p in problems] == [("dnsmasq", "read its files")]
    assert str(host.run_dir) in problems[0].reply


def test_a_missing_program_is_a_clear_problem(host: DhcpHost) -> None:
    six = subnet("2001:db8:1::/64", "2001:db8:1::1", "six", **SLAAC)
    port = endpoint(1, "10.65.0.5", "2001:db8:1::f816:3eff:fe00:1")
    wanted = world([port], [V4, six])
    path = os.environ["PATH"]
    os.environ["PATH"] = str(host.run_dir)
    try:
        with in_netns(host.netns):
            problems = host.service.apply(wanted)
    finally:
        os.environ["PATH"] = path
    assert [p.reply for p in problems] == [
        "no program dnsmasq found",
        "no program radvd found",
    ]
    assert host.apply(wanted) == [] or eventually(lambda: host.apply(wanted) == [])


def assert_advertised(
    ra: dict[str, str], *, flags: str, prefix: str, auto: bool
) -> None:
    """Assert that an advertisement names one prefix, never on-link, and the flags."""
    assert ra["nd1_prefix_information1_prefix"] == prefix
    assert "nd1_prefix_information2_prefix" not in ra
    assert ra.get("nd1_prefix_information1_flags", "") == ("A" if auto else "")
    assert ra.get("nd1_flags", "") == flags
