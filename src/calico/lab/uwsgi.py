"""Running a WSGI application of OpenStack under uWSGI, and asking how it fares."""

import contextlib
import json
import socket
import sys
from dataclasses import dataclass
from pathlib import Path

from calico.lab.servers import Servers


@dataclass(frozen=True, slots=True, kw_only=True)
class Application:
    """An application's server: `name` is its process, `module` what to import.

    `port` is on loopback of the servers' namespace. `environment` is given to the
    program, since uWSGI does not pass on what its own settings say.
    """

    servers: Servers
    directory: Path
    name: str
    module: str
    port: int
    workers: int
    threads: int
    environment: dict[str, str]

    def start(self) -> None:
        """Start it, unless it runs."""
        settings = self.directory / "uwsgi.ini"
        settings.write_text(self._settings())
        program = Path(sys.prefix) / "bin/pyuwsgi"
        self.servers.start(
            self.name, [str(program), "--ini", str(settings)], self.environment
        )

    def stop(self) -> None:
        """Stop it and its workers."""
        self.servers.stop(self.name)

    def served(self) -> tuple[int, ...]:
        """Return how many requests each worker has answered; none before it is up."""
        with (
            contextlib.suppress(OSError, ValueError),
            socket.socket(socket.AF_UNIX) as client,
        ):
            client.settimeout(2)
            client.connect(str(self._stats))
            with client.makefile("rb") as reply:
                workers = json.load(reply)["workers"]
            return tuple(worker["requests"] for worker in workers)
        return ()

    @property
    def _stats(self) -> Path:
        return self.directory / "stats"

    def _settings(self) -> str:
        lines = {
            "module": self.module,
            "http-socket": f"127.0.0.1:{self.port}",
            "listen": "128",
            "master": "true",
            "processes": str(self.workers),
            "threads": str(self.threads),
            "enable-threads": "true",
            "thunder-lock": "true",
            # Each worker imports for itself: Neutron starts threads as it loads, and
            # threads do not survive a fork.
            "lazy-apps": "true",
            "die-on-term": "true",
            "need-app": "true",
            "buffer-size": "65535",
            "add-header": "Connection: close",
            "stats": str(self._stats),
            "procname-prefix": f"{self.name} ",
            "disable-logging": "true",
        }
        return "[uwsgi]\n" + "".join(f"{k} = {v}\n" for k, v in lines.items())
