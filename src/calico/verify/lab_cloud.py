"""A lab as a cloud to verify: places are namespaces, instances are the lab's."""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from ipaddress import ip_address
from typing import Any

from calico.lab import dhclient
from calico.lab.lab import Lab
from calico.lab.namespaces import LabFailed
from calico.lab.topology import INTERNET_WEB4, INTERNET_WEB6, UPLINK, Kind
from calico.model.cloud_settings import (
    DEFAULTS,
    CloudSettings,
    parse_cloud_settings,
)
from calico.model.keys import Keys
from calico.verify.cloud import Ask, CloudError, Host, Lease, Place, Site, Topology
from calico.verify.inside import NamespacePlace
from calico.verify.parallel import eventually

_BACK = 60.0


class LabCloud:
    """The cloud of one lab (cloud.Cloud)."""

    def __init__(self, lab: Lab) -> None:
        self._lab = lab

    @property
    def name(self) -> str:
        """What people call it."""
        return f"lab {self._lab.name}"

    @cached_property
    def topology(self) -> Topology:
        """Its hosts, routers and outside."""
        nodes = self._lab.topology.nodes
        return Topology(
            hosts=tuple(
                Host(name=node.name, rack=f"rack {node.rack}")
                for node in self._lab.topology.hosts
            ),
            routers=tuple(
                n.name for n in nodes if n.kind not in (Kind.HOST, Kind.INTERNET)
            ),
            outside=next(n.name for n in nodes if n.kind is Kind.INTERNET),
            outside_addresses=(INTERNET_WEB4, INTERNET_WEB6),
        )

    def settings(self) -> CloudSettings:
        """Return what its operator set for the whole of it: what hosts are told."""
        key = Keys().settings
        written = self._lab.store.get_prefix(key).get(key)
        return parse_cloud_settings(written) if written else DEFAULTS

    def place(self, name: str) -> Place:
        """Return the network stack of a host, a router or the outside."""
        return NamespacePlace(name, self._lab.netns_of(name))

    def api(self, project: str) -> Any:
        """Return an openstacksdk connection of a project."""
        return self._lab.connection(project)

    def compute(self) -> "LabCompute":
        """Return what makes instances."""
        return LabCompute(self._lab, self.topology.hosts)

    def control(self) -> "LabControl":
        """Return what rules Neutron's processes."""
        return LabControl(self._lab)


class LabCompute:
    """The instances of a lab (cloud.Compute)."""

    def __init__(self, lab: Lab, hosts: Sequence[Host]) -> None:
        self._lab = lab
        self._hosts = {host.name: host for host in hosts}

    def boot(self, name: str, port: str, host: str) -> Site:
        """Plug an instance into a port; CloudError says why it does not come up."""
        try:
            made = self._lab.create_instance(
                name, port_id=port, host=host, project="admin"
            )
        except LabFailed as e:
            raise CloudError(str(e)) from e
        return Site(
            name=name,
            host=self._hosts[host],
            port=made.port_id,
            network=made.network_id,
            mac=made.mac,
            interface=made.interface,
            tap=made.tap,
            addresses=tuple(map(ip_address, made.addresses)),
            place=NamespacePlace(name, made.netns),
        )

    def destroy(self, name: str) -> None:
        """Unplug an instance; its port stays. No error if there is none."""
        if name in self.instances():
            self._lab.delete_instance(name)

    def instances(self) -> tuple[str, ...]:
        """Return the names of all instances."""
        return tuple(instance.name for instance in self._lab.instances())

    def lease(self, site: Site) -> Lease:
        """Return what an instance's DHCP client was handed out."""
        return dhclient.lease(dhclient.state_of(self._lab.netns_of(site.name)))


class LabControl:
    """The Neutron of a lab (cloud.Control)."""

    def __init__(self, lab: Lab) -> None:
        self._lab = lab

    def restart_api(self) -> None:
        """Restart Neutron and wait until it serves."""
        self._lab.restart_neutron()

    @contextmanager
    def dead_host(self, host: str) -> Iterator[None]:
        """Kill a host's agent and BIRD and take its uplink down; then undo all that."""
        lab, agent = self._lab, self._lab.agent(host)
        kept = f"net.ipv6.conf.{UPLINK}.keep_addr_on_down"
        lab.run(host, ["sysctl", "-qw", f"{kept}=1"])  # or the link forgets who it is
        try:
            agent.kill()
            lab.restart_bird(host)  # which would be its agent's to start
            lab.run(host, ["ip", "link", "set", UPLINK, "down"])
            yield
        finally:
            lab.run(host, ["ip", "link", "set", UPLINK, "up"])
            lab.run(host, ["sysctl", "-qw", f"{kept}=0"])
            agent.start()
            if not eventually(lambda: self._serves(host), _BACK):
                raise CloudError(f"{host} did not come back in {_BACK:g} s")

    def _serves(self, host: str) -> bool:
        up, count = self._lab.sessions(host)
        return 0 < count == up and host in self._lab.reporting_hosts()

    @contextmanager
    def second_api(self, settings: str) -> Iterator[Ask]:
        """Run one more Neutron API with other settings."""
        with self._lab.cloud.second_neutron(settings) as url:
            session = self._lab.connection("admin").session

            def ask(verb: str, path: str, body: object) -> Any:
                sent = None if body is None else json.dumps(body)
                reply = session.request(
                    f"{url}/v2.0{path}",
                    verb,
                    data=sent,
                    headers={"Content-Type": "application/json"},
                    raise_exc=False,
                )
                if reply.status_code >= 400:
                    raise CloudError(f"{verb} {path}: {reply.text[:300]}")
                return reply.json() if reply.content else None

            yield ask
