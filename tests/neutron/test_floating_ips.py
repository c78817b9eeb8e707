"""Routers and floating IPs: from the API to etcd, and what hosts report back."""

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from tests.neutron.conftest import Cloud
from tests.neutron.deployment import Api, ApiError, deployment
from tests.neutron.waiting import eventually

from calico.model.codec import parse_endpoint
from calico.model.ids import HostName

OTHER = "22222222-2222-2222-2222-222222222222"

Port = dict[str, Any]


@dataclass(frozen=True)
class Site:
    """An external network, a project's network, and the router between the two."""

    cloud: Cloud
    public: dict[str, Any]
    network: dict[str, Any]
    router: dict[str, Any]

    def port(self, **more: Any) -> Port:
        """Create an instance's port and wait until it is published."""
        port = self.cloud.instance_port(self.network, **more)
        eventually(lambda: self.nats(port) == [], f"port {port['id']} is published")
        return port

    def floating(self, port: Port | None = None, **more: Any) -> dict[str, Any]:
        wanted = {"floating_network_id": self.public["id"]} | more
        if port:
            wanted["port_id"] = port["id"]
        made: dict[str, Any] = self.cloud.api.post("floatingips", floatingip=wanted)
        return made

    def change(self, floating: dict[str, Any], **changes: Any) -> dict[str, Any]:
        return self.cloud.api.put(f"floatingips/{floating['id']}", floatingip=changes)

    def status(self, floating: dict[str, Any]) -> str:
        return str(self.cloud.api.get(f"floatingips/{floating['id']}")["status"])

    def nats(self, port: Port, host: str | None = None) -> list[str] | None:
        """Return the floating IPs that a port's host reads; None if it has no port."""
        host = host or port["binding:host_id"]
        item = self.cloud.store.get(self.cloud.endpoint_key(port, host))
        if item is None:
            return None
        endpoint = parse_endpoint(item.value)
        assert {nat.internal for nat in endpoint.nats} <= set(endpoint.addresses)
        return [str(nat.external) for nat in endpoint.nats]

    def wait_nats(self, port: Port, *floating: dict[str, Any]) -> None:
        wanted = sorted(one["floating_ip_address"] for one in floating)
        eventually(
            lambda: (
                sorted(self.nats(port) or []) == wanted and self.nats(port) is not None
            ),
            f"port {port['id']} has {wanted}, not {self.nats(port)}",
        )

    def wait_status(self, floating: dict[str, Any], status: str) -> None:
        eventually(lambda: self.status(floating) == status, f"{floating} is {status}")


@pytest.fixture(scope="module")
def site(cloud: Cloud) -> Site:
    public = cloud.network("172.31.0.0/24", **{"router:external": True})
    network = cloud.network("10.171.0.0/24")
    gateway = {"external_gateway_info": {"network_id": public["id"]}}
    router = cloud.api.post("routers", router=gateway)
    attach(cloud.api, router, network)
    return Site(cloud, public, network, router)


def attach(api: Api, router: dict[str, Any], network: dict[str, Any]) -> None:
    (subnet,) = api.get(f"subnets?network_id={network['id']}")
    path = f"routers/{router['id']}/add_router_interface"
    api.call("PUT", path, {"subnet_id": subnet["id"]})


def refusal(call: Callable[[], Any]) -> tuple[int, str]:
    with pytest.raises(ApiError) as refused:
        call()
    return refused.value.status, str(refused.value)


def test_s12_a_router_is_active_with_its_ports_and_needs_no_agent(site: Site) -> None:
    api = site.cloud.api
    assert api.get(f"routers/{site.router['id']}")["status"] == "ACTIVE"
    ports = api.get(f"ports?device_id={site.router['id']}")
    assert {port["device_owner"] for port in ports} == {
        "network:router_gateway",
        "network:router_interface",
    }
    assert {port["status"] for port in ports} == {"ACTIVE"}
    aliases = {extension["alias"] for extension in api.get("extensions")}
    absent = {"extraroute", "ext-gw-mode", "dvr", "l3-ha", "l3_agent_scheduler"}
    absent |= {"availability_zone", "network_availability_zone", "vlan-transparent"}
    assert aliases >= {"router", "dns-domain-ports", "tag-ports-during-bulk-creation"}
    assert not aliases & absent


def test_s13_floating_ips_are_published_with_their_ports(site: Site) -> None:
    port = site.port()
    first = site.floating(port)
    assert (first["status"], first["router_id"]) == ("DOWN", site.router["id"])
    site.wait_nats(port, first)
    # A second one needs an address of its own.
    (ip,) = port["fixed_ips"]
    two = [ip, {"subnet_id": ip["subnet_id"], "ip_address": "10.171.0.200"}]
    site.cloud.api.put(f"ports/{port['id']}", port={"fixed_ips": two})
    second = site.floating(port, fixed_ip_address="10.171.0.200")
    site.wait_nats(port, first, second)
    (nat,) = [
        nat
        for nat in parse_endpoint(_published(site, port)).nats
        if str(nat.external) == second["floating_ip_address"]
    ]
    assert str(nat.internal) == "10.171.0.200"
    # Neither of the two addresses can be taken away below its floating IP.
    for kept in two:
        status, text = refusal(
            lambda kept=kept: site.cloud.api.put(  # type: ignore[misc] # the loop's
                f"ports/{port['id']}", port={"fixed_ips": [kept]}
            )
        )
        assert status == 400
        assert "cannot be taken away" in text
    site.change(first, port_id=None)
    site.wait_nats(port, second)


def _published(site: Site, port: Port) -> bytes:
    item = site.cloud.store.get(site.cloud.endpoint_key(port))
    assert item is not None
    return item.value


def test_s13_a_floating_ip_moves_and_leaves_its_former_port(site: Site) -> None:
    here, there = site.port(), site.port(**{"binding:host_id": "h2"})
    floating = site.floating(here)
    site.wait_nats(here, floating)
    site.change(floating, port_id=there["id"])
    site.wait_nats(there, floating)
    site.wait_nats(here)


def test_p08_a_floating_ip_that_is_deleted_while_associated_is_withdrawn(
    site: Site,
) -> None:
    port = site.port()
    floating = site.floating(port)
    site.wait_nats(port, floating)
    site.cloud.api.delete(f"floatingips/{floating['id']}")
    site.wait_nats(port)


def test_p09_a_floating_ips_status_is_what_its_host_reports(site: Site) -> None:
    port = site.port()
    floating = site.floating()
    assert floating["status"] == "DOWN"
    site.change(floating, port_id=port["id"])
    site.wait_nats(port, floating)
    eventually(lambda: not site.cloud.journal(), "all is published")
    assert site.status(floating) == "DOWN"

    site.cloud.report(port)
    site.wait_status(floating, "ACTIVE")
    site.cloud.report(port, "down")
    site.wait_status(floating, "DOWN")
    site.cloud.report(port)
    site.wait_status(floating, "ACTIVE")
    # What is not associated is not served, and the answer says so.
    assert site.change(floating, port_id=None)["status"] == "DOWN"
    # A port that is served already needs no further report.
    assert site.change(floating, port_id=port["id"])["status"] == "DOWN"
    site.wait_status(floating, "ACTIVE")
    assert site.change(floating, description="same")["status"] == "ACTIVE"

    site.cloud.api.delete(f"ports/{port['id']}")
    shown = site.cloud.api.get(f"floatingips/{floating['id']}")
    assert (shown["port_id"], shown["status"]) == (None, "DOWN")


def test_p09_what_is_not_in_etcd_yet_is_not_active(site: Site) -> None:
    port = site.port()
    floating = site.floating(port)
    site.wait_nats(port, floating)
    eventually(lambda: not site.cloud.journal(), "all is published")
    # A row that nobody works off, since it is of tomorrow.
    row = f"('port', '{port['id']}', 0, UTC_TIMESTAMP() + INTERVAL 1 DAY)"
    site.cloud.database.sql(
        f"INSERT INTO neutron.calico_journal (kind, id, attempts, created) VALUES {row}"  # noqa: S608 - an id of Neutron's
    )
    site.cloud.report(port)
    eventually(lambda: site.cloud.status(port) == "ACTIVE", "the port is ACTIVE")
    assert site.status(floating) == "DOWN"
    site.cloud.database.sql("DELETE FROM neutron.calico_journal")
    site.cloud.report(port)
    site.wait_status(floating, "ACTIVE")


def test_p04_what_is_turned_off_takes_its_floating_ips_with_it(site: Site) -> None:
    api, port = site.cloud.api, site.port()
    floating = site.floating(port)
    site.cloud.report(port)
    site.wait_status(floating, "ACTIVE")
    for path, kind in ((f"ports/{port['id']}", "port"), (_path(site), "router")):
        api.put(path, **{kind: {"admin_state_up": False}})
        eventually(lambda: not site.nats(port), f"it is withdrawn with its {kind}")
        site.wait_status(floating, "DOWN")
        api.put(path, **{kind: {"admin_state_up": True}})
        site.wait_nats(port, floating)
        site.cloud.report(port)  # so that no pass has to be waited for
        site.wait_status(floating, "ACTIVE")


def _path(site: Site) -> str:
    return f"routers/{site.router['id']}"


def test_p20_floating_ips_change_while_etcd_is_down(site: Site) -> None:
    port, other = site.port(), site.port()
    moved, deleted = site.floating(port), site.floating()
    site.cloud.report(other)
    site.wait_nats(port, moved)
    site.cloud.etcd.stop()
    try:
        site.change(moved, port_id=other["id"])
        site.change(deleted, port_id=port["id"])
        site.cloud.api.delete(f"floatingips/{deleted['id']}")
        for one in (port, other):
            assert one["id"] in site.cloud.journal()
        assert site.status(moved) == "DOWN"  # P9: no host can know of it
    finally:
        site.cloud.etcd.start()
    site.wait_nats(other, moved)
    site.wait_nats(port)
    site.wait_status(moved, "ACTIVE")


@pytest.fixture(scope="module")
def second_api(cloud: Cloud) -> Iterator[Api]:
    with deployment(cloud.database.url, cloud.etcd.endpoint, {}) as neutron:
        neutron.start_api()
        neutron.wait_ready()
        yield neutron.api


def test_s13_of_two_calls_at_once_one_association_stands(
    site: Site, second_api: Api
) -> None:
    """Two workers move one floating IP at the same moment, several times."""
    ports = [site.port(), site.port()]
    floating = site.floating()
    path = f"floatingips/{floating['id']}"
    for _ in range(4):
        site.change(floating, port_id=None)
        start = threading.Barrier(2)

        def associate(api: Api, port: Port, start: threading.Barrier = start) -> None:
            start.wait()
            api.put(path, floatingip={"port_id": port["id"]})

        threads = [
            threading.Thread(target=associate, args=pair)
            for pair in zip((site.cloud.api, second_api), ports, strict=True)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        winner = site.cloud.api.get(path)["port_id"]
        (loser,) = [port for port in ports if port["id"] != winner]
        (won,) = [port for port in ports if port["id"] == winner]
        site.wait_nats(won, floating)
        site.wait_nats(loser)
        eventually(lambda: not site.cloud.journal(), "all is published")
        assert site.nats(loser) == []


def test_p47_nobodys_pair_is_a_floating_ip(site: Site) -> None:
    """Neither another's nor one's own: an instance never sends from it (S17)."""
    network = site.cloud.network("10.172.0.0/24", project_id=OTHER)
    port = site.cloud.instance_port(network, project_id=OTHER)
    for owner in (OTHER, site.network["project_id"]):
        floating = site.floating(project_id=owner)
        address = floating["floating_ip_address"]
        pairs = {"allowed_address_pairs": [{"ip_address": address}]}
        status, text = refusal(
            lambda pairs=pairs: site.cloud.api.put(f"ports/{port['id']}", port=pairs)  # type: ignore[misc] # the loop's
        )
        assert status == 409
        assert address in text


ROUTES = [{"destination": "192.0.2.0/24", "nexthop": "10.171.0.9"}]


def test_what_a_router_cannot_do_is_refused(site: Site) -> None:
    api, public = site.cloud.api, site.public["id"]
    vlan = {"provider:network_type": "vlan", "provider:physical_network": "physnet1"}
    theirs = site.cloud.network("10.173.0.0/24", **vlan, **{"router:external": True})
    (subnet,) = api.get(f"subnets?network_id={theirs['id']}")
    path, add = _path(site), f"{_path(site)}/add_router_interface"
    snat = {"network_id": public, "enable_snat": True}
    refused: dict[str, Callable[[], Any]] = {
        "'routes'": lambda: api.put(path, router={"routes": ROUTES}),
        "enable_snat": lambda: api.put(path, router={"external_gateway_info": snat}),
        "'distributed'": lambda: api.post("routers", router={"distributed": True}),
        "'ha'": lambda: api.post("routers", router={"ha": True}),
        "does not route it": lambda: api.call("PUT", add, {"subnet_id": subnet["id"]}),
        "Calico does not": lambda: api.post(
            "routers", router={"external_gateway_info": {"network_id": theirs["id"]}}
        ),
    }
    before = len(api.get("routers"))
    for words, call in refused.items():
        status, text = refusal(call)
        assert status in {400, 409}
        assert words in text
    assert len(api.get("routers")) == before
    unattached = site.cloud.instance_port(site.cloud.network("10.174.0.0/24"))
    status, text = refusal(lambda: site.floating(unattached))
    assert status == 404
    assert "not reachable from subnet" in text
    assert not api.get(f"ports?device_id=PENDING&network_id={public}")


def test_a_router_can_be_named_whose_networks_the_port_is_not_on(site: Site) -> None:
    port = site.cloud.instance_port(site.cloud.network("10.175.0.0/24"))
    floating = site.floating(port, router_id=site.router["id"])
    assert floating["router_id"] == site.router["id"]
    site.wait_nats(port, floating)
    # Nobody would serve it on another driver's network.
    vlan = {"provider:network_type": "vlan", "provider:physical_network": "physnet1"}
    theirs = site.cloud.instance_port(site.cloud.network("10.176.0.0/24", **vlan))
    later = site.floating()
    for call in (
        lambda: site.floating(theirs, router_id=site.router["id"]),
        lambda: site.change(later, port_id=theirs["id"], router_id=site.router["id"]),
    ):
        status, text = refusal(call)
        assert (status, "does not route it" in text) == (409, True)
    assert site.cloud.api.get(f"floatingips?port_id={theirs['id']}") == []


def test_external_subnets_are_pools_of_floating_ips(site: Site) -> None:
    pools = site.cloud.api.get("floatingip_pools")
    found = {(pool["network_id"], pool["cidr"]) for pool in pools}
    assert (site.public["id"], "172.31.0.0/24") in found


def test_quotas_of_routers_and_floating_ips_hold(site: Site) -> None:
    api, project = site.cloud.api, "33333333-3333-3333-3333-333333333333"
    for kind in ("router", "floatingip"):
        api.put(f"quotas/{project}", quota={kind: 1})
    site.floating(project_id=project)
    api.post("routers", router={"project_id": project})
    for call in (
        lambda: site.floating(project_id=project),
        lambda: api.post("routers", router={"project_id": project}),
    ):
        assert refusal(call)[0] == 409


def test_s13_a_live_migration_takes_the_floating_ip_along(site: Site) -> None:
    port = site.port()
    floating = site.floating(port)
    site.wait_nats(port, floating)
    change = {"binding:host_id": HostName("h2")}
    site.cloud.api.put(f"ports/{port['id']}", port=change)
    address = floating["floating_ip_address"]
    eventually(lambda: site.nats(port, "h2") == [address], "the new host has it")
    assert site.nats(port) is None
