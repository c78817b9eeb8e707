"""A host is lost without a word, and comes back as it was: what its neighbour hears."""

import os
import signal
from collections.abc import Iterator
from contextlib import ExitStack
from ipaddress import IPv4Address
from pathlib import Path

import pytest
from tests.endpoints import endpoint
from tests.kernel.agent_host import AgentHost, agent_host
from tests.kernel.bgp_hosts import (
    RouteEvents,
    Speaker,
    host_facts,
    speaker,
    world_of,
)
from tests.kernel.netns import eventually, link

from calico.model.bgp_codec import encode_bgp_configuration, encode_bgp_peer
from calico.model.ids import HostName
from calico.model.keys import BGP_CONFIGURATION, BGP_PEERS
from calico.model.records import BgpConfiguration, BgpPeer

A, B = endpoint(2), endpoint(3)


def peer(number: int) -> BgpPeer:
    address = IPv4Address(f"172.30.0.{number}")
    return BgpPeer(name="link", address=address, as_number=BgpConfiguration().as_number)


@pytest.fixture
def hosts(tmp_path: Path) -> Iterator[tuple[AgentHost, Speaker]]:
    """Return a host with an agent, and a neighbour, as a rack's switch is one."""
    with ExitStack() as stack:
        host = stack.enter_context(agent_host())
        neighbour = stack.enter_context(speaker("h2", tmp_path, host_facts(2)))
        link(host.bed.host, "eth0", neighbour.netns, "eth0")
        host.bed.host.ip("addr", "add", "172.30.0.1/24", "dev", "eth0")
        neighbour.netns.ip("addr", "add", "172.30.0.2/24", "dev", "eth0")
        settings = host.settings.read_text()
        host.settings.write_text(
            settings.replace('["lo"]', '["eth0"]').replace("192.0.2.1", "172.30.0.1")
        )
        configuration = BgpConfiguration(full_mesh=False)
        host.etcdctl(
            "put", BGP_CONFIGURATION, encode_bgp_configuration(configuration).decode()
        )
        host.etcdctl("put", BGP_PEERS + "tor", encode_bgp_peer(peer(2)).decode())
        neighbour.serve(world_of(HostName("h2"), peers=[peer(1)], full_mesh=False))
        yield host, neighbour


def lose(host: AgentHost) -> None:
    """Take the host off the network, then end what runs on it: nobody says goodbye."""
    host.bed.host.ip("link", "set", "eth0", "down")
    os.kill(int((host.folder / "run" / "bird.pid").read_text().split()[0]), 9)
    host.end(signal.SIGKILL)


def test_a_lost_host_that_comes_back_announces_nothing_that_moved_meanwhile(
    hosts: tuple[AgentHost, Speaker], tmp_path: Path
) -> None:
    host, neighbour = hosts
    for one in (A, B):
        host.bed.plug(one)
    host.publish(A, B)
    host.start()
    host.await_statuses({A.port: "up", B.port: "up"})
    for address in ("10.65.0.2", "10.65.0.3"):
        neighbour.await_route(address)

    lose(host)
    # The neighbour sees the link fail, as a rack's switch does.
    eventually(lambda: not neighbour.routes(), message="routes of the lost host")
    assert "10.65.0.2" in host.bed.host.ip("route", "show", "proto", "111")

    host.withdraw(A)  # evacuated: it is another host's now
    with RouteEvents(neighbour.netns, tmp_path / "events") as events:
        host.bed.host.ip("link", "set", "eth0", "up")
        host.start()
        eventually(lambda: "10.65.0.3" in neighbour.routes(), timeout=30)
        assert not [line for line in events.added() if line.startswith("10.65.0.2 ")]
    host.await_statuses({B.port: "up"})
