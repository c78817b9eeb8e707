"""S16: security groups: what they let through, and what a change of them cuts off."""

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from ipaddress import ip_network
from itertools import product
from typing import Any

from calico.verify import truth_table
from calico.verify.cloud import Site
from calico.verify.parallel import eventually, parallel
from calico.verify.probes.flows import Course, Flow, FlowFailed, Flows, cut, goes_on
from calico.verify.reach import VERSIONS, title
from calico.verify.result import Tally
from calico.verify.stage import Stage

WITHIN = 1.0  # seconds after the API's answer
_EFFECT = 10.0  # seconds for what is allowed anew
_KEPT, _RULE, _MEMBER, _ADDRESS, _GROUP, _EGRESS = range(8101, 8107)
_PROJECT = "demo1"


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """Something that takes away what allows a port, and what gives it back."""

    name: str
    port: int
    revoke: Callable[[], object]
    restore: Callable[[], object]


def check(stage: Stage, tally: Tally) -> None:
    """Look at a table of verdicts, then change groups under running exchanges."""
    truth_table.check(stage, tally)
    check_changes(stage, tally)


def check_changes(stage: Stage, tally: Tally) -> None:
    """Run exchanges to one host and across hosts; revoke what allows them, one by one.

    Those that a change concerns end within a second, the others go on.
    """
    client, servers = stage.sites["g1"], (stage.sites["g2"], stage.sites["g4"])
    wishes = Wishes(stage, client, servers)
    try:
        changes = wishes.make()
        with Flows() as flows:
            _run(tally, flows, (client, servers), changes)
    finally:
        wishes.back()


def _run(
    tally: Tally,
    flows: Flows,
    between: tuple[Site, tuple[Site, ...]],
    changes: Iterable[Change],
) -> None:
    client, servers = between
    changes = list(changes)
    left = {
        port: _begin(tally, flows, client, servers, port)
        for port in (_KEPT, *(change.port for change in changes))
    }
    for change in changes:
        change.revoke()
        since = time.monotonic()
        for flow, wrong in cut(left[change.port], since, WITHIN).items():
            tally.case(f"{change.name} cuts {flow.course.name}", wrong)
        flows.end(left.pop(change.port))
        kept = [flow for found in left.values() for flow in found]
        for flow, wrong in goes_on(kept).items():
            tally.case(f"{change.name} leaves {flow.course.name}", wrong)
    for change in changes:
        change.restore()
    for change in changes:
        _begin(tally, flows, client, servers, change.port)


def _begin(
    tally: Tally, flows: Flows, client: Site, servers: Iterable[Site], port: int
) -> list[Flow]:
    """Begin every kind of flow to a port; a change may still be on its way."""
    courses = [
        course(client, server, kind, (version, port))
        for server, version, kind in product(servers, VERSIONS, ("TCP", "UDP"))
    ]
    begun: list[Flow] = []

    def start(wanted: Course) -> None:
        said: list[str] = []

        def attempt() -> bool:
            try:
                begun.append(flows.begin(wanted))
            except FlowFailed as e:
                said.append(str(e))
                return False
            return True

        wrong = None if eventually(attempt, _EFFECT) else said[-1]
        tally.case(f"{wanted.name} begins", wrong)

    parallel([partial(start, each) for each in courses])
    return begun


def course(source: Site, target: Site, kind: str, to: tuple[int, int]) -> Course:
    """Return the course of a flow to an IP version and port of an instance."""
    version, port = to
    return Course(
        name=f"{title((source, target))}, IPv{version} {kind} {port}",
        kind=kind,
        source=source.place,
        target=target.place,
        address=target.address(version),
        port=port,
    )


class Wishes:
    """The groups of a client and its servers, and ways to take back what they allow.

    Only these let anything through: the client takes no connections at all, so what
    comes back to it is an answer or nothing.
    """

    def __init__(self, stage: Stage, client: Site, servers: tuple[Site, ...]) -> None:
        self._stage = stage
        self._api: Any = stage.cloud.api(_PROJECT).network
        self._client = client
        self._servers = servers

    def make(self) -> list[Change]:
        """Make the groups, give them to the ports, and return the changes to come."""
        api = self._api
        client, server, extra, empty = map(
            self._group, ("client", "server", "extra", "empty")
        )
        addresses = [str(ip_network(a)) for a in self._client.addresses]
        name = f"{self._stage.prefix}-client"
        few = api.create_address_group(name=name, addresses=addresses)
        self._allow(client, "egress", (_KEPT, _GROUP))
        on_way_out = self._allow(client, "egress", (_EGRESS, _EGRESS))
        self._allow(server, "ingress", (_KEPT, _KEPT))
        self._allow(server, "ingress", (_EGRESS, _EGRESS))
        on_way_in = self._allow(server, "ingress", (_RULE, _RULE))
        self._allow(server, "ingress", (_MEMBER, _MEMBER), remote_group_id=empty)
        self._allow(
            server, "ingress", (_ADDRESS, _ADDRESS), remote_address_group_id=few.id
        )
        self._allow(extra, "ingress", (_GROUP, _GROUP))
        join = partial(self._put, [self._client], [client, empty])
        serve = partial(self._put, self._servers, [server, extra])
        join()
        serve()
        return [
            self._without("removal of a rule", _RULE, on_way_in, (server, "ingress")),
            self._without(
                "removal of an egress rule", _EGRESS, on_way_out, (client, "egress")
            ),
            Change(
                name="a member's leaving",
                port=_MEMBER,
                revoke=partial(self._put, [self._client], [client]),
                restore=join,
            ),
            Change(
                name="an address's leaving",
                port=_ADDRESS,
                revoke=partial(api.remove_addresses_from_address_group, few, addresses),
                restore=partial(api.add_addresses_to_address_group, few, addresses),
            ),
            Change(
                name="removal of a port's group",
                port=_GROUP,
                revoke=partial(self._put, self._servers, [server]),
                restore=serve,
            ),
        ]

    def back(self) -> None:
        """Give the ports their permissive group again."""
        group = self._stage.groups[_PROJECT]
        self._put([self._client, *self._servers], [group])

    def _without(
        self, name: str, port: int, rules: list[str], of: tuple[str, str]
    ) -> Change:
        remove = [partial(self._api.delete_security_group_rule, r) for r in rules]
        return Change(
            name=name,
            port=port,
            revoke=lambda: parallel(remove, 4),
            restore=partial(self._allow, *of, (port, port)),
        )

    def _group(self, key: str) -> str:
        name = f"{self._stage.prefix}-{key}"
        group = self._api.create_security_group(name=name)
        for rule in group.security_group_rules:
            self._api.delete_security_group_rule(rule["id"])
        return str(group.id)

    def _allow(
        self,
        group: str,
        direction: str,
        ports: tuple[int, int],
        **remote: str,
    ) -> list[str]:
        """Add rules for TCP and UDP of both families; return their ids."""
        bodies: list[Mapping[str, object]] = [
            {
                "security_group_id": group,
                "direction": direction,
                "ether_type": f"IPv{version}",
                "protocol": protocol,
                "port_range_min": ports[0],
                "port_range_max": ports[1],
                **remote,
            }
            for version, protocol in product(VERSIONS, ("tcp", "udp"))
        ]
        return [str(r.id) for r in self._api.create_security_group_rules(bodies)]

    def _put(self, sites: Iterable[Site], groups: list[str]) -> None:
        for site in sites:
            self._api.update_port(site.port, security_group_ids=groups)
