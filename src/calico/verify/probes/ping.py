"""ICMP echo from inside a stack, IPv4 (RFC 792) and IPv6 (RFC 4443)."""

import secrets
import socket
import struct
import time

from calico.verify.cloud import Address
from calico.verify.probes.echo import Stack

_ECHO, _REPLY = {4: 8, 6: 128}, {4: 0, 6: 129}
_MARK = b"verify ping "


def ping(
    place: Stack, target: Address, marker: bytes = b"", within: float = 1.0
) -> str | None:
    """Send one echo request; None if the target answered, else what was missed.

    The answer carries the marker back.
    """
    sock = place.inside(lambda: _open(target.version))
    identity = secrets.randbelow(0x10000)
    payload = _MARK + secrets.token_bytes(8) + marker
    with sock:
        try:
            sock.sendto(_echo(target.version, identity, payload), (str(target), 0))
            if _answered(sock, target, payload, within):
                return None
        except OSError as e:
            return f"ping {target}: {e}"
    return f"ping {target}: no answer within {within:g} s"


def _open(version: int) -> socket.socket:
    if version == 4:
        return socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
    return socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6)


def _answered(
    sock: socket.socket, target: Address, payload: bytes, within: float
) -> bool:
    deadline = time.monotonic() + within
    while (left := deadline - time.monotonic()) > 0:
        sock.settimeout(left)
        try:
            packet, source = sock.recvfrom(65535)
        except TimeoutError:
            return False
        if target.version == 4:
            packet = packet[
                (packet[0] & 15) * 4 :
            ]  # a raw IPv4 socket gives the header
        if (
            source[0].partition("%")[0] == str(target)
            and packet[0] == _REPLY[target.version]
            and packet[8:] == payload
        ):
            return True
    return False


def _echo(version: int, identity: int, payload: bytes) -> bytes:
    header = struct.pack("!BBHHH", _ECHO[version], 0, 0, identity, 1)
    if version == 6:
        return header + payload  # the kernel fills in the checksum (RFC 3542, 3.1)
    return (
        header[:2]
        + struct.pack("!H", checksum(header + payload))
        + header[4:]
        + payload
    )


def checksum(packet: bytes) -> int:
    """Return the Internet checksum (RFC 1071)."""
    if len(packet) % 2:
        packet += b"\0"
    total: int = sum(struct.unpack(f"!{len(packet) // 2}H", packet))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF
