"""Instances of a lab: what Nova and a hypervisor do, with a namespace as the guest.

A port is bound to a host as Nova binds it; a pair of interfaces stands for the tap and
the guest's card; the guest asks DHCP, or listens to router advertisements, for its
addresses. The host's end is created with the name, MAC and state that Nova gives it,
and the rest is the agent's.
"""

import re
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import NAMESPACE_DNS, uuid5

import msgspec

from calico.lab import guest, namespaces
from calico.lab.machine import Machine
from calico.lab.namespaces import LabFailed
from calico.lab.paths import LabPaths
from calico.lab.processes import Processes

INTERFACE = "eth0"
_HOSTNAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?")
DEVICE_OWNER = "compute:lab"
_ACTIVE_TIMEOUT = 60.0
_POLL = 0.2


@dataclass(frozen=True, slots=True, kw_only=True)
class Tap:
    """What a tap is made with; a MAC that is empty is the kernel's choice."""

    mac: str
    mtu: int


Connect = Callable[[str], Any]  # project -> openstack.connection.Connection


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """An instance as asked for: on a network, or on a port that exists.

    With both, the port has to be on the network. Security groups are a new port's.
    `host` None leaves the choice to the scheduler.
    """

    name: str
    project: str
    network: str | None = None
    port: str | None = None
    host: str | None = None
    security_groups: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Instance:
    """An instance that exists. `interface` is its own name for its port."""

    name: str
    project: str
    host: str
    port_id: str
    network_id: str
    mac: str
    addresses: tuple[str, ...]
    tap: str
    netns: str
    interface: str = INTERFACE
    owns_port: bool = True

    def run(
        self, argv: Sequence[str], timeout: float = 60.0
    ) -> subprocess.CompletedProcess[str]:
        """Run a program in the instance; output as text, exit code not checked."""
        return namespaces.run(self.netns, argv, timeout)


@dataclass(frozen=True, slots=True)
class Instances:
    """All instances of a lab, and the making of them."""

    paths: LabPaths
    hosts: tuple[str, ...]
    connect: Connect

    def list(self) -> tuple[Instance, ...]:
        """Return the instances, sorted by name."""
        found = []
        for file in sorted(self.paths.instances.glob("*.json")):
            with suppress(FileNotFoundError):  # deleted since it was listed
                found.append(_read(file))
        return tuple(found)

    def find(self, name: str) -> Instance:
        """Return the instance called `name`; LabFailed if there is none."""
        try:
            return _read(self._record(name))
        except FileNotFoundError:
            raise LabFailed(f"there is no instance called {name!r}") from None

    def create(self, wish: Wish) -> Instance:
        """Make an instance and wait until it has its addresses.

        Raises LabFailed, with nothing left behind, where a thing it names does not
        exist, its port is in use or does not become active, or the API is away.
        """
        self._check(wish)
        host = wish.host or self._schedule()
        with asking():
            instance = self._describe(wish, host, self._port(wish))
            try:
                self._boot(instance)
            except BaseException:
                self._destroy(instance)
                raise
        return instance

    def delete(self, name: str) -> None:
        """Take an instance away; its port too, if it was made with the instance.

        LabFailed if there is none, or if the API could not be told.
        """
        with asking():
            self._destroy(self.find(name))

    def _boot(self, instance: Instance) -> None:
        tap = self._bind(instance)
        self.save(instance)
        machine = self.machine(instance.name)
        machine.create(INTERFACE, instance.mac, tap.mtu)
        self.plug(instance, instance.host, tap)
        machine.run_on(instance.host)
        self.await_active(instance)
        guest.configure(self.paths, instance.name, INTERFACE, instance.addresses)

    def _check(self, wish: Wish) -> None:
        if not wish.name.replace("-", "").isalnum():
            raise LabFailed(f"{wish.name!r} cannot be the name of an instance")
        if self._record(wish.name).exists():
            raise LabFailed(f"there is an instance called {wish.name!r} already")
        if wish.host is not None and wish.host not in self.hosts:
            raise LabFailed(
                f"there is no host {wish.host!r}; there are {', '.join(self.hosts)}"
            )
        if wish.network is None and wish.port is None:
            raise LabFailed("an instance needs a network or a port")
        if wish.port is not None and wish.security_groups is not None:
            raise LabFailed("security groups are for a new port: this one has its own")

    def _schedule(self) -> str:
        """Return the host with the fewest instances, the first of several such."""
        load = Counter(instance.host for instance in self.list())
        return min(self.hosts, key=lambda host: load[host])

    def _port(self, wish: Wish) -> Any:
        """Return the port to use: the one named, or a new one of the project."""
        api = self.connect(wish.project).network
        if wish.port is not None:
            port = _found(api.find_port, "port", wish.port)
            self._check_port(wish, port)
            return port
        network = _found(api.find_network, "network", wish.network)
        details: dict[str, Any] = {"network_id": network.id, "name": wish.name}
        if _HOSTNAME.fullmatch(wish.name):  # as Nova does it
            details["dns_name"] = wish.name
        if wish.security_groups is not None:
            details["security_group_ids"] = [
                _group_id(api, group) for group in wish.security_groups
            ]
        return api.create_port(**details)

    def _check_port(self, wish: Wish, port: Any) -> None:
        """Refuse the port of another instance, which would be cut off."""
        for instance in self.list():
            if instance.port_id == port.id:
                raise LabFailed(
                    f"port {wish.port!r} is in use by the instance {instance.name!r}"
                )
        if wish.network is None:
            return
        api = self.connect(wish.project).network
        network = _found(api.find_network, "network", wish.network)
        if port.network_id != network.id:
            raise LabFailed(f"port {wish.port!r} is not on network {wish.network!r}")

    def _describe(self, wish: Wish, host: str, port: Any) -> Instance:
        return Instance(
            name=wish.name,
            project=wish.project,
            host=host,
            port_id=port.id,
            network_id=port.network_id,
            mac=port.mac_address,
            addresses=tuple(ip["ip_address"] for ip in port.fixed_ips),
            tap=f"tap{port.id[:11]}",
            netns=self.paths.instance_netns(wish.name),
            owns_port=wish.port is None,
        )

    def _bind(self, instance: Instance) -> Tap:
        """Bind the port to the host as Nova does; return what its tap is to have."""
        api = self.connect("admin").network
        device = str(uuid5(NAMESPACE_DNS, f"{instance.port_id}.{instance.name}"))
        port = api.update_port(
            instance.port_id,
            device_id=device,
            device_owner=DEVICE_OWNER,
            binding_host_id=instance.host,
        )
        if port.binding_vif_type != "tap":
            raise LabFailed(
                f"port {port.id} is not bound on {instance.host}: "
                f"its vif type is {port.binding_vif_type!r}"
            )
        return self.tap_of(instance, port.binding_vif_details)

    def tap_of(self, instance: Instance, vif_details: Mapping[str, Any] | None) -> Tap:
        """Return what Nova gives a tap: the network's MTU, and the VIF's MAC."""
        network = self.connect("admin").network.get_network(instance.network_id)
        mac = (vif_details or {}).get("mac_address") or ""
        return Tap(mac=mac, mtu=network.mtu or 1500)

    def machine(self, name: str) -> Machine:
        """Return the machine of the instance called `name`."""
        return Machine(
            netns=self.paths.machine_netns(name), guest=self.paths.instance_netns(name)
        )

    def plug(self, instance: Instance, host: str, tap: Tap) -> None:
        """Make the instance's tap on a host."""
        self.machine(instance.name).plug(
            host, self.paths.netns(host), instance.tap, tap.mac, tap.mtu
        )

    def await_active(self, instance: Instance) -> None:
        """Wait until Neutron says that the port works; LabFailed if it does not."""
        api = self.connect("admin").network
        deadline = time.monotonic() + _ACTIVE_TIMEOUT
        while (status := api.get_port(instance.port_id).status) != "ACTIVE":
            if time.monotonic() > deadline:
                raise LabFailed(
                    f"port {instance.port_id} of {instance.name} is {status} still "
                    f"after {_ACTIVE_TIMEOUT:.0f} s; the agent of {instance.host} "
                    f"logs to {self.paths.logs}/agent-{instance.host}.log"
                )
            time.sleep(_POLL)

    def _destroy(self, instance: Instance) -> None:
        """Take away whatever there is of an instance; what is gone is no error."""
        api = self.connect("admin").network
        try:
            if instance.owns_port:
                api.delete_port(instance.port_id, ignore_missing=True)
            else:
                _release(api, instance.port_id)
        finally:
            Processes(self.paths.processes).stop(guest.client_name(instance.name))
            self.machine(instance.name).delete()
            guest.forget(instance.netns)
            self._record(instance.name).unlink(missing_ok=True)

    def save(self, instance: Instance) -> None:
        """Remember an instance as it is now."""
        self.paths.instances.mkdir(parents=True, exist_ok=True)
        self._record(instance.name).write_bytes(msgspec.json.encode(instance))

    def _record(self, name: str) -> Path:
        return self.paths.instances / f"{name}.json"


def _read(file: Path) -> Instance:
    return msgspec.json.decode(file.read_bytes(), type=Instance)


def _release(api: Any, port: str) -> None:
    """Unbind a port that stays; one that is gone is no error."""
    from openstack.exceptions import NotFoundException  # noqa: PLC0415 - loads slowly

    with suppress(NotFoundException):
        api.update_port(port, device_id="", device_owner="", binding_host_id="")


def _group_id(api: Any, group: str) -> str:
    return str(_found(api.find_security_group, "security group", group).id)


def _found(find: Callable[..., Any], kind: str, name: str | None) -> Any:
    """Return what is called so, by name or id; LabFailed if there is not just one."""
    from openstack.exceptions import (  # noqa: PLC0415 - loads slowly
        DuplicateResource,
        NotFoundException,
    )

    try:
        return find(name, ignore_missing=False)
    except NotFoundException:
        raise LabFailed(f"there is no {kind} {name!r}") from None
    except DuplicateResource:
        raise LabFailed(
            f"there are several of the name {name!r}: give the {kind}'s id"
        ) from None


@contextmanager
def asking() -> Iterator[None]:
    """Turn what the API's client raises into LabFailed, with the reason."""
    from keystoneauth1.exceptions import ClientException  # noqa: PLC0415 - loads slowly
    from openstack.exceptions import SDKException  # noqa: PLC0415 - likewise

    try:
        yield
    except SDKException as e:
        raise LabFailed(f"Neutron refuses: {e}") from e
    except ClientException as e:
        raise LabFailed(f"the lab's API does not answer: {e}") from e
