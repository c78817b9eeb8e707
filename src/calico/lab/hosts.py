"""The lab's hosts: what the operator tells the cloud about them, and their agents.

A host runs what a production host runs, `calico agent` with a settings file, in its
namespace. The agent starts BIRD and dnsmasq, and they outlive it as they would there.
It is started again when it ends, as systemd would.
"""

import json
import os
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path

from calico.lab import metadata, neutron
from calico.lab.namespaces import LabFailed
from calico.lab.paths import LabPaths
from calico.lab.processes import Processes
from calico.lab.supervisor import pid_of, supervised
from calico.lab.topology import CLOUD_AS, UPLINK, BgpMode, Node, Topology
from calico.model import keys, records
from calico.model.bgp_codec import (
    encode_bgp_configuration,
    encode_bgp_peer,
    encode_node,
)
from calico.model.ids import Address, HostName

_PATIENCE = 5.0  # seconds for an agent's process to be there
_POLL = 0.005

_SETTINGS = """\
host = {host}
state_dir = {state}
run_dir = {run}
uplinks = [{uplink}]
address4 = {address4}
address6 = {address6}
log_level = "debug"
policy_log = {policy_log}

[etcd]
endpoints = {endpoints}

[metadata]
backends = [{metadata}]
shared_secret = {secret}

[dns]
domains = [{domain}]
"""


@dataclass(frozen=True, slots=True)
class Agent:
    """The agent of one host: a process that can be stopped, killed and started."""

    host: str
    paths: LabPaths
    processes: Processes

    @property
    def name(self) -> str:
        """Return the name that its process is recorded under."""
        return f"agent-{self.host}"

    @property
    def settings(self) -> Path:
        """Return its settings file."""
        return self.paths.node(self.host) / "agent.toml"

    @property
    def run_dir(self) -> Path:
        """Return where it and its daemons have sockets and files."""
        return self.paths.node(self.host) / "run"

    @property
    def log(self) -> Path:
        """Return the file of its log."""
        return self.paths.logs / f"{self.name}.log"

    @property
    def pid(self) -> int | None:
        """Return the id of the process that serves at present; None without one."""
        supervisor = self.processes.find(self.name)
        if supervisor is None or not supervisor.running:
            return None
        return pid_of(supervisor.pid, self._pid_file)

    @property
    def running(self) -> bool:
        """Tell whether it lives."""
        return self.pid is not None

    def start(self) -> None:
        """Start it unless it was; return when it is there, or LabFailed."""
        if not self.processes.running(self.name):
            agent = [*_CALICO, "agent", "--config", str(self.settings)]
            self.processes.spawn(
                self.name,
                supervised(agent, self._pid_file),
                netns=self.paths.netns(self.host),
                log=self.log,
            )
        deadline = time.monotonic() + _PATIENCE
        while not self.running:
            if time.monotonic() > deadline:
                raise LabFailed(f"the agent of {self.host} ends; its log is {self.log}")
            time.sleep(_POLL)

    def stop(self) -> None:
        """Ask it to end, and wait until it has; it stays away until it is started."""
        self.processes.stop(self.name)

    def kill(self) -> None:
        """Take it, and it alone, away without a word (SIGKILL); another comes soon."""
        pid = self.pid
        if pid is not None:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    @property
    def _pid_file(self) -> Path:
        return self.paths.node(self.host) / "agent.pid"


_CALICO = (sys.executable, "-m", "calico")


def configure_host(
    paths: LabPaths, topology: Topology, host: Node, endpoints: Sequence[str]
) -> None:
    """Write the settings file of a host's agent."""
    own, _ = topology.uplink(host)
    directory = paths.node(host.name)
    directory.mkdir(parents=True, exist_ok=True)
    # A JSON string is a TOML string, for what is in these.
    (directory / "agent.toml").write_text(
        _SETTINGS.format(
            host=json.dumps(host.name),
            state=json.dumps(str(directory / "state")),
            run=json.dumps(str(directory / "run")),
            uplink=json.dumps(UPLINK),
            address4=json.dumps(str(own.address4.ip)),
            address6=json.dumps(str(own.address6.ip)),
            policy_log=json.dumps(str(paths.policy_log(host.name))),
            endpoints=json.dumps(list(endpoints)),
            metadata=json.dumps(metadata.url()),
            secret=json.dumps(metadata.SECRET),
            domain=json.dumps(neutron.DOMAIN),
        )
    )


def bgp_resources(topology: Topology) -> dict[str, bytes]:
    """Return the operator's BGP resources: settings, every host as a node, peers."""
    configuration = records.BgpConfiguration(
        as_number=CLOUD_AS, full_mesh=topology.bgp is BgpMode.MESH
    )
    values = {keys.BGP_CONFIGURATION: encode_bgp_configuration(configuration)}
    for host in topology.hosts:
        own, _ = topology.uplink(host)
        node = records.Node(
            name=HostName(host.name),
            address4=own.address4.ip,
            address6=own.address6.ip,
            as_number=host.as_number if topology.bgp is BgpMode.TOR else None,
        )
        values[keys.NODES + host.name] = encode_node(node)
    for peer in _peers(topology):
        values[keys.BGP_PEERS + peer.name] = encode_bgp_peer(peer)
    return values


def _peers(topology: Topology) -> Iterator[records.BgpPeer]:
    """Yield the sessions beside the mesh: to the own ToR, or to all routers in it."""
    if topology.bgp is BgpMode.MESH:
        for router in topology.routers:
            if router.as_number == CLOUD_AS:
                assert router.loopback4  # noqa: S101 - routers have loopbacks
                assert router.loopback6  # noqa: S101 - likewise
                pair = (router.loopback4, router.loopback6)
                yield from _peer(router.name, router, pair, None)
        return
    for host in topology.hosts:
        _, tor = topology.uplink(host)
        addresses = (tor.address4.ip, tor.address6.ip)
        yield from _peer(
            f"{host.name}-{tor.node.name}", tor.node, addresses, HostName(host.name)
        )


def _peer(
    name: str,
    router: Node,
    addresses: tuple[IPv4Address, IPv6Address],
    host: HostName | None,
) -> Iterator[records.BgpPeer]:
    pair: tuple[Address, ...] = addresses
    for address in pair:
        yield records.BgpPeer(
            name=f"{name}-ipv{address.version}",
            address=address,
            as_number=router.as_number,
            node=host,
        )
