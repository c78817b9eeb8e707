"""A production host as what is explained: what it knows, and its own kernel's routes.

The fabric and other hosts are left open: they are for those to tell who can see them.
"""

import subprocess
from contextlib import closing
from dataclasses import dataclass

from calico.config import AgentSettings
from calico.datastore.client import Client
from calico.model.keys import Keys
from calico.policy.evaluate import Packet
from calico.verify.explain.journey import Spot
from calico.verify.explain.picture import BadQuestion, End, Picture
from calico.verify.explain.question import Question
from calico.verify.explain.routes import Forwarded, Route, question, read_route

_PATIENCE = 10.0  # seconds for `ip`


def picture(settings: AgentSettings) -> Picture:
    """Return what the datastore holds; DatastoreError where it does not answer."""
    with closing(Client(settings.etcd)) as client:
        items = client.get_prefix("/calico/").items
    return Picture(
        items={key: item.value for key, item in items.items()},
        keys=Keys(settings.region),
    )


def check_is_here(asked: Question, settings: AgentSettings) -> None:
    """Raise BadQuestion where neither end is a port of this host."""
    if settings.host not in (asked.source.host, asked.target.host):
        raise BadQuestion(
            f"neither {asked.source} nor {asked.target} is a port of this host, "
            f"{settings.host}"
        )


@dataclass(frozen=True, slots=True)
class HostNetwork:
    """What one host sees of the network (journey.Network)."""

    settings: AgentSettings

    def start(self, source: End) -> Spot | None:
        """Return this host, for a port of its own."""
        if source.host == self.settings.host and source.endpoint is not None:
            return Spot(self.settings.host, source.endpoint.interface)
        return None

    def entry(self, source: End) -> Spot:
        """Return where this host expects a sender's packets: its own way to them."""
        address = str(source.address)
        answer = _run(("ip", "-json", "route", "get", address))
        way = read_route(answer.stdout, answer.stderr, "")
        if not isinstance(way, Forwarded):
            raise BadQuestion(f"this host has no way to {address}, nor from it: {way}")
        return Spot(self.settings.host, way.interface)

    def route(self, spot: Spot, packet: Packet) -> Route:
        """Ask this host's kernel."""
        answer = _run(question(packet, spot.entry))
        matched = _run(question(packet, spot.entry, matched=True))
        return read_route(answer.stdout, answer.stderr, matched.stdout)

    def across(self, node: str, interface: str) -> None:
        """Return None: a host does not know its cables' other ends."""
        del node, interface

    def is_outside(self, node: str) -> bool:
        """Return False: this host is no Internet."""
        del node
        return False


def _run(argv: tuple[str, ...]) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        argv, capture_output=True, text=True, check=False, timeout=_PATIENCE
    )
