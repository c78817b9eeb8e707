"""A host that an instance comes to: what is there before, and what brings it about."""

import json
import socket
import subprocess
from collections.abc import Iterator
from dataclasses import replace

import pytest
from tests.endpoints import HOST, endpoint
from tests.frames import FOREIGN, ONE, OWN, OWN4, OWN6
from tests.kernel.agent_host import KEYS, AgentHost, agent_host
from tests.kernel.data_path import rows
from tests.kernel.netns import Netns, eventually, in_netns, link

from calico.model.codec import encode_endpoint
from calico.model.ids import DeviceId, HostName
from calico.model.records import Endpoint

TARGET = replace(ONE, arriving_from=HostName("other"))
SECOND = endpoint(3, arriving_from=HostName("other"))
PLAIN = endpoint(4)
A, B = endpoint(5), endpoint(6)


@pytest.fixture(scope="module")
def agent() -> Iterator[AgentHost]:
    with agent_host() as one:
        one.start()
        yield one


@pytest.fixture
def guests(agent: AgentHost) -> Iterator[dict[str, Netns]]:
    """Give two guests, silent, behind taps that await them, and forget them again."""
    with Netns("g1") as one, Netns("g2") as two:
        found = {TARGET.port: one, SECOND.port: two}
        for target in (TARGET, SECOND):
            guest = found[target.port]
            guest.sysctl("net/ipv6/conf/default/disable_ipv6", 1)
            macs = ("fa:16:3e:ff:ff:ff", target.mac)
            link(agent.bed.host, target.interface, guest, "eth0", macs=macs)
        agent.publish(TARGET, SECOND)
        agent.await_statuses({TARGET.port: "down", SECOND.port: "down"})
        eventually(lambda: prepared(agent) == 2, message=lambda: agent.log[-2000:])
        yield {str(port): guest for port, guest in found.items()}
        for target in (TARGET, SECOND):
            agent.bed.host.ip("link", "del", target.interface)
            agent.withdraw(target)
        agent.await_statuses({})


def prepared(agent: AgentHost) -> int:
    return agent.etcdctl("get", "--prefix", KEYS.port_statuses(HOST)).count("prepared")


def routes(agent: AgentHost) -> set[str]:
    """Return the instances that there are routes to."""
    return {
        row["dst"]
        for family in ("-4", "-6")
        for row in rows(agent.bed.host, family, "route", "show", "proto", "111")
    }


def send(guest: Netns, frame: bytes) -> None:
    with in_netns(guest), socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as wire:
        wire.bind(("eth0", 0))
        wire.send(frame.ljust(60, b"\0"))


def of(frame: bytes, one: Endpoint) -> bytes:
    """Return a frame of ONE's as another's."""
    for old, new in (
        (octets(ONE), octets(one)),
        (ONE.addresses[0].packed, one.addresses[0].packed),
    ):
        frame = frame.replace(old, new)
    return frame


def octets(one: Endpoint) -> bytes:
    return bytes.fromhex(one.mac.replace(":", ""))


def test_p38_a_target_is_prepared_with_all_but_its_routes(
    agent: AgentHost, guests: dict[str, Netns]
) -> None:
    assert len(guests) == 2
    assert routes(agent) == set()
    table = agent.bed.host.run(["nft", "list", "table", "inet", "calico"]).stdout
    assert f'"{TARGET.interface}" : goto guarded' in table
    neighbours = rows(agent.bed.host, "neigh", "show", "nud", "permanent")
    assert {OWN4, OWN6} <= {row["dst"] for row in neighbours}


@pytest.mark.parametrize(
    "name",
    [
        "gratuitous ARP",
        "neighbour advertisement",
        "IPv4",
        "reverse ARP of the hypervisor",
    ],
)
def test_p38_an_instance_that_speaks_has_its_routes(
    agent: AgentHost, guests: dict[str, Netns], name: str
) -> None:
    send(guests[TARGET.port], OWN[name])
    eventually(lambda: routes(agent) == {OWN4, OWN6}, message=lambda: agent.log[-2000:])
    agent.publish(ONE)  # activated
    eventually(lambda: agent.statuses().get(ONE.port) == "up")
    assert routes(agent) == {OWN4, OWN6}


def test_p38_what_is_not_its_own_brings_nobody(
    agent: AgentHost, guests: dict[str, Netns]
) -> None:
    for frame in FOREIGN.values():
        send(guests[TARGET.port], frame)
    # Heard after it, by the same thread.
    send(guests[SECOND.port], of(OWN["IPv4"], SECOND))
    eventually(lambda: "10.65.0.3" in routes(agent))
    assert routes(agent) == {str(address) for address in SECOND.addresses}


def test_a_silent_instance_has_its_routes_when_it_is_activated(
    agent: AgentHost, guests: dict[str, Netns]
) -> None:
    assert routes(agent) == set()
    agent.publish(ONE)
    eventually(lambda: routes(agent) == {OWN4, OWN6})
    assert len(guests) == 2


def test_a_port_of_another_device_loses_no_packet(agent: AgentHost) -> None:
    a, _ = agent.bed.plug(A), agent.bed.plug(B)
    agent.publish(A, B)
    agent.await_statuses({A.port: "up", B.port: "up"})
    ping = a.popen(["ping", "-ni0.01", "10.65.0.6"], stdout=subprocess.PIPE)
    renamed = replace(B, device=DeviceId("resized"))
    old, new = (KEYS.endpoint(HOST, one.device, one.port) for one in (B, renamed))
    value = json.dumps(encode_endpoint(renamed).decode())
    change = f'\nput "{new}" {value}\ndel "{old}"\n\n\n'
    argv = ["etcdctl", f"--endpoints={agent.etcd.endpoint}", "txn"]
    agent.bed.host.run(argv, input=change)
    prefix = KEYS.port_statuses(HOST)
    eventually(lambda: "resized" in agent.etcdctl("get", "--prefix", prefix))
    ping.send_signal(2)
    assert " 0% packet loss" in ping.communicate(timeout=10)[0]
    agent.withdraw(renamed)
    agent.withdraw(A)
    agent.await_statuses({})


def rename(agent: AgentHost, old: str, new: str) -> None:
    agent.bed.host.ip("link", "set", old, "down")
    agent.bed.host.ip("link", "set", old, "name", new)
    agent.bed.host.ip("link", "set", new, "up")


def test_a_tap_that_is_renamed_is_gone_until_it_has_its_name_again(
    agent: AgentHost,
) -> None:
    agent.bed.plug(PLAIN)
    agent.publish(PLAIN)
    agent.await_statuses({PLAIN.port: "up"})
    rename(agent, PLAIN.interface, "other0")
    agent.await_statuses({PLAIN.port: "down"})
    assert routes(agent) == set()
    rename(agent, "other0", PLAIN.interface)
    agent.await_statuses({PLAIN.port: "up"})
    assert routes(agent) == {str(address) for address in PLAIN.addresses}
    agent.withdraw(PLAIN)
    agent.await_statuses({})
