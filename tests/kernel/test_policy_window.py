"""No change of policy opens or closes what it is not about, not for a moment.

CALICO_WINDOW_CHANGES sets how many changes are made.
"""

import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from ipaddress import ip_address
from random import Random

import pytest
from tests.endpoints import endpoint
from tests.kernel.data_path import HostBed, host_bed
from tests.kernel.netns import eventually, in_netns
from tests.policy_cases import Corners

from calico.model.groups import Groups
from calico.model.ids import GroupId
from calico.model.records import Policy, PortRange, Rule
from calico.policy.evaluate import Direction, Packet, evaluate

CHANGES = int(os.environ.get("CALICO_WINDOW_CHANGES", "150"))
ALWAYS = GroupId("always")
ALLOWED, FORBIDDEN = 9000, 9001
_LAST = 5.0  # seconds for the last datagrams to arrive
_RCVBUFFORCE = 33  # SO_RCVBUFFORCE (socket(7)): a busy machine reads late
A, B = endpoint(2), endpoint(3)
CORNERS = {
    4: tuple(ip_address(f"10.65.0.{n}") for n in (2, 3, 8)),
    6: tuple(ip_address(f"2001:db8:65::{n}") for n in (2, 3, 8)),
}


def probe(port: int) -> Packet:
    return Packet(
        source=A.addresses[0], destination=B.addresses[0], protocol=17, port=port
    )


def with_always(groups: Groups, others: tuple[Rule, ...]) -> Groups:
    """Return the groups, and one that allows what must never be interrupted.

    Its other rules change, so that its chains and sets do.
    """
    rule = Rule(
        version=4,
        protocol=17,
        ports=PortRange(first=ALLOWED, last=ALLOWED),
        id="always",
    )
    always = Policy(
        group=ALWAYS, name="", ingress=(rule, *others), egress=(rule, *others)
    )
    return replace(groups, policies={**groups.policies, ALWAYS: always})


@dataclass(kw_only=True)
class Traffic:
    """Two streams of datagrams: one that must all arrive, one of which none may.

    Every other datagram of either is of a new connection.
    """

    bed: HostBed
    sent: int = 0
    arrived: set[int] = field(default_factory=set)
    trespassed: int = 0
    stop: threading.Event = field(default_factory=threading.Event)

    def send(self) -> None:
        with in_netns(self.bed.guests[A.port]):
            lasting = [socket.socket(type=socket.SOCK_DGRAM) for _ in range(2)]
            while not self.stop.wait(0.001):
                with socket.socket(type=socket.SOCK_DGRAM) as fresh:
                    for one in (lasting[0], fresh):
                        self.sent += 1
                        number = self.sent.to_bytes(4, "big")
                        one.sendto(number, ("10.65.0.3", ALLOWED))
                    for one in (lasting[1], fresh):
                        one.sendto(b"probe", ("10.65.0.3", FORBIDDEN))
            for one in lasting:
                one.close()

    def receive(self) -> None:
        with in_netns(self.bed.guests[B.port]):
            allowed, forbidden = (socket.socket(type=socket.SOCK_DGRAM) for _ in "12")
        with allowed, forbidden:
            for one, port in ((allowed, ALLOWED), (forbidden, FORBIDDEN)):
                one.setsockopt(socket.SOL_SOCKET, _RCVBUFFORCE, 1 << 24)
                one.bind(("10.65.0.3", port))
            stopped_at: float | None = None
            while stopped_at is None or time.monotonic() < stopped_at + _LAST:
                if self.stop.is_set() and stopped_at is None:
                    stopped_at = time.monotonic()
                if stopped_at and len(self.arrived) == self.sent:
                    break
                allowed.settimeout(0.05)
                with suppress(TimeoutError):
                    self.arrived.add(int.from_bytes(allowed.recv(8), "big"))
                forbidden.setblocking(False)
                try:
                    while forbidden.recv(8):
                        self.trespassed += 1
                except BlockingIOError:
                    pass


@contextmanager
def running(traffic: Traffic) -> Iterator[None]:
    threads = [threading.Thread(target=t) for t in (traffic.receive, traffic.send)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        traffic.stop.set()
        for thread in threads:
            thread.join()


@dataclass(kw_only=True)
class Cloud:
    """What is served now; each change is one that a tenant could make by one call."""

    bed: HostBed
    corners: Corners
    groups: Groups
    of: dict[str, frozenset[GroupId]] = field(default_factory=dict)

    def serve(self) -> None:
        self.bed.groups = self.groups
        guests = (replace(one, groups=self.of[one.port]) for one in (A, B))
        assert self.bed.serve(*guests).problems == ()

    def change(self) -> None:
        """Change one group's rules, its members, or the groups of one port."""
        groups, of = self.groups, dict(self.of)
        while True:
            drawn = self.corners.groups()
            match self.corners.random.choice(("rules", "always", "members", "port")):
                case "rules":
                    name = self.corners.random.choice(list(drawn.policies))
                    changed = {**groups.policies, name: drawn.policies[name]}
                    self.groups = replace(groups, policies=changed)
                case "always":
                    some = next(iter(drawn.policies.values())).ingress
                    self.groups = with_always(groups, some)
                case "members":
                    self.groups = replace(groups, members=drawn.members)
                case _:
                    port = self.corners.random.choice((A.port, B.port))
                    self.of = {**of, port: self.corners.of_port() | {ALWAYS}}
            if not self.lets_the_probe_in():
                self.serve()
                return
            self.groups, self.of = groups, of

    def lets_the_probe_in(self) -> bool:
        verdict = evaluate(
            self.groups, self.of[B.port], Direction.INGRESS, probe(FORBIDDEN)
        )
        return verdict.allowed


@pytest.mark.timeout(1200)
def test_no_change_has_a_window() -> None:
    corners = Corners(Random(7), CORNERS)
    with host_bed() as bed:
        bed.plug(A)
        bed.plug(B)
        only = frozenset({ALWAYS})
        cloud = Cloud(
            bed=bed,
            corners=corners,
            groups=with_always(Groups(), ()),
            of={A.port: only, B.port: only},
        )
        cloud.serve()
        traffic = Traffic(bed=bed)
        with running(traffic):
            eventually(lambda: len(traffic.arrived) > 10)
            for _ in range(CHANGES):
                cloud.change()
        assert traffic.trespassed == 0
        assert traffic.arrived == set(range(1, traffic.sent + 1))
        assert traffic.sent > CHANGES
        assert bed.changes(*(replace(o, groups=cloud.of[o.port]) for o in (A, B))) == []
