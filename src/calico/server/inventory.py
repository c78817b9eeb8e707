"""What Neutron has now: its database read again, turned into records.

The only module that queries Neutron's resources for publication. Reads are batched: a
hundred ports cost as many queries as one.
"""

from collections.abc import Collection, Iterable, Mapping
from itertools import chain
from typing import Any

import sqlalchemy as sa
from neutron.db import models_v2
from neutron.db.models import address_group as address_group_models
from neutron.db.models import loggingapi as log_models
from neutron.db.models import securitygroup as group_models
from neutron.db.models import segment as segment_models
from neutron.db.qos import models as qos_models
from neutron.objects import address_group as address_group_objects
from neutron.objects import securitygroup as group_objects
from neutron.objects.logapi import logging_resource as log_objects
from neutron.objects.qos import policy as qos_objects
from neutron.plugins.ml2 import models as ml2_models
from neutron_lib import context as neutron_context
from neutron_lib.db import api as db_api
from neutron_lib.plugins import directory
from neutron_lib.services.logapi import constants as log_const
from oslo_config import cfg
from oslo_log import log

from calico.model.ids import Invalid
from calico.model.logs import Log
from calico.model.records import AddressGroup, Endpoint, Policy, Subnet
from calico.policy.ownership import Grounds
from calico.server import (
    bindings,
    floating,
    floating_qos,
    forwarding,
    grounds,
    options,
    translate,
)
from calico.server.driver_name import NAME
from calico.server.journal import Kind, Subject
from calico.server.placement import endpoints as placed
from calico.server.qos_rules import policy_of
from calico.server.translate import Omitted, Surroundings

LOG = log.getLogger(__name__)


def admin() -> Any:
    """Return a fresh context that sees all projects; a session is never shared."""
    return neutron_context.get_admin_context()


def endpoints(ids: Collection[str]) -> dict[str, tuple[Endpoint, ...]]:
    """Return the endpoints of those ports that a host is to serve, by port id.

    The first of a port's is that of the host that it is bound to, others are those of
    the hosts that its instance comes from or goes to.
    """
    context, plugin = admin(), directory.get_plugin()
    ports = plugin.get_ports(context, filters={"id": list(ids)})
    placements = bindings.read(context, ids)
    served = [
        port
        for port in ports
        if (placement := placements.get(port["id"]))
        and placement.served
        and translate.is_published(port)
    ]
    around = _surroundings(context, plugin, served)
    found = {}
    for port in served:
        try:
            active, omitted = translate.endpoint(port, around)
        except Invalid as e:
            LOG.error("Port %s is not published: %s", port["id"], e)  # noqa: TRY400 - the reason says it all
        else:
            found[port["id"]] = placed(active, placements[port["id"]])
            _report(f"Port {port['id']}", omitted)
    return found


def _surroundings(context: Any, plugin: Any, ports: Iterable[Any]) -> Surroundings:
    ids = {port["id"] for port in ports}
    subnets = {ip["subnet_id"] for port in ports for ip in port["fixed_ips"]}
    networks = {port["network_id"] for port in ports}
    groups = {group for port in ports for group in port["security_groups"]}
    model = group_models.SecurityGroup
    names = sa.select(model.id, model.name).where(model.id.in_(groups))
    with db_api.CONTEXT_READER.using(context):
        group_names = {row.id: row.name for row in context.session.execute(names)}
    floats = floating.of_ports(context, ids)
    limited = [*ports]
    if floating_qos.is_loaded():
        limited += chain.from_iterable(floats.values())
    return Surroundings(
        subnets=_by_id(plugin.get_subnets(context, filters={"id": list(subnets)})),
        networks=_by_id(plugin.get_networks(context, filters={"id": list(networks)})),
        group_names=group_names,
        grounds=_grounds(context, ports),
        floating=floats,
        forwardings=forwarding.of_ports(context, ids),
        qos_rules=_qos_rules(context, filter(None, map(policy_of, limited))),
    )


def _qos_rules(context: Any, policies: Iterable[str]) -> dict[str, list[Any]]:
    """Return the rules of policies, as the API gives them."""
    wanted = set(policies)
    if not wanted:
        return {}
    found = qos_objects.QosPolicy.get_objects(context, id=list(wanted))
    return {policy.id: [rule.to_dict() for rule in policy.rules] for policy in found}


def _grounds(context: Any, ports: Iterable[Any]) -> Grounds:
    paired = [port for port in ports if port.get("allowed_address_pairs")]
    prefixes = {prefix for port in paired for prefix in translate.pair_prefixes(port)}
    allowed = options.read(cfg.CONF).allowed_pairs
    with db_api.CONTEXT_READER.using(context):
        return grounds.read(
            context.session, {port["project_id"] for port in paired}, prefixes, allowed
        )


def _by_id(resources: Iterable[Mapping[str, Any]]) -> dict[str, Mapping[str, Any]]:
    return {resource["id"]: resource for resource in resources}


def subnet(subnet_id: str) -> Subnet | None:
    """Return a subnet of a network of ours; None if there is none of that id."""
    context, plugin = admin(), directory.get_plugin()
    found = plugin.get_subnets(context, filters={"id": [subnet_id]})
    if not found:
        return None
    network_id = found[0]["network_id"]
    networks = plugin.get_networks(context, filters={"id": [network_id]})
    if not networks or not is_ours(context, network_id):
        return None
    return translate.subnet(found[0], networks[0])


def is_ours(context: Any, network_id: str) -> bool:
    """Tell whether a network is of a type that is served."""
    model = segment_models.NetworkSegment
    query = sa.select(model.network_type).where(model.network_id == network_id)
    with db_api.CONTEXT_READER.using(context):
        return set(context.session.scalars(query)) <= translate.NETWORK_TYPES


def policy(group_id: str) -> Policy | None:
    """Return a security group's policy; None if there is no such group."""
    context = admin()
    group = group_objects.SecurityGroup.get_object(context, id=group_id)
    if group is None:
        return None
    rules = group_objects.SecurityGroupRule.get_objects(
        context, security_group_id=group_id
    )
    found, omitted = translate.policy(
        {
            "id": group.id,
            "name": group.name,
            "stateful": group.stateful,
            "created_at": group.created_at,
            "security_group_rules": [_rule(rule.db_obj) for rule in rules],
        }
    )
    _report(f"Security group {group_id}", omitted)
    return found


def groups_naming(context: Any, group_id: str) -> list[str]:
    """Return the groups with rules whose remote end is a group, in a transaction."""
    rule = group_models.SecurityGroupRule
    query = sa.select(rule.security_group_id).where(rule.remote_group_id == group_id)
    return list(context.session.scalars(query.distinct()))


RULE_COLUMNS = (
    "id",
    "direction",
    "ethertype",
    "protocol",
    "port_range_min",
    "port_range_max",
    "remote_ip_prefix",
    "remote_group_id",
    "remote_address_group_id",
)


def _rule(row: Any) -> dict[str, Any]:
    return {name: getattr(row, name) for name in RULE_COLUMNS}


def address_group(group_id: str) -> AddressGroup | None:
    """Return an address group; None if there is none of that id."""
    group = address_group_objects.AddressGroup.get_object(admin(), id=group_id)
    if group is None:
        return None
    return translate.address_group(
        {
            "id": group.id,
            "name": group.name,
            "addresses": [entry.address for entry in group.addresses],
            "created_at": group.created_at,
        }
    )


def network_log(log_id: str) -> Log | None:
    """Return an enabled log of security groups; None if there is none of that id."""
    found = log_objects.Log.get_object(admin(), id=log_id)
    if found is None or not found.enabled:
        return None
    if found.resource_type != log_const.SECURITY_GROUP:  # another driver's
        return None
    return translate.log(
        {
            "id": found.id,
            "project_id": found.project_id,
            "resource_id": found.resource_id,
            "target_id": found.target_id,
            "event": found.event,
            "name": found.name,
        }
    )


def ids(kind: Kind) -> set[str]:
    """Return the ids of all that may have to be published of a kind."""
    match kind:
        case Kind.PORT:
            level = ml2_models.PortBindingLevel
            column, of_ours = level.port_id, level.driver == NAME
        case Kind.SUBNET:
            column, of_ours = models_v2.Subnet.id, sa.true()
        case Kind.GROUP:
            column, of_ours = group_models.SecurityGroup.id, sa.true()
        case Kind.ADDRESS_GROUP:
            column, of_ours = address_group_models.AddressGroup.id, sa.true()
        case Kind.LOG:
            column, of_ours = log_models.Log.id, sa.true()
        case _:
            raise AssertionError(f"{kind} stands for others")
    context = admin()
    with db_api.CONTEXT_READER.using(context):
        return set(context.session.scalars(sa.select(column).where(of_ours)))


def expand(subject: Subject) -> list[Subject]:
    """Return the objects that a subject which stands for many stands for."""
    port = models_v2.Port
    if subject.kind is Kind.NETWORK:
        subnet_row = models_v2.Subnet
        subnets = sa.select(subnet_row.id).where(subnet_row.network_id == subject.id)
        ports = sa.select(port.id).where(port.network_id == subject.id)
        concerned = ports.union(floating_qos.ports_by(subject.id))
        return _subjects(Kind.SUBNET, subnets) + _subjects(Kind.PORT, concerned)
    if subject.kind is Kind.QOS_POLICY:
        query = _ports_with(subject.id).union(floating_qos.ports_with(subject.id))
        return _subjects(Kind.PORT, query)
    binding = group_models.SecurityGroupPortBinding
    return _subjects(
        Kind.PORT,
        sa.select(binding.port_id).where(binding.security_group_id == subject.id),
    )


def _ports_with(policy: str) -> Any:
    """Return the query of ports that have a policy, or whose network has it."""
    port = models_v2.Port
    own, networks = qos_models.QosPortPolicyBinding, qos_models.QosNetworkPolicyBinding
    mine = sa.select(own.port_id).where(own.policy_id == policy)
    shared = sa.select(networks.network_id).where(networks.policy_id == policy)
    return sa.select(port.id).where(port.id.in_(mine) | port.network_id.in_(shared))


def _subjects(kind: Kind, query: Any) -> list[Subject]:
    context = admin()
    with db_api.CONTEXT_READER.using(context):
        return [Subject(kind, found) for found in context.session.scalars(query)]


def _report(subject: str, omitted: Iterable[Omitted]) -> None:
    for one in omitted:
        LOG.error("%s: %s", subject, one)
