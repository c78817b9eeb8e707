"""The lab's datastore: an etcd cluster of one or more members, in one namespace.

Members differ in port and data directory only, so that one can be stopped and started
while the others go on; all listen on the management address, for hosts and Neutron.
"""

import http.client
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from calico.lab.inside import connect
from calico.lab.servers import Servers

_CLIENT_PORT = 2379
_PEER_PORT = 2380
_PORT_STEP = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class EtcdCluster:
    """The members' whereabouts; `directory` gets a data directory for each."""

    servers: Servers
    directory: Path
    address: str
    count: int = 1

    @property
    def endpoints(self) -> tuple[str, ...]:
        """Return the URLs for clients, one for each member."""
        return tuple(self._url(_CLIENT_PORT, i) for i in range(self.count))

    @property
    def members(self) -> tuple[str, ...]:
        """Return the members' names, which are their processes' as well."""
        return tuple(f"etcd-{i + 1}" for i in range(self.count))

    def start(self) -> None:
        """Start all members; `wait_ready` tells when they serve."""
        for member in self.members:
            self.start_member(member)

    def start_member(self, member: str) -> None:
        """Start one member, with the data that it had."""
        self.directory.mkdir(parents=True, exist_ok=True)
        self.servers.start(member, self._command(self.members.index(member)))

    def stop_member(self, member: str) -> None:
        """Stop one member; its data stays."""
        self.servers.stop(member)

    def stop(self) -> None:
        """Stop all members; their data stays."""
        self.servers.stop(*self.members)

    def wait_ready(self) -> None:
        """Wait until every member answers and knows a leader."""
        for member in self.members:
            self.servers.await_ready(member, partial(self.healthy, member))

    def healthy(self, member: str) -> bool:
        """Tell whether a member says that it is well: it serves and has a leader."""
        port = _CLIENT_PORT + _PORT_STEP * self.members.index(member)
        client = http.client.HTTPConnection(self.address, port, timeout=2)
        try:
            client.sock = connect(self.servers.netns or "", (self.address, port), 2)
            client.request("GET", "/health")
            return client.getresponse().status == http.HTTPStatus.OK
        except (OSError, http.client.HTTPException):
            return False
        finally:
            client.close()

    def _command(self, index: int) -> list[str]:
        name = self.members[index]
        client, peer = self._url(_CLIENT_PORT, index), self._url(_PEER_PORT, index)
        peers = ",".join(
            f"{member}={self._url(_PEER_PORT, i)}"
            for i, member in enumerate(self.members)
        )
        return [
            "etcd",
            f"--name={name}",
            f"--data-dir={self.directory / name}",
            f"--listen-client-urls={client}",
            f"--advertise-client-urls={client}",
            f"--listen-peer-urls={peer}",
            f"--initial-advertise-peer-urls={peer}",
            f"--initial-cluster={peers}",
            "--initial-cluster-token=calico-lab",
            # History is kept for minutes only, as operators are told to do: watchers
            # that were away longer meet a compacted revision here as well.
            "--auto-compaction-mode=periodic",
            "--auto-compaction-retention=10m",
            "--logger=zap",
            "--log-level=warn",
        ]

    def _url(self, first_port: int, index: int) -> str:
        host = f"[{self.address}]" if ":" in self.address else self.address
        return f"http://{host}:{first_port + _PORT_STEP * index}"
