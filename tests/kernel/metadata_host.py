"""A host whose instances have a metadata service, with real backends, in namespaces."""

import json
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from tests.endpoints import HOST
from tests.kernel.data_path import HostBed, host_bed
from tests.kernel.netns import Netns, eventually, in_netns

from calico.config import AgentSettings, MetadataSettings
from calico.lab.metadata import SECRET, command
from calico.model.records import Endpoint
from calico.reconcile.problem import Problem
from calico.system.metadata import MetadataProxy

BACKEND = "127.0.0.1"
JSON = "/openstack/latest/meta_data.json"
URLS = {4: "http://169.254.169.254", 6: "http://[fe80::a9fe:a9fe%25eth0]"}


@dataclass(kw_only=True)
class MetadataHost:
    """A host that makes passes and runs the proxy, with backends on its loopback."""

    bed: HostBed
    folder: Path
    settings: MetadataSettings
    proxies: list[MetadataProxy] = field(default_factory=list)

    @property
    def run_dir(self) -> Path:
        return self.folder / "run"

    def configure(self, settings: MetadataSettings) -> None:
        """Take other settings, as an agent does that is started anew."""
        self.settings = settings
        self.bed.settings = AgentSettings(host=HOST, metadata=settings)
        self.bed.restart()
        self.proxies = [MetadataProxy(self.run_dir, settings)]

    def serve(self, *endpoints: Endpoint) -> list[Problem]:
        outcome = self.bed.serve(*endpoints)
        with in_netns(self.bed.host):
            return [
                *outcome.problems,
                *self.proxies[0].apply(self.bed.world(endpoints)),
            ]

    def backend(self, port: int, *tls: Path) -> "subprocess.Popen[str]":
        """Start a backend on loopback and wait until it listens."""
        secret = self.folder / "secret"
        secret.write_text(SECRET)
        process = self.bed.host.popen(command(BACKEND, port, secret, *tls))
        listening = ["ss", "-Hltn", "sport", "=", str(port)]
        eventually(lambda: self.bed.host.run(listening).stdout)
        return process

    def log(self) -> str:
        return (self.run_dir / "metadata.log").read_text()

    def ask(
        self, guest: Netns, version: int = 4, path: str = JSON, *options: str
    ) -> tuple[int, str]:
        """Return the status and the body that a guest gets; 0 without an answer."""
        done = guest.run(
            [
                *("curl", "-sg", "--max-time", "10", "-w", "\n%{http_code}"),
                *options,
                URLS[version] + path,
            ],
            check=False,
        )
        body, _, status = done.stdout.rpartition("\n")
        return int(status), body

    def await_service(self, guest: Netns, version: int = 4) -> None:
        eventually(
            lambda: self.ask(guest, version, "/", "--connect-timeout", "1")[0],
            15,
            self.log,
        )

    def identity(self, guest: Netns, version: int = 4, *options: str) -> dict[str, str]:
        """Return what the backend was told of a guest, by header."""
        status, body = self.ask(guest, version, JSON, *options)
        assert status == 200, f"{status} {body}\n{self.log()}"
        return dict(json.loads(body)["headers"])


@contextmanager
def metadata_host() -> Iterator[MetadataHost]:
    """A host in a folder that pytest does not close: the proxy reads it as nobody."""
    with tempfile.TemporaryDirectory(prefix="ct-") as name, host_bed() as bed:
        folder = Path(name)
        folder.chmod(0o755)
        host = MetadataHost(bed=bed, folder=folder, settings=MetadataSettings())
        try:
            yield host
        finally:
            for proxy in host.proxies:
                proxy.stop()


def settings_for(*ports: int, scheme: str = "http") -> MetadataSettings:
    urls = tuple(f"{scheme}://{BACKEND}:{port}" for port in ports)
    return MetadataSettings(backends=urls, shared_secret=SECRET)


def with_ca(settings: MetadataSettings, ca: Path) -> MetadataSettings:
    return replace(settings, ca=ca)
