"""Neutron's QoS: which rules this driver takes, and that ports follow their policy.

Rules that hosts do not enforce, minimum bandwidth and minimum packet rate, and limits
that the kernel cannot hold are refused by the API where they would concern a port.
"""

from typing import Any

from neutron_lib import constants
from neutron_lib.api.definitions import portbindings
from neutron_lib.services.qos import base
from neutron_lib.services.qos import constants as qos
from oslo_config import cfg

from calico.server import floating_qos, journal
from calico.server.driver_name import NAME
from calico.server.journal import Kind, Subject
from calico.server.publisher import Publisher
from calico.server.qos_rules import is_possible

EXTENSION = "qos"
"""ML2's extension driver that gives ports and networks a policy."""

_MOST_KBPS = 2**31 - 1  # a column of Neutron's database
_MOST_BURST = 34_359_738  # kbit: of Calico's model, and in octets a u32
_MOST_KPPS = 1_000_000
_MOST_PACKETS = 4_294_967  # thousands: a u32
SUPPORTED_RULES = {
    qos.RULE_TYPE_BANDWIDTH_LIMIT: {
        qos.MAX_KBPS: {"type:range": [1, _MOST_KBPS]},
        qos.MAX_BURST: {"type:range": [0, _MOST_BURST]},
        qos.DIRECTION: {"type:values": constants.VALID_DIRECTIONS},
    },
    qos.RULE_TYPE_PACKET_RATE_LIMIT: {
        qos.MAX_KPPS: {"type:range": [1, _MOST_KPPS]},
        qos.MAX_BURST_KPPS: {"type:range": [0, _MOST_PACKETS]},
        qos.DIRECTION: {"type:values": constants.VALID_DIRECTIONS},
    },
    qos.RULE_TYPE_DSCP_MARKING: {
        qos.DSCP_MARK: {"type:values": constants.VALID_DSCP_MARKS}
    },
}


class QosDriver(base.DriverBase):
    """Registers itself with the service plugin `qos`, where that is loaded."""

    def __init__(self, publisher: Publisher) -> None:
        super().__init__(
            name=NAME,
            vif_types=[portbindings.VIF_TYPE_TAP],
            vnic_types=[portbindings.VNIC_NORMAL],
            supported_rules=SUPPORTED_RULES,
            requires_rpc_notifications=False,
        )
        self._publisher = publisher

    @property
    def is_loaded(self) -> bool:
        """Tell whether ports have policies at all."""
        return EXTENSION in cfg.CONF.ml2.extension_drivers

    def validate_rule_for_port(self, context: Any, rule: Any, port: Any) -> bool:
        """Tell whether a rule can be enforced, its numbers together."""
        del context, port
        return _is_possible(rule)

    def validate_rule_for_network(self, context: Any, rule: Any, network: Any) -> bool:
        """Tell whether a rule can be enforced, its numbers together."""
        del context, network
        return _is_possible(rule)

    def update_policy_precommit(self, context: Any, policy: Any) -> None:
        """Journal a policy whose rules change, for all ports that it holds for.

        RuleNotSupported where a floating IP has it, which could not have these rules.
        """
        for floating in policy.get_bound_floatingips():
            floating_qos.refuse(policy.rules, floating)
        journal.mark(context, Subject(Kind.QOS_POLICY, policy.id))

    def update_policy(self, context: Any, policy: Any) -> None:
        """Have these ports published."""
        del context
        self._publisher.wake(Subject(Kind.QOS_POLICY, policy.id))


def _is_possible(rule: Any) -> bool:
    if rule.rule_type == qos.RULE_TYPE_DSCP_MARKING:
        return True
    return is_possible(rule.to_dict() | {"type": rule.rule_type})
