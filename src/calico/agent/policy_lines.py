"""What a packet that a rule logged means: the fields of a line in the policy log.

The rule's prefix says which rule it was: `group/in/drop` is of security groups (Neutron
decides which of its logs wanted that), `policy/NAME/in` of an operator's policy.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from calico.model.ids import InterfaceName, LogId, PortId, ProjectId
from calico.model.logs import Event
from calico.model.policy_codec import PROTOCOLS
from calico.model.world import World
from calico.policy.logged import logs_of
from calico.system.headers import read_headers
from calico.system.nflog import LoggedPacket

Fields = dict[str, object]
"""A line: what is known of one packet, by name."""

_DIRECTIONS = {"in": "ingress", "out": "egress"}
_NAMES = {number: name.lower() for name, number in PROTOCOLS.items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class PortLogs:
    """The port of an interface, and the logs that are about it, by event."""

    port: PortId
    project: ProjectId
    logs: Mapping[Event, tuple[LogId, ...]] = field(default_factory=dict)


Ports = Mapping[InterfaceName, PortLogs]
"""The ports of a host by their interface."""


def ports_of(world: World) -> Ports:
    """Return what a host's interfaces are, and what is logged of them."""
    found = {}
    for endpoint in world.endpoints:
        logs = logs_of(endpoint, world.logs)
        found[endpoint.interface] = PortLogs(
            port=endpoint.port,
            project=endpoint.project,
            logs={e: tuple(log.id for log in logs if e in log.events) for e in Event},
        )
    return found


def fields_of(packet: LoggedPacket, ports: Ports) -> Fields | None:
    """Return a packet's line; None where no log wants it any more.

    The names of fields are those of Neutron's own logs.
    """
    match packet.prefix.split("/"):
        case ["group", ("in" | "out") as way, ("accept" | "drop") as event]:
            near = _near(packet, ports, way)
            logs = near.logs[Event(event.upper())] if near else ()
            if near is None or not logs:
                return None
            said: Fields = {
                "action": event.upper(),
                "project_id": near.project,
                "log_resource_ids": list(logs),
                "vm_port": near.port,
                "direction": _DIRECTIONS[way],
            }
        case ["policy", *name, ("in" | "out") as way] if name:
            near = _near(packet, ports, way)
            said = {"policy": "/".join(name)}
            said |= {"vm_port": near.port} if near else {}
            said |= {"direction": _DIRECTIONS[way]}
        case _:
            said = {"prefix": packet.prefix}
    return said | _interfaces(packet) | _headers(packet)


def _near(packet: LoggedPacket, ports: Ports, way: str) -> PortLogs | None:
    """Return the port whose traffic it is, by its end of the packet's way."""
    interface = packet.outgoing if way == "in" else packet.incoming
    return ports.get(interface) if interface else None


def _interfaces(packet: LoggedPacket) -> Fields:
    ends = {"in_interface": packet.incoming, "out_interface": packet.outgoing}
    return {name: interface for name, interface in ends.items() if interface}


def _headers(packet: LoggedPacket) -> Fields:
    headers = read_headers(packet.payload)
    if headers is None:
        return {}
    protocol = _NAMES.get(headers.protocol, str(headers.protocol))
    said: Fields = {
        "proto": protocol,
        "src": str(headers.source),
        "dst": str(headers.destination),
    }
    if headers.ports:
        said["sport"], said["dport"] = headers.ports
    if headers.icmp:
        said["icmp_type"], said["icmp_code"] = headers.icmp
    return said
