"""Port forwarding: from the API to etcd, and which port serves it."""

from collections.abc import Callable
from typing import Any

import pytest
from tests.neutron.conftest import Cloud
from tests.neutron.deployment import ApiError
from tests.neutron.test_floating_ips import Port, Site, attach, refusal
from tests.neutron.waiting import eventually

from calico.model.codec import parse_endpoint


@pytest.fixture(scope="module")
def site(cloud: Cloud) -> Site:
    public = cloud.network("172.31.8.0/24", **{"router:external": True})
    network = cloud.network("10.181.0.0/24")
    gateway = {"external_gateway_info": {"network_id": public["id"]}}
    router = cloud.api.post("routers", router=gateway)
    attach(cloud.api, router, network)
    return Site(cloud, public, network, router)


def path(floating: dict[str, Any], one: dict[str, Any] | None = None) -> str:
    collection = f"floatingips/{floating['id']}/port_forwardings"
    return f"{collection}/{one['id']}" if one else collection


def forward(
    site: Site, floating: dict[str, Any], port: Port, external: int, **more: Any
) -> dict[str, Any]:
    wanted = {
        "internal_port_id": port["id"],
        "internal_ip_address": port["fixed_ips"][0]["ip_address"],
        "internal_port": 8080,
        "external_port": external,
        "protocol": "tcp",
    } | more
    wanted = {name: value for name, value in wanted.items() if value is not None}
    made: dict[str, Any] = site.cloud.api.post(path(floating), port_forwarding=wanted)
    return made


def forwarded(site: Site, port: Port, host: str = "h1") -> list[str] | None:
    """Return what a port's host reads that it forwards; None if it has no port."""
    item = site.cloud.store.get(site.cloud.endpoint_key(port, host))
    if item is None:
        return None
    return [
        f"{one.external} {one.protocol} {one.ports} {one.internal} {one.to}"
        for one in parse_endpoint(item.value).forwardings
    ]


def wait_forwarded(
    site: Site, port: Port, *wanted: tuple[dict[str, Any], str], host: str = "h1"
) -> None:
    lines = [f"{ip['floating_ip_address']} {more}" for ip, more in wanted]
    eventually(
        lambda: forwarded(site, port, host) == lines,
        f"{lines}, not {forwarded(site, port, host)}",
    )


def two_ports(site: Site) -> tuple[Port, Port]:
    """Return two ports of two hosts, the one that serves what leads to both first."""
    one, other = site.port(), site.port()
    first, second = sorted((one, other), key=lambda port: str(port["id"]))
    site.cloud.api.put(f"ports/{second['id']}", port={"binding:host_id": "h2"})
    eventually(lambda: site.nats(second, "h2") == [], "it is published")
    return first, second | {"binding:host_id": "h2"}


def to(port: Port, ports: str = "8080") -> str:
    return f"{port['fixed_ips'][0]['ip_address']} {ports}"


def test_forwardings_are_made_listed_changed_and_deleted(site: Site) -> None:
    api, port = site.cloud.api, site.port()
    floating = site.floating()
    made = forward(site, floating, port, 80, description="web")
    wait_forwarded(site, port, (floating, f"6 80 {to(port)}"))
    assert api.get(path(floating, made))["description"] == "web"
    assert [one["id"] for one in api.get(path(floating))] == [made["id"]]
    (shown,) = api.get(f"floatingips/{floating['id']}")["port_forwardings"]
    assert shown["external_port"] == 80
    change = {"external_port": 443, "protocol": "udp"}
    api.put(path(floating, made), port_forwarding=change)
    wait_forwarded(site, port, (floating, f"17 443 {to(port)}"))
    api.delete(path(floating, made))
    wait_forwarded(site, port)
    aliases = {extension["alias"] for extension in api.get("extensions")}
    assert aliases >= {
        "floating-ip-port-forwarding",
        "expose-port-forwarding-in-fip",
        "floating-ip-port-forwarding-description",
        "floating-ip-port-forwarding-detail",
        "floating-ip-port-forwarding-port-ranges",
    }


def test_one_port_serves_all_that_a_floating_ip_forwards(site: Site) -> None:
    api, (first, second) = site.cloud.api, two_ports(site)
    floating = site.floating()
    forward(site, floating, second, 81)
    also = (floating, f"6 81 {to(second)}")
    wait_forwarded(site, second, also, host="h2")
    forward(site, floating, first, 80)
    both = ((floating, f"6 80 {to(first)}"), also)
    wait_forwarded(site, first, *both)
    wait_forwarded(site, second, host="h2")
    # It is turned off, and on, unbound, and deleted: another serves in its place.
    path_of_first = f"ports/{first['id']}"
    api.put(path_of_first, port={"admin_state_up": False})
    wait_forwarded(site, second, *both, host="h2")
    api.put(path_of_first, port={"admin_state_up": True})
    wait_forwarded(site, first, *both)
    wait_forwarded(site, second, host="h2")
    api.put(path_of_first, port={"binding:host_id": ""})
    wait_forwarded(site, second, *both, host="h2")
    api.delete(path_of_first)
    wait_forwarded(site, second, also, host="h2")


def test_p09_a_floating_ip_that_forwards_is_active_while_it_is_served(
    site: Site,
) -> None:
    api, (first, second) = site.cloud.api, two_ports(site)
    floating = site.floating()
    made = forward(site, floating, first, 80)
    other = forward(site, floating, second, 81)
    wait_forwarded(
        site,
        first,
        (floating, f"6 80 {to(first)}"),
        (floating, f"6 81 {to(second)}"),
    )
    assert site.status(floating) == "DOWN"
    site.cloud.report(first)
    site.wait_status(floating, "ACTIVE")
    for enabled, status in ((False, "DOWN"), (True, "ACTIVE")):
        api.put(f"routers/{site.router['id']}", router={"admin_state_up": enabled})
        site.wait_status(floating, status)
        eventually(
            lambda enabled=enabled: bool(forwarded(site, first)) is enabled,  # type: ignore[misc] # the loop's
            "a router that is turned off forwards nothing",
        )
    # The other one serves what is left, once its host says so.
    api.delete(path(floating, made))
    wait_forwarded(site, second, (floating, f"6 81 {to(second)}"), host="h2")
    site.wait_status(floating, "DOWN")
    site.cloud.report(second, host="h2")
    site.wait_status(floating, "ACTIVE")
    api.delete(path(floating, other))
    assert site.status(floating) == "DOWN"


def test_ranges_of_ports_lead_to_ranges(site: Site) -> None:
    port, floating = site.port(), site.floating()

    def ranged(external: str, internal: str) -> dict[str, Any]:
        return forward(
            site,
            floating,
            port,
            0,
            external_port=None,
            internal_port=None,
            external_port_range=external,
            internal_port_range=internal,
        )

    ranged("2000:2004", "3000:3004")
    ranged("2100:2104", "22:22")
    wait_forwarded(
        site,
        port,
        (floating, f"6 2000-2004 {to(port, '3000-3004')}"),
        (floating, f"6 2100-2104 {to(port, '22')}"),
    )
    status, text = refusal(lambda: ranged("10000:14096", "10000:14096"))
    assert status == 400
    assert "more than 4096 ports" in text
    assert refusal(lambda: ranged("2005:2010", "4000:4004"))[0] == 400


def test_what_cannot_be_forwarded_is_refused(site: Site) -> None:
    api, port, taken = site.cloud.api, site.port(), site.port()
    floating, associated = site.floating(), site.floating(taken)
    forward(site, floating, port, 80)
    elsewhere = site.cloud.instance_port(site.cloud.network("10.182.0.0/24"))
    refused: dict[str, Callable[[], Any]] = {
        "dccp is not forwarded": lambda: forward(
            site, floating, port, 81, protocol="dccp", internal_port=81
        ),
        "port collision": lambda: forward(site, floating, port, 80, internal_port=81),
        "not reachable": lambda: forward(site, floating, elsewhere, 82),
        "with port": lambda: forward(site, associated, port, 83, internal_port=83),
        "floating IP": lambda: forward(site, floating, taken, 84),
        "in use by": lambda: api.put(
            f"floatingips/{floating['id']}", floatingip={"port_id": port["id"]}
        ),
        "in use": lambda: api.delete(f"floatingips/{floating['id']}"),
    }
    for words, call in refused.items():
        status, text = refusal(call)
        assert status in {400, 409}
        assert words in text
    wait_forwarded(site, port, (floating, f"6 80 {to(port)}"))


def test_an_address_that_goes_takes_its_forwardings_along(site: Site) -> None:
    port, floating = site.port(), site.floating()
    forward(site, floating, port, 80)
    wait_forwarded(site, port, (floating, f"6 80 {to(port)}"))
    (ip,) = port["fixed_ips"]
    new = {"subnet_id": ip["subnet_id"], "ip_address": "10.181.0.200"}
    site.cloud.api.put(f"ports/{port['id']}", port={"fixed_ips": [new]})
    wait_forwarded(site, port)
    assert site.cloud.api.get(path(floating)) == []
    with pytest.raises(ApiError):
        forward(site, floating, port, 80)
