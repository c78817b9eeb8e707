"""A real Neutron of one configuration: its API under uwsgi, its periodic workers.

Several of them may share a database, as the API servers of a cloud do.
"""

import contextlib
import http.client
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.etcd_server import free_port
from tests.neutron.waiting import eventually

VENV = Path(sys.prefix)
PROJECT = "11111111-1111-1111-1111-111111111111"


class ApiError(AssertionError):
    """Neutron's answer where it was not a success."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(f"{status}: {text}")
        self.status = status


@dataclass
class Api:
    """Neutron's API at an address, without authentication: always an administrator.

    `roles` are more that it acts in: Nova has `service`.
    """

    url: str
    roles: str = ""

    def post(self, path: str, **body: Any) -> Any:
        """Create; `path` is the collection, the body's one key the resource."""
        for resource in body.values():
            for item in resource if isinstance(resource, list) else [resource]:
                item.setdefault("project_id", PROJECT)
        return self._only(self.call("POST", path, body))

    def put(self, path: str, **body: Any) -> dict[str, Any]:
        changed: dict[str, Any] = self._only(self.call("PUT", path, body))
        return changed

    def get(self, path: str) -> Any:
        return self._only(self.call("GET", path))

    def delete(self, path: str) -> None:
        self.call("DELETE", path)

    def call(self, method: str, path: str, body: Any = None) -> Any:
        request = urllib.request.Request(  # noqa: S310 - an http URL of our own
            f"{self.url}/v2.0/{path}",
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={
                "Content-Type": "application/json",
                "Connection": "close",
                "X-Roles": self.roles,
            },
        )
        try:
            with urllib.request.urlopen(request, timeout=120) as reply:  # noqa: S310 - as above
                text = reply.read()
        except urllib.error.HTTPError as e:
            with e:
                raise ApiError(e.code, e.read().decode()) from e
        return json.loads(text) if text else {}

    def _only(self, reply: dict[str, Any]) -> Any:
        (value,) = reply.values()
        return value


@dataclass
class Deployment:
    """Configuration and processes of one Neutron."""

    folder: Path
    port: int
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    @property
    def api(self) -> Api:
        return Api(f"http://127.0.0.1:{self.port}")

    def start_api(self) -> None:
        """Start the API workers; `wait_ready` waits for them."""
        self._spawn(
            "api",
            str(VENV / "bin/uwsgi"),
            f"--http-socket=127.0.0.1:{self.port}",
            "--module=neutron.wsgi.api:application",
            f"--virtualenv={VENV}",
            "--master",
            "--processes=1",
            "--threads=4",
            "--enable-threads",
            "--thunder-lock",
            "--lazy-apps",
            "--die-on-term",
            "--need-app",
            "--buffer-size=65535",
            "--add-header=Connection: close",
            "--disable-logging",
        )

    def start_workers(self) -> None:
        """Start `neutron-periodic-workers`, which runs the drivers' workers."""
        self._spawn(
            "workers",
            str(VENV / "bin/neutron-periodic-workers"),
            f"--config-file={self.folder / 'neutron.conf'}",
        )

    def wait_ready(self) -> None:
        eventually(self._answers, f"Neutron answers; see {self.folder}", timeout=120)

    def kill(self, name: str) -> None:
        """End a process and all its children at once, as a power cut would."""
        process = self.processes.pop(name)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()

    def stop(self, name: str) -> None:
        """End a process as its operator would."""
        process = self.processes.pop(name)
        process.terminate()
        process.wait(timeout=60)

    def close(self) -> None:
        for name in list(self.processes):
            self.kill(name)

    def log(self, name: str) -> str:
        return (self.folder / f"{name}.log").read_text()

    def _answers(self) -> bool:
        process = self.processes["api"]
        assert process.poll() is None, self.log("api")[-5000:]
        try:
            return bool(self.api.get("extensions"))
        except (ApiError, OSError, http.client.HTTPException):  # not yet
            return False

    def _spawn(self, name: str, *command: str) -> None:
        with (self.folder / f"{name}.log").open("ab") as log:
            self.processes[name] = subprocess.Popen(
                command,
                cwd=self.folder,
                env=os.environ
                | {
                    "OS_NEUTRON_CONFIG_DIR": str(self.folder),
                    "OS_NEUTRON_CONFIG_FILES": "neutron.conf",
                    "PYTHONWARNINGS": "ignore",
                },
                stdout=log,
                stderr=log,
                start_new_session=True,
            )


Settings = Mapping[str, Mapping[str, str]]


@contextmanager
def deployment(database: str, etcd: str, settings: Settings) -> Iterator[Deployment]:
    """Configure a Neutron, and end what was started of it when the block ends.

    `settings` (section -> option -> value) is what this Neutron has of its own.
    """
    folder = Path(tempfile.mkdtemp(prefix="ct-neutron-"))
    neutron = Deployment(folder, free_port())
    try:
        (folder / "neutron.conf").write_text(_render(folder, database, etcd, settings))
        yield neutron
    finally:
        neutron.close()
        shutil.rmtree(folder, ignore_errors=True)


def migrate(database: str, *arguments: str) -> str:
    """Run `neutron-db-manage` on a database; return what it printed."""
    with deployment(database, "", {}) as neutron:
        reply = subprocess.run(
            [
                VENV / "bin/neutron-db-manage",
                f"--config-file={neutron.folder / 'neutron.conf'}",
                *arguments,
            ],
            capture_output=True,
            text=True,
            check=False,
        )
    assert reply.returncode == 0, reply.stdout + reply.stderr
    return reply.stdout


def _render(folder: Path, database: str, etcd: str, settings: Settings) -> str:
    sections: dict[str, dict[str, str]] = {
        "DEFAULT": {
            "core_plugin": "calico",
            "auth_strategy": "noauth",
            "transport_url": "fake://",
            "rpc_workers": "0",
            "rpc_state_report_workers": "0",
            "notify_nova_on_port_status_changes": "false",
            "notify_nova_on_port_data_changes": "false",
            "api_paste_config": str(VENV / "etc/neutron/api-paste.ini"),
            "state_path": str(folder),
        },
        "database": {"connection": database},
        "oslo_concurrency": {"lock_path": str(folder / "lock")},
        "quotas": {
            f"quota_{resource}": "-1"
            for resource in (
                "network",
                "subnet",
                "port",
                "security_group",
                "security_group_rule",
            )
        },
        "calico": {
            "etcd_endpoints": etcd,
            # Longer than a test waits for an API call (P22).
            "etcd_timeout": "120",
            # What a test does to etcd stays, where it does not test just that.
            "resync_interval": "0",
        },
    }
    for section, options in settings.items():
        sections.setdefault(section, {}).update(options)
    return "\n".join(
        f"[{section}]\n" + "".join(f"{k} = {v}\n" for k, v in options.items())
        for section, options in sections.items()
    )
