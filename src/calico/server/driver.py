"""The ML2 mechanism driver `calico`: binds ports and journals what changed.

It never talks to etcd: a precommit hook writes a journal row in the caller's
transaction, a postcommit hook wakes the publisher. So an API call neither waits for the
datastore (P22) nor fails with it (P20).
"""

from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa
from neutron.common import ipv6_utils
from neutron.db import models_v2, provisioning_blocks
from neutron_lib import constants
from neutron_lib.api.definitions import portbindings
from neutron_lib.callbacks import events, registry, resources
from neutron_lib.plugins.ml2 import api
from oslo_config import cfg
from oslo_log import log
from sqlalchemy import orm as sa_orm

from calico.model.ids import host_side_mac, parse_mac
from calico.server import (
    bindings,
    forwarding,
    guard,
    inventory,
    journal,
    l2_adjacency,
    options,
)
from calico.server.address_space import AddressSpace
from calico.server.agents import AGENT_TYPE
from calico.server.driver_name import NAME
from calico.server.journal import Kind, Subject
from calico.server.network_log import LogDriver
from calico.server.publisher import Publisher
from calico.server.qos import QosDriver
from calico.server.router_events import RouterEvents
from calico.server.translate import NETWORK_TYPES
from calico.server.worker import CalicoWorker

LOG = log.getLogger(__name__)


# Every update changes these.
_BOOKKEEPING = frozenset({"revision_number", "updated_at"})
# A router exists in the data model only: its ports have nothing to wait for.
_ROUTER_OWNERS = frozenset(
    {constants.DEVICE_OWNER_ROUTER_INTF, constants.DEVICE_OWNER_ROUTER_GW}
)
_TAP_MAC = "mac_address"  # Nova's VIF_DETAILS_TAP_MAC_ADDRESS
_NETWORK_NEWS = ("name", "mtu", "dns_domain", "qos_policy_id")


@registry.has_registry_receivers
class CalicoMechanismDriver(api.MechanismDriver):
    """Binds instance ports to hosts that run an agent."""

    def initialize(self) -> None:
        """Read the settings and begin to listen; no connection is made yet."""
        options.register(cfg.CONF)
        self._settings = options.read(cfg.CONF)
        self._publisher = Publisher(self._settings)
        self._qos = QosDriver(self._publisher)
        self._routers = RouterEvents(self._publisher)
        # What to wake once a group's deletion has been committed, by its id.
        self._going: dict[str, tuple[Subject, ...]] = {}
        journal.watch_address_groups(sa.event.listen)
        journal.watch_logs(sa.event.listen)
        bindings.watch(sa.event.listen, self._publisher.wake)
        forwarding.watch(sa.event.listen, self._publisher.wake)
        self._logging = LogDriver(self._publisher.wake)
        self._guard = guard.Guard(self._settings.allowed_pairs, sa.event.listen)
        self._space = AddressSpace(
            audit=self._settings.audit_overlaps,
            pools=set(cfg.CONF.ml2.type_drivers) <= NETWORK_TYPES,
            listen=sa.event.listen,
        )
        l2_adjacency.ensure_loaded(cfg.CONF)

    @property
    def connectivity(self) -> str:
        """Tell ML2 that ports are routed: one without an address is not bound."""
        return portbindings.CONNECTIVITY_L3

    def get_workers(self) -> tuple[Any, ...]:
        """Return the worker that `neutron-periodic-workers` runs for the driver."""
        return (CalicoWorker(self._settings),)

    @registry.receives(resources.PROCESS, [events.BEFORE_SPAWN])
    def _configure_mappers(self, *_event: Any, **_more: Any) -> None:
        # Neutron names relations of ports that exist only once all mappers are set up,
        # so a worker whose first query is a list of ports would fail. By now all
        # plugins have brought their tables.
        sa_orm.configure_mappers()

    # Ports

    def bind_port(self, context: Any) -> None:
        """Bind a port on the first segment of a type that this driver serves.

        Hosts without its agent are left to other drivers (P19).
        """
        port = context.current
        if reason := _refusal(port):
            LOG.warning("Port %s is not bound: %s", port["id"], reason)
            return
        # That there is one, not that it lives: its signs of life take an etcd that
        # answers, and an outage must not fail what needs nothing of it (P20).
        if not context.host_agents(AGENT_TYPE):
            reason = f"host {context.host} never ran a {AGENT_TYPE}"
            LOG.warning("Port %s is not bound: %s", port["id"], reason)
            return
        kinds = {s[api.NETWORK_TYPE] for s in context.network.network_segments}
        if not kinds <= NETWORK_TYPES:
            LOG.debug("Port %s: its network has a segment of another type", port["id"])
            return
        for segment in context.segments_to_bind:
            if segment[api.NETWORK_TYPE] in NETWORK_TYPES:
                context.set_binding(
                    segment[api.ID],
                    portbindings.VIF_TYPE_TAP,
                    _vif_details(port),
                    status=constants.PORT_STATUS_BUILD,
                )
                return
        LOG.debug("Port %s: no segment of a type that is served", port["id"])

    def create_port_precommit(self, context: Any) -> None:
        """Make router ports ACTIVE; others are news once they are bound."""
        self._guard.port(context)
        guard.mark_port(context)
        _activate_router_port(context)

    def update_port_precommit(self, context: Any) -> None:
        """Journal a port that is or was bound here; block its status when it is new."""
        self._guard.port(context)
        guard.mark_port(context)
        _activate_router_port(context)
        ours = _is_ours(context.binding_levels)
        was_ours = _is_ours(context.original_binding_levels)
        if not (ours or was_ours) or not _is_news(context.original, context.current):
            return
        journal.mark(context.plugin_context, *_port_subjects(context))
        if ours and not was_ours:
            _block_status(context)

    def update_port_postcommit(self, context: Any) -> None:
        """Have the port published, if its journal says so."""
        subjects = [Subject(Kind.PORT, context.current["id"])]
        if _is_news(context.original, context.current):
            subjects = _port_subjects(context)
        self._publisher.wake(*subjects)

    def delete_port_precommit(self, context: Any) -> None:
        """Journal a port that was bound here."""
        guard.mark_port(context)
        if _is_ours(context.binding_levels):
            subject = Subject(Kind.PORT, context.current["id"])
            journal.mark(context.plugin_context, subject)

    def delete_port_postcommit(self, context: Any) -> None:
        """Have the port withdrawn."""
        self._publisher.wake(Subject(Kind.PORT, context.current["id"]))

    # Subnets and networks

    def create_subnet_precommit(self, context: Any) -> None:
        """Journal a new subnet, where there is space for it."""
        self._space.subnet(context)
        guard.mark_subnet(context)
        journal.mark(context.plugin_context, *_subnet_subjects(context))

    def update_subnet_precommit(self, context: Any) -> None:
        """Journal a subnet; with its network's ports where they name its gateway."""
        self._space.subnet(context)
        guard.mark_subnet(context)
        journal.mark(context.plugin_context, *_subnet_subjects(context))

    def delete_subnet_precommit(self, context: Any) -> None:
        """Journal a subnet that goes."""
        guard.mark_subnet(context)
        journal.mark(context.plugin_context, *_subnet_subjects(context))

    def create_subnet_postcommit(self, context: Any) -> None:
        """Have the subnet published."""
        self._publisher.wake(*_subnet_subjects(context))

    def update_subnet_postcommit(self, context: Any) -> None:
        """Have the subnet published as it is now."""
        self._publisher.wake(*_subnet_subjects(context))

    def delete_subnet_postcommit(self, context: Any) -> None:
        """Have the subnet withdrawn."""
        self._publisher.wake(*_subnet_subjects(context))

    def update_network_precommit(self, context: Any) -> None:
        """Journal a network whose ports and subnets carry what changed (P18)."""
        journal.mark(context.plugin_context, *_network_subjects(context))

    def update_network_postcommit(self, context: Any) -> None:
        """Have its ports and subnets published anew."""
        self._publisher.wake(*_network_subjects(context))

    # Security groups: Neutron has no mechanism driver hooks for them.

    @registry.receives(resources.SECURITY_GROUP, [events.PRECOMMIT_CREATE])
    def _group_appears(self, *_event: Any, payload: Any) -> None:
        journal.mark(payload.context, Subject(Kind.GROUP, payload.resource_id))

    @registry.receives(resources.SECURITY_GROUP, [events.PRECOMMIT_DELETE])
    def _group_goes(self, *_event: Any, payload: Any) -> None:
        # The database deletes other groups' rules that name it, and nobody is told.
        group = payload.resource_id
        groups = {group, *inventory.groups_naming(payload.context, group)}
        self._going[group] = tuple(Subject(Kind.GROUP, one) for one in sorted(groups))
        journal.mark(payload.context, *self._going[group])

    @registry.receives(resources.SECURITY_GROUP, [events.PRECOMMIT_UPDATE])
    def _group_changes(self, *_event: Any, payload: Any) -> None:
        journal.mark(
            payload.context,
            *_group_subjects(
                payload.resource_id, payload.states[0], payload.desired_state
            ),
        )

    @registry.receives(resources.SECURITY_GROUP_RULE, [events.PRECOMMIT_CREATE])
    def _rule_appears(self, *_event: Any, payload: Any) -> None:
        group = payload.states[0]["security_group_id"]
        journal.mark(payload.context, Subject(Kind.GROUP, group))

    @registry.receives(resources.SECURITY_GROUP_RULE, [events.PRECOMMIT_DELETE])
    def _rule_goes(self, *_event: Any, payload: Any) -> None:
        group = payload.metadata["security_group_id"]
        journal.mark(payload.context, Subject(Kind.GROUP, group))

    @registry.receives(resources.SECURITY_GROUP, [events.AFTER_CREATE])
    def _group_committed(self, *_event: Any, payload: Any) -> None:
        self._publisher.wake(Subject(Kind.GROUP, payload.resource_id))

    @registry.receives(resources.SECURITY_GROUP, [events.AFTER_DELETE])
    def _group_gone(self, *_event: Any, payload: Any) -> None:
        self._publisher.wake(*self._going.pop(payload.resource_id, ()))

    @registry.receives(resources.SECURITY_GROUP, [events.AFTER_UPDATE])
    def _group_changed(self, *_event: Any, payload: Any) -> None:
        self._publisher.wake(*_group_subjects(payload.resource_id, *payload.states))

    @registry.receives(
        resources.SECURITY_GROUP_RULE, [events.AFTER_CREATE, events.AFTER_DELETE]
    )
    def _rule_committed(self, *_event: Any, payload: Any) -> None:
        group = (payload.states[0] if payload.states else payload.metadata)[
            "security_group_id"
        ]
        self._publisher.wake(Subject(Kind.GROUP, group))

    @registry.receives(
        resources.ADDRESS_GROUP,
        [events.AFTER_CREATE, events.AFTER_UPDATE, events.AFTER_DELETE],
    )
    def _address_group_committed(self, *_event: Any, payload: Any) -> None:
        self._publisher.wake(Subject(Kind.ADDRESS_GROUP, payload.resource_id))


def _refusal(port: Mapping[str, Any]) -> str | None:
    """Return why a port cannot be bound, or None."""
    vnic_type = port.get(portbindings.VNIC_TYPE, portbindings.VNIC_NORMAL)
    if vnic_type != portbindings.VNIC_NORMAL:
        return f"VNIC type {vnic_type} is not supported, only normal is"
    if port["device_owner"].startswith(constants.DEVICE_OWNER_NETWORK_PREFIX):
        return f"{port['device_owner']} ports are not served by hosts"
    return None


def _vif_details(port: Mapping[str, Any]) -> dict[str, Any]:
    return {
        portbindings.CAP_PORT_FILTER: True,
        portbindings.VIF_DETAILS_CONNECTIVITY: portbindings.CONNECTIVITY_L3,
        # Nova gives it to the host's end of the tap: the same on every host (P37).
        _TAP_MAC: host_side_mac(parse_mac(port["mac_address"])),
    }


def _is_ours(levels: Any) -> bool:
    return any(level[api.BOUND_DRIVER] == NAME for level in levels or ())


def _port_subjects(context: Any) -> list[Subject]:
    """Return a port, and those that may have to do what it does for them."""
    port = context.current["id"]
    others = forwarding.companions(context.plugin_context, port)
    return [Subject(Kind.PORT, port), *others]


def _is_news(old: Mapping[str, Any], new: Mapping[str, Any]) -> bool:
    """Tell whether an update may concern a host: all but a change of status alone.

    One that changes nothing does. Neutron gives ports the addresses of a new subnet
    (SLAAC) first, commits them, and only then updates each port, with nothing.
    """
    changed = {name for name in new if old.get(name) != new.get(name)}
    return changed - _BOOKKEEPING != {"status"}


def _block_status(context: Any) -> None:
    """Keep a port from becoming ACTIVE until its host reports the data path (S20)."""
    provisioning_blocks.add_provisioning_component(
        context.plugin_context,
        context.current["id"],
        resources.PORT,
        provisioning_blocks.L2_AGENT_ENTITY,
    )


def _activate_router_port(context: Any) -> None:
    port = context.current
    if port["device_owner"] not in _ROUTER_OWNERS or context.host:
        return
    segments = context.network.network_segments
    if any(segment[api.NETWORK_TYPE] not in NETWORK_TYPES for segment in segments):
        return
    row = context.plugin_context.session.get(models_v2.Port, port["id"])
    row.status = port["status"] = constants.PORT_STATUS_ACTIVE


def _subnet_subjects(context: Any) -> tuple[Subject, ...]:
    subnet, old = context.current, context.original
    subjects: tuple[Subject, ...] = (Subject(Kind.SUBNET, subnet["id"]),)
    if _changes_ports(old, subnet):
        subjects += (Subject(Kind.NETWORK, subnet["network_id"]),)
    return subjects


def _changes_ports(old: Mapping[str, Any] | None, new: Mapping[str, Any]) -> bool:
    """Tell whether a subnet's ports change with it; `old` is None but for an update."""
    if old:
        return bool(old["gateway_ip"] != new["gateway_ip"])  # endpoints name theirs
    # Such a subnet gives all ports of its network an address when it comes, and takes
    # it when it goes, which no driver is told.
    return bool(ipv6_utils.is_auto_address_subnet(new))


def _network_subjects(context: Any) -> tuple[Subject, ...]:
    network, old = context.current, context.original
    if all(old.get(name) == network.get(name) for name in _NETWORK_NEWS):
        return ()
    return (Subject(Kind.NETWORK, network["id"]),)


def _group_subjects(
    group: str, old: Mapping[str, Any], new: Mapping[str, Any]
) -> tuple[Subject, ...]:
    subjects: tuple[Subject, ...] = (Subject(Kind.GROUP, group),)
    if old["name"] != new["name"]:
        # Endpoints carry the names of their groups as labels (P18).
        subjects += (Subject(Kind.GROUP_PORTS, group),)
    return subjects
