"""A real etcd for tests: Debian's etcd 3.4 on free loopback ports.

with EtcdServer() as etcd:
    client = Client(etcd.settings)
"""

import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Self

from calico.config import EtcdSettings

START_TIMEOUT = 20.0


def free_port() -> int:
    """Return a loopback TCP port that nothing listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@dataclass(frozen=True, slots=True)
class Certificates:
    """PEM files: an authority, a server's and a client's (CN=calico) pair."""

    folder: Path

    @property
    def ca(self) -> Path:
        return self.folder / "ca.crt"

    def cert(self, who: str) -> Path:
        return self.folder / f"{who}.crt"

    def key(self, who: str) -> Path:
        return self.folder / f"{who}.key"


def make_certificates(folder: Path) -> Certificates:
    """Make an authority, `server` (for 127.0.0.1) and `client` with openssl."""
    certificates = Certificates(folder)
    new_key = "-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes"
    _openssl(
        f"req -x509 {new_key} -days 2 -subj /CN=authority"
        f" -keyout {certificates.key('ca')} -out {certificates.ca}"
    )
    for who, extra in (
        ("server", "subjectAltName=IP:127.0.0.1,DNS:localhost"),
        ("client", "extendedKeyUsage=clientAuth"),
    ):
        request = folder / f"{who}.csr"
        extensions = folder / f"{who}.ext"
        extensions.write_text(extra + "\n")
        name = "calico" if who == "client" else who
        _openssl(
            f"req {new_key} -subj /CN={name}"
            f" -keyout {certificates.key(who)} -out {request}"
        )
        _openssl(
            f"x509 -req -in {request} -days 2 -CAcreateserial"
            f" -CA {certificates.ca} -CAkey {certificates.key('ca')}"
            f" -extfile {extensions} -out {certificates.cert(who)}"
        )
    return certificates


def _openssl(arguments: str) -> None:
    subprocess.run(["openssl", *arguments.split()], check=True, capture_output=True)


class EtcdServer:
    """One member. Its ports and data stay the same over stop, kill and start."""

    def __init__(
        self,
        name: str = "one",
        *,
        certificates: Certificates | None = None,
        flags: Sequence[str] = (),
        peers: dict[str, str] | None = None,
    ) -> None:
        """Prepare a member; `peers` is name -> peer URL of a whole cluster."""
        self.name = name
        self._certificates = certificates
        self._flags = tuple(flags)
        self._folder = Path(tempfile.mkdtemp(prefix="ct-etcd-"))
        self._peers = peers or {name: f"http://127.0.0.1:{free_port()}"}
        scheme = "https" if certificates else "http"
        self.endpoint = f"{scheme}://127.0.0.1:{free_port()}"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def settings(self) -> EtcdSettings:
        """What a client needs to reach this member."""
        settings = EtcdSettings(endpoints=(self.endpoint,))
        if self._certificates is None:
            return settings
        return replace(
            settings,
            ca=self._certificates.ca,
            cert=self._certificates.cert("client"),
            key=self._certificates.key("client"),
        )

    @property
    def log(self) -> Path:
        return self._folder / "log"

    @property
    def _data(self) -> Path:
        return self._folder / "data"

    def start(self, *, wait: bool = True) -> None:
        """Start on the data that is there; and wait until it answers."""
        assert self._process is None, "already running"
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                self._command(), stdout=log, stderr=log, start_new_session=True
            )
        if wait:
            self.wait_ready()

    def wait_ready(self) -> None:
        """Return when the member serves a linearizable read."""
        deadline = time.monotonic() + START_TIMEOUT
        while True:
            assert self._process is not None
            assert self._process.poll() is None, self.log.read_text()[-3000:]
            # A cluster with auth on refuses the read, but by then it is up.
            reply = self.etcdctl("get", "ready", "--command-timeout=1s", check=False)
            if reply.returncode == 0 or "user name is empty" in reply.stderr:
                return
            assert time.monotonic() < deadline, self.log.read_text()[-3000:]
            time.sleep(0.05)

    def stop(self) -> None:
        """End it cleanly (SIGTERM)."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End it with kill -9."""
        self._end(signal.SIGKILL)

    def restart(self) -> None:
        self.stop()
        self.start()

    def pause(self) -> None:
        """Freeze it: connections stay open, nothing is answered."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def etcdctl(
        self, *arguments: str, check: bool = True
    ) -> subprocess.CompletedProcess[str]:
        """Run etcdctl (API 3) against this member."""
        command = ["etcdctl", f"--endpoints={self.endpoint}"]
        if self._certificates:
            command += [
                f"--cacert={self._certificates.ca}",
                f"--cert={self._certificates.cert('client')}",
                f"--key={self._certificates.key('client')}",
            ]
        return subprocess.run(
            [*command, *arguments],
            env={"ETCDCTL_API": "3", "PATH": "/usr/bin:/bin"},
            check=check,
            capture_output=True,
            text=True,
        )

    def compact(self, revision: int) -> None:
        """Forget all history before `revision`."""
        self.etcdctl("compact", str(revision), "--physical")

    def snapshot(self, name: str = "snapshot") -> Path:
        """Save what the member holds; give the file to `restore`."""
        file = self._folder / f"{name}.db"
        self.etcdctl("snapshot", "save", str(file))
        return file

    def restore(
        self,
        snapshot: Path,
        *,
        token: str = "restored",  # noqa: S107 - a cluster token is no secret
    ) -> None:
        """Stop, replace all data by the snapshot's, start: an older cluster.

        With the token of before, the cluster's id stays what it was.
        """
        if self._process is not None:
            self.kill()
        shutil.rmtree(self._data)
        self.etcdctl(
            "snapshot",
            "restore",
            str(snapshot),
            f"--name={self.name}",
            f"--data-dir={self._data}",
            f"--initial-cluster={self._initial_cluster()}",
            f"--initial-cluster-token={token}",
            f"--initial-advertise-peer-urls={self._peers[self.name]}",
        )
        self.start()

    def enable_auth(self, users: dict[str, str], *, prefix: str = "/calico/") -> None:
        """Turn authentication on: `users` may read and write below `prefix`.

        User `root` has password `root`.
        """
        self.etcdctl("user", "add", "root:root")
        self.etcdctl("user", "grant-role", "root", "root")
        self.etcdctl("role", "add", "calico")
        self.etcdctl(
            "role", "grant-permission", "calico", "readwrite", prefix, "--prefix"
        )
        for user, password in users.items():
            self.etcdctl("user", "add", f"{user}:{password}")
            self.etcdctl("user", "grant-role", user, "calico")
        self.etcdctl("auth", "enable")

    def close(self) -> None:
        """End it and delete its data."""
        if self._process is not None:
            self.kill()
        shutil.rmtree(self._folder, ignore_errors=True)

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _end(self, number: signal.Signals) -> None:
        assert self._process is not None, "not running"
        self._process.send_signal(signal.SIGCONT)
        self._process.send_signal(number)
        self._process.wait(timeout=30)
        self._process = None

    def _initial_cluster(self) -> str:
        return ",".join(f"{name}={url}" for name, url in self._peers.items())

    def _command(self) -> list[str]:
        peer = self._peers[self.name]
        command = [
            "etcd",
            f"--name={self.name}",
            f"--data-dir={self._data}",
            f"--listen-client-urls={self.endpoint}",
            f"--advertise-client-urls={self.endpoint}",
            f"--listen-peer-urls={peer}",
            f"--initial-advertise-peer-urls={peer}",
            f"--initial-cluster={self._initial_cluster()}",
            "--heartbeat-interval=50",
            "--election-timeout=500",
            *self._flags,
        ]
        if self._certificates:
            command += [
                f"--trusted-ca-file={self._certificates.ca}",
                f"--cert-file={self._certificates.cert('server')}",
                f"--key-file={self._certificates.key('server')}",
                "--client-cert-auth",
            ]
        return command


class EtcdCluster:
    """Three members (or as many as asked) that form one cluster."""

    def __init__(self, size: int = 3) -> None:
        peers = {f"m{n}": f"http://127.0.0.1:{free_port()}" for n in range(size)}
        self.members = [EtcdServer(name, peers=peers) for name in peers]

    @property
    def settings(self) -> EtcdSettings:
        """What a client needs to reach all members, in their order."""
        return EtcdSettings(endpoints=tuple(m.endpoint for m in self.members))

    def leader(self) -> EtcdServer:
        """Return the member that leads now."""
        for member in self.members:
            reply = member.etcdctl("endpoint", "status", "-w", "fields", check=False)
            facts = dict(
                line.split(" : ", 1) for line in reply.stdout.splitlines() if line
            )
            if facts and facts.get('"MemberID"') == facts.get('"Leader"'):
                return member
        raise AssertionError("no member leads")

    def __enter__(self) -> Self:
        with ExitStack() as on_failure:
            for member in self.members:
                on_failure.callback(member.close)
                member.start(wait=False)
            for member in self.members:
                member.wait_ready()
            on_failure.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for member in self.members:
            member.close()
