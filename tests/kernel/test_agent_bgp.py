"""The agent and BGP: what it tells BIRD while objects or addresses are missing."""

import json
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from tests.endpoints import HOST, endpoint
from tests.kernel.agent_host import AgentHost, agent_host
from tests.kernel.netns import eventually

from calico.model.keys import BGP_CONFIGURATION, BGP_PEERS, NODES

A = endpoint(2)


@pytest.fixture
def host() -> Iterator[AgentHost]:
    with agent_host() as one:
        yield one


@dataclass(frozen=True)
class Slip:
    """A BGP object that an operator wrote well, and then with a slip."""

    key: str
    good: str
    bad: str


def resource(kind: str, name: str, spec: dict[str, Any]) -> str:
    return json.dumps({"kind": kind, "metadata": {"name": name}, "spec": spec})


CLOUD = {"asNumber": 65001, "nodeToNodeMeshEnabled": False}
PEER = {"peerIP": "192.0.2.99", "asNumber": 65099}
OTHER_NODE = {"bgp": {"ipv4Address": "192.0.2.98/32"}}
SLIPS = (
    Slip(
        BGP_CONFIGURATION,
        resource("BGPConfiguration", "default", CLOUD),
        resource("BGPConfiguration", "default", {**CLOUD, "listenPort": 1179}),
    ),
    Slip(
        BGP_PEERS + "tor",
        resource("BGPPeer", "tor", PEER),
        resource("BGPPeer", "tor", {**PEER, "password": {"secretKeyRef": {}}}),
    ),
    Slip(
        NODES + HOST,
        resource("Node", HOST, {"bgp": {"ipv4Address": "192.0.2.1/32"}}),
        resource("Node", HOST, {"bgp": {"ipv4Address": "192.0.2.1/33"}}),
    ),
)


@pytest.mark.parametrize("slip", SLIPS, ids=lambda slip: slip.key.split("/")[-2])
def test_p41_a_slip_in_a_bgp_object_changes_no_session(
    host: AgentHost, slip: Slip
) -> None:
    for one in SLIPS:
        host.etcdctl("put", one.key, one.good)
    host.etcdctl("put", NODES + "other", resource("Node", "other", OTHER_NODE))
    host.start()
    config = host.folder / "run" / "bird.conf"
    eventually(config.exists)
    before = config.read_text()
    assert "neighbor 192.0.2.99 as 65099" in before
    assert "local as 65001" in before
    host.etcdctl("put", slip.key, slip.bad)
    eventually(lambda: f"BGP: follow: {slip.key}" in host.log)
    assert config.read_text() == before
    host.end(signal.SIGKILL)
    host.start()
    host.publish(A)
    host.await_statuses({A.port: "down"})
    assert config.read_text() == before


@pytest.mark.parametrize("slip", SLIPS, ids=lambda slip: slip.key.split("/")[-2])
def test_p41_a_host_that_starts_with_a_slip_in_a_bgp_object_has_no_session(
    host: AgentHost, slip: Slip
) -> None:
    for one in SLIPS:
        host.etcdctl("put", one.key, one.bad if one is slip else one.good)
    host.etcdctl("put", NODES + "other", resource("Node", "other", OTHER_NODE))
    host.start()
    eventually(lambda: f"BGP: follow: {slip.key}" in host.log)
    config = host.folder / "run" / "bird.conf"
    eventually(config.exists)
    assert "protocol bgp" not in config.read_text()


def router_id(host: AgentHost) -> str:
    try:
        text = (host.folder / "run" / "bird.conf").read_text()
    except FileNotFoundError:
        return ""
    return text.partition("router id ")[2].partition(";")[0]


def test_a_host_that_loses_its_address_is_announced_from_the_next_one(
    host: AgentHost,
) -> None:
    text = host.settings.read_text()
    host.settings.write_text(text.replace('address4 = "192.0.2.1"\n', ""))
    host.start()
    eventually(lambda: router_id(host) == "192.0.2.1")
    host.bed.host.ip("addr", "del", "192.0.2.1/32", "dev", "lo")
    host.publish(A)
    host.await_statuses({A.port: "down"})
    assert router_id(host) == "192.0.2.1", "sessions wait for it"
    host.bed.host.ip("addr", "add", "192.0.2.7/32", "dev", "lo")
    eventually(lambda: router_id(host) == "192.0.2.7", message=lambda: host.log)
