"""Refuses at the API what the driver cannot or must not do, before it is stored.

What is not refused here is left out at publication and logged, where no tenant sees it.
An object that was stored earlier is never in the way: only what a call adds is looked
at, so that a port with a pair that lost its ground can still be bound and moved.
"""

from collections.abc import Callable, Mapping
from ipaddress import ip_address
from typing import Any, TypeVar

import sqlalchemy as sa
from neutron.db.models.address_group import AddressAssociation
from neutron.db.models.securitygroup_default_rules import SecurityGroupDefaultRule
from neutron_lib import constants, exceptions
from neutron_lib.callbacks import events, registry, resources
from neutron_lib.plugins.ml2 import api

from calico.model.ids import Address, Invalid, Prefix, ProjectId
from calico.policy.ownership import Allowed, Claim, explain, grants, objection
from calico.server import grounds, journal, translate
from calico.server.inventory import RULE_COLUMNS
from calico.server.translate import NETWORK_TYPES

# One address group is one key of etcd, whose limit is 1.5 MiB: an IPv6 prefix takes 46
# bytes of it at most.
LARGEST_ADDRESS_GROUP = 30_000


_T = TypeVar("_T")


class Refused(exceptions.BadRequest):
    """What cannot be expressed: the call is answered with 400."""

    message = "%(what)s cannot be enforced: %(reason)s."


class PairRefused(exceptions.Conflict):
    """A pair that is not the project's to have: 409."""

    message = "Port %(port)s: allowed address pair %(pair)s is refused: %(reason)s."


class Excused(exceptions.Conflict):
    """A port whose former owner lifted its port security (P53): 409."""

    message = (
        "Port %(port)s has no port security because its device owner was %(owner)s: "
        "set port_security_enabled to True with the new one."
    )


class AddressGroupFull(exceptions.Conflict):
    """An address group that would not fit into one key of etcd: 409."""

    message = (
        "Address group %(group)s: %(address)s is refused: a group has at most "
        "%(limit)d addresses."
    )


@registry.has_registry_receivers
class Guard:
    """Listens to Neutron for what is being added. Ports come from the driver's hooks.

    Exceptions end the transaction of the call, so that nothing of it is stored.
    """

    def __init__(
        self, allowed: tuple[Allowed, ...], listen: Callable[..., Any]
    ) -> None:
        """Take what the operator allows, and `sqlalchemy.event.listen`."""
        self._allowed = allowed
        # Neutron announces neither of these before it has stored it.
        listen(SecurityGroupDefaultRule, "before_insert", _check_template)
        listen(AddressAssociation, "before_insert", _check_size)

    @registry.receives(resources.SECURITY_GROUP_RULE, [events.BEFORE_CREATE])
    def _rule(self, *_event: Any, payload: Any) -> None:
        check_rule(payload.states[0])

    def port(self, context: Any) -> None:
        """Refuse what a port that is created or updated adds; in its transaction."""
        port, old = context.current, context.original or {}
        if _is_excused(port, old) and _is_served(context.network):
            raise Excused(port=_name(port), owner=old["device_owner"])
        options = _added(port, old, "extra_dhcp_opts")
        pairs = _added(port, old, "allowed_address_pairs")
        if not (options or pairs) or not _is_served(context.network):
            return
        for option in options:
            what = f"Port {port['id']}: extra DHCP option {option['opt_name']!r}"
            _check(what, translate.dhcp_option, option)
        what = f"Port {port['id']}: allowed address pair"
        prefixes = [_check(what, translate.pair, pair).prefix for pair in pairs]
        self._check_pairs(context.plugin_context, port, prefixes)

    def _check_pairs(
        self, context: Any, port: Mapping[str, Any], prefixes: list[Prefix]
    ) -> None:
        project = ProjectId(port["project_id"] or "")
        found = grounds.read(context.session, [project], prefixes, self._allowed)
        # The port's own addresses are among those of its project's ports.
        claim = Claim(project=project, granted=grants(prefixes, project, found))
        for prefix in prefixes:
            if reason := objection(prefix, claim, found.space):
                seen = None if context.is_admin else ProjectId(context.project_id or "")
                subnets = grounds.overlapping(context.session, prefix)
                text = explain(reason, prefix, subnets, seen)
                raise PairRefused(port=_name(port), pair=prefix, reason=text)


def mark_port(context: Any) -> None:
    """Have ports published again whose pairs rest on an address that comes or goes.

    For a port that is being deleted too: what it has then counts as changed.
    """
    port, old = context.current, context.original or {}
    changed = _addresses(port) ^ _addresses(old)
    if changed and _is_served(context.network):
        session = context.plugin_context.session
        journal.mark(
            context.plugin_context,
            *grounds.resting_on_addresses(session, port["project_id"], changed),
        )


def mark_subnet(context: Any) -> None:
    """Have ports published again whose pairs rest on a subnet, or are its gateway."""
    subnet, old = context.current, context.original or {}
    gateways = {subnet["gateway_ip"], old.get("gateway_ip")}
    if (old and len(gateways) == 1) or not _is_served(context.network):
        return
    session = context.plugin_context.session
    journal.mark(
        context.plugin_context,
        *grounds.resting_on_subnet(
            session, subnet["project_id"], subnet["cidr"], gateways
        ),
    )


def _is_served(network: Any) -> bool:
    kinds = {segment[api.NETWORK_TYPE] for segment in network.network_segments}
    return kinds <= NETWORK_TYPES


def _is_excused(port: Mapping[str, Any], old: Mapping[str, Any]) -> bool:
    """Tell whether a port would be an instance's, and open because it was none.

    Neutron creates ports of network:... owners without port security, and leaves it so
    when the owner changes. Hosts serve no port as long as it has such an owner.
    """
    prefix = constants.DEVICE_OWNER_NETWORK_PREFIX
    was, is_now = old.get("device_owner") or "", port["device_owner"] or ""
    return (
        was.startswith(prefix)
        and not is_now.startswith(prefix)
        and not port.get("port_security_enabled", True)
    )


def _added(
    port: Mapping[str, Any], old: Mapping[str, Any], name: str
) -> list[Mapping[str, Any]]:
    before = old.get(name) or ()
    return [one for one in port.get(name) or () if one not in before]


def _addresses(port: Mapping[str, Any]) -> frozenset[Address]:
    return frozenset(ip_address(ip["ip_address"]) for ip in port.get("fixed_ips") or ())


def _name(port: Mapping[str, Any]) -> str:
    return f"{port['id']} ({port['name']})" if port.get("name") else str(port["id"])


def _check(
    what: str, parse: Callable[[Mapping[str, Any]], _T], written: Mapping[str, Any]
) -> _T:
    try:
        return parse(written)
    except Invalid as e:
        raise Refused(what=what, reason=str(e)) from e


def check_rule(written: Mapping[str, Any]) -> None:
    """Refuse a security group rule that would be left out (P1)."""
    rule = {**dict.fromkeys(RULE_COLUMNS), **written}
    first, last = rule["port_range_min"], rule["port_range_max"]
    words = [rule["direction"], rule["ethertype"], rule["protocol"] or "any protocol"]
    if first is not None or last is not None:
        words.append(f"{first}:{last}")
    text = " ".join(map(str, words))
    _check(f"Security group rule ({text})", translate.rule, rule)


def _check_template(_mapper: Any, _connection: Any, row: Any) -> None:
    """Refuse a rule that would be in every new group."""
    check_rule({name: getattr(row, name) for name in RULE_COLUMNS})


def _check_size(_mapper: Any, connection: Any, row: Any) -> None:
    """Refuse one address more than fit. Neutron stores those of a call one by one."""
    group = AddressAssociation.address_group_id
    query = sa.select(sa.func.count()).where(group == row.address_group_id)
    if connection.scalar(query) >= LARGEST_ADDRESS_GROUP:
        raise AddressGroupFull(
            group=row.address_group_id,
            address=row.address,
            limit=LARGEST_ADDRESS_GROUP,
        )
