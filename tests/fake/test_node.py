"""How a host is introduced as a BGP speaker, and what an operator wrote is kept."""

from dataclasses import replace
from ipaddress import IPv4Address, IPv6Address, ip_interface

import pytest
from tests.endpoints import HOST
from tests.unit.hosts import world as world_of

from calico.agent.node import Introduction
from calico.config import AgentSettings
from calico.datastore.memory import MemoryStore
from calico.datastore.store import Result, Temporary, Transaction
from calico.model.bgp_codec import encode_node, parse_node
from calico.model.ids import Interface, InterfaceName, Invalid
from calico.model.keys import NODES
from calico.model.records import Node
from calico.model.world import Rejected, World
from calico.reconcile.filter import FilterState
from calico.system.kernel import Have

KEY = NODES + HOST
UP0 = InterfaceName("up0")
SETTINGS = AgentSettings(host=HOST, uplinks=(UP0,))
FOUR, SIX = ip_interface("192.0.2.1/24"), ip_interface("2001:db8::1/64")
MOVED = ip_interface("192.0.2.7/24")


def have(*addresses: Interface) -> Have:
    return Have(
        items={},
        taps=frozenset(),
        filter=FilterState(),
        addresses=tuple((UP0, address) for address in addresses),
    )


def world(store: MemoryStore) -> World:
    """Return what a watch of the store would show."""
    item = store.get(KEY)
    if item is None:
        return world_of()
    try:
        return replace(world_of(), nodes=(parse_node(item.value),))
    except Invalid as e:
        return replace(world_of(), rejected=(Rejected(key=KEY, reason=str(e)),))


def introduce(store: MemoryStore, *addresses: Interface) -> list[str]:
    introduction = Introduction(store, SETTINGS)
    return [str(p) for p in introduction.apply(world(store), have(*addresses))]


def stored(store: MemoryStore) -> Node:
    item = store.get(KEY)
    assert item is not None
    return parse_node(item.value)


def test_p43_an_address_that_comes_later_is_added() -> None:
    store = MemoryStore()
    assert introduce(store, FOUR) == []
    assert stored(store) == Node(name=HOST, address4=IPv4Address("192.0.2.1"))
    assert introduce(store, FOUR, SIX) == []
    assert stored(store).address6 == IPv6Address("2001:db8::1")


def test_p43_a_host_that_is_readdressed_is_corrected() -> None:
    store = MemoryStore()
    introduce(store, FOUR, SIX)
    assert introduce(store, MOVED) == []
    assert stored(store) == Node(
        name=HOST,
        address4=IPv4Address("192.0.2.7"),
        address6=IPv6Address("2001:db8::1"),
    ), "an address that is gone for a moment stays"


def test_p43_what_an_operator_adds_to_an_agents_node_stays() -> None:
    store = MemoryStore()
    introduce(store, FOUR)
    item = store.get(KEY)
    assert item is not None
    store.put(KEY, item.value.replace(b'"bgp":{', b'"bgp":{"asNumber":65001,'))
    introduce(store, MOVED)
    assert stored(store).as_number == 65001
    assert stored(store).address4 == IPv4Address("192.0.2.7")


def test_p43_an_operators_node_is_left_alone_and_compared() -> None:
    store = MemoryStore()
    mine = Node(name=HOST, address4=IPv4Address("192.0.2.1"), as_number=65001)
    store.put(KEY, encode_node(mine))
    assert introduce(store, FOUR, SIX) == [], "IPv6 may be left out on purpose"
    (problem,) = introduce(store, MOVED)
    assert "an operator's with 192.0.2.1" in problem
    assert "the host has 192.0.2.7" in problem
    assert stored(store) == mine


def test_p43_a_host_without_an_address_says_so() -> None:
    store = MemoryStore()
    (problem,) = introduce(store)
    assert "no address" in problem
    assert store.get(KEY) is None


def test_p43_a_node_that_cannot_be_read_is_not_replaced() -> None:
    store = MemoryStore()
    store.put(KEY, b"{no json")
    introduce(store, FOUR)
    item = store.get(KEY)
    assert item is not None
    assert item.value == b"{no json"


def test_p43_whose_a_node_is_is_asked_once() -> None:
    store = MemoryStore()
    store.put(KEY, encode_node(Node(name=HOST, address4=IPv4Address("192.0.2.1"))))
    introduction, seen = Introduction(store, SETTINGS), world(store)
    assert len(introduction.apply(seen, have(MOVED))) == 1
    store.fail(Temporary("asked"))
    assert len(introduction.apply(replace(seen), have(MOVED))) == 1
    assert introduction.apply(replace(seen), have(FOUR)) == []
    with pytest.raises(Temporary):
        store.get(KEY)


class ContendedStore(MemoryStore):
    """A store in which somebody else is always the first."""

    def transaction(self, transaction: Transaction) -> Result:
        if transaction.compares:
            super().put(KEY, encode_node(Node(name=HOST)))
        return super().transaction(transaction)


def test_p43_a_node_that_somebody_else_writes_meanwhile_is_a_problem() -> None:
    (problem,) = introduce(ContendedStore(), FOUR)
    assert "somebody else" in problem


def test_between_passes_the_datastore_is_not_asked_again() -> None:
    store = MemoryStore()
    introduction, seen = Introduction(store, SETTINGS), world(store)
    store.fail(Temporary("away"))
    first = introduction.apply(seen, have(FOUR))
    assert "away" in str(first[0])
    assert introduction.apply(seen, have(FOUR)) == first
    assert store.get(KEY) is None
    assert introduction.apply(replace(seen), have(FOUR)) == []


@pytest.mark.parametrize("addresses", [(FOUR,), (FOUR, SIX), (SIX,)])
def test_a_node_that_is_right_costs_nothing(addresses: tuple[Interface, ...]) -> None:
    store = MemoryStore()
    introduce(store, *addresses)
    before = str(store)
    seen = world(store)
    store.fail(Temporary("asked"))
    assert Introduction(store, SETTINGS).apply(seen, have(*addresses)) == []
    with pytest.raises(Temporary):
        store.get(KEY)
    assert str(store) == before
