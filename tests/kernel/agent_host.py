"""A host with a real etcd and an agent's process, to be started, killed and read."""

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.endpoints import HOST
from tests.etcd_server import EtcdServer
from tests.kernel.data_path import SUBNETS, HostBed, host_bed
from tests.kernel.netns import eventually, in_netns
from tests.policies import OPEN, OPEN_POLICY

from calico.config import DnsSettings, MetadataSettings
from calico.model.codec import encode_endpoint, encode_subnet
from calico.model.keys import Keys
from calico.model.policy_codec import encode_policy
from calico.model.records import Endpoint
from calico.system.bird import Bird
from calico.system.dhcp import DhcpService
from calico.system.dns import DnsService
from calico.system.metadata import MetadataProxy

KEYS = Keys()
SETTINGS = """
host = "{host}"
run_dir = "{folder}/run"
state_dir = "{folder}/state"
uplinks = ["lo"]
address4 = "192.0.2.1"
metrics = "127.0.0.1:9091"
heartbeat_interval = 0.5
heartbeat_ttl = 5
log_json = true
[etcd]
endpoints = ["{etcd}"]
timeout = 1.0
"""


@dataclass(kw_only=True)
class AgentHost:
    """A host's namespace with an etcd of its own and an agent that can be killed."""

    bed: HostBed
    etcd: EtcdServer
    folder: Path
    agents: list["subprocess.Popen[str]"] = field(default_factory=list)

    @property
    def settings(self) -> Path:
        return self.folder / "agent.toml"

    @property
    def log(self) -> str:
        return (self.folder / "log").read_text()

    def command(self, *options: str) -> list[str]:
        config = ("--config", str(self.settings))
        return [sys.executable, "-m", "calico", "agent", *config, *options]

    def start(
        self, environment: Mapping[str, str] | None = None
    ) -> "subprocess.Popen[str]":
        with (self.folder / "log").open("a") as log:
            agent = self.bed.host.popen(
                self.command(),
                stdout=log,
                stderr=log,
                env={**os.environ, **(environment or {})},
            )
        self.agents.append(agent)
        return agent

    def end(self, number: signal.Signals) -> None:
        """Signal the agent and wait for its end (`ip netns exec` becomes it)."""
        agent = self.agents.pop()
        agent.send_signal(number)
        agent.wait(20)

    def etcdctl(self, *arguments: str, check: bool = True) -> str:
        with in_netns(self.bed.host):
            return self.etcd.etcdctl(*arguments, check=check).stdout

    def publish(self, *endpoints: Endpoint) -> None:
        for one in endpoints:
            key = KEYS.endpoint(HOST, one.device, one.port)
            self.etcdctl("put", key, encode_endpoint(one).decode())

    def withdraw(self, one: Endpoint) -> None:
        self.etcdctl("del", KEYS.endpoint(HOST, one.device, one.port))

    def statuses(self) -> dict[str, str]:
        """Return the status of each port by its id."""
        prefix = KEYS.port_statuses(HOST)
        lines = self.etcdctl("get", "--prefix", prefix).split("\n")[:-1]
        return {
            KEYS.parse_port_status(key)[2]: json.loads(value)["status"]
            for key, value in zip(lines[::2], lines[1::2], strict=True)
        }

    def await_statuses(self, wanted: dict[str, str]) -> None:
        eventually(
            lambda: self.statuses() == wanted,
            timeout=20,
            message=lambda: f"{self.statuses()}\n{self.log[-3000:]}",
        )


@contextmanager
def agent_host() -> Iterator[AgentHost]:
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="ct-")))
        folder.chmod(0o755)  # dnsmasq reads its files as nobody
        bed = stack.enter_context(host_bed())
        with in_netns(bed.host):
            etcd = stack.enter_context(EtcdServer())
        one = AgentHost(bed=bed, etcd=etcd, folder=folder)
        stack.callback(stop_daemons, one)
        (folder / "log").touch()
        one.settings.write_text(
            SETTINGS.format(host=HOST, folder=folder, etcd=etcd.endpoint)
        )
        bed.host.ip("addr", "add", "192.0.2.1/32", "dev", "lo")
        for subnet in SUBNETS.values():
            one.etcdctl("put", KEYS.subnet(subnet.id), encode_subnet(subnet).decode())
        one.etcdctl("put", KEYS.policy(OPEN), encode_policy(OPEN_POLICY).decode())
        one.etcdctl("put", KEYS.adopted, "{}")
        yield one


def stop_daemons(host: AgentHost) -> None:
    for agent in host.agents:
        agent.kill()
        agent.wait()
    with in_netns(host.bed.host):
        Bird(host.folder / "run").stop()
        DhcpService(host.folder / "run").stop()
        MetadataProxy(host.folder / "run", MetadataSettings()).stop()
        DnsService(host.folder / "run", DnsSettings()).stop()
