"""The stage: networks, ports and instances of a run, made through the Neutron API.

Made as checks ask for them, all under one random prefix; swept away by that prefix, so
that nothing depends on remembering what was made.
"""

import json
import secrets
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from random import SystemRandom
from typing import Any, Self

from calico.verify import layout
from calico.verify.background import Background
from calico.verify.cloud import Cloud, CloudError, Host, Site
from calico.verify.layout import SitePlan
from calico.verify.leftovers import take_apart
from calico.verify.many import MANY_PLANS, MANY_SITES, Many
from calico.verify.networks import Net, NetMaker
from calico.verify.parallel import parallel
from calico.verify.probes.echo import PORT, Responder

Tell = Callable[[str], None]
PROJECTS = ("admin", "demo1", "demo2")
NTP, SEARCH = "192.0.2.123", "verify.example"  # of extra_dhcp_opts
OPTIONS = (
    {"opt_name": "ntp-server", "opt_value": NTP, "ip_version": 4},
    {"opt_name": "domain-search", "opt_value": SEARCH, "ip_version": 6},
)


@dataclass
class Stage:
    """What a run has set up; a context manager that takes it all away."""

    cloud: Cloud
    tell: Tell
    prefix: str = field(default_factory=lambda: f"verify-{secrets.token_hex(3)}")
    nets: dict[str, Net] = field(default_factory=dict)
    sites: dict[str, Site] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    groups: dict[str, str] = field(default_factory=dict)
    responder: Responder = field(default_factory=Responder)
    hosts: tuple[Host, Host, Host] = field(init=False)
    ranges: layout.Ranges = field(init=False)
    maker: NetMaker = field(init=False)
    many: Many = field(init=False)
    background: Background = field(default_factory=Background)
    _macs: dict[str, str] = field(default_factory=dict)
    _nets_by_id: dict[str, Net] = field(default_factory=dict)

    def __enter__(self) -> Self:
        self.responder.__enter__()
        return self

    def __exit__(self, *exc: object) -> None:
        self.background.close()
        self.responder.__exit__(*exc)

    def open(self) -> None:
        """Choose addresses and hosts, and make a permissive security group each."""
        topology = self.cloud.topology
        self._answer_outside(topology.outside)
        self.hosts = layout.choose_hosts(topology.hosts)
        api = self.cloud.api("admin").network
        cidrs = [subnet.cidr for subnet in api.subnets()]
        self.ranges = layout.choose_ranges(cidrs, SystemRandom())
        self.maker = NetMaker(cloud=self.cloud, prefix=self.prefix, ranges=self.ranges)
        self.many = Many(self.background, self.maker.make)
        for key in self.ranges.taken:
            example = layout.EXAMPLE[key]
            self.notes.append(f"{example} is in use: others stand in for the example")
        for project in PROJECTS:
            self.groups[project] = self._group(project)

    def _answer_outside(self, name: str) -> None:
        try:
            self.responder.serve(self.cloud.place(name))
        except OSError as e:
            raise CloudError(f"cannot answer on port {PORT} of {name}: {e}") from e

    def need(self, keys: Iterable[str]) -> None:
        """Make what is missing of networks and their instances, many at once.

        In: keys of layout.NETS, or `M` for the many of S15. Raises CloudError, or what
        the API says.
        """
        keys = {*keys}
        wanted = [k for k in keys if k != "M" and k not in self.nets]
        plans = [net for net in layout.NETS if net.key in wanted]
        sites = [site for site in layout.SITES if site.net in wanted]
        many = MANY_PLANS if "M" in keys and "M1" not in self.nets else ()
        if many:
            sites += MANY_SITES
        if not (plans or many):
            return
        count = len(plans) + len(many)
        self.tell(f"making {count} networks and {len(sites)} instances")
        ones = parallel([partial(self.maker.make, [plan]) for plan in plans], 4)
        made = [net for nets in ones for net in nets]
        if many:
            made += self.many.wait()
        self._nets_by_id |= {net.id: net for net in made}
        parallel([partial(self.make_site, plan) for plan in sites], 6)
        # Only once everything is there: a check that needs it is tried again.
        self.nets |= {net.plan.key: net for net in made}

    def dismiss_many(self) -> None:
        """Have the many networks of S15 deleted behind the checks that follow.

        What cannot be deleted so is left to `sweep`, which says what stays.
        """
        api = self.cloud.api("demo1").network
        begin, destroy = self.background.begin, self.cloud.compute().destroy
        for each in MANY_SITES:
            if site := self.sites.pop(each.key, None):
                begin(partial(destroy, site.name))
                begin(partial(api.delete_port, site.port))
        for plan in MANY_PLANS:
            if net := self.nets.pop(plan.key, None):
                begin(partial(api.delete_network, net.id))

    def make_site(self, plan: SitePlan) -> Site:
        """Make a port and an instance on it, with a responder in the instance."""
        net = next(n for n in self._nets_by_id.values() if n.plan.key == plan.net)
        port = self.make_port(net, plan)
        host = self.hosts[plan.where]
        return self.boot(plan.key, port.id, host)

    def boot(self, key: str, port: str, host: Host) -> Site:
        """Plug an instance into a port, with a responder in it."""
        site = self.cloud.compute().boot(f"{self.prefix}-{key}", port, host.name)
        self.responder.serve(site.place)
        self.sites[key] = site
        return site

    def make_port(self, net: Net, plan: SitePlan) -> Any:
        """Make a port with an address of each subnet, perhaps the example's."""
        four: dict[str, str] = {"subnet_id": net.subnet4}
        fixed = layout.EXAMPLE_HOSTS.get(plan.key)
        if fixed and fixed in net.cidr4:
            four["ip_address"] = str(fixed)
        return self.cloud.api(plan.project).network.create_port(
            network_id=net.id,
            name=f"{self.prefix}-{plan.key}",
            fixed_ips=[four, {"subnet_id": net.subnet6}],
            security_group_ids=[self.groups[plan.project]],
            extra_dhcp_opts=list(OPTIONS),
        )

    def net_of(self, site: Site) -> Net:
        """Return an instance's network."""
        return self._nets_by_id[site.network]

    def on(self, keys: str) -> list[Site]:
        """Return the instances on networks with these one-letter keys, by name."""
        found = [s for s in self.sites.values() if self.net_of(s).plan.key in [*keys]]
        return sorted(found, key=lambda site: site.name)

    def host_mac(self, site: Site) -> str:
        """Return the MAC of the host's end of an instance's interface."""
        if site.name not in self._macs:
            argv = ["ip", "-json", "link", "show", "dev", site.tap]
            done = self.cloud.place(site.host.name).run(argv)
            if done.returncode:
                raise CloudError(f"{site.host.name}: {done.stderr.strip()}")
            self._macs[site.name] = json.loads(done.stdout)[0]["address"]
        return self._macs[site.name]

    def sweep(self) -> None:
        """Delete everything that carries the prefix; what stays becomes a note."""
        self.background.close()
        mine = [
            n for n in self.cloud.compute().instances() if n.startswith(self.prefix)
        ]
        self._each(
            [(f"instance {n}", partial(self.cloud.compute().destroy, n)) for n in mine]
        )
        api = self.cloud.api("admin").network
        self._take_apart(api)
        for kind, found, delete in (
            ("port", api.ports, api.delete_port),
            ("network", api.networks, api.delete_network),
            ("security group", api.security_groups, api.delete_security_group),
            ("address group", api.address_groups, api.delete_address_group),
        ):
            ours = self._listed(kind, found)
            self._each([(f"{kind} {e.name}", partial(delete, e.id)) for e in ours])

    def _take_apart(self, api: Any) -> None:
        try:
            for deletions in take_apart(api, self.prefix):
                self._each(deletions)
        except Exception as e:  # noqa: BLE001 - the rest must go all the same
            self.notes.append(f"could not clean up routers: {e}")

    def _listed(self, kind: str, found: Callable[[], Iterable[Any]]) -> list[Any]:
        try:
            return [e for e in found() if (e.name or "").startswith(self.prefix)]
        except Exception as e:  # noqa: BLE001 - an API that is gone lists nothing
            self.notes.append(f"could not clean up: no list of {kind}s: {e}")
            return []

    def _each(self, deletions: list[tuple[str, Callable[[], object]]]) -> None:
        def attempt(what: str, delete: Callable[[], object]) -> None:
            try:
                delete()
            except Exception as e:  # noqa: BLE001 - the rest must go all the same
                self.notes.append(f"could not delete {what}: {e}")

        parallel([partial(attempt, *each) for each in deletions], 4)

    def _group(self, project: str) -> str:
        api = self.cloud.api(project).network
        group = api.create_security_group(name=self.prefix)
        for version in ("IPv4", "IPv6"):
            api.create_security_group_rule(
                security_group_id=group.id, direction="ingress", ether_type=version
            )
        return str(group.id)
