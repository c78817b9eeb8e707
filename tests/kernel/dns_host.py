"""A host whose instances ask it for names, with a real resolver, in namespaces."""

import select
import socket
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import dns.exception
import dns.message
import dns.query
import dns.rcode
from tests.endpoints import HOST
from tests.kernel.data_path import SUBNETS, HostBed, host_bed
from tests.kernel.netns import Netns, eventually, in_netns, link

from calico.config import AgentSettings, DnsSettings
from calico.model.ids import NetworkId, ProjectId, SubnetId
from calico.model.names import PortNames
from calico.model.records import Endpoint, Subnet
from calico.reconcile.problem import Problem
from calico.system.dns import DnsService

GATEWAYS = {4: "10.65.0.1", 6: "2001:db8:65::1"}
ELSEWHERE = NetworkId("another network")
UPLINK, RESOLVER, SILENT, REFUSING, UNABLE = (
    f"198.51.100.{number}" for number in (1, 53, 54, 55, 56)
)
LONG = "x" * 240
_SILENCE = 0.4  # seconds


def asking_subnets() -> dict[SubnetId, Subnet]:
    """Return subnets whose ports ask their host, and `ELSEWHERE` one that does not."""
    other = SubnetId("other4")
    subnets = {key: replace(each, dns_servers=()) for key, each in SUBNETS.items()}
    return subnets | {other: replace(SUBNETS[other], network=ELSEWHERE)}


@dataclass(kw_only=True)
class DnsHost:
    """A host that makes passes and runs the responder, beside a resolver."""

    bed: HostBed
    resolver: Netns
    folder: Path
    settings: DnsSettings = field(default_factory=DnsSettings)
    services: list[DnsService] = field(default_factory=list)

    @property
    def run_dir(self) -> Path:
        return self.folder / "run"

    @property
    def service(self) -> DnsService:
        return self.services[-1]

    def configure(self, *resolvers: str, domains: tuple[str, ...] = ()) -> None:
        """Take other settings, as an agent does that is started anew."""
        self.settings = DnsSettings(resolvers=resolvers, domains=domains)
        self.bed.settings = AgentSettings(host=HOST, dns=self.settings)
        self.bed.restart()
        self.services = [DnsService(self.run_dir, self.settings)]

    def call(self, names: Mapping[str, Endpoint]) -> None:
        """Give ports names, and take all others away."""
        self.bed.names = tuple(named(one, name) for name, one in names.items())

    def serve(self, *endpoints: Endpoint) -> list[Problem]:
        outcome = self.bed.serve(*endpoints)
        return [*outcome.problems, *self.tell(*endpoints)]

    def tell(self, *endpoints: Endpoint) -> list[Problem]:
        """Have the responder know what is so now, without a pass."""
        with in_netns(self.bed.host):
            return self.service.apply(self.bed.world(endpoints))

    def settle(self, guest: Netns, one: Endpoint, *endpoints: Endpoint) -> None:
        """Tell the responder what is so, and wait until it knows."""
        marker = f"marker-{len(self.bed.names)}.cloud.example"
        self.bed.names = (*self.bed.names, named(one, marker))
        assert self.tell(*endpoints) == []
        address = str(one.addresses[0])
        eventually(
            lambda: self.found(guest, marker, timeout=0.5) == address, 10, self.log
        )

    def log(self) -> str:
        return (self.run_dir / "dns.log").read_text()

    def ask(
        self,
        guest: Netns,
        name: str,
        rdtype: str = "A",
        *,
        at: str = GATEWAYS[4],
        stream: bool = False,
        timeout: float = 8.0,
    ) -> dns.message.Message | None:
        """Return what a guest is told; None if nothing."""
        query = dns.message.make_query(name, rdtype)
        way = dns.query.tcp if stream else dns.query.udp
        try:
            with in_netns(guest):
                return way(query, at, timeout=timeout)
        except (dns.exception.Timeout, OSError):
            return None

    def found(self, guest: Netns, name: str, rdtype: str = "A", **how: object) -> str:
        """Return the values that a guest is told, or the code that says why not."""
        reply = self.ask(guest, name, rdtype, **how)  # type: ignore[arg-type] # of ask
        if reply is None:
            return "silence"
        values = sorted(str(one) for rrset in reply.answer for one in rrset)
        return " ".join(values) or dns.rcode.to_text(reply.rcode())

    def is_silent(self, guest: Netns, at: str) -> bool:
        """Tell whether a guest's questions to an address are dropped."""
        query = dns.message.make_query("web.cloud.example", "A")
        with in_netns(guest):
            datagram = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            stream = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        with datagram, stream:
            datagram.connect((at, 53))
            datagram.send(query.to_wire())
            stream.setblocking(False)
            stream.connect_ex((at, 53))
            # Writable is a connection that was made or refused.
            heard, made, _ = select.select([datagram], [stream], [], _SILENCE)
            return not heard and not made

    def await_service(self, guest: Netns) -> None:
        """Wait until the responder answers a guest."""
        eventually(
            lambda: self.found(guest, "up.example", timeout=0.2) != "silence",
            15,
            self.log,
        )


def named(one: Endpoint, *names: str, project: ProjectId | None = None) -> PortNames:
    return PortNames(
        project=project or one.project,
        port=one.port,
        names=names,
        addresses=one.addresses,
    )


def resolve(
    where: Netns, *addresses: str, knows: str = "example.org"
) -> "subprocess.Popen[str]":
    """Start a real resolver that knows one domain and refuses all others."""
    command = [
        *("dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--pid-file="),
        *("--no-resolv", "--no-hosts", "--bind-interfaces", "--except-interface=lo"),
        *("--user=root", f"--local=/{knows}/"),
        *(f"--listen-address={address}" for address in addresses),
        f"--host-record=www.{knows},192.0.2.80",
        *(f"--txt-record=long.{knows},{n}{LONG}" for n in range(4)),
    ]
    process = where.popen(command)
    for address in addresses:
        listening = ["ss", "-Hlun", "src", f"{address}:53"]
        eventually(lambda argv=listening: where.run(argv).stdout)  # type: ignore[misc] # mypy cannot infer it
    return process


@contextmanager
def dns_host() -> Iterator[DnsHost]:
    """A host in a folder that pytest does not close: the process reads it as nobody."""
    with (
        tempfile.TemporaryDirectory(prefix="ct-") as name,
        Netns("resolver") as resolver,
        host_bed() as bed,
    ):
        folder = Path(name)
        folder.chmod(0o755)
        link(bed.host, "up0", resolver, "eth0")
        bed.host.ip("addr", "add", f"{UPLINK}/24", "dev", "up0")
        for address in (RESOLVER, SILENT, REFUSING, UNABLE):
            resolver.ip("addr", "add", f"{address}/24", "dev", "eth0")
        resolve(resolver, RESOLVER)
        resolve(resolver, UNABLE, knows="another.example")
        bed.subnets = asking_subnets()
        host = DnsHost(bed=bed, resolver=resolver, folder=folder)
        try:
            yield host
        finally:
            for service in host.services:
                service.stop()
