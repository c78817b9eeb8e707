"""What hosts report becomes what Neutron shows. The tests play the hosts, in etcd."""

from tests.neutron.conftest import Cloud
from tests.neutron.waiting import eventually

from calico.datastore.store import Put, Transaction
from calico.model.ids import DeviceId, HostName


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

    # An agent reports all ports of a pass in one transaction.
    keys = [
        cloud.keys.port_status(HostName("h1"), DeviceId("many"), p["id"]) for p in ports
    ]
    puts = tuple(Put(key=key, value=b'{"status":"up"}') for key in keys)
    cloud.store.transaction(Transaction(writes=puts))

    eventually(lambda: len(cloud.api.get(query)) == 100, "all are ACTIVE")
    # Its own log says how many changes it took.
    log = cloud.neutron.log("workers")
    passes = [line for line in log.splitlines() if "Changed the status of" in line]
    largest = max(
        int(line.split("Changed the status of ")[1].split()[0]) for line in passes
    )
    assert largest == 100


def test_p31_a_leased_heartbeat_is_an_agent_and_dies_with_its_lease(
    cloud: Cloud,
) -> None:
    lease = cloud.store.lease_grant(60)
    hosts = [HostName(f"host-{n}") for n in range(50)]
    for host in hosts:
        cloud.store.put(cloud.keys.host_status(host), b'{"version":"1"}', lease)

    def alive() -> set[str]:
        agents = cloud.api.get("agents?agent_type=Calico%20agent")
        return {a["host"] for a in agents if a["alive"]}

    eventually(lambda: alive() >= set(hosts), "all agents are alive")
    (agent,) = cloud.api.get("agents?host=host-1")
    assert agent["binary"] == "calico-agent"
    assert agent["configurations"] == {"version": "1"}

    cloud.store.lease_revoke(lease)
    eventually(lambda: not alive() & set(hosts), "no agent is alive")
