"""One packet as evidence: sent from one network stack, looked for in another."""

import errno
import secrets
import socket

from calico.policy.evaluate import Packet
from calico.verify.cloud import Place
from calico.verify.explain.picture import BadQuestion
from calico.verify.explain.report import Sent
from calico.verify.probes.capture import Capture, Frame
from calico.verify.probes.segments import segment

_PATIENCE = 2.0  # seconds; a packet crosses a lab in a few milliseconds
_EPHEMERAL = range(32768, 61000)
_NO_WAY = frozenset({errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EACCES})
_IP_TRANSPARENT, _IPV6_TRANSPARENT = 19, 75  # linux/in.h, in6.h


def send(source: Place, target: Place, interface: str | None, packet: Packet) -> Sent:
    """Send a packet, and tell whether it came in at the target's interface.

    An interface of None is any. BadQuestion where no such packet can be sent at all.
    """
    near_port, mark = secrets.choice(_EPHEMERAL), secrets.token_bytes(4)
    body = segment(packet, near_port, mark)

    def is_ours(frame: Frame) -> bool:
        return (
            not frame.outgoing
            and frame.addresses() == (packet.source, packet.destination)
            and frame.protocol() == packet.protocol
            and mark in frame.octets
        )

    where = f"{target.name}'s {interface or 'interfaces'}"
    with Capture(target, interface) as capture:
        refusal = _transmit(source, packet, body)
        if refusal:
            return Sent(arrived=False, detail=f"{source.name} cannot send: {refusal}")
        frame = capture.wait(is_ours, _PATIENCE)
    if frame is None:
        return Sent(arrived=False, detail=f"not seen at {where} within {_PATIENCE:g} s")
    return Sent(arrived=True, detail=f"seen at {where}: {frame}")


def _transmit(place: Place, packet: Packet, body: bytes) -> str:
    """Send a segment in a packet of the kernel's making; return why it refuses."""
    try:
        sock = place.inside(lambda: _open(packet))
    except OSError as e:
        raise _unsendable(packet, e) from e
    with sock:
        try:
            sock.sendto(body, (str(packet.destination), 0))
        except OSError as e:
            if e.errno in _NO_WAY:
                return str(e.strerror)
            raise _unsendable(packet, e) from e
    return ""


def _unsendable(packet: Packet, e: OSError) -> BadQuestion:
    return BadQuestion(
        f"a packet of protocol {packet.protocol} from {packet.source} to "
        f"{packet.destination} cannot be sent: {e.strerror}"
    )


def _open(packet: Packet) -> socket.socket:
    """Return a raw socket of the packet's protocol, bound to its source.

    Transparent, since a pair's address is not on the instance's interface.
    """
    family = socket.AF_INET if packet.version == 4 else socket.AF_INET6
    sock = socket.socket(family, socket.SOCK_RAW, packet.protocol)
    try:
        if packet.version == 4:
            sock.setsockopt(socket.IPPROTO_IP, _IP_TRANSPARENT, 1)
        else:
            sock.setsockopt(socket.IPPROTO_IPV6, _IPV6_TRANSPARENT, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        sock.bind((str(packet.source), 0))
    except OSError:
        sock.close()
        raise
    return sock
