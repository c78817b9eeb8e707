"""Packets by the handful: made by hand, told apart when they arrive, and answered.

A shot is the first packet of a flow, with a number of its own as its source port or as
its ICMP identifier. By that number it is recognised where it arrives, and so is the
answer to it.
"""

import struct
from dataclasses import dataclass

from calico.verify.cloud import Address
from calico.verify.probes.ping import checksum

TCP, UDP, SCTP, ICMP4, ICMP6 = 6, 17, 132, 1, 58
ECHO, REPLY = {4: 8, 6: 128}, {4: 0, 6: 129}
_HEADERS = {0x0800: 20, 0x86DD: 40}
_SYN = 2

Key = tuple[bytes, bytes, int, int, int]
"""Source, destination, protocol; then both ports, or ICMP's type and code, and id."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shot:
    """The first packet of a flow; `icmp` is type and code."""

    source: Address
    destination: Address
    protocol: int
    number: int
    port: int = 0
    icmp: tuple[int, int] = (0, 0)
    sequence: int = 1
    hop_limit: int = 64
    payload: bytes = b""

    @property
    def key(self) -> Key:
        """By what it is recognised where it arrives."""
        if self.protocol in {ICMP4, ICMP6}:
            return self._key(self.icmp[0] << 8 | self.icmp[1], self.number)
        return self._key(self.number, self.port)

    @property
    def answer(self) -> Key | None:
        """By what an answer to it is recognised; None if nothing answers such."""
        back = self.destination.packed, self.source.packed, self.protocol
        version = self.source.version
        if self.protocol in {TCP, UDP}:
            return *back, self.port, self.number
        if self.protocol != SCTP and self.icmp == (ECHO[version], 0):
            return *back, REPLY[version] << 8, self.number
        return None

    def _key(self, first: int, second: int) -> Key:
        ends = self.source.packed, self.destination.packed
        return *ends, self.protocol, first, second


def frame(shot: Shot, source_mac: str, target_mac: str) -> bytes:
    """Return a shot as an Ethernet frame."""
    packet = _packet(shot, _body(shot))
    ethertype = 0x0800 if shot.source.version == 4 else 0x86DD
    return ethernet(source_mac, target_mac, ethertype, packet)


def ethernet(source_mac: str, target_mac: str, ethertype: int, body: bytes) -> bytes:
    """Return a frame around a body."""
    return mac(target_mac) + mac(source_mac) + struct.pack("!H", ethertype) + body


def mac(text: str) -> bytes:
    """Return a MAC's six octets."""
    return bytes.fromhex(text.replace(":", ""))


def read_key(octets: bytes) -> Key | None:
    """Return what a frame is recognised by; None if it is nothing of ours."""
    length = _HEADERS.get(int.from_bytes(octets[12:14], "big"))
    if length is None or len(octets) < 14 + length + 8:
        return None
    header, body = octets[14 : 14 + length], octets[14 + length :]
    protocol = header[9] if length == 20 else header[6]
    ends = (header[12:16], header[16:20]) if length == 20 else _ends6(header)
    first, second, third = struct.unpack_from("!HHH", body)
    if protocol in {ICMP4, ICMP6}:
        return *ends, protocol, first, third
    return *ends, protocol, first, second


def _ends6(header: bytes) -> tuple[bytes, bytes]:
    return header[8:24], header[24:40]


def _packet(shot: Shot, body: bytes) -> bytes:
    source, target = shot.source, shot.destination
    how = shot.protocol, shot.hop_limit
    if source.version == 6:
        header = struct.pack("!IHBB", 6 << 28, len(body), *how)
        return header + source.packed + target.packed + body
    header = struct.pack(
        "!BBHHHBBH4s4s",
        *(0x45, 0, 20 + len(body), 0, 0, *reversed(how), 0),
        source.packed,
        target.packed,
    )
    return header[:10] + struct.pack("!H", checksum(header)) + header[12:] + body


def _body(shot: Shot) -> bytes:
    if shot.protocol == SCTP:
        # An INIT chunk (RFC 9260, 3.3.2). Connection tracking looks at the checksum.
        chunk = struct.pack("!BBHIIHHI", 1, 0, 20, 1, 65536, 1, 1, 1)
        begin = struct.pack("!HHI", shot.number, shot.port, 0)
        return begin + struct.pack("<I", _crc32c(begin + bytes(4) + chunk)) + chunk
    if shot.protocol == UDP:
        length = 8 + len(shot.payload)
        header = struct.pack("!HHHH", shot.number, shot.port, length, 0)
        return _summed(shot, header + shot.payload, 6)
    if shot.protocol == TCP:
        # No data, no options; sequence 1, header of five words, window 64,000.
        ports = (shot.number, shot.port)
        header = struct.pack("!HHIIBBHHH", *ports, 1, 0, 5 << 4, _SYN, 64000, 0, 0)
        return _summed(shot, header, 16)
    header = struct.pack("!BBHHH", *shot.icmp, 0, shot.number, shot.sequence)
    return _summed(shot, header + shot.payload, 2)


def _summed(shot: Shot, body: bytes, at: int) -> bytes:
    """Return a body with its checksum (RFC 1071) filled in at an offset."""
    pseudo = b""
    if shot.protocol != ICMP4:
        ends = shot.source.packed + shot.destination.packed
        pseudo = ends + struct.pack("!II", len(body), shot.protocol)
    total = checksum(pseudo + body) or 0xFFFF
    return body[:at] + struct.pack("!H", total) + body[at + 2 :]


def _crc32c(octets: bytes) -> int:
    """Return SCTP's checksum (RFC 9260, appendix A)."""
    crc = 0xFFFFFFFF
    for octet in octets:
        crc ^= octet
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF
