"""Making networks through the Neutron API, many of them by one request."""

from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network
from typing import Any

from calico.verify.cloud import Cloud, CloudError
from calico.verify.layout import NetPlan, Ranges

ROUTED = "203.0.113.0/24"  # of a host route
DNS = ("192.0.2.53", "2001:db8::53")
NEXT_HOP = 9  # the host route's, as the number of an address in the subnet
_FIRST, _LAST = 2, -57  # what a subnet allocates, so that others can be its gateway


@dataclass(frozen=True, slots=True, kw_only=True)
class Net:
    """A network that was made; `subnet6` is empty where it has no such subnet."""

    plan: NetPlan
    id: str
    cidr4: IPv4Network
    cidr6: IPv6Network
    subnet4: str
    subnet6: str
    mtu: int


@dataclass(frozen=True, slots=True, kw_only=True)
class NetMaker:
    """Makes networks in a cloud, with names of one prefix and ranges by their keys."""

    cloud: Cloud
    prefix: str
    ranges: Ranges

    def make(self, plans: Sequence[NetPlan]) -> list[Net]:
        """Make networks of one project, each with a subnet of each of its IP versions.

        In bulk: two requests for all, since for hundreds one each would take minutes.
        Raises CloudError with what the API says.
        """
        project = plans[0].project
        networks = self._post(project, "networks", [*map(self._network, plans)])
        wanted = [
            subnet
            for plan, network in zip(plans, networks, strict=True)
            for subnet in self._subnets(plan, network["id"])
        ]
        subnets = {
            (subnet["network_id"], subnet["ip_version"]): subnet["id"]
            for subnet in self._post(project, "subnets", wanted)
        }
        made = []
        for plan, network in zip(plans, networks, strict=True):
            cidr4, cidr6 = self.ranges.by_key[plan.key]
            net = Net(
                plan=plan,
                id=network["id"],
                cidr4=cidr4,
                cidr6=cidr6,
                subnet4=subnets[network["id"], 4],
                subnet6=subnets.get((network["id"], 6), ""),
                mtu=network["mtu"],
            )
            made.append(net)
        return made

    def _network(self, plan: NetPlan) -> dict[str, Any]:
        details: dict[str, Any] = {"name": f"{self.prefix}-{plan.key}"}
        if plan.provider:
            details |= {
                "provider:network_type": "flat",
                "provider:physical_network": details["name"],
                "shared": not plan.external,
                "router:external": plan.external,
            }
        return details | ({"mtu": plan.mtu} if plan.mtu else {})

    def _subnets(self, plan: NetPlan, network: str) -> tuple[dict[str, Any], ...]:
        cidr4, cidr6 = self.ranges.by_key[plan.key]
        four = {
            "network_id": network,
            "ip_version": 4,
            "cidr": str(cidr4),
            "gateway_ip": str(cidr4[plan.gateway]),
            "allocation_pools": [
                {"start": str(cidr4[_FIRST]), "end": str(cidr4[_LAST])}
            ],
            "dns_nameservers": [DNS[0]],
            "host_routes": [{"destination": ROUTED, "nexthop": str(cidr4[NEXT_HOP])}],
        }
        six = {
            "network_id": network,
            "ip_version": 6,
            "cidr": str(cidr6),
            "ipv6_ra_mode": plan.mode6,
            "ipv6_address_mode": plan.mode6,
            "dns_nameservers": [DNS[1]],
        }
        return tuple(s for s in (four, six) if s["ip_version"] in plan.versions)

    def _post(
        self, project: str, kind: str, bodies: Sequence[object]
    ) -> list[dict[str, Any]]:
        reply = self.cloud.api(project).network.post(f"/{kind}", json={kind: bodies})
        if reply.status_code >= 400:
            raise CloudError(f"cannot make {len(bodies)} {kind}: {reply.text[:300]}")
        made: list[dict[str, Any]] = reply.json()[kind]
        return made
