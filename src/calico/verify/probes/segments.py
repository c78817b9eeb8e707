"""Transport segments of the packets that policy is asked about, with valid checksums.

Connection tracking takes a damaged segment, or one that begins no connection, for a
stray; so each is what its protocol begins with.
"""

import socket
import struct

from calico.model.records import ICMP
from calico.policy.evaluate import Packet
from calico.verify.probes.ping import checksum

_TCP_SYN = 0x02
_CRC32C = 0x82F63B78  # reversed polynomial (RFC 9260, appendix A)


def segment(packet: Packet, near_port: int, mark: bytes) -> bytes:
    """Return what follows the IP header; `mark`, four bytes, is found in it.

    `near_port` is the source port, or the identifier of an ICMP message.
    """
    port = packet.port or 0
    match packet.protocol:
        case socket.IPPROTO_TCP:
            fields = (near_port, port, 1, 0, 5 << 4, _TCP_SYN, 1024, 0, 0)
            return _summed(packet, struct.pack(">HHIIBBHHH", *fields) + mark, 16)
        case socket.IPPROTO_UDP:
            head = struct.pack(">HHHH", near_port, port, 12, 0)
            return _summed(packet, head + mark, 6)
        case socket.IPPROTO_UDPLITE:
            head = struct.pack(">HHHH", near_port, 1, 0, 0)  # all is covered
            return _summed(packet, head + mark, 6)
        case socket.IPPROTO_SCTP:
            return _sctp_init(near_port, port, mark)
        case number if number == ICMP[packet.version]:
            fields6 = (packet.icmp_type, packet.icmp_code, 0, near_port, 1)
            return _summed(packet, struct.pack(">BBHHH", *fields6) + mark, 2)
        case _:
            return bytes(4) + mark + bytes(8)


def _summed(packet: Packet, body: bytes, at: int) -> bytes:
    """Return a transport segment with its checksum put in at an offset."""
    pseudo = b""
    if not (packet.version == 4 and packet.protocol == ICMP[4]):
        pseudo = packet.source.packed + packet.destination.packed
        pseudo += struct.pack(">II", len(body), packet.protocol)
    check = checksum(pseudo + body) or 0xFFFF
    return body[:at] + struct.pack(">H", check) + body[at + 2 :]


def _sctp_init(near_port: int, port: int, mark: bytes) -> bytes:
    """Return an INIT; the mark is its initiate tag."""
    chunk = struct.pack(">BBH4sIHHI", 1, 0, 20, mark, 65535, 1, 1, 1)
    head = struct.pack(">HHI", near_port, port, 0)
    check = _crc32c(head + bytes(4) + chunk)
    return head + struct.pack("<I", check) + chunk


def _crc32c(octets: bytes) -> int:
    crc = 0xFFFFFFFF
    for octet in octets:
        crc ^= octet
        for _ in range(8):
            crc = crc >> 1 ^ (_CRC32C if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF
