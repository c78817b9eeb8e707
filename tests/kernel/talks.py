"""Two guests of a host that talk to each other."""

import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace

from tests.endpoints import endpoint
from tests.kernel.data_path import HostBed
from tests.kernel.netns import Netns, in_netns

from calico.model.ids import GroupId

CLIENTS, SERVERS = GroupId("clients"), GroupId("servers")
A = replace(endpoint(2), groups=frozenset({CLIENTS}))
B = replace(endpoint(3), groups=frozenset({SERVERS}))
ADDRESSES = {4: ("10.65.0.2", "10.65.0.3"), 6: ("2001:db8:65::2", "2001:db8:65::3")}
FAMILY = {4: socket.AF_INET, 6: socket.AF_INET6}
QUIET = 0.3  # seconds in which nothing may arrive: an answer takes a millisecond


@dataclass(frozen=True, slots=True)
class Talk:
    """Two connected sockets, one in each guest."""

    near: socket.socket
    far: socket.socket

    def passes(self, *, back: bool = False) -> bool:
        """Tell whether something new that one end sends arrives at the other."""
        sender, receiver = (self.far, self.near) if back else (self.near, self.far)
        for end in (sender, receiver):
            end.settimeout(QUIET)
        try:
            while receiver.recv(1 << 16, socket.MSG_DONTWAIT):
                pass
        except OSError:
            pass
        try:
            sender.send(b"x")
            return bool(receiver.recv(1))
        except OSError:
            return False


@contextmanager
def talks(
    bed: HostBed, kind: int, *ports: int, version: int = 4
) -> Iterator[list[Talk]]:
    """Connect guest A to ports of guest B."""
    with ExitStack() as stack:
        yield [connect(bed, stack, kind, port, version) for port in ports]


def connect(bed: HostBed, stack: ExitStack, kind: int, port: int, version: int) -> Talk:
    source, target = ADDRESSES[version]
    far = stack.enter_context(open_in(bed.guests[B.port], kind, version))
    near = stack.enter_context(open_in(bed.guests[A.port], kind, version))
    far.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    far.bind((target, port))
    near.bind((source, 0))
    near.settimeout(1)
    if kind == socket.SOCK_DGRAM:
        near.connect((target, port))
        far.connect(near.getsockname()[:2])
        return Talk(near, far)
    far.listen()
    near.connect((target, port))
    accepted = stack.enter_context(far.accept()[0])
    return Talk(near, accepted)


def open_in(guest: Netns, kind: int, version: int) -> socket.socket:
    with in_netns(guest):
        return socket.socket(FAMILY[version], kind)


def reaches(bed: HostBed, port: int, kind: int = socket.SOCK_STREAM) -> bool:
    """Tell whether guest A can begin to talk to a port of guest B."""
    try:
        with talks(bed, kind, port) as (talk,):
            return talk.passes()
    except TimeoutError:
        return False
