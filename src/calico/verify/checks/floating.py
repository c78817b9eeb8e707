"""S13: a floating IP leads to its instance, and to no other, from everywhere."""

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from ipaddress import IPv4Address, ip_address
from itertools import product
from typing import Any

from calico.verify import tenancy
from calico.verify.checks.groups import WITHIN
from calico.verify.cloud import CloudError, Place, Site
from calico.verify.parallel import eventually, parallel
from calico.verify.probes.echo import PORT, ask_stream
from calico.verify.probes.flows import Course, Flow, Flows, cut, goes_on
from calico.verify.probes.spread import spread
from calico.verify.reach import PROTOCOLS
from calico.verify.result import Tally
from calico.verify.stage import Stage

_EFFECT = 10.0  # seconds for what is to come or go
_OWN = "111"  # the protocol of routes that a host announces
_FLOW = 8301


@dataclass(frozen=True, slots=True)
class Trial:
    """One floating IP, the instances that may have it, and who asks for it."""

    stage: Stage
    tally: Tally
    id: str
    address: IPv4Address
    sites: tuple[Site, ...]

    @property
    def api(self) -> Any:
        """Return the API of the project whose it is."""
        return self.stage.cloud.api(tenancy.PROJECT).network

    @property
    def clients(self) -> Mapping[str, Place]:
        """Return who asks: the outside, and each of the instances."""
        outside = self.stage.cloud.place(self.stage.cloud.topology.outside)
        return {"outside": outside, **{site.short: site.place for site in self.sites}}

    def give(self, site: Site | None) -> float:
        """Associate it with an instance, or none; return when that was answered."""
        self.api.update_ip(self.id, port_id=site.port if site else None)
        return time.monotonic()

    def expect(self, why: str, site: Site) -> None:
        """Count who reaches it, whom they reach, who announces it, and its status."""
        parallel(
            [
                partial(self.reached, f"{why}: {name} by {protocol}", place, protocol)
                for (name, place), protocol in product(self.clients.items(), PROTOCOLS)
            ]
        )
        outside = self.clients["outside"]
        went = spread(outside, (self.address, PORT), self.sites)
        wrong = None if set(went) == {site.short} else f"datagrams went to {went}"
        self.tally.case(f"{why}: {site.short} alone has it", wrong)
        self._announced(why, {site.host.name})
        self._shown(why, "ACTIVE")

    def expect_none(self, why: str, *, exists: bool = True) -> None:
        """Count that nobody reaches it, nothing leads to it, and its status."""
        self._announced(why, set())
        clear = eventually(lambda: not self._routes(any_protocol=True), _EFFECT)
        left = None if clear else f"routes on {self._routes(any_protocol=True)}"
        self.tally.case(f"{why}: no route is left", left)

        def asked(name: str, place: Place, protocol: str) -> None:
            wrong = PROTOCOLS[protocol](place, self.address)
            case = f"{why}: {name} by {protocol} fails"
            self.tally.case(case, None if wrong else "it is answered")

        kinds = product(self.clients.items(), ("ICMP", "UDP"))
        parallel([partial(asked, *client, kind) for client, kind in kinds])
        if exists:
            self._shown(why, "DOWN")

    def begin(self, flows: Flows, site: Site) -> list[Flow]:
        """Begin connections and datagrams to it, which an instance answers."""
        return [
            flows.begin(
                Course(
                    name=f"{name} by {kind}, served by {site.short}",
                    kind=kind,
                    source=self.clients[name],
                    target=site.place,
                    address=self.address,
                    bound=site.address(4),
                    port=_FLOW + number,
                )
            )
            for number, name in enumerate(("outside", self.sites[1].short))
            for kind in ("TCP", "UDP")
        ]

    def ended(self, why: str, flows: list[Flow], since: float) -> None:
        """Count that flows fell silent."""
        for flow, wrong in cut(flows, since, WITHIN).items():
            self.tally.case(f"{why} cuts {flow.course.name}", wrong)

    def reached(self, case: str, place: Place, protocol: str) -> None:
        """Count whether it is reached, soon."""
        said: list[str | None] = []

        def works() -> bool:
            said.append(PROTOCOLS[protocol](place, self.address))
            return said[-1] is None

        eventually(works, _EFFECT)
        self.tally.case(case, said[-1])

    def _announced(self, why: str, wanted: set[str]) -> None:
        same = eventually(lambda: self._routes() == wanted, _EFFECT)
        wrong = None if same else f"announced by {self._routes()}"
        who = ", ".join(sorted(wanted)) or "nobody"
        self.tally.case(f"{why}: {who} announces it", wrong)

    def _routes(self, *, any_protocol: bool = False) -> set[str]:
        """Return the nodes that have a route of it: of their own, or any."""
        topology = self.stage.cloud.topology
        nodes = [*(host.name for host in topology.hosts), *topology.routers]
        asked = [partial(self._route, self.stage.cloud.place(n)) for n in nodes]
        found = zip(nodes, parallel(asked), strict=True)
        return {node for node, by in found if (by if any_protocol else by == {_OWN})}

    def _route(self, place: Place) -> set[str]:
        argv = ["ip", "-j", "-4", "route", "show", "exact", f"{self.address}/32"]
        done = place.run(argv)
        if done.returncode:
            raise CloudError(f"{place.name}: {done.stderr.strip()}")
        return {str(route["protocol"]) for route in json.loads(done.stdout or "[]")}

    def _shown(self, why: str, status: str) -> None:
        right = eventually(lambda: self.api.get_ip(self.id).status == status, _EFFECT)
        wrong = None if right else f"not within {_EFFECT:g} s"
        self.tally.case(f"{why}: its status is {status}", wrong)


def check(stage: Stage, tally: Tally) -> None:
    """Associate, move, disassociate and delete, under running exchanges."""
    tenancy.attach(stage)
    here, near, far = stage.on(tenancy.INSIDE)
    api = stage.cloud.api(tenancy.PROJECT).network
    made = api.create_ip(floating_network_id=stage.nets[tenancy.EXTERNAL].id)
    address = ip_address(made.floating_ip_address)
    assert isinstance(address, IPv4Address)  # noqa: S101 - Neutron has no others
    trial = Trial(stage, tally, made.id, address, (here, near, far))
    trial.expect_none("not associated")
    trial.give(here)
    trial.expect("associated", here)
    _own_connections(trial, here)
    _closed(trial, here)
    _moved(trial)
    trial.give(here)
    trial.reached("associated again: outside", trial.clients["outside"], "TCP")
    with Flows() as flows:
        running = trial.begin(flows, here)
        api.delete_ip(trial.id)
        trial.ended("deletion", running, time.monotonic())
    trial.expect_none("deleted", exists=False)


def _own_connections(trial: Trial, site: Site) -> None:
    """What it begins itself it begins as itself (S9).

    To the outside as its floating IP, where the cloud's settings say so.
    """
    cloud, itself = trial.stage.cloud, (site.address(4), "itself")
    own = (trial.address, "its floating IP")
    others = {f"to {o.short}": (o.address(4), *itself) for o in trial.sites[1:]}
    leaving = own if cloud.settings().translate_sources else itself
    others["to the outside"] = (cloud.topology.outside_addresses[0], *leaving)
    for name, (address, source, words) in others.items():
        seen = ask_stream(site.place, (address, PORT))
        if isinstance(seen, str):
            wrong: str | None = seen
        else:
            right = seen.address == str(source)
            wrong = None if right else f"it arrives as {seen.address}"
        trial.tally.case(f"{site.short} {name} as {words}", wrong)


def _closed(trial: Trial, site: Site) -> None:
    """Its group's rules hold for what comes by the floating IP."""
    outside = trial.clients["outside"]
    group = trial.api.create_security_group(name=f"{trial.stage.prefix}-closed")
    trial.api.update_port(site.port, security_group_ids=[group.id])
    shut = eventually(lambda: PROTOCOLS["ICMP"](outside, trial.address), _EFFECT)
    wrong = None if shut else "it is answered"
    trial.tally.case("its group lets nobody in: outside by ICMP fails", wrong)
    open_to_all = trial.stage.groups[tenancy.PROJECT]
    trial.api.update_port(site.port, security_group_ids=[open_to_all])
    trial.reached("its group lets all in: outside", outside, "ICMP")


def _moved(trial: Trial) -> None:
    """From one host to another, then to none; what was there is cut, no more."""
    here, _, far = trial.sites
    with Flows() as flows:
        running = trial.begin(flows, here)
        own = flows.begin(
            Course(
                name="outside to its own address",
                kind="TCP",
                source=trial.clients["outside"],
                target=here.place,
                address=here.address(4),
                port=_FLOW + 9,
            )
        )
        trial.ended("moving", running, trial.give(far))
        for flow, wrong in goes_on([own]).items():
            trial.tally.case(f"moving leaves {flow.course.name}", wrong)
        trial.expect("moved", far)
        running = trial.begin(flows, far)
        trial.ended("disassociation", running, trial.give(None))
        trial.expect_none("disassociated")
