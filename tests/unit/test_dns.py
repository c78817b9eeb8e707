"""What the responder makes of a message: answers, questions to pass on, or nothing."""

import struct

import dns.edns
import dns.flags
import dns.message
import dns.rcode
import pytest
from hypothesis import given
from hypothesis import strategies as st

from calico.dns.answers import PAYLOAD, TTL, Passed, Way, answer, matches
from calico.dns.zone import Zone, zone_of
from calico.plan.dns_table import Known

UDP, TCP = Way(datagram=True, resolvers=True), Way(datagram=False, resolvers=True)
ALONE = Way(datagram=True, resolvers=False)
KNOWN = (
    Known(
        names=("web.cloud.example", "web.blue.example"),
        addresses=("10.0.0.1", "2001:db8::1"),
    ),
    Known(names=("pair.cloud.example",), addresses=("10.0.0.3",)),
    Known(names=("pair.cloud.example",), addresses=("10.0.0.2",)),
    Known(names=("a.deep.cloud.example",), addresses=("10.0.0.4",)),
    Known(names=("org.cloud.example",), addresses=("10.0.0.5",)),
)
ZONE = zone_of(KNOWN, ("cloud.example",))


def ask(
    name: str, rdtype: str = "A", zone: Zone = ZONE, way: Way = UDP
) -> dns.message.Message:
    query = dns.message.make_query(name, rdtype)
    found = answer(query.to_wire(), zone, way)
    assert isinstance(found, bytes), found
    reply = dns.message.from_wire(found)
    assert query.is_response(reply)
    return reply


def texts(reply: dns.message.Message) -> list[str]:
    return sorted(str(one) for rrset in reply.answer for one in rrset)


@pytest.mark.parametrize(
    ("name", "rdtype", "wanted"),
    [
        ("web.cloud.example", "A", ["10.0.0.1"]),
        ("WEB.Cloud.Example", "AAAA", ["2001:db8::1"]),
        ("web.blue.example", "A", ["10.0.0.1"]),
        ("web.blue.example", "ANY", ["10.0.0.1", "2001:db8::1"]),
        ("web", "A", ["10.0.0.1"]),
        ("pair.cloud.example", "A", ["10.0.0.2", "10.0.0.3"]),
        ("1.0.0.10.in-addr.arpa", "PTR", ["web.cloud.example."]),
        (f"1.{'0.' * 23}8.b.d.0.1.0.0.2.ip6.arpa", "PTR", ["web.cloud.example."]),
    ],
)
def test_a_name_of_the_project_is_answered(
    name: str, rdtype: str, wanted: list[str]
) -> None:
    reply = ask(name, rdtype)
    assert texts(reply) == wanted
    assert reply.flags & dns.flags.AA
    assert {rrset.ttl for rrset in reply.answer} == {TTL}


@pytest.mark.parametrize(
    ("name", "rdtype", "rcode"),
    [
        ("web.cloud.example", "MX", dns.rcode.NOERROR),
        ("pair.cloud.example", "AAAA", dns.rcode.NOERROR),
        ("1.0.0.10.in-addr.arpa", "TXT", dns.rcode.NOERROR),
        ("deep.cloud.example", "A", dns.rcode.NOERROR),
        ("cloud.example", "A", dns.rcode.NOERROR),
        ("nobody.cloud.example", "A", dns.rcode.NXDOMAIN),
        ("xcloud.example.cloud.example", "A", dns.rcode.NXDOMAIN),
    ],
)
def test_what_is_not_there_is_denied_for_a_short_while(
    name: str, rdtype: str, rcode: dns.rcode.Rcode
) -> None:
    reply = ask(name, rdtype)
    assert (reply.rcode(), texts(reply)) == (rcode, [])
    (soa,) = reply.authority
    assert (soa.rdtype.name, soa.ttl) == ("SOA", 5)


OTHERS = [
    "example.org",
    "xcloud.example",
    "blue.example",
    "9.0.0.10.in-addr.arpa",
    "0.0.10.in-addr.arpa",
    "x.0.0.10.in-addr.arpa",
    "1.0.0.2.ip6.arpa",
    f"g.{'0.' * 23}8.b.d.0.1.0.0.2.ip6.arpa",
]


@pytest.mark.parametrize("name", OTHERS)
def test_any_other_name_is_asked_of_resolvers_or_refused(name: str) -> None:
    assert ask(name, way=ALONE).rcode() == dns.rcode.REFUSED
    found = answer(dns.message.make_query(name, "A").to_wire(), ZONE, UDP)
    assert isinstance(found, Passed)


def test_a_port_that_is_called_like_a_top_level_domain_hides_it_from_nobody() -> None:
    assert texts(ask("org")) == ["10.0.0.5"]
    found = answer(dns.message.make_query("org", "NS").to_wire(), ZONE, UDP)
    assert isinstance(found, Passed)


def test_another_project_has_other_names() -> None:
    other = zone_of((), ("cloud.example",))
    assert ask("web.cloud.example", zone=other).rcode() == dns.rcode.NXDOMAIN
    assert ask("web", zone=other, way=ALONE).rcode() == dns.rcode.REFUSED


def passed(query: dns.message.Message, way: Way = UDP) -> Passed:
    found = answer(query.to_wire(), ZONE, way)
    assert isinstance(found, Passed)
    return found


def test_what_is_passed_on_is_written_anew() -> None:
    option = dns.edns.GenericOption(dns.edns.OptionType.make(65001), b"the guest's own")
    query = dns.message.make_query(
        "Example.org", "TXT", use_edns=0, payload=4096, want_dnssec=True
    )
    query.use_edns(0, dns.flags.DO, 4096, options=[option])
    query.flags |= dns.flags.CD
    written = dns.message.from_wire(passed(query).question)
    assert written.question == query.question
    assert str(written.question[0].name) == "Example.org."
    assert (written.id, written.options, written.payload) == (0, (), PAYLOAD)
    assert written.flags == dns.flags.RD | dns.flags.CD
    assert written.ednsflags & dns.flags.DO
    plain = dns.message.from_wire(passed(dns.message.make_query("a.b", "A")).question)
    assert plain.edns == -1, "nor asked with what the guest does not understand"


def test_an_answer_that_is_too_long_is_cut_so_that_it_is_asked_for_anew() -> None:
    query = dns.message.make_query("example.org", "TXT")
    long = b"\0\0" + query.to_wire()[2:] + bytes(600)
    cut = dns.message.from_wire(passed(query).answer(long))
    assert cut.flags & dns.flags.TC
    assert cut.id == query.id
    whole = passed(query, TCP).answer(long)
    assert whole == query.to_wire()[:2] + long[2:]


def test_own_answers_keep_to_the_size_that_was_asked_for() -> None:
    many = tuple(f"10.1.{n // 250}.{n % 250}" for n in range(300))
    zone = zone_of([Known(names=("many.example",), addresses=many)])
    for payload, way, whole in ((None, UDP, False), (4096, UDP, False), (0, TCP, True)):
        query = dns.message.make_query("many.example", "A")
        if payload is not None:
            query.use_edns(0, payload=payload)
        found = answer(query.to_wire(), zone, way)
        assert isinstance(found, bytes)
        reply = dns.message.from_wire(found)
        assert bool(reply.flags & dns.flags.TC) is not whole
        assert len(found) <= (PAYLOAD if payload else 512) or whole
        assert (len(texts(reply)) == 300) is whole


REFUSED = {
    "class": (dns.message.make_query("a.b", "A", "CH"), dns.rcode.REFUSED),
    "transfer": (dns.message.make_query("a.b", "AXFR"), dns.rcode.REFUSED),
    "EDNS version": (dns.message.make_query("a.b", "A", use_edns=1), dns.rcode.BADVERS),
}


@pytest.mark.parametrize(("query", "rcode"), REFUSED.values(), ids=REFUSED)
def test_what_is_no_question_about_a_name_is_refused(
    query: dns.message.Message, rcode: dns.rcode.Rcode
) -> None:
    found = answer(query.to_wire(), ZONE, UDP)
    assert isinstance(found, bytes)
    assert dns.message.from_wire(found).rcode() == rcode


def test_a_question_that_wants_no_recursion_is_not_passed_on() -> None:
    query = dns.message.make_query("example.org", "A", flags=0)
    found = answer(query.to_wire(), ZONE, UDP)
    assert isinstance(found, bytes)
    assert dns.message.from_wire(found).rcode() == dns.rcode.REFUSED


QUESTION = dns.message.make_query("web.cloud.example", "A", use_edns=0).to_wire()


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """A right question of which some octets are others, with more or less behind."""
    wire = bytearray(QUESTION)
    for _ in range(draw(st.integers(0, 3))):
        wire[draw(st.integers(0, len(wire) - 1))] = draw(
            st.integers(0, 255) | st.sampled_from([0, 1, 0x3F, 0x40, 0xC0, 0xFF])
        )
    cut = draw(st.integers(0, len(wire)) | st.just(len(wire)))
    return bytes(wire[:cut]) + draw(st.just(b"") | st.binary(max_size=40))


@given(st.binary(max_size=80) | damaged(), st.sampled_from([UDP, TCP, ALONE]))
def test_whatever_is_sent_gets_a_message_that_is_an_answer_to_it_or_nothing(
    asked: bytes, way: Way
) -> None:
    found = answer(asked, ZONE, way)
    if isinstance(found, Passed):
        assert way.resolvers
        dns.message.from_wire(found.question)
        found = found.failed
    is_question = len(asked) >= 12 and not asked[2] & 0x80
    assert (found is not None) is is_question, "answers to answers would go on forever"
    if found is None:
        return
    assert found[:2] == asked[:2]
    assert found[2] & 0x80
    assert len(found) <= max(512, PAYLOAD)
    if dns.message.from_wire(found).rcode() == dns.rcode.NOERROR:
        assert dns.message.from_wire(asked).question


def header(number: int, *counts: int, flags: int = 0x0100) -> bytes:
    return struct.pack("!6H", number, flags, *counts)


@pytest.mark.parametrize(
    "asked",
    [
        header(7, 2, 0, 0, 0) + QUESTION[12:35] * 2,
        header(7, 0, 0, 0, 0),
        header(7, 1, 0, 0, 0) + b"\xc0\x0c\0\1\0\1",
        header(7, 1, 0, 0, 1) + QUESTION[12:35] + b"\xc0\x0c\0\1\0\1\0\0\0\0\0\0",
        header(7, 1, 1, 0, 0) + QUESTION[12:35] + b"\xc0\x0c\0\1\0\1\0\0\0\0\0\0",
    ],
    ids=["two questions", "none", "loop", "record behind", "answer in a question"],
)
def test_a_message_with_more_than_a_question_is_a_format_error(asked: bytes) -> None:
    assert answer(asked, ZONE, UDP) == header(7, 0, 0, 0, 0, flags=0x8101)


def test_another_answer_is_not_taken_for_the_one_that_is_awaited() -> None:
    question = dns.message.make_query("example.org", "A").to_wire()
    right = question[:2] + b"\x81\x80" + question[4:]
    assert matches(question, right)
    other = dns.message.make_query("example.com", "A").to_wire()
    for wrong in (
        bytes([right[0] ^ 1]) + right[1:],  # another id
        question,  # no answer
        right[:12] + other[12:],  # about another name
        right[:-2],
        b"",
    ):
        assert not matches(question, wrong)
