"""Ethernet frames of the packets that policy is asked about, with valid checksums."""

import struct

from calico.policy.evaluate import Packet
from calico.verify.probes.ping import checksum
from calico.verify.probes.segments import segment


def frame(packet: Packet, macs: tuple[str, str], near_port: int, mark: bytes) -> bytes:
    """Return a frame from `macs` [0] to [1]; `mark`, four bytes, is found in it.

    `near_port` is the source port, or the identifier of an ICMP message.
    """
    source, destination = packet.source.packed, packet.destination.packed
    body = segment(packet, near_port, mark)
    kind = b"\x08\x00" if packet.version == 4 else b"\x86\xdd"
    header = _ipv4(packet, len(body)) if packet.version == 4 else _ipv6(packet, body)
    ethernet = b"".join(bytes.fromhex(mac.replace(":", "")) for mac in reversed(macs))
    return ethernet + kind + header + source + destination + body


def _ipv4(packet: Packet, length: int) -> bytes:
    def head(check: int) -> bytes:
        return struct.pack(
            ">BBHHHBBH", 0x45, 0, 20 + length, 0, 0, 64, packet.protocol, check
        )

    addresses = packet.source.packed + packet.destination.packed
    return head(checksum(head(0) + addresses))


def _ipv6(packet: Packet, body: bytes) -> bytes:
    return struct.pack(">IHBB", 6 << 28, len(body), packet.protocol, 64)
