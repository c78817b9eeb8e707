"""What the suites are told of the cloud, and the cloud for the suites."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from calico.conformance.inapplicable import Mode
from calico.conformance.lanes import Lane
from calico.lab.lab import Lab
from calico.lab.namespaces import LabFailed
from calico.lab.settings import Sections, render

# RFC 2544's for benchmarks, and of RFC 4193: no lab and no test has these.
_EXTERNAL = "198.18.0.0/20"
_POOLS = {"198.19.0.0/20": 26, "fd19::/48": 64}  # and how long their subnets' prefix is
# What tests make allowed pairs of without having it: ranges beside the lanes' pools,
# and one address.
_PAIRS = ("172.16.0.0/12", "fd16::/16", "fd24::/16", "1.1.1.1/32")
# What Neutron has where nobody sets any: the suites fill some of them.
_QUOTAS = {
    "network": 100,
    "subnet": 100,
    "subnetpool": -1,
    "port": 500,
    "security_group": 10,
    "security_group_rule": 100,
    "address_group": 10,
    "router": 10,
    "floatingip": 50,
    "rbac_policy": 10,
}


def neutron(mode: Mode) -> str:
    """Return what the lab's Neutron has otherwise than other labs' in a mode.

    In `audit` its guards let through what tests do that do not have an address space
    to themselves.
    """
    space = {"overlapping_subnets": mode.value}
    if mode is Mode.AUDIT:
        space["allowed_pair_prefixes"] = ",".join(_PAIRS)
    quotas = {f"quota_{name}": str(n) for name, n in _QUOTAS.items()}
    return render({"calico": space, "quotas": quotas})


@contextmanager
def operated(lab: Lab) -> Iterator[str]:
    """Have what an operator makes first while this is entered; give an id.

    It is that of the external network; default subnet pools are there too. LabFailed
    where they cannot be made or go, for what interrupted tests have left.
    """
    from openstack.exceptions import ConflictException  # noqa: PLC0415 - a slow import

    try:
        with _made(lab.connection().network) as network:
            yield network
    except ConflictException as e:
        raise LabFailed(
            f"lab {lab.name} has what interrupted tests left; take it down: {e}"
        ) from e


@contextmanager
def _made(api: Any) -> Iterator[str]:
    with ExitStack() as made:
        for prefix, length in _POOLS.items():
            pool = api.create_subnet_pool(
                name=f"conformance {prefix}",
                prefixes=[prefix],
                default_prefix_length=length,
                is_shared=True,
                is_default=True,
            )
            made.callback(api.delete_subnet_pool, pool)
        network = api.create_network(
            name="conformance",
            is_router_external=True,
            provider_network_type="flat",
            provider_physical_network="conformance",
        )
        made.callback(api.delete_network, network)
        api.create_subnet(
            network_id=network.id, cidr=_EXTERNAL, ip_version=4, is_dhcp_enabled=False
        )
        yield str(network.id)


def extensions(lab: Lab) -> tuple[str, ...]:
    """Return the aliases of the extensions that the API has."""
    found: Any = lab.connection().network.extensions()
    return tuple(sorted(extension.alias for extension in found))


def tempest(
    environment: dict[str, str], external: str, aliases: tuple[str, ...], lane: Lane
) -> Sections:
    """Return tempest's settings; `environment` is what `openstack` needs as admin."""
    return {
        "DEFAULT": {"log_file": "tempest.log"},
        "auth": {
            "use_dynamic_credentials": "true",
            "create_isolated_networks": "false",
            "admin_username": environment["OS_USERNAME"],
            "admin_password": environment["OS_PASSWORD"],
            "admin_project_name": environment["OS_PROJECT_NAME"],
            "admin_domain_name": "Default",
        },
        "identity": {
            "auth_version": "v3",
            "uri_v3": environment["OS_AUTH_URL"],
            "region": environment["OS_REGION_NAME"],
            "v3_endpoint_type": environment["OS_INTERFACE"],
        },
        "network": {
            "public_network_id": external,
            "floating_network_name": "conformance",
            "project_network_cidr": lane.cidr4,
            "project_network_v6_cidr": lane.cidr6,
        },
        "network-feature-enabled": {
            "api_extensions": ",".join(aliases),
            "ipv6_subnet_attributes": "true",
        },
        "neutron_plugin_options": {
            "available_type_drivers": "local,flat",
            "create_shared_resources": "true",
        },
        "service_available": {
            service: str(service == "neutron").lower()
            for service in ("neutron", "nova", "glance", "cinder", "swift")
        },
        "validation": {"run_validation": "false"},
    }
