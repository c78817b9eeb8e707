"""Where each record lives in etcd: keys out, keys in.

The layout is the published Calico v3 one, so that existing tools find what they expect;
the project's own index has a prefix of its own. A region of None is a cloud without
regions.
"""

import re
from dataclasses import dataclass
from ipaddress import ip_network
from urllib.parse import quote, unquote

from calico.model.ids import (
    AddressGroupId,
    DeviceId,
    GroupId,
    HostName,
    Invalid,
    LogId,
    PortId,
    Prefix,
    ProjectId,
    SubnetId,
)

RESOURCES = "/calico/resources/v3/projectcalico.org/"
CLUSTER_INFORMATION = RESOURCES + "clusterinformations/default"
AGENT_DEFAULTS = RESOURCES + "felixconfigurations/default"
BGP_CONFIGURATION = RESOURCES + "bgpconfigurations/default"
BGP_PEERS = RESOURCES + "bgppeers/"
NODES = RESOURCES + "nodes/"
GLOBAL_POLICIES = RESOURCES + "globalnetworkpolicies/"
GLOBAL_NETWORK_SETS = RESOURCES + "globalnetworksets/"
HOST_ENDPOINTS = RESOURCES + "hostendpoints/"

SUBNETS = "/calico/dhcp/v2/"  # of all regions: they share one address space

# What the model's storage puts before the names of policies: their tier's name, but for
# those that come from Kubernetes and from OpenStack.
_TIER = "default."
_WITHOUT_TIER = ("knp.", "ossg.")
ADDRESS_GROUP_NAME = "osag."


# A part's own '-' are doubled, so a single one divides parts. Devices are what tenants
# write, and may begin and end with it; hosts and ports do not.
_PART = r"[^-](?:[^-]|--)*"
_ENDPOINT = re.compile(rf"{_PART}-openstack-((?:[^-]|--)+)-({_PART})", re.DOTALL)


def namespace(region: str | None) -> str:
    """Return the Calico namespace of a region's resources."""
    return f"openstack-region-{region}" if region else "openstack"


def stored_policy_name(name: str) -> str:
    """Return the name under which a policy is stored."""
    return name if name.startswith(_WITHOUT_TIER) else _TIER + name


def shown_policy_name(stored: str) -> str:
    """Return a policy's name, whether it is stored with its tier or without."""
    return stored.removeprefix(_TIER)


def global_policy(name: str) -> str:
    """Return the key of an operator's policy."""
    return GLOBAL_POLICIES + stored_policy_name(name)


def _region_part(region: str | None) -> str:
    return f"region-{region}" if region else "no-region"


def _escape(part: str) -> str:
    return part.replace("-", "--")


def parse_endpoint_name(name: str) -> tuple[DeviceId, PortId] | None:
    """Return device and port of an endpoint's name; None if it is no such name."""
    found = _ENDPOINT.fullmatch(name)
    if found is None:
        return None
    device, port = (part.replace("--", "-") for part in found.groups())
    return DeviceId(device), PortId(port)


def workload_id(device: DeviceId) -> str:
    """Return the workload part of a port status key, '/' escaped."""
    return device.replace("/", "%2f")


@dataclass(frozen=True, slots=True)
class Keys:
    """The keys of one region's objects."""

    region: str | None = None

    @property
    def endpoints(self) -> str:
        """Return the prefix of all workload endpoints."""
        return f"{RESOURCES}workloadendpoints/{namespace(self.region)}/"

    def endpoint_name(self, host: HostName, device: DeviceId, port: PortId) -> str:
        """Return a workload endpoint's resource name; each '-' in a part is doubled."""
        return f"{_escape(host)}-openstack-{_escape(device)}-{_escape(port)}"

    def endpoint(self, host: HostName, device: DeviceId, port: PortId) -> str:
        """Return a workload endpoint's key."""
        return self.endpoints + self.endpoint_name(host, device, port)

    def host_endpoints(self, host: HostName) -> str:
        """Return the prefix of one host's workload endpoints."""
        return f"{self.endpoints}{_escape(host)}-openstack-"

    def parse_endpoint(self, key: str) -> tuple[DeviceId, PortId] | None:
        """Return device and port of an endpoint's key; None if it is another key."""
        if not key.startswith(self.endpoints):
            return None
        return parse_endpoint_name(key.removeprefix(self.endpoints))

    def migration(self, host: HostName, device: DeviceId, port: PortId) -> str:
        """Return the key of the migration that leads to an endpoint."""
        return self.migrations + self.endpoint_name(host, device, port)

    @property
    def migrations(self) -> str:
        """Return the prefix of all live migrations."""
        return f"{RESOURCES}livemigrations/{namespace(self.region)}/"

    @property
    def policies(self) -> str:
        """Return the prefix of all security groups' policies."""
        return f"{RESOURCES}networkpolicies/{namespace(self.region)}/"

    def policy_name(self, group: GroupId) -> str:
        """Return the resource name of a security group's policy."""
        return f"ossg.default.{group}"

    def policy(self, group: GroupId) -> str:
        """Return the key of a security group's policy."""
        return self.policies + self.policy_name(group)

    @property
    def network_sets(self) -> str:
        """Return the prefix of all network sets: address groups and operators'."""
        return f"{RESOURCES}networksets/{namespace(self.region)}/"

    @property
    def address_groups(self) -> str:
        """Return the prefix of all address groups."""
        return self.network_sets + ADDRESS_GROUP_NAME

    def address_group_name(self, address_group: AddressGroupId) -> str:
        """Return the resource name of an address group's network set."""
        return f"{ADDRESS_GROUP_NAME}{address_group}"

    def address_group(self, address_group: AddressGroupId) -> str:
        """Return the key of an address group's network set."""
        return self.network_sets + self.address_group_name(address_group)

    @property
    def subnets(self) -> str:
        """Return the prefix of all subnets."""
        return f"{SUBNETS}{_region_part(self.region)}/subnet/"

    def subnet(self, subnet: SubnetId) -> str:
        """Return a subnet's key."""
        return self.subnets + subnet

    @property
    def hosts(self) -> str:
        """Return the prefix under which all hosts write their status."""
        return f"/calico/felix/v2/{_region_part(self.region)}/host/"

    def host_status(self, host: HostName) -> str:
        """Return the key of an agent's leased heartbeat."""
        return f"{self.hosts}{host}/status"

    def port_statuses(self, host: HostName) -> str:
        """Return the prefix of the port statuses that one host writes."""
        return f"{self.hosts}{host}/workload/openstack/"

    def port_status(self, host: HostName, device: DeviceId, port: PortId) -> str:
        """Return the key of a port's status."""
        return f"{self.port_statuses(host)}{workload_id(device)}/endpoint/{port}"

    @property
    def election(self) -> str:
        """Return the key that the Neutron side's elected worker holds."""
        return f"/calico/openstack/v2/{_region_part(self.region)}/neutron_election"

    @property
    def _own(self) -> str:
        return f"/calico/index/v1/{_region_part(self.region)}/"

    @property
    def members(self) -> str:
        """Return the prefix of the whole member index."""
        return f"{self._own}member/"

    def group_members(self, group: GroupId) -> str:
        """Return the prefix of one group's members."""
        return f"{self.members}{group}/"

    def member(self, group: GroupId, address: Prefix, port: PortId) -> str:
        """Return the key of one address of one port in one group."""
        network = f"{address.network_address}_{address.prefixlen}"
        return f"{self.group_members(group)}{network}/{port}"

    def parse_member(self, key: str) -> tuple[GroupId, Prefix, PortId]:
        """Return group, address and port of a member's key; Invalid if it is none."""
        parts = key.removeprefix(self.members).split("/")
        match parts:
            case [group, network, port] if key.startswith(self.members):
                try:
                    prefix = ip_network(network.replace("_", "/"))
                except ValueError as e:
                    raise Invalid(f"{key}: {e}") from e
                return GroupId(group), prefix, PortId(port)
            case _:
                raise Invalid(f"{key} is not the key of a member")

    @property
    def settings(self) -> str:
        """Return the key of what an operator set for the whole cloud."""
        return f"{self._own}settings"

    @property
    def logs(self) -> str:
        """Return the prefix of all logs of security groups."""
        return f"{self._own}log/"

    def log(self, log: LogId) -> str:
        """Return a log's key."""
        return self.logs + log

    @property
    def adopted(self) -> str:
        """Return the key that says that all that is there was gone through once.

        Until it is there, another writer of the model may have left ports that the
        member index does not know, and subnets whose projects nobody said.
        """
        return f"{self._own}adopted"

    @property
    def names(self) -> str:
        """Return the prefix of the names in DNS of all projects' ports."""
        return f"{self._own}name/"

    def project_names(self, project: ProjectId) -> str:
        """Return the prefix of the names of one project's ports."""
        return f"{self.names}{quote(project, safe='')}/"

    def port_names(self, project: ProjectId, port: PortId) -> str:
        """Return the key of a port's names."""
        return self.project_names(project) + port

    def parse_port_names(self, key: str) -> tuple[ProjectId, PortId]:
        """Return project and port of a key of names; Invalid if it is none."""
        match key.removeprefix(self.names).split("/"):
            case [project, port] if key.startswith(self.names):
                return ProjectId(unquote(project)), PortId(port)
            case _:
                raise Invalid(f"{key} is not the key of a port's names")

    @property
    def published_ports(self) -> str:
        """Return the prefix of the records of what was published for each port."""
        return f"{self._own}port/"

    def published_port(self, port: PortId) -> str:
        """Return the key that lists all the keys published for a port.

        It is what a compare-and-swap of a port's publication compares.
        """
        return self.published_ports + port

    def parse_port_status(self, key: str) -> tuple[HostName, DeviceId, PortId]:
        """Return host, device and port of a port status key; Invalid if it is none."""
        parts = key.removeprefix(self.hosts).split("/")
        match parts:
            case [host, "workload", "openstack", device, "endpoint", port] if (
                key.startswith(self.hosts)
            ):
                return (
                    HostName(host),
                    DeviceId(device.replace("%2f", "/")),
                    PortId(port),
                )
            case _:
                raise Invalid(f"{key} is not the key of a port's status")

    def parse_host_status(self, key: str) -> HostName | None:
        """Return the host whose heartbeat a key is; None if it is another key."""
        match key.removeprefix(self.hosts).split("/"):
            case [host, "status"] if key.startswith(self.hosts):
                return HostName(host)
            case _:
                return None
