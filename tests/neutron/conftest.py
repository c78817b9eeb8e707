"""One database, one etcd and one Neutron for all tests of this folder."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from tests.etcd_server import EtcdServer
from tests.neutron.deployment import PROJECT, Api, Deployment, deployment, migrate
from tests.neutron.mariadb import MariaDb
from tests.neutron.waiting import eventually

from calico.datastore.client import Client
from calico.model.ids import HostName
from calico.model.keys import Keys


@dataclass(frozen=True)
class Cloud:
    """What a test works with. The test plays the hosts, by what it writes to etcd."""

    neutron: Deployment
    database: MariaDb
    etcd: EtcdServer
    store: Client
    keys: Keys

    @property
    def api(self) -> Api:
        return self.neutron.api

    def network(self, cidr: str, **more: Any) -> dict[str, Any]:
        """Create a network with one subnet; return the network."""
        network: dict[str, Any] = self.api.post(
            "networks", network={"name": "net", **more}
        )
        subnet = {
            "network_id": network["id"],
            "cidr": cidr,
            "ip_version": 6 if ":" in cidr else 4,
        }
        self.api.post("subnets", subnet=subnet)
        return network

    def instance_port(self, network: dict[str, Any], **more: Any) -> dict[str, Any]:
        """Create a port as Nova does for an instance on host `h1`."""
        port = {
            "network_id": network["id"],
            "binding:host_id": "h1",
            "device_id": "instance",
            "device_owner": "compute:nova",
        }
        created: dict[str, Any] = self.api.post("ports", port=port | more)
        return created

    def endpoint_key(self, port: dict[str, Any], host: str = "h1") -> str:
        return self.keys.endpoint(HostName(host), port["device_id"], port["id"])

    def journal(self) -> str:
        return self.database.sql(
            "SELECT kind, id, attempts FROM neutron.calico_journal"
        )

    def status(self, port: dict[str, Any]) -> str:
        return str(self.api.get(f"ports/{port['id']}")["status"])

    def add_hosts(self, *hosts: str) -> None:
        """Have hosts whose agents report, and wait until Neutron knows of them."""
        for host in hosts:
            self.store.put(self.keys.host_status(HostName(host)), b"{}")
        eventually(lambda: self.agents() >= set(hosts), "the hosts are known")

    def agents(self) -> set[str]:
        """Return the hosts of agents that are alive."""
        agents = self.api.get("agents?agent_type=Calico%20agent")
        return {agent["host"] for agent in agents if agent["alive"]}

    def report(
        self, port: dict[str, Any], status: str = "up", host: str = "h1"
    ) -> None:
        """Write a port's status as its host does."""
        key = self.keys.port_status(HostName(host), port["device_id"], port["id"])
        self.store.put(key, b'{"status":"%s"}' % status.encode())


@pytest.fixture(scope="session")
def database() -> Iterator[MariaDb]:
    with MariaDb() as database:
        migrate(database.url, "upgrade", "heads")
        yield database


@pytest.fixture(scope="session")
def etcd() -> Iterator[EtcdServer]:
    with EtcdServer() as etcd:
        yield etcd


# What an operator may set, for tests of just that.
SETTINGS = {
    "DEFAULT": {"dns_domain": "cloud.example."},
    "calico": {
        "allowed_pair_prefixes": f"192.0.2.0/24,{PROJECT}=198.51.100.0/24",
        "floating_ip_source_translation": "true",
    },
    # A network type that is not this driver's.
    "ml2": {"type_drivers": "local,flat,vlan"},
    "ml2_type_vlan": {"network_vlan_ranges": "physnet1:100:110"},
}


@pytest.fixture(scope="session")
def cloud(database: MariaDb, etcd: EtcdServer) -> Iterator[Cloud]:
    with deployment(database.url, etcd.endpoint, SETTINGS) as neutron:
        neutron.start_api()
        neutron.start_workers()
        store = Client(etcd.settings)
        neutron.wait_ready()
        cloud = Cloud(neutron, database, etcd, store, Keys())
        cloud.add_hosts("h1", "h2")
        yield cloud
        store.close()
