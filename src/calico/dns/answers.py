"""What becomes of one question: an answer, the question to pass on, or nothing. Pure.

A guest's message is never passed on as it came: what is asked of a resolver is written
anew from what was understood of it.
"""

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from ipaddress import ip_address

import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.opcode
import dns.rcode
import dns.rdataclass
import dns.rdatatype
import dns.rrset

from calico.dns.zone import Zone

TTL = 30  # seconds that a name may be remembered; a port may be given another
_NEGATIVE_TTL = 5  # seconds that its absence may: it may be about to be made
PAYLOAD = 1232
"""Octets of the longest datagram, which no network has to split (DNS flag day 2020)."""

_PLAIN_PAYLOAD = 512  # without EDNS (RFC 1035, 4.2.1)
_STREAM_PAYLOAD = 65535
_HEADER = struct.Struct("!6H")
_RESPONSE, _TRUNCATED, _WISH = 0x8000, 0x0200, 0x0100  # QR, TC, RD
_OPCODE = 0x7800
_EDNS = b"\x00" + struct.pack("!H", dns.rdatatype.OPT)  # how its record begins
_LONGEST_LABEL = 63
_ADDRESS_TYPES = frozenset({dns.rdatatype.A, dns.rdatatype.AAAA})
_TRANSFERS = range(128, 255)  # and other questions that are about no name (RFC 6895)


@dataclass(frozen=True, slots=True, kw_only=True)
class Passed:
    """A question for the resolvers, with 0 as its id; and how their answer is given."""

    question: bytes
    number: int
    limit: int
    truncated: bytes
    failed: bytes

    def answer(self, found: bytes) -> bytes:
        """Return what the guest is told, from a resolver's answer."""
        if len(found) > self.limit:
            return self.truncated
        return struct.pack("!H", self.number) + found[2:]


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """How a question came: by datagram or not; whether there are resolvers."""

    datagram: bool
    resolvers: bool


def answer(asked: bytes, zone: Zone, way: Way) -> bytes | Passed | None:
    """Return what is answered to a message, or what has to be asked for that.

    None where nothing is to be answered: whatever was sent, it is no question.
    """
    if len(asked) < _HEADER.size:
        return None
    number, flags, *counts = _HEADER.unpack_from(asked)
    if flags & _RESPONSE:
        return None
    if flags & _OPCODE:
        return _bare(number, flags, dns.rcode.NOTIMP)
    try:
        if not _is_plain(asked, counts):
            return _bare(number, flags, dns.rcode.FORMERR)
        query = dns.message.from_wire(asked)
        return _Reply(query, way).to(zone)
    except (dns.exception.DNSException, ValueError, IndexError):
        return _bare(number, flags, dns.rcode.FORMERR)


def _is_plain(asked: bytes, counts: Sequence[int]) -> bool:
    """Tell whether a message is one question, with EDNS or nothing behind it.

    Nothing else is parsed: there is no end to what records can hold.
    """
    if counts == [1, 0, 0, 0]:
        return True
    behind = _end_of_question(asked)
    return counts == [1, 0, 0, 1] and asked[behind:].startswith(_EDNS)


def matches(question: bytes, found: bytes) -> bool:
    """Tell whether a message answers a question: of that id, and about the same.

    The question stands first in both, and is not compressed.
    """
    if len(found) < _HEADER.size or found[:2] != question[:2]:
        return False
    end = _end_of_question(question)
    _, flags, questions, *_ = _HEADER.unpack_from(found)
    same = found[_HEADER.size : end] == question[_HEADER.size : end]
    return bool(flags & _RESPONSE) and questions == 1 and same


def _end_of_question(wire: bytes) -> int:
    """Return where it ends; ValueError or IndexError where its name is none."""
    at = _HEADER.size
    while wire[at]:
        if wire[at] > _LONGEST_LABEL:
            raise ValueError("a compressed name, with nothing before it")
        at += wire[at] + 1
    return at + 5  # the root, type and class


def _bare(number: int, flags: int, rcode: dns.rcode.Rcode) -> bytes:
    """Return an answer without its question, to one that was not understood."""
    kept = flags & (_OPCODE | _WISH)
    return _HEADER.pack(number, _RESPONSE | kept | rcode, 0, 0, 0, 0)


class _Reply:
    """The answer to one question that was understood."""

    def __init__(self, query: dns.message.Message, way: Way) -> None:
        self._query = query
        self._way = way
        self._question = query.question[0]
        self._name = self._question.name.to_text(omit_final_dot=True).lower()
        own = query.payload if query.edns >= 0 else _PLAIN_PAYLOAD
        longest = min(max(own, _PLAIN_PAYLOAD), PAYLOAD)
        self._limit = longest if way.datagram else _STREAM_PAYLOAD

    def to(self, zone: Zone) -> bytes | Passed | None:
        """Return what is answered, or has to be asked."""
        if self._query.edns > 0:
            return self._plain(dns.rcode.BADVERS)
        if self._question.rdclass != dns.rdataclass.IN or (
            self._question.rdtype in _TRANSFERS
        ):
            return self._plain(dns.rcode.REFUSED)
        return self._known(zone) or self._unknown(zone)

    def _known(self, zone: Zone) -> bytes | None:
        """Return the answer to a question about what is in the zone."""
        rdtype = self._question.rdtype
        addresses = zone.addresses.get(self._name)
        if addresses is None and rdtype in _ADDRESS_TYPES:
            addresses = zone.labels.get(self._name)
        if addresses is not None:
            return self._found(zone, _by_type(addresses))
        if (names := zone.pointers(self._name)) is not None:
            dotted = [f"{name}." for name in sorted(set(names))]
            return self._found(zone, {dns.rdatatype.PTR: dotted})
        return None

    def _found(
        self, zone: Zone, values: Mapping[dns.rdatatype.RdataType, Sequence[str]]
    ) -> bytes:
        reply = self._made(dns.rcode.NOERROR)
        reply.flags |= dns.flags.AA
        reply.answer = [
            dns.rrset.from_text_list(
                self._question.name, TTL, dns.rdataclass.IN, rdtype, texts
            )
            for rdtype, texts in values.items()
            if self._question.rdtype in {rdtype, dns.rdatatype.ANY}
        ]
        if not reply.answer:
            _deny(reply, zone.domain_of(self._name) or self._parent())
        return self._wire(reply)

    def _unknown(self, zone: Zone) -> bytes | Passed:
        """Return the denial of a name of the cloud's, or the question to pass on."""
        domain = zone.domain_of(self._name)
        if domain is not None:
            exists = self._name in zone.inner or self._name == domain
            rcode = dns.rcode.NOERROR if exists else dns.rcode.NXDOMAIN
            reply = self._made(rcode)
            reply.flags |= dns.flags.AA
            _deny(reply, domain)
            return self._wire(reply)
        if not self._way.resolvers or not self._query.flags & dns.flags.RD:
            return self._plain(dns.rcode.REFUSED)
        return self._passed()

    def _passed(self) -> Passed:
        query = dns.message.make_query(
            self._question.name,
            self._question.rdtype,
            use_edns=0 if self._query.edns >= 0 else -1,
            want_dnssec=bool(self._query.ednsflags & dns.flags.DO),
            payload=self._limit if self._way.datagram else PAYLOAD,
            id=0,
        )
        query.flags |= self._query.flags & (dns.flags.CD | dns.flags.AD)
        truncated = self._made(dns.rcode.NOERROR)
        truncated.flags |= dns.flags.TC
        return Passed(
            question=query.to_wire(),
            number=self._query.id,
            limit=self._limit,
            truncated=self._wire(truncated),
            failed=self._plain(dns.rcode.SERVFAIL),
        )

    def _parent(self) -> str:
        return self._name.partition(".")[2]

    def _made(self, rcode: dns.rcode.Rcode) -> dns.message.Message:
        reply = dns.message.make_response(
            self._query, recursion_available=self._way.resolvers, our_payload=PAYLOAD
        )
        reply.set_rcode(rcode)
        return reply

    def _plain(self, rcode: dns.rcode.Rcode) -> bytes:
        return self._wire(self._made(rcode))

    def _wire(self, reply: dns.message.Message) -> bytes:
        return reply.to_wire(max_size=self._limit, prefer_truncation=True)


def _by_type(
    addresses: Sequence[str],
) -> Mapping[dns.rdatatype.RdataType, Sequence[str]]:
    found: dict[dns.rdatatype.RdataType, list[str]] = {}
    for address in sorted(set(addresses)):
        four = ip_address(address).version == 4
        rdtype = dns.rdatatype.A if four else dns.rdatatype.AAAA
        found.setdefault(rdtype, []).append(address)
    return found


def _deny(reply: dns.message.Message, domain: str) -> None:
    """Say for how long the absence of an answer may be remembered (RFC 2308)."""
    apex = dns.name.from_text(f"{domain}.")
    soa = f"{apex} . 1 3600 600 86400 {_NEGATIVE_TTL}"
    reply.authority.append(
        dns.rrset.from_text(apex, _NEGATIVE_TTL, dns.rdataclass.IN, "SOA", soa)
    )
