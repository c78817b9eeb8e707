"""The agent takes a host over from networking-calico's, and running traffic goes on."""

import signal
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from ipaddress import ip_network

import pytest
from tests import networking_calico as theirs
from tests.endpoints import NETWORK, PROJECT, endpoint
from tests.kernel.agent_host import KEYS, AgentHost, agent_host
from tests.kernel.data_path import SUBNETS, rows
from tests.kernel.netns import Netns, eventually, link

from calico.model.codec import encode_endpoint, encode_subnet
from calico.model.ids import GroupId, HostName
from calico.model.keys import AGENT_DEFAULTS, CLUSTER_INFORMATION
from calico.model.records import AddressPair, Endpoint

WEB, LONE = GroupId("web"), GroupId("lone")
A, B = (endpoint(n, groups=frozenset({WEB})) for n in (2, 3))
C = endpoint(4, groups=frozenset({LONE}))
FAR = replace(endpoint(9, groups=frozenset({WEB})), host=HostName("host-b"))
VIRTUAL = "10.65.0.50"  # in a subnet that nobody says the project of
STRAY = "172.30.0.1"  # in none
FLOATING = "203.0.113.7"  # of a subnet without DHCP, which is not in etcd
ANY = [theirs.rule(4), theirs.rule(6)]


def written(one: Endpoint) -> str:
    return theirs.endpoint(
        host=one.host,
        device=one.device,
        port=one.port,
        mac=one.mac,
        addresses=dict(
            zip(map(str, one.addresses), ("10.65.0.1", "2001:db8:65::1"), strict=True)
        ),
        groups={group: f"{group}-name" for group in one.groups},
        project=PROJECT,
        network=NETWORK,
        pairs=[VIRTUAL, STRAY] if one is B else [],
        nats={FLOATING: str(B.addresses[0])} if one is B else None,
    )


def fill(host: AgentHost) -> None:
    """Have in etcd what networking-calico has for these ports, and nothing else."""
    host.etcdctl("del", "--prefix", "/calico/")
    host.etcdctl("put", CLUSTER_INFORMATION, theirs.CLUSTER_INFORMATION)
    host.etcdctl("put", AGENT_DEFAULTS, theirs.FELIX_CONFIGURATION)
    for name, cidr, gateway in (
        ("s4", "10.65.0.0/24", "10.65.0.1"),
        ("s6", "2001:db8:65::/64", "2001:db8:65::1"),
    ):
        value = theirs.subnet(network=NETWORK, cidr=cidr, gateway=gateway)
        host.etcdctl("put", KEYS.subnets + name, value)
    members = [theirs.rule(4, remote=WEB), theirs.rule(6, remote=WEB)]
    for group, ingress in ((WEB, members), (LONE, [])):
        value = theirs.policy(group, ingress=ingress, egress=ANY)
        host.etcdctl("put", KEYS.policy(group), value)
    for one in (A, B, C, FAR):
        key = KEYS.endpoint(one.host, one.device, one.port)
        host.etcdctl("put", key, written(one))


def adopt(host: AgentHost) -> None:
    """Write what this project's Neutron side makes of it, in its order."""
    for name in ("s4", "s6"):
        subnet = next(s for s in SUBNETS.values() if s.id == name)
        host.etcdctl("put", KEYS.subnet(subnet.id), encode_subnet(subnet).decode())
    granted = (ip_network(STRAY),)
    pairs = tuple(
        AddressPair(prefix=ip_network(address), mac=B.mac)
        for address in (VIRTUAL, STRAY)
    )
    for one in (A, replace(B, pairs=pairs, granted=granted), C, FAR):
        key = KEYS.endpoint(one.host, one.device, one.port)
        old = host.etcdctl("get", "--print-value-only", key).encode()
        host.etcdctl("put", key, encode_endpoint(one, KEYS, old).decode())
        publish_members(host, one)
    host.etcdctl("put", KEYS.adopted, "{}")


def publish_members(host: AgentHost, one: Endpoint) -> None:
    for group in one.groups:
        for address in one.addresses:
            member = KEYS.member(group, ip_network(address), one.port)
            host.etcdctl("put", member, "{}")


def felix(host: AgentHost) -> None:
    """Leave on the host what Felix does: routes, settings of taps, chains."""
    ns = host.bed.host
    for one in (A, B, C):
        ns.ip("link", "set", one.interface, "address", "fe" + one.mac[2:])
        ns.ip("link", "set", one.interface, "up")
        for setting in ("proxy_arp", "route_localnet"):
            ns.sysctl(f"net/ipv4/conf/{one.interface}/{setting}", 1)
        ns.sysctl(f"net/ipv4/neigh/{one.interface}/proxy_delay", 0)
        ns.sysctl(f"net/ipv6/conf/{one.interface}/proxy_ndp", 1)
        for address in one.addresses:
            ns.ip("route", "add", str(address), "dev", one.interface)
    for extra in (VIRTUAL, STRAY):
        ns.ip("route", "add", extra, "dev", B.interface)
    ns.sysctl("net/ipv4/ip_forward", 1)
    ns.sysctl("net/ipv6/conf/all/forwarding", 1)
    taps = ", ".join(f'"{one.interface}"' for one in (A, B, C))
    ns.run(
        ["nft", "-f", "-"],
        input=f"""table ip filter {{
          chain cali-from-wl-dispatch {{ iifname {{ {taps} }} accept; drop; }}
          chain cali-FORWARD {{ iifname "tap*" jump cali-from-wl-dispatch; }}
          chain FORWARD {{
            type filter hook forward priority filter; policy accept;
            jump cali-FORWARD;
          }}
        }}""",
    )


@pytest.fixture
def host() -> Iterator[AgentHost]:
    with agent_host() as one:
        yield one


def far_host(host: AgentHost) -> Netns:
    """Return the instance on another host, as routed to from this one."""
    settings = host.settings.read_text()
    host.settings.write_text(settings.replace('["lo"]', '["lo", "up0"]'))
    far = host.bed.stack.enter_context(Netns("far"))
    link(host.bed.host, "up0", far, "eth0")
    host.bed.host.ip("link", "set", "up0", "up")
    host.bed.host.ip("route", "add", "10.65.0.9", "dev", "up0")
    far.ip("addr", "add", "10.65.0.9/32", "dev", "eth0")
    far.ip("link", "set", "eth0", "up")
    far.ip("route", "add", "default", "dev", "eth0")
    host.bed.host.sysctl("net/ipv4/conf/up0/proxy_arp", 1)
    host.bed.host.sysctl("net/ipv4/neigh/up0/proxy_delay", 0)
    return far


def test_an_agent_takes_a_host_over_without_the_loss_of_a_packet(
    host: AgentHost,
) -> None:
    a, b, c = (host.bed.plug(one) for one in (A, B, C))
    far = far_host(host)
    for address in (VIRTUAL, STRAY):
        b.ip("addr", "add", f"{address}/32", "dev", "eth0")
    fill(host)
    felix(host)
    assert c.pings("10.65.0.3"), "nothing here but what Felix left"
    pings = {
        f"{source.name} to {address}": source.popen(
            ["ping", "-ni0.02", address], stdout=subprocess.PIPE
        )
        for source, address in (
            (a, "10.65.0.3"),
            (a, "2001:db8:65::3"),
            (far, "10.65.0.3"),  # a member by the labels of another host's endpoint
            (far, VIRTUAL),
            (far, STRAY),
        )
    }
    host.start()
    host.await_statuses({one.port: "up" for one in (A, B, C)})
    assert not c.pings("10.65.0.3"), "the groups are in force"
    assert c.pings("10.65.0.1")
    floating = rows(host.bed.host, "route", "show", FLOATING)
    assert [route["dev"] for route in floating] == [B.interface]

    adopt(host)
    joined = replace(C, groups=frozenset({WEB}))
    publish_members(host, joined)
    host.publish(joined)
    eventually(lambda: c.pings("10.65.0.3"), message=lambda: host.log[-3000:])
    for ping in pings.values():
        ping.send_signal(signal.SIGINT)
    said = {name: ping.communicate(timeout=10)[0] for name, ping in pings.items()}
    lossy = {name: text for name, text in said.items() if " 0% packet loss" not in text}
    assert lossy == {}
    old = rows(host.bed.host, "route", "show", "proto", "boot", "dev", B.interface)
    assert old == []
    assert "stored object set aside" not in host.log
