"""A lab as what is explained: its datastore, its kernels' routes, its cables."""

from dataclasses import dataclass, replace
from ipaddress import ip_address
from typing import Any

from calico.lab.instances import Instance
from calico.lab.lab import Lab
from calico.lab.topology import Kind
from calico.model.ids import HostName, PortId, tap_name
from calico.policy.evaluate import Packet
from calico.verify.explain import probe
from calico.verify.explain.hops import Outcome
from calico.verify.explain.journey import Explanation, Spot
from calico.verify.explain.picture import BadQuestion, End, Guest, Picture
from calico.verify.explain.report import Sent
from calico.verify.explain.routes import Route, question, read_route
from calico.verify.inside import NamespacePlace

EVERYTHING = "/calico/"


def picture(lab: Lab) -> Picture:
    """Return what a lab's datastore holds, and its instances."""
    drawn = Picture(
        items=lab.store.get_prefix(EVERYTHING),
        guests=tuple(_guest(instance) for instance in lab.instances()),
    )
    noted = [
        replace(guest, note=_note(lab, guest.port))
        if drawn.problem(guest.port)
        else guest
        for guest in drawn.guests
    ]
    return Picture(items=drawn.items, guests=tuple(noted))


def _guest(instance: Instance) -> Guest:
    return Guest(
        name=instance.name,
        port=PortId(instance.port_id),
        host=HostName(instance.host),
        addresses=tuple(map(ip_address, instance.addresses)),
    )


def _note(lab: Lab, port: PortId) -> str:
    """Return what Neutron says of a port that is not served."""
    found: Any = next(iter(lab.connection("admin").network.ports(id=port)), None)
    if found is None:
        return "Neutron has no such port"
    state = "up" if found.is_admin_state_up else "down"
    return f"Neutron: status {found.status}, administratively {state}"


@dataclass(frozen=True, slots=True)
class LabNetwork:
    """All nodes and cables of a lab (journey.Network)."""

    lab: Lab

    @property
    def outside(self) -> str:
        """Return the name of the node that is the Internet."""
        nodes = self.lab.topology.nodes
        return next(node.name for node in nodes if node.kind is Kind.INTERNET)

    def start(self, source: End) -> Spot:
        """Return the sender's host, or the node that has the address."""
        if source.port is not None and source.host is not None:
            known = source.endpoint
            return Spot(
                source.host, known.interface if known else tap_name(source.port)
            )
        return Spot(self.lab.topology.owner(source.address) or self.outside)

    def entry(self, source: End) -> Spot:
        """Return the Internet: all else can be seen."""
        del source
        return Spot(self.outside)

    def route(self, spot: Spot, packet: Packet) -> Route:
        """Ask the node's kernel."""
        place = NamespacePlace(spot.node, self.lab.netns_of(spot.node))
        answer = place.run(question(packet, spot.entry))
        matched = place.run(question(packet, spot.entry, matched=True))
        return read_route(answer.stdout, answer.stderr, matched.stdout)

    def across(self, node: str, interface: str) -> Spot | None:
        """Return the other end of a cable; None where there is no cable."""
        topology = self.lab.topology
        for own, other in topology.adjacent(topology.node(node)):
            if own.interface == interface:
                return Spot(other.node.name, other.interface)
        return None

    def is_outside(self, node: str) -> bool:
        """Tell whether a node is the Internet."""
        return node == self.outside


def send(lab: Lab, drawn: Picture, explanation: Explanation) -> Sent:
    """Send the packet that was explained, and watch for it where it is meant to go."""
    asked = explanation.question
    last = explanation.hops[-1]
    if not explanation.complete:
        raise BadQuestion(f"there is nothing to compare with: {last.detail}")
    if asked.target.port is None:
        sharers = drawn.sharers(asked.target.address)
        if sharers or (last.what, last.outcome) == ("outside", Outcome.DENIED):
            whose = f"is of {len(sharers)} ports" if sharers else "is nobody's"
            raise BadQuestion(
                f"{asked.target.address} {whose}: there is no interface to watch"
            )
    source, _ = _place(lab, asked.source)
    target, interface = _place(lab, asked.target)
    return probe.send(source, target, interface, asked.packet)


def _place(lab: Lab, end: End) -> tuple[NamespacePlace, str | None]:
    """Return where an end's packets are sent and seen, and at which interface."""
    if end.port is None:
        node = lab.topology.owner(end.address) or LabNetwork(lab).outside
        return NamespacePlace(node, lab.netns_of(node)), None
    for instance in lab.instances():
        if instance.port_id == end.port:
            return NamespacePlace(instance.name, instance.netns), instance.interface
    raise BadQuestion(f"{end.name} has no instance in lab {lab.name} to send or watch")
