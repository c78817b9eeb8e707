"""What is said of a packet's way."""

from dataclasses import replace
from typing import Any

import pytest
from tests.endpoints import HOST, endpoint
from tests.policies import OPEN
from tests.unit.explaining import (
    KEYS,
    ONE,
    ONLY_PINGS,
    OTHER,
    PINGS,
    TWO,
    TwoHosts,
    items,
    last,
    of_words,
)
from tests.unit.hosts import pair

from calico.model.ids import HostName
from calico.model.records import Endpoint
from calico.verify.explain.hops import Outcome
from calico.verify.explain.journey import explain
from calico.verify.explain.picture import BadQuestion, Guest, Picture
from calico.verify.explain.question import Asked, understand
from calico.verify.explain.report import Sent, agrees, as_json
from calico.verify.explain.routes import Forwarded, Local, Route, Unroutable


def test_a_packet_is_followed_from_port_to_port() -> None:
    found = of_words(items(ONE, TWO))

    assert [(hop.node, hop.what) for hop in found.hops] == [
        (HOST, "port"),
        (HOST, "source address"),
        (HOST, "egress policy"),
        (HOST, "route"),
        ("router", "route"),
        (OTHER, "route"),
        (OTHER, "port"),
        (OTHER, "ingress policy"),
    ]
    assert found.allowed
    assert found.complete
    body = as_json(found)
    assert body["verdict"] == "allowed"
    assert body["rule"] == {
        "id": "any4",
        "group": "open",
        "policy": None,
        "direction": "ingress",
    }
    assert "agree" not in body


@pytest.mark.parametrize(
    ("source", "target", "words", "end"),
    [
        (ONE, TWO, {"version": 6}, (OTHER, "ingress policy", "allowed")),
        (
            replace(ONE, groups=frozenset({PINGS})),
            TWO,
            {"port": 80},
            (HOST, "egress policy", "denied"),
        ),
        (
            ONE,
            replace(TWO, groups=frozenset({PINGS})),
            {"port": 80},
            (OTHER, "ingress policy", "denied"),
        ),
        (
            ONE,
            replace(TWO, groups=frozenset()),
            {},
            (OTHER, "ingress policy", "denied"),
        ),
        (
            ONE,
            replace(TWO, groups=frozenset(), port_security=False),
            {"icmp_type": 3},
            (HOST, "connection", "denied"),
        ),
        (
            replace(ONE, port_security=False),
            replace(TWO, groups=frozenset({PINGS})),
            {"icmp_type": 3},
            (OTHER, "ingress policy", "allowed"),
        ),
        (
            ONE,
            TWO,
            {"version": 6, "icmp_type": 134},
            (HOST, "destination address", "denied"),
        ),
    ],
    ids=[
        "IPv6",
        "egress",
        "ingress",
        "no group",
        "stray",
        "stateless",
        "router advertisement",
    ],
)
def test_the_first_that_denies_is_where_it_ends(
    source: Endpoint, target: Endpoint, words: Any, end: tuple[str, str, str]
) -> None:
    found = of_words(items(source, target, policies=(ONLY_PINGS,)), **words)
    assert last(found) == end
    assert found.allowed is (end[2] == "allowed")
    assert (found.rule is None) is (end[2] == "denied")


@pytest.mark.parametrize(
    ("target", "what"),
    [
        ("10.65.0.255", "destination address"),
        ("255.255.255.255", "destination address"),
        ("224.0.0.251", "destination address"),
        ("169.254.169.254", "destination address"),
        ("fe80::1", "destination address"),
    ],
)
def test_some_destinations_are_nobodys(target: str, what: str) -> None:
    assert last(of_words(items(ONE, TWO), target=target)) == (HOST, what, "denied")


@pytest.mark.parametrize(
    ("mac", "verdict"), [(str(ONE.mac), True), ("fa:16:3e:00:00:77", False)]
)
def test_a_pairs_address_is_a_source_for_its_mac_alone(
    mac: str, *, verdict: bool
) -> None:
    sender = replace(ONE, pairs=(pair("10.65.0.64/26", mac),))
    found = of_words(items(sender, TWO), source="10.65.0.70")
    assert found.hops[1].what == "source address"
    assert "pair 10.65.0.64/26" in found.hops[1].detail
    assert found.allowed is verdict


def test_an_address_of_several_ports_cannot_send_and_routes_choose_who_receives() -> (
    None
):
    shared = pair("10.65.0.70/32")
    stored = items(replace(ONE, pairs=(shared,)), replace(TWO, pairs=(shared,)))
    with pytest.raises(BadQuestion, match="address of several ports"):
        of_words(stored, source="10.65.0.70")
    found = of_words(stored, target="10.65.0.70")
    assert last(found) == (OTHER, "ingress policy", "allowed")
    assert str(TWO.port) in found.hops[-2].detail


@pytest.mark.parametrize(
    ("status", "words"),
    [("down", "tap is not on the host"), ("error", "log says why")],
)
def test_a_port_that_is_not_up_is_cut_off(status: str, words: str) -> None:
    found = of_words(items(ONE, TWO, status=status))
    assert last(found) == (HOST, "port", "denied")
    assert words in found.hops[-1].detail


def test_a_port_without_a_status_or_of_no_use_says_which() -> None:
    stored = items(ONE, TWO)
    del stored[KEYS.port_status(OTHER, TWO.device, TWO.port)]
    found = of_words(stored)
    assert last(found) == (OTHER, "port", "denied")
    assert "has not reported it" in found.hops[-1].detail

    guest = Guest(name="two", port=TWO.port, host=OTHER, addresses=TWO.addresses)
    stored[KEYS.endpoint(OTHER, TWO.device, TWO.port)] = b"{}"
    assert "cannot be used" in Picture(items=stored, guests=(guest,)).problem(TWO.port)


def test_a_port_that_is_not_published_is_missed_where_its_packets_go() -> None:
    guest = Guest(
        name="two",
        port=TWO.port,
        host=OTHER,
        addresses=TWO.addresses,
        note="Neutron says down",
    )
    picture = Picture(items=items(ONE), guests=(guest,))
    asked = understand(Asked(source=str(ONE.port), target="two"), picture)
    lost = TwoHosts({"router": Forwarded(interface="out")})
    found = explain(asked, picture, lost)
    assert last(found) == ("internet", "outside", "denied")
    assert "not published to its host (Neutron says down)" in found.hops[-1].detail
    back = understand(Asked(source="two", target=str(ONE.port)), picture)
    assert last(explain(back, picture, TwoHosts())) == (OTHER, "port", "denied")


@pytest.mark.parametrize(
    ("node", "route", "end"),
    [
        ("router", Unroutable("no route"), ("router", "route", "denied")),
        (HOST, Unroutable("blackhole"), (HOST, "route", "denied")),
        (OTHER, Forwarded(interface="tap9"), (OTHER, "port", "denied")),
        (OTHER, Forwarded(interface="mgmt"), (OTHER, "beyond", "unknown")),
        ("router", Local(), ("router", "node itself", "delivered")),
        (HOST, Local(), (HOST, "host itself", "delivered")),
    ],
    ids=["no route", "blackhole", "foreign tap", "unseen", "router", "host"],
)
def test_routes_decide_where_it_ends(
    node: str, route: Route, end: tuple[str, str, str]
) -> None:
    assert last(of_words(items(ONE, TWO), TwoHosts({node: route}))) == end


def test_groups_do_not_count_between_an_instance_and_its_host() -> None:
    closed = items(replace(ONE, groups=frozenset()), TWO)
    host = TwoHosts({HOST: Local()})
    assert last(of_words(closed, host, target="192.0.2.1"))[2] == "delivered"
    assert last(of_words(closed, host, target="192.0.2.1", port=22))[2] == "denied"


def test_p15_a_host_takes_dns_where_the_instance_was_told_to_ask() -> None:
    host = TwoHosts({HOST: Local()})
    stored = items(ONE, TWO)
    for target, port, outcome in (
        ("10.65.0.1", 53, "delivered"),
        ("10.65.0.1", 54, "denied"),
        ("192.0.2.1", 53, "denied"),
    ):
        found = of_words(stored, host, target=target, port=port, protocol="udp")
        assert last(found) == (HOST, "host itself", outcome), target


def test_a_tap_of_another_port_is_not_the_ports() -> None:
    third = replace(endpoint(4), host=OTHER)
    wrong = TwoHosts({OTHER: Forwarded(interface=str(third.interface))})
    found = of_words(items(ONE, TWO, third), wrong)
    assert last(found) == (OTHER, "port", "denied")
    assert f"{third.interface} is port {third.port}" in found.hops[-1].detail


def test_a_host_reaches_its_own_instances() -> None:
    own = TwoHosts({"internet": Forwarded(interface=str(TWO.interface))})
    closed = replace(TWO, host=HostName("internet"), groups=frozenset())
    found = of_words(items(ONE, closed), own, source="192.0.2.1")
    assert last(found) == ("internet", "host itself", "allowed")


def test_a_fixed_address_goes_before_another_ports_pair() -> None:
    sharer = replace(ONE, pairs=(pair("10.65.0.0/28"),))
    found = of_words(items(sharer, TWO), target="10.65.0.3")
    assert found.question.target.port == TWO.port


@pytest.mark.parametrize(
    ("prefix", "what"),
    [("10.65.0.64/26", "neighbour"), ("10.65.0.70/32", "ingress policy")],
)
def test_an_instance_is_asked_for_what_is_within_a_pairs_network(
    prefix: str, what: str
) -> None:
    holder = replace(TWO, pairs=(pair(prefix),))
    found = of_words(items(ONE, holder), target="10.65.0.70")
    assert last(found)[:2] == (OTHER, what)
    assert found.allowed
    assert found.complete is (what == "ingress policy")


def test_a_circle_of_routes_ends() -> None:
    back = TwoHosts({"router": Forwarded(interface="to-a")})
    found = of_words(items(ONE, TWO), back)
    assert last(found)[1:] == ("route", "denied")
    assert "circle" in found.hops[-1].detail


def test_the_outside_is_where_foreign_addresses_are() -> None:
    out = TwoHosts({"router": Forwarded(interface="out")})
    found = of_words(items(ONE, TWO), out, target="198.51.100.80")
    assert last(found) == ("internet", "outside", "delivered")
    assert found.rule is not None
    assert found.rule.direction == "egress"
    nobody = of_words(items(ONE, TWO), out, target="10.65.0.99")
    assert last(nobody) == ("internet", "outside", "denied")
    coming = of_words(items(ONE, TWO), source="198.51.100.80")
    assert [hop.node for hop in coming.hops[:2]] == ["internet", "router"]
    assert coming.allowed


def test_what_a_host_cannot_see_is_said_to_be_others() -> None:
    here = TwoHosts(seen=frozenset({HOST}))
    going = of_words(items(ONE, TWO), replace(here, routes={"router": Local()}))
    assert going.complete
    alone = TwoHosts({HOST: Forwarded(interface="eth9")}, frozenset({HOST}))
    away = of_words(items(ONE, TWO), alone)
    assert (away.allowed, away.complete) == (True, False)
    assert last(away) == (OTHER, "beyond", "unknown")
    there = TwoHosts(seen=frozenset({OTHER}))
    coming = of_words(items(ONE, TWO), there)
    assert coming.hops[0].outcome is Outcome.UNKNOWN
    assert coming.hops[0].node == HOST
    assert last(coming) == (OTHER, "ingress policy", "allowed")
    shut = of_words(items(ONE, replace(TWO, groups=frozenset())), there)
    assert (shut.allowed, shut.complete) == (False, True)


def test_a_packet_that_was_sent_agrees_or_not() -> None:
    found = of_words(items(ONE, TWO))
    assert OPEN in TWO.groups
    assert agrees(found, Sent(arrived=True, detail=""))
    assert not agrees(found, Sent(arrived=False, detail=""))
    assert as_json(found, Sent(arrived=False, detail="gone"))["agree"] is False


def test_what_a_forwarded_port_leads_to_is_not_guessed() -> None:
    there = TwoHosts({OTHER: Forwarded(interface="calico-dhcp")})
    found = of_words(items(ONE, TWO), there, target="10.65.0.99")
    assert last(found) == (OTHER, "port forwarding", "unknown")
    assert not found.complete
