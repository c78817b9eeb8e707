"""A host that an instance comes to, or leaves: what it has, and in which order."""

from itertools import permutations

import pytest
from tests.endpoints import HOST, endpoint
from tests.unit.hosts import world

from calico.agent.keeper import Keeper
from calico.agent.statuses import statuses
from calico.config import AgentSettings
from calico.model.ids import HostName
from calico.model.keys import Keys
from calico.model.records import Endpoint
from calico.plan.items import Item, Route
from calico.system.fake_kernel import FakeKernel

STAYING = endpoint(2)
TARGET = endpoint(2, arriving_from=HostName("other"))
SOURCE = endpoint(2, leaving_to=HostName("other"))


def run(kernel: FakeKernel, *endpoints: Endpoint) -> Keeper:
    keeper = Keeper(kernel, AgentSettings(host=HOST))
    _, delta = keeper.compare(world(*endpoints), (), resync=True)
    assert keeper.apply(delta).problems == ()
    return keeper


def routes(kernel: FakeKernel) -> dict[str, bool]:
    """Return the destinations of routes, and whether each yields."""
    found = [i for i in kernel.items.values() if isinstance(i, Route)]
    return {str(route.destination): route.yielding for route in found}


OWN = dict.fromkeys(("10.65.0.2/32", "2001:db8:65::2/128"), False)
YIELDING = dict.fromkeys(OWN, True)


def fresh() -> FakeKernel:
    return FakeKernel([STAYING.interface])


def test_a_target_has_all_but_its_routes() -> None:
    prepared, served = fresh(), fresh()
    run(prepared, TARGET)
    run(served, STAYING)
    lacks = {k: i for k, i in served.items.items() if prepared.items.get(k) != i}
    assert routes(prepared) == {}
    assert prepared.elements == served.elements
    assert all(isinstance(i, Route) or "rp_filter" in str(i) for i in lacks.values())


def test_p38_what_has_arrived_stays_whatever_the_agent_remembers() -> None:
    kernel = fresh()
    keeper = run(kernel, TARGET)
    assert keeper.admit([STAYING.interface]) == []
    assert routes(kernel) == OWN
    run(kernel, TARGET)  # another agent
    assert routes(kernel) == OWN
    run(kernel, STAYING)
    assert routes(kernel) == OWN


def test_a_tap_that_nobody_is_awaited_on_admits_nobody() -> None:
    kernel = fresh()
    assert run(kernel, SOURCE).admit([STAYING.interface]) == []
    assert routes(kernel) == YIELDING


def test_an_aborted_migration_leaves_nothing_on_the_target() -> None:
    kernel = fresh()
    run(kernel, TARGET).admit([STAYING.interface])
    run(kernel)
    assert routes(kernel) == {}
    assert not [e for e in kernel.elements if e.interface == STAYING.interface]


WORLDS = {"gone": (), "here": (STAYING,), "leaving": (SOURCE,)}
ROUTES = {"gone": {}, "here": OWN, "leaving": YIELDING}


@pytest.mark.parametrize("order", list(permutations(WORLDS)))
def test_each_state_of_a_source_is_reached_from_each(order: tuple[str, ...]) -> None:
    kernel = fresh()
    for state in order:
        run(kernel, *WORLDS[state])
        assert routes(kernel) == ROUTES[state]


@pytest.mark.parametrize("way", [(STAYING, SOURCE), (SOURCE, STAYING)])
def test_a_source_is_never_without_a_route(way: tuple[Endpoint, Endpoint]) -> None:
    kernel = fresh()
    run(kernel, way[0])
    fewest = []

    def watched(item: Item) -> bool:
        if isinstance(item, Route):
            fewest.append(len(routes(kernel)))
        return False

    kernel.refuse = watched
    run(kernel, way[1])
    assert len(fewest) == 4
    assert min(fewest) >= 2


def test_an_address_leads_to_the_port_that_stays_alone() -> None:
    other = endpoint(3, addresses=SOURCE.addresses)
    kernel = FakeKernel([SOURCE.interface, other.interface])
    run(kernel, SOURCE, other)
    found = [i for i in kernel.items.values() if isinstance(i, Route)]
    assert {route.interface for route in found} == {other.interface}


def test_s20_a_target_is_not_up_before_it_is_activated() -> None:
    kernel, keys = fresh(), Keys()
    for one, wanted in ((TARGET, b"down"), (STAYING, b"up"), (SOURCE, b"up")):
        keeper = Keeper(kernel, AgentSettings(host=HOST))
        _, delta = keeper.compare(world(one), (), resync=True)
        (value,) = statuses(HOST, keys, keeper.apply(delta)).values()
        assert b'"status":"%s"' % wanted in value
        assert (b"prepared" in value) == (one is TARGET)
