"""Names of ports as guests ask for them: real taps, real process, a real resolver."""

import os
import signal
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path

import dns.flags
import dns.message
import dns.query
import dns.rcode
import pytest
from tests.endpoints import endpoint
from tests.kernel.agent_host import KEYS, agent_host
from tests.kernel.dns_host import (
    ELSEWHERE,
    GATEWAYS,
    REFUSING,
    RESOLVER,
    SILENT,
    UNABLE,
    UPLINK,
    DnsHost,
    asking_subnets,
    dns_host,
    named,
    resolve,
)
from tests.kernel.netns import Netns, eventually, in_netns

from calico.dns.responder import MOST_WAITING
from calico.model.codec import encode_subnet
from calico.model.ids import ProjectId
from calico.model.names import encode_port_names

DOMAIN = "cloud.example"
WEB = f"web.{DOMAIN}"
A, C = endpoint(2), endpoint(4)
B = replace(endpoint(3), project=ProjectId("another"))
# Its subnet has DNS servers of its own.
TOLD = replace(
    endpoint(5),
    network=ELSEWHERE,
    addresses=(ip_address("10.66.0.5"), ip_address("10.65.0.5")),
)
ALL = (A, B, C, TOLD)


@pytest.fixture(scope="module")
def made() -> Iterator[DnsHost]:
    with dns_host() as made:
        for one in ALL:
            made.bed.plug(one)
        yield made


@pytest.fixture
def host(made: DnsHost) -> DnsHost:
    """The host with its resolver; two projects have given one name to ports."""
    made.configure(RESOLVER, domains=(DOMAIN,))
    made.bed.names = (named(A, WEB), named(B, WEB), named(C, f"db.{DOMAIN}"))
    assert made.serve(*ALL) == []
    made.await_service(guest(made))
    return made


def guest(host: DnsHost, number: int = 0) -> Netns:
    return host.bed.guests[ALL[number].port]


@pytest.mark.parametrize("stream", [False, True], ids=["UDP", "TCP"])
@pytest.mark.parametrize("version", [4, 6])
def test_each_project_has_its_own_names(
    host: DnsHost, version: int, *, stream: bool
) -> None:
    rdtype = "A" if version == 4 else "AAAA"
    for number, one in enumerate((A, B)):
        address = one.addresses[0 if version == 4 else 1]
        how = {"at": GATEWAYS[version], "stream": stream}
        for name in (WEB, "web"):
            assert host.found(guest(host, number), name, rdtype, **how) == str(address)
        pointer = address.reverse_pointer
        told = host.found(guest(host, number), pointer, "PTR", **how)
        assert told == f"{WEB}."
    assert host.found(guest(host), f"db.{DOMAIN}") == str(C.addresses[0])
    assert host.found(guest(host, 1), f"db.{DOMAIN}") == "NXDOMAIN"
    # Nor by its address: that is a question for the resolver, who does not know.
    pointer = C.addresses[0].reverse_pointer
    assert host.found(guest(host, 1), pointer, "PTR") == "REFUSED"


def test_a_pass_finds_nothing_to_change(host: DnsHost) -> None:
    assert host.bed.changes(*ALL) == []


def test_p15_no_other_address_of_the_host_is_open(host: DnsHost) -> None:
    server = resolve(host.bed.host, UPLINK, "10.66.0.1")
    try:
        assert host.found(host.resolver, "www.example.org", at=UPLINK) == "192.0.2.80"
        for address in (UPLINK, "10.66.0.1"):
            assert host.is_silent(guest(host), address), address
        assert host.is_silent(guest(host, 3), "10.66.0.1"), "it was told of others"
        assert host.is_silent(guest(host, 3), GATEWAYS[4])
    finally:
        server.kill()
        server.wait()


def test_a_port_without_port_security_is_told_its_own_projects_names(
    host: DnsHost,
) -> None:
    assert host.serve(replace(A, port_security=False), B, C, TOLD) == []
    assert host.found(guest(host), WEB) == str(A.addresses[0])
    assert host.is_silent(guest(host), UPLINK)


def test_names_that_change_are_answered_at_once_by_the_same_process(
    host: DnsHost,
) -> None:
    pid = host.service.pid()
    host.bed.names = (named(A, f"new.{DOMAIN}", f"new.blue.{DOMAIN}"),)
    assert host.tell(*ALL) == []
    asker = guest(host, 2)
    eventually(lambda: host.found(asker, f"new.{DOMAIN}") == str(A.addresses[0]))
    assert host.found(asker, f"new.blue.{DOMAIN}") == str(A.addresses[0])
    assert host.found(asker, WEB) == "NXDOMAIN"
    assert host.service.pid() == pid


def test_other_names_are_asked_of_the_clouds_resolver(host: DnsHost) -> None:
    asker = guest(host)
    for stream in (False, True):
        assert host.found(asker, "www.example.org", stream=stream) == "192.0.2.80"
    assert host.found(asker, "nobody.example.org") == "NXDOMAIN"
    assert host.found(asker, f"nobody.{DOMAIN}") == "NXDOMAIN"
    cut = host.ask(asker, "long.example.org", "TXT")
    assert cut is not None
    assert cut.flags & dns.flags.TC
    whole = host.ask(asker, "long.example.org", "TXT", stream=True)
    assert whole is not None
    assert len(whole.answer[0]) == 4


def test_where_a_resolver_fails_another_is_asked(host: DnsHost) -> None:
    asker = guest(host)
    told = host.log().count("no answer for")
    for resolvers, found in (
        ((REFUSING, UNABLE, RESOLVER), "192.0.2.80"),
        ((UNABLE, REFUSING), "REFUSED"),
        ((REFUSING,), "SERVFAIL"),
        ((), "REFUSED"),
    ):
        host.configure(*resolvers, domains=(DOMAIN,))
        host.settle(asker, A, *ALL)
        for stream in (False, True):
            assert host.found(asker, "www.example.org", stream=stream) == found
    assert host.log().count("no answer for") == told + 1, "told once"


def test_one_guests_questions_wait_for_nobody_and_nobody_for_them(
    host: DnsHost,
) -> None:
    with in_netns(host.resolver):
        mute = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with mute, ExitStack() as stack:
        mute.bind((SILENT, 53))
        host.configure(SILENT)
        host.settle(guest(host), A, *ALL)
        with in_netns(guest(host)):
            flood = stack.enter_context(
                socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            )
        flood.connect((GATEWAYS[4], 53))
        query = dns.message.make_query("www.example.org", "A").to_wire()
        for _ in range(MOST_WAITING + 20):
            flood.send(query)
        flood.settimeout(5)
        assert flood.recv(512)[3] & 0xF == dns.rcode.SERVFAIL, "one too many"
        mute.settimeout(5)
        ports = [mute.recvfrom(512)[1][1] for _ in range(MOST_WAITING)]
        mute.settimeout(0)
        with pytest.raises(BlockingIOError):
            mute.recv(512)
        assert len(set(ports)) > MOST_WAITING / 2, "they share their source port"
        assert host.found(guest(host), WEB) == str(A.addresses[0])
        assert host.found(guest(host, 1), WEB) == str(B.addresses[0])


def test_what_is_no_question_does_not_end_the_process(host: DnsHost) -> None:
    pid = host.service.pid()
    with in_netns(guest(host)):
        sending = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        stream = socket.create_connection((GATEWAYS[4], 53), 5)
    with sending, stream:
        for length in (0, 1, 11, 12, 40, 1400):
            sending.sendto(os.urandom(length), (GATEWAYS[4], 53))
        stream.sendall(b"\xff\xff" + os.urandom(100))
        assert stream.recv(1) == b"", "a question longer than any is not read"
    assert host.found(guest(host), WEB) == str(A.addresses[0])
    assert host.service.pid() == pid
    assert "Traceback" not in host.log()


def test_the_process_has_no_privileges_and_outlives_the_agent(host: DnsHost) -> None:
    pid = host.service.pid()
    host.configure(RESOLVER, domains=(DOMAIN,))  # a new agent
    assert host.serve(*ALL) == []
    assert host.service.pid() == pid
    status = Path(f"/proc/{pid}/status").read_text()
    fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    assert set(fields["Uid"].split()) != {"0"}
    assert int(fields["CapEff"], 16) == 1 << 10
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    eventually(lambda: host.service.pid() is None)
    assert host.tell(*ALL) == []
    host.await_service(guest(host))
    assert host.service.pid() not in {None, pid}


def test_a_tap_that_is_made_anew_is_heard_again(host: DnsHost) -> None:
    host.bed.host.ip("link", "del", A.interface)
    host.bed.plug(A)  # under the old name, with another index
    assert host.serve(*ALL) == []
    eventually(lambda: host.found(guest(host), WEB, timeout=0.5) != "silence")


def test_where_nobody_asks_there_is_no_process(host: DnsHost) -> None:
    host.serve(TOLD)
    assert host.service.pid() is None
    listed = host.bed.host.run(["nft", "list", "set", "inet", "calico", "dns4"])
    assert "tap" not in listed.stdout


def test_p40_names_are_answered_without_agent_and_etcd() -> None:
    with agent_host() as host:
        asker = host.bed.plug(A)
        for subnet in asking_subnets().values():
            host.etcdctl("put", KEYS.subnet(subnet.id), encode_subnet(subnet).decode())

        def call(name: str) -> None:
            key = KEYS.port_names(A.project, C.port)
            host.etcdctl("put", key, encode_port_names(named(C, name)).decode())

        def told(name: str) -> str:
            query = dns.message.make_query(name, "A")
            with in_netns(asker):
                try:
                    reply = dns.query.udp(query, GATEWAYS[4], timeout=0.3)
                except (OSError, dns.exception.Timeout):
                    return "silence"
            return " ".join(str(one) for rrset in reply.answer for one in rrset)

        call("web.example")
        host.publish(A)
        host.start()
        eventually(
            lambda: told("web.example") == str(C.addresses[0]),
            20,
            lambda: host.log[-2000:],
        )
        passes = host.log.count("host changed")
        call("db.example")
        eventually(lambda: told("db.example") == str(C.addresses[0]))
        assert host.log.count("host changed") == passes
        host.end(signal.SIGKILL)
        host.etcd.kill()
        assert told("db.example") == str(C.addresses[0])
        assert told("web.example") == ""
