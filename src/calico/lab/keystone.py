"""The cloud's Keystone: settings that make it quick, and its tables.

Passwords are the same in each lab: its API is on loopback of a machine that its user
owns, and the prepared tables are shared by all labs.
"""

import base64
import os
import sys
from dataclasses import dataclass
from pathlib import Path

from calico.lab.database import Database, run
from calico.lab.servers import Servers
from calico.lab.settings import write_settings
from calico.lab.uwsgi import Application

NAME = "keystone"
REGION = "lab"
ADMIN = "admin"
PROJECTS = ("demo1", "demo2")  # each with a user of the same name
SERVICE_PROJECT = "service"
SERVICE_USER = "neutron"
_KEYS = ("fernet", "credential")


def password(user: str) -> str:
    """Return a user's password."""
    return f"{user}-lab"


@dataclass(frozen=True, slots=True, kw_only=True)
class Keystone:
    """Keystone on a port of loopback; `directory` holds its settings and keys."""

    servers: Servers
    database: Database
    directory: Path
    port: int

    @property
    def url(self) -> str:
        """Return where programs get tokens."""
        return f"http://127.0.0.1:{self.port}/v3"

    def start(self) -> None:
        """Start it; its database serves already."""
        self.configure()
        self._application().start()

    def stop(self) -> None:
        """Stop it."""
        self.servers.stop(NAME)

    def configure(self) -> None:
        """Write the settings and, the first time, keys of its own."""
        write_settings(self.directory / "keystone.conf", self._settings())
        for kind in _KEYS:
            _make_keys(self.directory / kind)

    def fill(self) -> None:
        """Make the tables, the projects, the users and the catalogue."""
        self.configure()
        manage = [f"{sys.prefix}/bin/keystone-manage", "--config-file"]
        manage.append(str(self.directory / "keystone.conf"))
        run(*manage, "db_sync")
        run(
            *manage,
            "bootstrap",
            f"--bootstrap-username={ADMIN}",
            f"--bootstrap-password={password(ADMIN)}",
            f"--bootstrap-region-id={REGION}",
            f"--bootstrap-public-url={self.url}",
        )
        run(sys.executable, "-m", "calico.lab.tenants", env=self._environment())

    def _application(self) -> Application:
        return Application(
            servers=self.servers,
            directory=self.directory,
            name=NAME,
            module="keystone.wsgi.api:application",
            port=self.port,
            workers=1,  # its cache is in the process
            threads=8,
            environment=self._environment(),
        )

    def _environment(self) -> dict[str, str]:
        return {
            "OS_KEYSTONE_CONFIG_DIR": str(self.directory),
            "OS_KEYSTONE_CONFIG_FILES": "keystone.conf",
        }

    def _settings(self) -> dict[str, dict[str, str]]:
        return {
            "DEFAULT": {"use_stderr": "true"},
            "database": {"connection": self.database.url("keystone")},
            "cache": {"enabled": "true", "backend": "dogpile.cache.memory"},
            # Both take most of a request's time, and guard nothing in a lab.
            "api": {"response_validation": "ignore"},
            "identity": {"password_hash_rounds": "4"},
            "fernet_tokens": {"key_repository": str(self.directory / "fernet")},
            "fernet_receipts": {"key_repository": str(self.directory / "fernet")},
            "credential": {"key_repository": str(self.directory / "credential")},
            # An hour would end in the middle of a long afternoon with the lab.
            "token": {"expiration": "86400"},
        }


def catalogue(keystone: str, neutron: str) -> str:
    """Return SQL that makes a service catalogue name these URLs.

    A lab's ports are known at its start only, when the tables exist already.
    """
    update = (
        "UPDATE keystone.endpoint e JOIN keystone.service s ON s.id = e.service_id"
        " SET e.url = '{}' WHERE s.type = '{}';\n"
    )
    return update.format(keystone, "identity") + update.format(neutron, "network")


def _make_keys(folder: Path) -> None:
    """Make a first and a next key as `keystone-manage fernet_setup` would, at once."""
    if folder.exists():
        return
    fresh = folder.with_suffix(".new")
    fresh.mkdir(mode=0o700, parents=True, exist_ok=True)
    for name in ("0", "1"):
        key = fresh / name
        key.touch(mode=0o600)
        key.write_bytes(base64.urlsafe_b64encode(os.urandom(32)))
    fresh.rename(folder)
