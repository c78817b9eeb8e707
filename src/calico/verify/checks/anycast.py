"""S5: one address on several instances: all are used, and what goes away is not missed.

The address is an allowed pair of every member's port, and an address of its loopback.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

from calico.verify.cloud import Address, CloudError, Place, Site
from calico.verify.layout import SitePlan
from calico.verify.parallel import eventually, parallel
from calico.verify.probes.echo import PORT, ask_stream
from calico.verify.probes.ping import ping
from calico.verify.probes.spread import spread
from calico.verify.result import Tally
from calico.verify.stage import Stage

_MOVES = 20.0  # seconds in which traffic has to have moved
_PROJECT = "demo1"


@dataclass(frozen=True, slots=True)
class Service:
    """The anycast addresses, the clients that want them, and who serves them."""

    stage: Stage
    tally: Tally
    addresses: tuple[Address, ...]
    clients: Mapping[str, Place]

    def join(self, site: Site) -> None:
        """Let an instance serve the addresses."""
        pairs = [{"ip_address": str(address)} for address in self.addresses]
        self._api().update_port(site.port, allowed_address_pairs=pairs)
        self._on_loopback(site, "replace")

    def leave(self, site: Site) -> None:
        """Let an instance serve them no longer."""
        self._api().update_port(site.port, allowed_address_pairs=[])
        self._on_loopback(site, "delete")

    def _on_loopback(self, site: Site, verb: str) -> None:
        for address in self.addresses:
            text = f"{address}/{address.max_prefixlen}"
            done = site.place.run(["ip", "address", verb, text, "dev", "lo"])
            if done.returncode:
                raise CloudError(f"{site.name}: {done.stderr.strip()}")

    def _api(self) -> Any:
        return self.stage.cloud.api(_PROJECT).network

    def expect(self, why: str, members: Sequence[Site]) -> None:
        """Count, for every client, whether all reaches members and no one else."""
        cases = [
            partial(self._case, why, client, address, members)
            for client in self.clients
            for address in self.addresses
        ]
        parallel(cases)

    def _case(
        self, why: str, client: str, address: Address, members: Sequence[Site]
    ) -> None:
        place = self.clients[client]
        said: list[str | None] = []

        def right() -> bool:
            said.append(_wrong(place, address, members))
            return said[-1] is None

        eventually(right, _MOVES)
        self.tally.case(f"{why}: {client} to {address}", said[-1])


def _wrong(place: Place, address: Address, members: Sequence[Site]) -> str | None:
    """Return what is wrong with the way to an address, or None."""
    wrong = ping(place, address)
    if wrong is None:
        answer = ask_stream(place, (address, PORT))
        wrong = answer if isinstance(answer, str) else None
    if wrong is not None:
        return wrong
    lost = spread(place, (address, PORT), members).get("", 0)
    return f"{lost} datagrams reach none of them" if lost else None


def check(stage: Stage, tally: Tally) -> None:
    """Serve from one host, then from several, and take servers away in every way."""
    net, outside = stage.nets["G"], stage.cloud.topology.outside
    clients = {"outside": stage.cloud.place(outside)}
    service = Service(stage, tally, (net.cidr4[230], net.cidr6[230]), clients)
    _one_host(service)
    _many_hosts(service)


def _one_host(service: Service) -> None:
    """Two on one host: both are used, and each takes over from the other."""
    g = service.stage.sites
    pair = (g["g1"], g["g2"])
    service = _with_clients(service, "g3", "g4")
    for site in pair:
        service.join(site)
    service.expect("two on one host", pair)
    _check_spread(service, pair)
    for gone, left in (pair, pair[::-1]):
        with _down(service.stage, gone):
            service.expect(f"{gone.short} is down", [left])
    service.expect("both are up again", pair)
    service.leave(g["g1"])


def _many_hosts(service: Service) -> None:
    """One on each of several hosts, with clients on two of these and outside."""
    stage, g = service.stage, service.stage.sites
    service = _with_clients(service, "g1", "g4")
    plan = SitePlan(key="g5", net="G", project=_PROJECT, where=2)
    members = [g["g2"], g["g3"], stage.make_site(plan)]
    for site in members[1:]:
        service.join(site)
    service.expect("on three hosts", members)
    _check_spread(service, members)
    _delete(stage, members.pop())
    service.expect("a port is deleted", members)
    with _down(stage, members[0]):
        service.expect("a port is down", members[1:])
    service.expect("it is up again", members)
    lone = members[1]
    if lone.host != members[0].host:
        with stage.cloud.control().dead_host(lone.host.name):
            service.expect("a host is dead", members[:1])
        service.leave(members[0])
        service.expect("the host is back, and alone", [lone])
        service.leave(lone)


def _check_spread(service: Service, members: Sequence[Site]) -> None:
    """All of the members are used by somebody: none stands idle.

    Routers ask too: where they all hash alike, flows that one of them has sorted are of
    one sort to the next.
    """
    cloud = service.stage.cloud
    sources = [*service.clients.values(), *map(cloud.place, cloud.topology.routers)]
    for address in service.addresses:
        found: dict[str, set[str]] = {}

        def used(to: Address = address, found: dict[str, set[str]] = found) -> bool:
            for place in sources:
                found[place.name] = set(spread(place, (to, PORT), members)) - {""}
            return set().union(*found.values()) >= {s.short for s in members}

        wrong = None if eventually(used, _MOVES) else f"served by {found}"
        hosts = len({site.host.name for site in members})
        service.tally.case(
            f"IPv{address.version}: every instance on {hosts} hosts is used", wrong
        )


def _with_clients(service: Service, *keys: str) -> Service:
    sites = service.stage.sites
    clients = {**service.clients, **{key: sites[key].place for key in keys}}
    return Service(service.stage, service.tally, service.addresses, clients)


@contextmanager
def _down(stage: Stage, site: Site) -> Iterator[None]:
    api = stage.cloud.api(_PROJECT).network
    api.update_port(site.port, admin_state_up=False)
    try:
        yield
    finally:
        api.update_port(site.port, admin_state_up=True)


def _delete(stage: Stage, site: Site) -> None:
    """Delete an instance's port under it, as nobody but an administrator can."""
    stage.cloud.api("admin").network.delete_port(site.port)
    stage.sites.pop(site.short)
