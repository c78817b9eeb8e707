"""Names of ports: what a real Neutron leaves of them in a real etcd."""

from typing import Any

import pytest
from tests.neutron.conftest import Cloud
from tests.neutron.deployment import PROJECT
from tests.neutron.waiting import eventually

from calico.model.ids import ProjectId
from calico.model.names import parse_port_names

Known = tuple[ProjectId, tuple[str, ...], tuple[str, ...]]


def known(cloud: Cloud, port: dict[str, Any]) -> list[Known]:
    """Return what hosts are told of a port: project, names, addresses."""
    found = []
    for key, item in cloud.store.get_prefix(cloud.keys.names).items.items():
        project, port_id = cloud.keys.parse_port_names(key)
        if port_id == port["id"]:
            names = parse_port_names(project, port_id, item.value)
            addresses = tuple(map(str, names.addresses))
            found.append((project, names.names, addresses))
    return found


def addresses(port: dict[str, Any]) -> tuple[str, ...]:
    return tuple(ip["ip_address"] for ip in port["fixed_ips"])


def told(cloud: Cloud, port: dict[str, Any], *names: str) -> None:
    """Wait until hosts are told just these names of a port."""
    project = ProjectId(port["project_id"])
    wanted = [(project, names, addresses(port))] if names else []
    eventually(lambda: known(cloud, port) == wanted, f"hosts are told {wanted}")


@pytest.fixture(scope="module")
def network(cloud: Cloud) -> dict[str, Any]:
    return cloud.network("10.214.0.0/24", dns_domain="blue.example.")


def test_s19_a_ports_names_follow_what_neutron_says(
    cloud: Cloud, network: dict[str, Any]
) -> None:
    port = cloud.instance_port(network)
    eventually(lambda: cloud.store.get(cloud.endpoint_key(port)), "it is published")
    assert known(cloud, port) == [], "what Neutron makes up of addresses is no name"
    port = cloud.api.put(f"ports/{port['id']}", port={"dns_name": "web"})
    (assigned,) = port["dns_assignment"]
    assert assigned["fqdn"] == "web.cloud.example."
    told(cloud, port, "web.cloud.example", "web.blue.example")

    cloud.api.put(f"ports/{port['id']}", port={"dns_name": "Db"})
    told(cloud, port, "db.cloud.example", "db.blue.example")
    cloud.api.put(f"ports/{port['id']}", port={"dns_domain": "own.example."})
    told(cloud, port, "db.cloud.example", "db.own.example", "db.blue.example")
    cloud.api.put(f"networks/{network['id']}", network={"dns_domain": ""})
    told(cloud, port, "db.cloud.example", "db.own.example")
    moved = {"fixed_ips": [{"ip_address": "10.214.0.99"}]}
    port = cloud.api.put(f"ports/{port['id']}", port=moved)
    assert addresses(port) == ("10.214.0.99",)
    told(cloud, port, "db.cloud.example", "db.own.example")

    cloud.api.put(f"ports/{port['id']}", port={"dns_name": ""})
    told(cloud, port)
    cloud.api.delete(f"ports/{port['id']}")


def test_s19_names_are_those_of_the_ports_project_on_a_shared_network(
    cloud: Cloud, network: dict[str, Any]
) -> None:
    other = "22222222-2222-2222-2222-222222222222"
    cloud.api.put(f"networks/{network['id']}", network={"shared": True})
    ports = [
        cloud.instance_port(network, dns_name="web", project_id=project)
        for project in (PROJECT, other)
    ]
    for port in ports:
        told(cloud, port, "web.cloud.example")
    for port in ports:
        cloud.api.delete(f"ports/{port['id']}")
        told(cloud, port)
    assert known(cloud, ports[0]) == known(cloud, ports[1]) == []
