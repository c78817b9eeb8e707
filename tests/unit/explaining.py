"""A datastore and a network made by hand, for questions about them."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tests.endpoints import HOST, endpoint
from tests.policies import OPEN_POLICY
from tests.unit.hosts import SUBNET

from calico.model.codec import encode_endpoint, encode_subnet
from calico.model.ids import GroupId, HostName
from calico.model.keys import Keys
from calico.model.policy_codec import encode_policy
from calico.model.records import Endpoint, Policy, Rule
from calico.policy.evaluate import Packet
from calico.verify.explain.journey import Explanation, Spot, explain
from calico.verify.explain.picture import End, Picture
from calico.verify.explain.question import Asked, understand
from calico.verify.explain.routes import Forwarded, Route

KEYS = Keys()
OTHER = HostName("host-b")
PINGS = GroupId("pings")
ONE, TWO = endpoint(2), endpoint(3, host=OTHER)
ONLY_PINGS = Policy(
    group=PINGS,
    name="Pings",
    ingress=(Rule(version=4, protocol=1, id="ping"),),
    egress=(Rule(version=4, protocol=1, id="pong"),),
    stateful=False,
)


def items(
    *endpoints: Endpoint, status: str = "up", policies: tuple[Policy, ...] = ()
) -> dict[str, bytes]:
    stored = {KEYS.subnet(SUBNET.id): encode_subnet(SUBNET)}
    for policy in (OPEN_POLICY, *policies):
        stored[KEYS.policy(policy.group)] = encode_policy(policy)
    for e in endpoints:
        stored[KEYS.endpoint(e.host, e.device, e.port)] = encode_endpoint(e)
        key = KEYS.port_status(e.host, e.device, e.port)
        stored[key] = json.dumps({"status": status}).encode()
    return stored


@dataclass(frozen=True)
class TwoHosts:
    """Hosts with a router between them (journey.Network)."""

    routes: Mapping[str, Route] = field(default_factory=dict)
    seen: frozenset[str] = frozenset({HOST, OTHER})

    def start(self, source: End) -> Spot | None:
        if source.port is None:
            return Spot("internet")
        return Spot(HOST, str(ONE.interface)) if source.host in self.seen else None

    def entry(self, source: End) -> Spot:
        del source
        return Spot(OTHER, "eth0")

    def route(self, spot: Spot, packet: Packet) -> Route:
        del packet
        ways: dict[str, Route] = {
            HOST: Forwarded(interface="eth0"),
            "router": Forwarded(interface="to-b"),
            OTHER: Forwarded(interface=str(TWO.interface)),
            "internet": Forwarded(interface="in"),
        }
        return {**ways, **self.routes}[spot.node]

    def across(self, node: str, interface: str) -> Spot | None:
        cables = {
            (HOST, "eth0"): Spot("router", "to-a"),
            ("router", "to-b"): Spot(OTHER, "eth0"),
            ("router", "to-a"): Spot(HOST, "eth0"),
            ("router", "out"): Spot("internet", "in"),
            ("internet", "in"): Spot("router", "out"),
        }
        return cables.get((node, interface)) if node in self.seen | ROUTERS else None

    def is_outside(self, node: str) -> bool:
        return node == "internet"


ROUTERS = frozenset({"router", "internet"})


def of_words(
    stored: Mapping[str, bytes], network: TwoHosts | None = None, **words: Any
) -> Explanation:
    ends = {"source": str(ONE.port), "target": str(TWO.port)}
    picture = Picture(items=stored)
    asked = understand(Asked(**{**ends, **words}), picture)
    return explain(asked, picture, network or TwoHosts())


def last(explanation: Explanation) -> tuple[str, str, str]:
    hop = explanation.hops[-1]
    return hop.node, hop.what, hop.outcome.value
