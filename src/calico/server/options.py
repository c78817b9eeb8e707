"""The `[calico]` section of neutron.conf: how the Neutron side reaches the datastore.

Read once into a frozen value; nothing else of the project asks oslo.config.
"""

from dataclasses import dataclass, field
from ipaddress import ip_network
from pathlib import Path
from typing import Any

from oslo_config import cfg

from calico.config import EtcdSettings
from calico.model.cloud_settings import DEFAULTS as CLOUD_DEFAULTS
from calico.model.cloud_settings import CloudSettings
from calico.model.ids import Invalid, ProjectId
from calico.policy.ownership import Allowed

GROUP = "calico"

_OPTIONS = [
    cfg.ListOpt(
        "etcd_endpoints",
        default=["http://127.0.0.1:2379"],
        help="URLs of the members of the etcd cluster.",
    ),
    cfg.StrOpt("etcd_ca", help="PEM file of the authority that signed etcd's key."),
    cfg.StrOpt("etcd_cert", help="PEM file of the certificate to show to etcd."),
    cfg.StrOpt("etcd_key", help="PEM file of that certificate's private key."),
    cfg.StrOpt("etcd_user", help="User of etcd, where it asks for one."),
    cfg.StrOpt("etcd_password", secret=True, help="Password of that user."),
    cfg.FloatOpt(
        "etcd_timeout",
        default=5.0,
        min=0.1,
        help="Seconds that one member may take to answer a request.",
    ),
    cfg.StrOpt(
        "region",
        help="Name of this region, where several share one etcd cluster.",
    ),
    cfg.ListOpt(
        "allowed_pair_prefixes",
        default=[],
        help="Prefixes that allowed address pairs may be of, besides the subnets of "
        "their port's project: CIDR for all projects, PROJECT_ID=CIDR for one.",
    ),
    cfg.StrOpt(
        "overlapping_subnets",
        default="refuse",
        choices=[
            (
                "refuse",
                "a subnet that overlaps another routed one is answered with 409",
            ),
            ("audit", "it is stored, and logged: for exceptions that are meant"),
        ],
        help="What to do where two subnets of routed networks would overlap.",
    ),
    cfg.BoolOpt(
        "floating_ip_source_translation",
        default=False,
        help="Whether what an instance with a floating IP sends out of the cloud comes "
        "from that, and not from the instance's own address.",
    ),
]


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerSettings:
    """What an operator set in neutron.conf's `[calico]`; `cloud` is for the hosts."""

    region: str | None = None
    allowed_pairs: tuple[Allowed, ...] = ()
    audit_overlaps: bool = False
    cloud: CloudSettings = CLOUD_DEFAULTS
    etcd: EtcdSettings = field(default_factory=EtcdSettings)


def list_options() -> list[tuple[str, list[Any]]]:
    """Return section and options, for `oslo-config-generator`."""
    return [(GROUP, _OPTIONS)]


def register(conf: Any) -> None:
    """Make the section known to an oslo.config object; again is harmless."""
    conf.register_opts(_OPTIONS, group=GROUP)


def read(conf: Any) -> ServerSettings:
    """Return the settings in an oslo.config object that has read its files."""
    section = conf[GROUP]
    return ServerSettings(
        region=section.region or None,
        allowed_pairs=tuple(map(_allowed, section.allowed_pair_prefixes)),
        audit_overlaps=section.overlapping_subnets == "audit",
        cloud=CloudSettings(translate_sources=section.floating_ip_source_translation),
        etcd=EtcdSettings(
            endpoints=tuple(section.etcd_endpoints),
            ca=_path(section.etcd_ca),
            cert=_path(section.etcd_cert),
            key=_path(section.etcd_key),
            user=section.etcd_user or None,
            password=section.etcd_password or None,
            timeout=section.etcd_timeout,
        ),
    )


def _allowed(text: str) -> Allowed:
    project, _, cidr = text.rpartition("=")
    try:
        prefix = ip_network(cidr.strip())
    except ValueError as e:
        raise Invalid(f"[{GROUP}] allowed_pair_prefixes: {text!r}: {e}") from e
    return Allowed(prefix=prefix, project=ProjectId(project.strip()) or None)


def _path(text: str | None) -> Path | None:
    return Path(text) if text else None
