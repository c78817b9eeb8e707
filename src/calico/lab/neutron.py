"""The cloud's Neutron: the API's workers, and the process for background workers.

Turned on by `core_plugin = calico` and the datastore's addresses, as the README tells
an operator to; all else here is about the lab: its database, its Keystone, no message
bus, no quotas.
"""

import sys
from dataclasses import dataclass, replace
from pathlib import Path

from calico.lab import keystone
from calico.lab.database import Database, run
from calico.lab.servers import Servers
from calico.lab.settings import write_settings
from calico.lab.uwsgi import Application

API = "neutron-api"
SECOND = "neutron-second"
WORKERS = "neutron-workers"
SECOND_WORKERS = "neutron-second-workers"
DOMAIN = "lab.example."  # of the names of ports
_QUOTAS = (
    "network",
    "subnet",
    "subnetpool",
    "port",
    "security_group",
    "security_group_rule",
    "address_group",
    "router",
    "floatingip",
    "rbac_policy",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Neutron:
    """Neutron on a port of loopback; `directory` holds its settings and locks."""

    servers: Servers
    database: Database
    directory: Path
    port: int
    keystone_url: str
    etcd: tuple[str, ...]
    api: str = API  # the name of the API's process
    workers: str = WORKERS  # and of the background workers'
    api_workers: int = 2
    overrides: str = ""  # a settings file's text that wins over the lab's settings

    @property
    def url(self) -> str:
        """Return the API's address, as the service catalogue has it."""
        return f"http://127.0.0.1:{self.port}"

    def overridden(self, overrides: str) -> "Neutron":
        """Return it with a settings file's text that wins over what it has."""
        return replace(self, overrides=f"{self.overrides}\n{overrides}")

    def start(self) -> None:
        """Start the API and the background workers; the database serves already."""
        self.configure()
        self.application.start()
        self.start_workers()

    def start_workers(self) -> None:
        """Start the background workers alone, with the settings that there are."""
        command = [f"{sys.prefix}/bin/neutron-periodic-workers"]
        for file in (self._file, self._overrides_file):
            command += ["--config-file", str(file)]
        self.servers.start(self.workers, command)

    def stop(self) -> None:
        """Stop all of it."""
        self.servers.stop(self.api, self.workers)

    def stop_workers(self) -> None:
        """Stop the background workers alone."""
        self.servers.stop(self.workers)

    def configure(self) -> None:
        """Write the settings."""
        write_settings(self._file, self._settings())
        self._overrides_file.write_text(self.overrides)

    def fill(self) -> None:
        """Make the tables, Neutron's own and Calico's."""
        self.configure()
        manage = f"{sys.prefix}/bin/neutron-db-manage"
        run(manage, "--config-file", str(self._file), "upgrade", "heads")

    @property
    def application(self) -> Application:
        """Return the API's server."""
        return Application(
            servers=self.servers,
            directory=self.directory,
            name=self.api,
            module="neutron.wsgi.api:application",
            port=self.port,
            workers=self.api_workers,
            threads=4,
            environment={
                "OS_NEUTRON_CONFIG_DIR": str(self.directory),
                "OS_NEUTRON_CONFIG_FILES": (
                    f"{self._file.name};{self._overrides_file.name}"
                ),
            },
        )

    @property
    def _file(self) -> Path:
        return self.directory / "neutron.conf"

    @property
    def _overrides_file(self) -> Path:
        return self.directory / "overrides.conf"

    def _settings(self) -> dict[str, dict[str, str]]:
        return {
            "DEFAULT": {
                "core_plugin": "calico",
                "auth_strategy": "keystone",
                "dns_domain": DOMAIN,
                # The wheel installs it here, where Neutron does not look.
                "api_paste_config": f"{sys.prefix}/etc/neutron/api-paste.ini",
                "state_path": str(self.directory),
                "transport_url": "fake://",
                "notify_nova_on_port_status_changes": "false",
                "notify_nova_on_port_data_changes": "false",
                "use_stderr": "true",
            },
            "calico": {"etcd_endpoints": ",".join(self.etcd)},
            "database": {"connection": self.database.url("neutron")},
            "keystone_authtoken": {
                "www_authenticate_uri": self.keystone_url,
                "auth_url": self.keystone_url,
                "auth_type": "password",
                "username": keystone.SERVICE_USER,
                "password": keystone.password(keystone.SERVICE_USER),
                "project_name": keystone.SERVICE_PROJECT,
                "user_domain_id": "default",
                "project_domain_id": "default",
                "region_name": keystone.REGION,
                "interface": "public",
                "service_token_roles_required": "true",
            },
            "oslo_concurrency": {"lock_path": str(self.directory / "locks")},
            "oslo_messaging_notifications": {"driver": "noop"},
            "quotas": {f"quota_{name}": "-1" for name in _QUOTAS},
        }
