"""What Neutron says of routers and floating IPs, journalled for the ports concerned.

A floating IP is a part of its port's endpoint, so each change of one is news of a port,
or of two where it moves. The rows are written in the transaction of the change.
"""

from collections.abc import Iterable
from typing import Any

import sqlalchemy as sa
from neutron.db import models_v2
from neutron.db.models import l3 as l3_models
from neutron_lib import constants, exceptions
from neutron_lib.callbacks import events, registry, resources

from calico.server import floating, floating_qos, inventory, journal
from calico.server.journal import Kind, Subject
from calico.server.publisher import Publisher

_ASSOCIATION = ("port_id", "fixed_ip_address", "router_id")


class NotRouted(exceptions.Conflict):
    """A router, or its floating IP, for another driver's network: 409."""

    message = (
        "Router %(router)s cannot serve network %(network)s, which is of another "
        "type than local and flat: Calico does not route it."
    )


@registry.has_registry_receivers
class RouterEvents:
    """Listens to Neutron, where `calico-router` is its plugin for routers."""

    def __init__(self, publisher: Publisher) -> None:
        """Take what is to be woken when a change has been committed."""
        self._publisher = publisher

    @registry.receives(resources.ROUTER_INTERFACE, [events.BEFORE_CREATE])
    @registry.receives(resources.ROUTER_GATEWAY, [events.BEFORE_CREATE])
    def _attached(self, *_event: Any, payload: Any) -> None:
        network = payload.metadata["network_id"]
        if floating.are_served() and not inventory.is_ours(payload.context, network):
            raise NotRouted(router=payload.resource_id, network=network)

    @registry.receives(resources.FLOATING_IP, [events.PRECOMMIT_CREATE])
    def _appears(self, *_event: Any, payload: Any) -> None:
        _refuse_unrouted(payload.context, payload.desired_state)
        _mark(payload.context, [payload.desired_state.fixed_port_id])
        _refuse_policy(payload.context, payload.desired_state.id)

    @registry.receives(resources.FLOATING_IP, [events.PRECOMMIT_UPDATE])
    def _changes(self, *_event: Any, payload: Any) -> None:
        old, new = payload.states[0], payload.desired_state
        after = (new.fixed_port_id, _text(new.fixed_ip_address), new.router_id)
        moves = after != tuple(old[name] for name in _ASSOCIATION)
        policy = floating_qos.own_policy(payload.context, new.id)
        if not moves and policy == old.get("qos_policy_id"):
            return
        _refuse_policy(payload.context, new.id)
        _refuse_unrouted(payload.context, new)
        _mark(payload.context, [old["port_id"], new.fixed_port_id])
        if new.fixed_port_id is None and floating.are_served():
            # Neutron leaves the status alone when a port goes (P9).
            row = payload.context.session.get(l3_models.FloatingIP, new.id)
            row.status = constants.FLOATINGIP_STATUS_DOWN

    @registry.receives(resources.FLOATING_IP, [events.PRECOMMIT_DELETE])
    def _goes(self, *_event: Any, payload: Any) -> None:
        # What Neutron deletes is the floating IP's own port; its row follows (P8).
        row = l3_models.FloatingIP
        query = sa.select(row.fixed_port_id).where(
            row.floating_port_id == payload.resource_id
        )
        _mark(payload.context, payload.context.session.scalars(query))

    @registry.receives(
        resources.FLOATING_IP,
        [events.AFTER_CREATE, events.AFTER_UPDATE, events.AFTER_DELETE],
    )
    def _committed(self, *_event: Any, payload: Any) -> None:
        self._publisher.wake(*_subjects(state["port_id"] for state in payload.states))

    @registry.receives(resources.ROUTER, [events.PRECOMMIT_UPDATE])
    def _router_changes(self, *_event: Any, payload: Any) -> None:
        was, is_now = payload.states[0], payload.desired_state
        if floating.are_served() and was["admin_state_up"] != is_now.admin_state_up:
            journal.mark(
                payload.context,
                *floating.ports_of_router(payload.context, payload.resource_id),
            )

    @registry.receives(resources.ROUTER, [events.AFTER_UPDATE])
    def _router_changed(self, *_event: Any, payload: Any) -> None:
        was, is_now = payload.states
        if floating.are_served() and was["admin_state_up"] != is_now["admin_state_up"]:
            self._publisher.wake(
                *floating.ports_of_router(
                    payload.context.elevated(), payload.resource_id
                )
            )


def _refuse_unrouted(context: Any, floating_ip: Any) -> None:
    """Refuse a floating IP for a port of another driver's network.

    A router that is named in the call need not be attached to the port's network.
    """
    port = floating_ip.fixed_port_id
    if not port or not floating.are_served():
        return
    row = models_v2.Port
    network = context.session.scalar(sa.select(row.network_id).where(row.id == port))
    if not inventory.is_ours(context, network):
        raise NotRouted(router=floating_ip.router_id, network=network)


def _text(address: Any) -> str | None:
    return str(address) if address else None


def _refuse_policy(context: Any, floating_id: str) -> None:
    """Raise where a floating IP has a policy that hosts would not enforce for it."""
    policy = floating_qos.own_policy(context, floating_id)
    if policy and floating.are_served():
        floating_qos.refuse_policy(context, policy, floating_id)


def _mark(context: Any, ports: Iterable[str | None]) -> None:
    if floating.are_served():
        journal.mark(context, *_subjects(ports))


def _subjects(ports: Iterable[str | None]) -> list[Subject]:
    return [Subject(Kind.PORT, port) for port in sorted({p for p in ports if p})]
