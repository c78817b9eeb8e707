"""Settings of a host's agent, read once from a TOML file.

The only place below the command line that knows where settings come from: everything
else is handed a frozen value.
"""

import re
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from ipaddress import ip_address
from pathlib import Path
from urllib.parse import urlsplit

import msgspec

from calico.model.ids import HostName
from calico.model.names import is_name

_MOST_LOGGED = 1_000_000
_INTERFACE = re.compile(r"[A-Za-z0-9_.@:-]{1,15}")


class BadSettings(ValueError):  # noqa: N818 - names what the settings are
    """A settings file that cannot be used; the message names file and reason."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EtcdSettings:
    """How to reach the datastore: URLs of one or more members, TLS, user.

    `ca`, `cert` and `key` are paths of PEM files.
    """

    endpoints: tuple[str, ...] = ("http://127.0.0.1:2379",)
    ca: Path | None = None
    cert: Path | None = None
    key: Path | None = None
    user: str | None = None
    password: str | None = None
    timeout: float = 5.0  # seconds, for one request to one member


@dataclass(frozen=True, slots=True, kw_only=True)
class MetadataSettings:
    """Where metadata comes from: URLs of one or more backends, as Nova's are. TLS.

    Without `backends` there is no metadata service. The secret is shared with them, and
    given as it is or as a file that holds it. `ca`, `cert` and `key` are PEM files.
    """

    backends: tuple[str, ...] = ()
    shared_secret: str | None = None
    shared_secret_file: Path | None = None
    ca: Path | None = None
    cert: Path | None = None
    key: Path | None = None

    def __post_init__(self) -> None:
        for url in self.backends:
            _check_backend(url)
        secrets = [s for s in (self.shared_secret, self.shared_secret_file) if s]
        if self.backends and len(secrets) != 1:
            raise ValueError(
                "metadata: backends need shared_secret or shared_secret_file"
            )
        if (self.cert is None) != (self.key is None):
            raise ValueError("metadata: cert and key go together")


def _check_backend(url: str) -> None:
    try:
        parts = urlsplit(url)
        valid = parts.port is None or parts.port > 0
    except ValueError as e:
        raise ValueError(f"metadata.backends: {url!r}: {e}") from e
    valid = valid and parts.scheme in {"http", "https"} and bool(parts.hostname)
    if not valid or parts.path.strip("/") or parts.query or "@" in parts.netloc:
        raise ValueError(f"metadata.backends: {url!r} is not like https://HOST:PORT")


@dataclass(frozen=True, slots=True, kw_only=True)
class DnsSettings:
    """Whom the host asks for names that are no port's: addresses of resolvers.

    Without `resolvers` such names are refused. Names in one of the cloud's `domains`
    are never passed on.
    """

    resolvers: tuple[str, ...] = ()
    domains: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for text in self.resolvers:
            try:
                ip_address(text)
            except ValueError as e:
                raise ValueError(f"dns.resolvers: {e}") from e
        for name in self.domains:
            if not is_name(name.rstrip(".").lower()):
                raise ValueError(f"dns.domains: {name!r} is no domain")


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentSettings:
    """What an agent is told about its host. Times in seconds.

    `uplinks` are the interfaces to the fabric. `address4` and `address6` are what BGP
    sessions use and announce as next hop; found from the uplinks where not given.
    `policy_log` is the file of packets that logs of security groups name, the agent's
    own log if None; `log_rate` (a second) and `log_burst` limit each kind of event.
    """

    host: HostName
    region: str | None = None
    state_dir: Path = Path("/var/lib/calico")
    run_dir: Path = Path("/run/calico")
    uplinks: tuple[str, ...] = ()
    address4: str | None = None
    address6: str | None = None
    resync_interval: float = 60.0
    heartbeat_interval: float = 10.0
    heartbeat_ttl: int = 30
    metrics: str | None = "127.0.0.1:9091"
    log_level: str = "info"
    log_json: bool = False
    policy_log: Path | None = None
    log_rate: int = 100
    log_burst: int = 25
    etcd: EtcdSettings = field(default_factory=EtcdSettings)
    metadata: MetadataSettings = field(default_factory=MetadataSettings)
    dns: DnsSettings = field(default_factory=DnsSettings)

    def __post_init__(self) -> None:
        for name in self.uplinks:
            if not _INTERFACE.fullmatch(name):
                raise ValueError(f"uplinks: {name!r} is no name of an interface")
        for setting, number in (("rate", self.log_rate), ("burst", self.log_burst)):
            if not 1 <= number <= _MOST_LOGGED:
                raise ValueError(f"log_{setting}: {number} is not 1 to {_MOST_LOGGED}")


def load_agent_settings(path: Path) -> AgentSettings:
    """Read an agent's settings file; BadSettings names the file and what is wrong."""
    try:
        table = tomllib.loads(path.read_text())
        # msgspec ignores unknown names in dataclasses; a misspelt setting must not be.
        _refuse_unknown(table, AgentSettings, "")
        _refuse_unknown(table.get("etcd", {}), EtcdSettings, "etcd.")
        _refuse_unknown(table.get("metadata", {}), MetadataSettings, "metadata.")
        _refuse_unknown(table.get("dns", {}), DnsSettings, "dns.")
        return msgspec.convert(table, AgentSettings, dec_hook=_decode)
    except OSError as e:
        raise BadSettings(f"{path}: {e.strerror}") from e
    except (tomllib.TOMLDecodeError, msgspec.ValidationError, ValueError) as e:
        raise BadSettings(f"{path}: {e}") from e


def encode_metadata(settings: MetadataSettings, stamps: Sequence[int]) -> bytes:
    """Return settings as a file of the agent's; `stamps` make it another file."""
    return msgspec.json.encode([settings, stamps], enc_hook=str)


def read_metadata(text: bytes) -> MetadataSettings:
    """Return the settings in such a file; msgspec's errors for anything else."""
    kind = tuple[MetadataSettings, tuple[int, ...]]
    settings: MetadataSettings
    settings, _ = msgspec.json.decode(text, type=kind, dec_hook=_decode)
    return settings


def _decode(kind: type, value: object) -> object:
    if kind is Path and isinstance(value, str):
        return Path(value)
    raise ValueError(f"{value!r} is not a {kind.__name__}")


def _refuse_unknown(table: dict[str, object], kind: type, prefix: str) -> None:
    known = {f.name for f in fields(kind)}
    for name in table:
        if name not in known:
            raise ValueError(f"unknown setting {prefix}{name}")
