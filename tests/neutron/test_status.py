"""What hosts report becomes what Neutron shows. The tests play the hosts, in etcd."""

import subprocess
import sys
from pathlib import Path

from tests.neutron.conftest import Cloud
from tests.neutron.waiting import eventually

from calico.datastore.store import Put, Transaction
from calico.model.ids import DeviceId, HostName, PortId

ROOT = Path(__file__).parents[2]


def wait_status(cloud: Cloud, port: dict[str, str], status: str) -> None:
    eventually(lambda: cloud.status(port) == status, f"port {port['id']} is {status}")


def test_s20_a_ports_status_follows_its_host(cloud: Cloud) -> None:
    port = cloud.instance_port(cloud.network("10.21.0.0/24"))
    assert cloud.status(port) == "BUILD"

    cloud.report(port, host="another")  # not where it is bound
    cloud.report(port, "error")
    eventually(lambda: not cloud.journal(), "all is published")
    assert cloud.status(port) == "BUILD"

    cloud.report(port)
    wait_status(cloud, port, "ACTIVE")
    cloud.report(port, "down")
    wait_status(cloud, port, "DOWN")
    cloud.report(port)
    wait_status(cloud, port, "ACTIVE")
    cloud.store.delete(
        cloud.keys.port_status(HostName("h1"), port["device_id"], port["id"])
    )
    wait_status(cloud, port, "DOWN")


def test_s20_a_port_that_moves_is_active_only_when_the_new_host_says_so(
    cloud: Cloud,
) -> None:
    port = cloud.instance_port(cloud.network("10.22.0.0/24"))
    cloud.report(port)
    wait_status(cloud, port, "ACTIVE")
    cloud.api.put(f"ports/{port['id']}", port={"binding:host_id": "h2"})
    assert cloud.status(port) == "BUILD"
    cloud.report(port, host="h2")
    wait_status(cloud, port, "ACTIVE")


def test_s20_a_port_that_moves_during_a_pass_is_not_active_by_its_old_host(
    cloud: Cloud,
) -> None:
    port = cloud.instance_port(cloud.network("10.26.0.0/24"))
    settings = str(cloud.neutron.folder / "neutron.conf")
    command = [sys.executable, "-m", "tests.neutron.status_probe", settings]
    reply = subprocess.run(
        [*command, cloud.api.url, port["id"]],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert reply.returncode == 0, reply.stderr
    assert cloud.api.get(f"ports/{port['id']}")["binding:host_id"] == "h2"
    assert cloud.status(port) == "BUILD"


def test_s18_a_port_that_is_admin_down_is_down_whatever_its_host_says(
    cloud: Cloud,
) -> None:
    port = cloud.instance_port(cloud.network("10.23.0.0/24"))
    cloud.report(port)
    wait_status(cloud, port, "ACTIVE")
    cloud.api.put(f"ports/{port['id']}", port={"admin_state_up": False})
    wait_status(cloud, port, "DOWN")
    cloud.api.put(f"ports/{port['id']}", port={"admin_state_up": True})
    wait_status(cloud, port, "ACTIVE")


def test_p23_a_hundred_ports_become_active_in_one_change(cloud: Cloud) -> None:
    network = cloud.network("10.24.0.0/22")
    wanted = {
        "network_id": network["id"],
        "binding:host_id": "h1",
        "device_id": "many",
        "device_owner": "compute:nova",
    }
    ports = cloud.api.post("ports", ports=[dict(wanted) for _ in range(100)])
    query = f"ports?network_id={network['id']}&status=ACTIVE&fields=id"
    assert cloud.api.get(query) == []

    # An agent reports all ports of a pass in one transaction, once they are there.
    there = [cloud.endpoint_key(port) for port in ports]
    eventually(lambda: all(map(cloud.store.get, there)), "all are published", 60)
    keys = [
        cloud.keys.port_status(HostName("h1"), DeviceId("many"), p["id"]) for p in ports
    ]
    puts = tuple(Put(key=key, value=b'{"status":"up"}') for key in keys)
    cloud.store.transaction(Transaction(writes=puts))

    eventually(lambda: len(cloud.api.get(query)) == 100, "all are ACTIVE")
    # Its own log says how many changes it took, once its listeners were told of each.
    told = "Changed the status of 100 ports"
    eventually(lambda: told in cloud.neutron.log("workers"), "in one change")


BAD_VALUES = [b'{"status":"\xff"}', b"[" * 100_000, b"", b"null"]


def test_p41_what_one_host_writes_stops_no_other_hosts_ports(cloud: Cloud) -> None:
    bad = [
        cloud.keys.port_status(HostName("bad"), DeviceId("d"), PortId(str(n)))
        for n in range(len(BAD_VALUES))
    ]
    for key, value in zip(bad, BAD_VALUES, strict=True):
        cloud.store.put(key, value)
    port = cloud.instance_port(cloud.network("10.25.0.0/24"))
    cloud.report(port)
    wait_status(cloud, port, "ACTIVE")
    for key in bad:
        cloud.store.delete(key)


def test_p41_what_one_host_writes_keeps_no_other_from_the_agent_table(
    cloud: Cloud,
) -> None:
    # They sort before the good ones. The last two are more than the table takes.
    values = {f"a-{n}": value for n, value in enumerate(BAD_VALUES)}
    values["a-long"] = b'{"version":"%s","x":"%s"}' % (b"v" * 5000, b"x" * 5000)
    values["a-" + "x" * 300] = b"{}"
    values["b-good"] = b'{"version":"1"}'
    lease = cloud.store.lease_grant(60)
    for host, value in values.items():
        cloud.store.put(cloud.keys.host_status(HostName(host)), value, lease)

    def agents() -> dict[str, dict[str, str]]:
        found = cloud.api.get("agents?agent_type=Calico%20agent")
        return {a["host"]: a["configurations"] for a in found}

    wanted = {host for host in values if len(host) < 256}
    eventually(lambda: agents().keys() >= wanted, "all that fit are agents")
    assert agents()["b-good"] == {"version": "1"}
    assert len(agents()["a-long"]["version"]) < 300
    cloud.store.lease_revoke(lease)


def test_p31_a_leased_heartbeat_is_an_agent_and_dies_with_its_lease(
    cloud: Cloud,
) -> None:
    lease = cloud.store.lease_grant(60)
    hosts = [HostName(f"host-{n}") for n in range(50)]
    for host in hosts:
        cloud.store.put(cloud.keys.host_status(host), b'{"version":"1"}', lease)

    eventually(lambda: cloud.agents() >= set(hosts), "all agents are alive")
    (agent,) = cloud.api.get("agents?host=host-1")
    assert agent["binary"] == "calico-agent"
    assert agent["configurations"] == {"version": "1"}

    cloud.store.lease_revoke(lease)
    eventually(lambda: not cloud.agents() & set(hosts), "no agent is alive")
