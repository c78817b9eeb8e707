"""What networking-calico leaves in etcd, as its releases spell it.

Other order, other spaces, labels under other names; no member index, no projects of
subnets, and only subnets that have DHCP.
"""

import json
from collections.abc import Iterable, Mapping
from typing import Any
from uuid import NAMESPACE_URL, uuid5

Json = dict[str, Any]

CLUSTER_INFORMATION = json.dumps(
    {
        "kind": "ClusterInformation",
        "apiVersion": "projectcalico.org/v3",
        "metadata": {"name": "default", "creationTimestamp": "2023-02-01T10:00:00Z"},
        "spec": {
            "clusterGUID": "3b0b8b2a8f9d4d8f8f0c0c7f1d2e3a4b",
            "clusterType": "openstack",
            "datastoreReady": True,
        },
    }
)
FELIX_CONFIGURATION = json.dumps(
    {
        "kind": "FelixConfiguration",
        "apiVersion": "projectcalico.org/v3",
        "metadata": {"name": "default", "creationTimestamp": "2023-02-01T10:00:00Z"},
        "spec": {"endpointReportingEnabled": True, "interfacePrefix": "tap"},
    }
)
FELIX_STATUS = json.dumps(
    {"time": "2024-05-06T07:08:09Z", "uptime": 86400.5, "first_update": False}
)
CREATED = "2023-04-05T06:07:08Z"


def resource(
    kind: str, name: str, spec: Json, namespace: str = "openstack", **metadata: Json
) -> str:
    """Return a resource's JSON; `metadata` are its annotations and labels."""
    return json.dumps(
        {
            "kind": kind,
            "apiVersion": "projectcalico.org/v3",
            "metadata": {
                "name": name,
                "namespace": namespace,
                "creationTimestamp": CREATED,
                "uid": str(uuid5(NAMESPACE_URL, name)),
                **metadata,
            },
            "spec": spec,
        }
    )


def endpoint_name(host: str, device: str, port: str) -> str:
    parts = (part.replace("-", "--") for part in (host, device, port))
    return "{}-openstack-{}-{}".format(*parts)


def endpoint(
    *,
    host: str,
    device: str,
    port: str,
    mac: str,
    addresses: Mapping[str, str],
    groups: Mapping[str, str],
    project: str,
    network: str,
    pairs: Iterable[str] = (),
    nats: Mapping[str, str] | None = None,
) -> str:
    """Return an endpoint; `addresses` are with their gateways, `groups` with names.

    `nats` are addresses of the port by the floating IPs that stand for them.
    """
    spec: Json = {
        "orchestrator": "openstack",
        "workload": device,
        "node": host,
        "endpoint": port,
        "interfaceName": "tap" + port[:11],
        "mac": mac,
    }
    for address, gateway in addresses.items():
        spec["ipv6Gateway" if ":" in address else "ipv4Gateway"] = gateway
    allowed = [_single(address) for address in pairs]
    spec["ipNetworks"] = [_single(address) for address in addresses] + allowed
    spec["allowedIps"] = allowed
    if nats:
        spec["ipNATs"] = [
            {"internalIP": inner, "externalIP": outer} for outer, inner in nats.items()
        ]
    return resource(
        "WorkloadEndpoint",
        endpoint_name(host, device, port),
        spec,
        annotations={"openstack.projectcalico.org/network-id": network},
        labels=_labels(groups, project),
    )


def _labels(groups: Mapping[str, str], project: str) -> Json:
    labels: Json = {}
    for group, name in groups.items():
        labels["sg.projectcalico.org/openstack-" + group] = name
        labels["sg-name.projectcalico.org/openstack-" + name] = group
    return labels | {
        "projectcalico.org/namespace": "openstack",
        "projectcalico.org/orchestrator": "openstack",
        "projectcalico.org/openstack-project-id": project,
        "projectcalico.org/openstack-project-name": "blue-team",
        "projectcalico.org/openstack-project-parent-id": "default",
        "projectcalico.org/openstack-network-name": "blue",
    }


def policy(group: str, *, ingress: Iterable[Json], egress: Iterable[Json]) -> str:
    """Return a security group; `rule` makes what it says."""
    return resource(
        "NetworkPolicy",
        f"ossg.default.{group}",
        {
            "ingress": list(ingress),
            "egress": list(egress),
            "selector": f"has(sg.projectcalico.org/openstack-{group})",
        },
    )


def rule(version: int = 4, *, remote: str | None = None, **more: Any) -> Json:
    """Return an ingress rule; `remote` is a group."""
    written: Json = {"action": "Allow", "ipVersion": version, **more}
    if remote is not None:
        selector = f"has(sg.projectcalico.org/openstack-{remote})"
        written["source"] = {"selector": selector}
    return written


def subnet(*, network: str, cidr: str, gateway: str) -> str:
    return json.dumps(
        {
            "network_id": network,
            "cidr": cidr,
            "host_routes": [],
            "gateway_ip": gateway,
            "dns_servers": ["9.9.9.9"],
        }
    )


def _single(address: str) -> str:
    return f"{address}/{128 if ':' in address else 32}"
