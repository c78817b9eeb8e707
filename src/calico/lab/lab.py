"""A lab as a whole: what it consists of, and what can be asked of it.

`Lab.load` gives the lab that `calico lab up` made, in any process.
"""

import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property
from typing import Any

import msgspec

from calico.lab import namespaces, routers
from calico.lab.cloud import Cloud
from calico.lab.hosts import Agent
from calico.lab.instances import Instance, Instances, Wish
from calico.lab.migration import Migrations, Move, Report
from calico.lab.namespaces import LabFailed
from calico.lab.paths import CONTROL, LabPaths, is_name, lab_paths, root
from calico.lab.processes import Processes, start_time
from calico.lab.settings import parse as parse_settings
from calico.lab.store import Store
from calico.lab.topology import BgpMode, Impossible, Topology, design
from calico.model.keys import Keys

MAX_ETCD_MEMBERS = 9


class State(StrEnum):
    """How a lab does as a whole: whether it was finished, and what of it runs."""

    UP = "up"
    IMPAIRED = "impaired"
    DEAD = "dead"
    INCOMPLETE = "incomplete"


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What a lab was asked to be; Impossible where etcd could not be."""

    name: str
    racks: int = 2
    hosts_per_rack: int = 2
    bgp: BgpMode = BgpMode.TOR
    etcd_members: int = 1
    neutron_conf: str = ""  # a settings file's text that wins over the lab's

    def __post_init__(self) -> None:
        if not 1 <= self.etcd_members <= MAX_ETCD_MEMBERS:
            raise Impossible(
                f"etcd has 1 to {MAX_ETCD_MEMBERS} members, not {self.etcd_members}"
            )
        try:
            parse_settings(self.neutron_conf)
        except ValueError as e:
            raise Impossible(f"the settings for Neutron cannot be read: {e}") from e

    @property
    def topology(self) -> Topology:
        """Return the network it describes; Impossible where there is none."""
        return design(self.racks, self.hosts_per_rack, self.bgp)


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeStatus:
    """How a node does: sessions that are up, of how many; a host's agent."""

    name: str
    kind: str
    sessions_up: int
    sessions: int
    agent: str | None = None
    addresses: tuple[str, ...] = ()


@dataclass(frozen=True)
class Lab:
    """A lab that exists, whole or (`complete` False) half made or half gone."""

    plan: Plan
    paths: LabPaths
    complete: bool = True
    _connections: dict[str, Any] = field(default_factory=dict, repr=False)

    @classmethod
    def load(cls, name: str = "default") -> "Lab":
        """Return the lab called `name`; LabFailed if there is none."""
        paths = lab_paths(name)
        try:
            plan = msgspec.json.decode(paths.record.read_bytes(), type=Plan)
        except FileNotFoundError:
            raise LabFailed(
                f"there is no lab called {name!r}; `calico lab up {name}` makes one"
            ) from None
        return cls(plan=plan, paths=paths, complete=paths.complete.exists())

    @property
    def name(self) -> str:
        """Return the lab's name."""
        return self.plan.name

    @property
    def state(self) -> State:
        """Return how it does: a lab whose machine was started anew is dead."""
        if not self.complete:
            return State.INCOMPLETE
        runs = {process.running for process in self.processes.recorded()}
        if True not in runs:
            return State.DEAD
        return State.IMPAIRED if False in runs else State.UP

    @cached_property
    def topology(self) -> Topology:
        """Return the lab's network."""
        return self.plan.topology

    @cached_property
    def processes(self) -> Processes:
        """Return the lab's processes."""
        return Processes(self.paths.processes)

    @cached_property
    def cloud(self) -> Cloud:
        """Return the lab's etcd, Keystone and Neutron."""
        return Cloud(
            self.paths,
            self.processes,
            etcd_members=self.plan.etcd_members,
            neutron_conf=self.plan.neutron_conf,
        )

    @cached_property
    def store(self) -> Store:
        """Return the lab's datastore."""
        return Store(self.paths.netns(CONTROL), self.cloud.etcd_endpoints)

    def hosts(self) -> tuple[str, ...]:
        """Return the names of the hosts, rack by rack."""
        return tuple(host.name for host in self.topology.hosts)

    def agent(self, host: str) -> Agent:
        """Return the agent of a host; LabFailed if there is no such host."""
        if host not in self.hosts():
            raise LabFailed(f"there is no host {host!r} in lab {self.name}")
        return Agent(host, self.paths, self.processes)

    def netns_of(self, place: str) -> str:
        """Return the network namespace of a node or, if none is so called, instance."""
        if place == CONTROL or any(n.name == place for n in self.topology.nodes):
            return self.paths.netns(place)
        try:
            return self._instances.find(place).netns
        except LabFailed:
            raise LabFailed(
                f"lab {self.name} has neither a node nor an instance {place!r}"
            ) from None

    def run(
        self, place: str, argv: Sequence[str], timeout: float = 60.0
    ) -> "subprocess.CompletedProcess[str]":
        """Run a program in a node or an instance; output as text, exit code as is."""
        return namespaces.run(self.netns_of(place), argv, timeout)

    def environment(self, project: str = "admin") -> Mapping[str, str]:
        """Return what the `openstack` command needs to act as a project."""
        variables: Mapping[str, str] = self.cloud.environment(project)
        return variables

    def connection(self, project: str = "admin") -> Any:
        """Return an openstacksdk connection: `admin`, `demo1` or `demo2`."""
        if project not in self._connections:
            self._connections[project] = self.cloud.connection(project)
        return self._connections[project]

    def create_instance(
        self,
        name: str,
        *,
        network: str | None = None,
        port_id: str | None = None,
        host: str | None = None,
        project: str = "demo1",
        security_groups: Sequence[str] | None = None,
    ) -> Instance:
        """Make an instance on a network (name or id) or a port, and wait for it.

        Without a host the scheduler chooses. LabFailed says why there is none.
        """
        groups = None if security_groups is None else tuple(security_groups)
        return self._instances.create(
            Wish(
                name=name,
                project=project,
                network=network,
                port=port_id,
                host=host,
                security_groups=groups,
            )
        )

    def delete_instance(self, name: str) -> None:
        """Take an instance away, with its port if that was made with it."""
        self._instances.delete(name)

    def migrate_instance(
        self,
        name: str,
        *,
        to: str,
        warm: bool = True,
        announced: bool = True,
        measure_from: str | None = None,
    ) -> Report:
        """Move a running instance to a host, as Nova does; LabFailed if it cannot be.

        `warm` False moves it as an evacuation does: the target is not prepared. One
        that is not `announced` is silent after the move. A flow from the instance
        `measure_from` measures what is lost.
        """
        if to not in self.hosts():
            raise LabFailed(f"there is no host {to!r} in lab {self.name}")
        return Migrations(self._instances, self.store).migrate(
            Move(
                name=name,
                to=to,
                warm=warm,
                announced=announced,
                measure_from=measure_from,
            )
        )

    def instances(self) -> tuple[Instance, ...]:
        """Return all instances, sorted by name."""
        return self._instances.list()

    def instance(self, name: str) -> Instance:
        """Return an instance; LabFailed if there is none of that name."""
        return self._instances.find(name)

    def restart_neutron(self) -> None:
        """Restart the Neutron API and wait until it serves."""
        self.cloud.restart_neutron()

    def restart_bird(self, host: str) -> None:
        """Kill a host's BIRD (SIGKILL); its agent finds out and starts another."""
        file = self.agent(host).run_dir / "bird.pid"
        try:
            pid, started = map(int, file.read_text().split())
        except FileNotFoundError:
            raise LabFailed(f"BIRD does not run on {host}") from None
        if start_time(pid) != started:
            raise LabFailed(f"BIRD does not run on {host}")
        os.kill(pid, signal.SIGKILL)

    def status(self) -> tuple[NodeStatus, ...]:
        """Return how every node does, routers first.

        Of agents it is not known whether they report while etcd does not answer.
        """
        alive = None
        with suppress(LabFailed):
            alive = self.reporting_hosts()
        return tuple(
            self._node_status(node.name, alive) for node in self.topology.nodes
        )

    def reporting_hosts(self) -> frozenset[str]:
        """Return the hosts whose agents have a heartbeat in the datastore."""
        keys = Keys()
        found = map(keys.parse_host_status, self.store.get_prefix(keys.hosts))
        return frozenset(host for host in found if host is not None)

    def sessions(self, node: str) -> tuple[int, int]:
        """Return how many BGP sessions of a node are up, and how many it has."""
        socket = (
            self.agent(node).run_dir / "bird.ctl"
            if node in self.hosts()
            else routers.control_socket(self.paths, self.topology.node(node))
        )
        rows = routers.protocols(self.paths, node, socket)
        states = [row[-1] for row in rows if row[1] == "BGP"]
        return states.count("Established"), len(states)

    def _node_status(self, name: str, alive: frozenset[str] | None) -> NodeStatus:
        node = self.topology.node(name)
        up, count = self.sessions(name)
        agent = None
        if name in self.hosts():
            agent = self._agent_status(name, alive)
        own = [end for end, _ in self.topology.adjacent(node)]
        addresses = [node.loopback4, node.loopback6] if node.loopback4 else []
        addresses += [] if addresses else [own[0].address4.ip, own[0].address6.ip]
        return NodeStatus(
            name=name,
            kind=node.kind.value,
            sessions_up=up,
            sessions=count,
            agent=agent,
            addresses=tuple(map(str, addresses)),
        )

    def _agent_status(self, host: str, alive: frozenset[str] | None) -> str:
        if not self.agent(host).running:
            return "down"
        if alive is None:
            return "unknown"
        return "alive" if host in alive else "silent"

    @cached_property
    def _instances(self) -> Instances:
        return Instances(self.paths, self.hosts(), self.connection)


def names() -> list[str]:
    """Return the names of all labs that are there, even in part, sorted."""
    if not root().exists():
        return []
    found = [d.name for d in root().iterdir() if (d / "lab.json").exists()]
    return sorted(filter(is_name, found))
