"""What is beyond a host's uplink, and how somebody there connects to a guest."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager

from tests.kernel.data_path import HostBed
from tests.kernel.netns import Netns, link

OUTSIDE = "192.0.2.2"


@contextmanager
def outside_of(bed: HostBed) -> Iterator[Netns]:
    """Give what is at the other end of a host's uplink `up0`, with routes both ways."""
    with Netns("outside") as outside:
        link(bed.host, "up0", outside, "eth0")
        bed.host.ip("addr", "add", "192.0.2.1/24", "dev", "up0")
        outside.ip("addr", "add", f"{OUTSIDE}/24", "dev", "eth0")
        outside.ip("route", "add", "default", "via", "192.0.2.1")
        bed.host.ip("route", "add", "default", "via", OUTSIDE)
        yield outside


def accepted(
    server: socket.socket, port: int, client: socket.socket, to: tuple[str, int]
) -> socket.socket | None:
    """Serve a port at any address and connect to where it should be reached.

    Return the server's end; None if that does not work.
    """
    server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    server.bind(("", port))
    server.listen()
    try:
        client.connect(to)
        return server.accept()[0]
    except OSError:
        return None
