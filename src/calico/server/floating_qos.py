"""QoS policies of floating IPs: whose they are, and which rules they may have.

Hosts limit what goes by a floating IP in bandwidth, as Neutron's own routers do. Any
other rule in a policy of its own is refused. Its external network's policy holds for
one that has none; of that, other rules are for the network's ports.
"""

from collections.abc import Iterable
from typing import Any

import sqlalchemy as sa
from neutron.db.models import l3 as l3_models
from neutron.db.models.port_forwarding import PortForwarding
from neutron.db.qos import models as qos_models
from neutron.objects.qos import policy as qos_objects
from neutron_lib import exceptions
from neutron_lib.services.qos import constants as qos
from oslo_config import cfg

from calico.server.qos_rules import is_possible

_SERVICE = {"qos", "neutron.services.qos.qos_plugin.QoSPlugin"}

Row = l3_models.FloatingIP
Own = qos_models.QosFIPPolicyBinding
Networks = qos_models.QosNetworkPolicyBinding


class RuleNotSupported(exceptions.Conflict):
    """A rule that no host enforces for a floating IP: 409."""

    message = (
        "Rule %(rule_type)s is not supported by floating IP %(floating)s: hosts limit "
        "its bandwidth, and nothing else."
    )


class PortsForwarded(exceptions.Conflict):
    """A policy of a floating IP that forwards single ports: 409."""

    message = (
        "Floating IP %(floating)s: one that forwards single ports cannot have a QoS "
        "policy, since hosts do not limit what they forward."
    )


def is_loaded() -> bool:
    """Tell whether Neutron has policies at all."""
    return not _SERVICE.isdisjoint(cfg.CONF.service_plugins)


def own_policy(context: Any, floating: str) -> str | None:
    """Return a floating IP's own policy, as the caller's transaction has it."""
    query = sa.select(Own.policy_id).where(Own.fip_id == floating)
    found: str | None = context.session.scalar(query)
    return found


def refuse_policy(context: Any, policy: str, floating: str) -> None:
    """Raise RuleNotSupported for a policy that a floating IP cannot have.

    PortsForwarded for one that can have none.
    """
    forwards = sa.select(sa.exists().where(PortForwarding.floatingip_id == floating))
    if context.session.scalar(forwards):
        raise PortsForwarded(floating=floating)
    found = qos_objects.QosPolicy.get_object(context.elevated(), id=policy)
    refuse(found.rules if found else (), floating)


def refuse(rules: Iterable[Any], floating: str) -> None:
    """Raise RuleNotSupported for rules that a floating IP cannot have."""
    for rule in rules:
        words = rule.to_dict() | {"type": rule.rule_type}
        is_bandwidth = rule.rule_type == qos.RULE_TYPE_BANDWIDTH_LIMIT
        if not (is_bandwidth and is_possible(words)):
            raise RuleNotSupported(rule_type=rule.rule_type, floating=floating)


def ports_with(policy: str) -> Any:
    """Return the query of ports with floating IPs that a policy may hold for."""
    mine = sa.select(Own.fip_id).where(Own.policy_id == policy)
    networks = sa.select(Networks.network_id).where(Networks.policy_id == policy)
    concerned = Row.id.in_(mine) | Row.floating_network_id.in_(networks)
    return _ports(concerned)


def ports_by(network: str) -> Any:
    """Return the query of ports with floating IPs of an external network."""
    return _ports(Row.floating_network_id == network)


def _ports(condition: Any) -> Any:
    return sa.select(Row.fixed_port_id).where(Row.fixed_port_id.is_not(None), condition)
