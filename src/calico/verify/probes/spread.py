"""To which of several instances that have one address datagrams of many flows go."""

import secrets
import socket
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack

from calico.verify.cloud import Address, Site
from calico.verify.parallel import eventually
from calico.verify.probes.capture import Capture
from calico.verify.probes.echo import Stack

_FLOWS = 48
_WITHIN = 1.0


def spread(
    place: Stack, target: tuple[Address, int], members: Sequence[Site]
) -> Counter[str]:
    """Send a datagram in each of many flows; count those that arrived, by member.

    Those that reached none of the members count for "".
    """
    mark = secrets.token_hex(8)
    markers = [f"{mark} {number};".encode() for number in range(_FLOWS)]
    with ExitStack() as stack:
        captures = {
            site.short: stack.enter_context(Capture(site.place, site.interface))
            for site in members
        }
        for marker in markers:
            _send(place, target, marker)

        def where() -> Counter[str]:
            came = {
                name: b" ".join(
                    f.octets for f in c.marked(mark.encode()) if not f.outgoing
                )
                for name, c in captures.items()
            }
            return Counter(
                next((name for name, octets in came.items() if marker in octets), "")
                for marker in markers
            )

        eventually(lambda: not where()[""], _WITHIN, 0.05)
        return where()


def _send(place: Stack, target: tuple[Address, int], marker: bytes) -> None:
    """Send from a port of its own: another flow."""
    family = socket.AF_INET if target[0].version == 4 else socket.AF_INET6
    with place.inside(lambda: socket.socket(family, socket.SOCK_DGRAM)) as sock:
        sock.sendto(marker, (str(target[0]), target[1]))
