"""The seam: what the verifier asks of a cloud, whatever the cloud is made of.

The checks know the Neutron API, instances and network stacks, never the lab. A lab
gives a stack as a namespace (lab_cloud.py); a production cloud can give one as an agent
in a test instance, with the same few questions.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from subprocess import CompletedProcess
from typing import Any, Protocol, TypeVar

from calico.model.cloud_settings import CloudSettings

Address = IPv4Address | IPv6Address
Lease = Mapping[str, Mapping[str, str]]
Ask = Callable[[str, str, object], Any]
T = TypeVar("T")


class CloudError(Exception):
    """The cloud could not do what was asked; the message says what and why."""


class Place(Protocol):
    """A network stack that we may act in: an instance's, a host's, a router's."""

    @property
    def name(self) -> str:
        """What people call it."""

    def inside(self, call: Callable[[], T]) -> T:
        """Call with the place's network stack as the thread's own."""

    def run(
        self, argv: Sequence[str], timeout: float = 20.0
    ) -> "CompletedProcess[str]":
        """Run a program in it; the exit code is the caller's to judge."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """A compute host and the rack that it stands in."""

    name: str
    rack: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Topology:
    """What the cloud stands on: `routers` are the fabric's, `outside` the Internet.

    `outside_addresses` are the Internet's own, one of each IP version.
    """

    hosts: tuple[Host, ...]
    routers: tuple[str, ...]
    outside: str
    outside_addresses: tuple[Address, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """An instance and how to act in it. Interface is its own name for its port."""

    name: str
    host: Host
    port: str
    network: str
    mac: str
    interface: str
    tap: str
    addresses: tuple[Address, ...]
    place: Place

    @property
    def short(self) -> str:
        """The last part of its name, which is enough within one run."""
        return self.name.rpartition("-")[2]

    def address(self, version: int) -> Address:
        """Return its address of an IP version; CloudError if it has none."""
        for address in self.addresses:
            if address.version == version:
                return address
        raise CloudError(f"{self.name} has no IPv{version} address")


class Cloud(Protocol):
    """A cloud to verify."""

    @property
    def name(self) -> str:
        """What people call it."""

    @property
    def topology(self) -> Topology:
        """Its hosts, routers and outside."""

    def settings(self) -> CloudSettings:
        """Return what its operator set for the whole of it."""

    def place(self, name: str) -> Place:
        """Return the network stack of a host, a router or the outside."""

    def api(self, project: str) -> Any:
        """Return an openstacksdk connection as `admin`, `demo1` or `demo2`."""

    def compute(self) -> "Compute":
        """Return what makes instances."""

    def control(self) -> "Control":
        """Return what rules the Neutron API's processes."""


class Compute(Protocol):
    """What makes instances, as Nova does."""

    def boot(self, name: str, port: str, host: str) -> Site:
        """Plug an instance into a Neutron port on a host; wait for its addresses."""

    def instances(self) -> tuple[str, ...]:
        """Return the names of all instances."""

    def destroy(self, name: str) -> None:
        """Unplug an instance; its port stays. No error if there is none."""

    def lease(self, site: Site) -> Lease:
        """Return what its DHCP client was handed: by `dhcp4`, `dhcp6`, `ra`.

        Each maps dhcpcd's variable names to values.
        """


class Control(Protocol):
    """A Neutron API that can be restarted and run with other settings."""

    def restart_api(self) -> None:
        """Restart the Neutron API and wait until it answers."""

    def dead_host(self, host: str) -> "AbstractContextManager[None]":
        """Let a host die, its instances with it; bring it back afterwards.

        Back means that it serves again: CloudError if it does not.
        """

    def second_api(self, settings: str) -> "AbstractContextManager[Ask]":
        """Run one more Neutron API beside the first, with other settings.

        Its background workers are the only ones meanwhile.
        In: a settings file's text that wins over the cloud's. Out: a function (verb,
        path, body) that asks it as the administrator; CloudError where it refuses.
        """
