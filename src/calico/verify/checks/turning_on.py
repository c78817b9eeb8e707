"""S21: Calico works as core plugin, as the driver of ML2, and beside another driver."""

from typing import Any

from calico.verify.cloud import Ask
from calico.verify.reach import both_ways, reach
from calico.verify.result import Tally
from calico.verify.stage import Stage

_ALONE = """\
[DEFAULT]
core_plugin = ml2
[ml2]
type_drivers = local,flat
project_network_types = local
mechanism_drivers = calico
extension_drivers = port_security
"""
_BESIDE = """\
[DEFAULT]
core_plugin = ml2
[ml2]
type_drivers = local,flat,vlan
project_network_types = local
mechanism_drivers = openvswitch,calico
extension_drivers = port_security
[ml2_type_vlan]
network_vlan_ranges = verify:100:199
"""


def check(stage: Stage, tally: Tally) -> None:
    """Bind ports each way and reach the instances on them."""
    api = stage.cloud.api("admin").network
    for site in stage.on("A"):
        port = api.get(f"/ports/{site.port}").json()["port"]
        tally.case(f"core plugin binds {site.short}", _judge_binding(port))
    for key, way, settings in (("X", "ML2", _ALONE), ("Y", "ML2 beside", _BESIDE)):
        stage.tell(f"starting a second API: {way}")
        with stage.cloud.control().second_api(settings) as ask:
            _try(stage, tally, ask, (key, way))
            if settings is _BESIDE:
                _leave_others_alone(stage, tally, ask)


def _try(stage: Stage, tally: Tally, ask: Ask, which: tuple[str, str]) -> None:
    key, way = which
    host = stage.hosts[2]
    body = {"network": {"name": f"{stage.prefix}-{key}"}}
    network = ask("POST", "/networks", body)["network"]
    tally.case(f"{way}: l2_adjacency", _judge_adjacency(network))
    cidrs = stage.ranges.by_key[key]
    for cidr in cidrs:
        subnet = {"network_id": network["id"], "cidr": str(cidr)}
        subnet |= {"ip_version": cidr.version}
        if cidr.version == 6:
            subnet |= {"ipv6_ra_mode": "slaac", "ipv6_address_mode": "slaac"}
        ask("POST", "/subnets", {"subnet": subnet})
    port = _port(stage, ask, network, key)
    tally.case(f"{way}: binds", _judge_binding(port))
    site = stage.cloud.compute().boot(
        f"{stage.prefix}-{key.lower()}1", port["id"], host.name
    )
    try:
        status = ask("GET", f"/ports/{port['id']}", None)["port"]["status"]
        tally.case(f"{way}: its workers make the port ACTIVE", _judge_status(status))
        stage.responder.serve(site.place)
        reach(tally, both_ways([(stage.sites["a1"], site)]), f"{way}: ")
    finally:
        stage.cloud.compute().destroy(site.name)


def _port(stage: Stage, ask: Ask, network: Any, key: str) -> Any:
    port = {
        "network_id": network["id"],
        "name": f"{stage.prefix}-{key}",
        "device_owner": "compute:verify",
        "device_id": f"{stage.prefix}-{key}",
        "binding:host_id": stage.hosts[2].name,
    }
    if key in stage.ranges.by_key:
        port["security_groups"] = [stage.groups["admin"]]
    return ask("POST", "/ports", {"port": port})["port"]


def _leave_others_alone(stage: Stage, tally: Tally, ask: Ask) -> None:
    """A network of a type that Calico does not serve is none of its business."""
    body = {
        "name": f"{stage.prefix}-Z",
        "provider:network_type": "vlan",
        "provider:physical_network": "verify",
        "provider:segmentation_id": 100,
    }
    network = ask("POST", "/networks", {"network": body})["network"]
    # The first API knows no VLANs, so what is made here is deleted here.
    try:
        told = network.get("l2_adjacency")
        wrong = None if told is not False else "l2_adjacency is False"
        tally.case("ML2 beside: a VLAN stays an L2 segment", wrong)
        cidr = str(stage.ranges.by_key["Z"][0])
        subnet = {"network_id": network["id"], "cidr": cidr, "ip_version": 4}
        ask("POST", "/subnets", {"subnet": subnet})
        port = _port(stage, ask, network, "Z")
        drivers = port["binding:vif_details"].get("bound_drivers", {})
        wrong = str(drivers) if "calico" in drivers.values() else None
        tally.case("ML2 beside: a port on a VLAN is not Calico's", wrong)
        ask("DELETE", f"/ports/{port['id']}", None)
    finally:
        ask("DELETE", f"/networks/{network['id']}", None)


def _judge_status(status: str) -> str | None:
    return None if status == "ACTIVE" else status


def _judge_adjacency(network: dict[str, Any]) -> str | None:
    value = network.get("l2_adjacency", "missing")
    return None if value is False else f"l2_adjacency is {value!r}"


def _judge_binding(port: dict[str, Any]) -> str | None:
    details = port["binding:vif_details"]
    bound = details.get("bound_drivers", {})
    if port["binding:vif_type"] == "tap" and "calico" in bound.values():
        return None
    return f"vif type {port['binding:vif_type']!r}, details {details}"
