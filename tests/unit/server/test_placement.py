"""What Neutron's rows of bindings mean: where a port is, comes from and goes to."""

from ipaddress import ip_address
from typing import NamedTuple

import pytest
from tests.endpoints import endpoint

from calico.model.ids import HostName
from calico.server.placement import Placement, endpoints, placement

PORT = "port"
H1, H2, H3 = HostName("h1"), HostName("h2"), HostName("h3")


class Row(NamedTuple):
    """A row of ml2_port_bindings."""

    host: str
    status: str = "ACTIVE"
    vif_type: str = "tap"
    profile: str = ""
    port_id: str = PORT


SOURCE = Row("h1")
TARGET = Row("h2", "INACTIVE")
OLD = Row("h1", "INACTIVE", "unbound")
TOLD = '{"migrating_to": "h2"}'

TABLE = {
    "bound": ([SOURCE], {"h1"}, Placement(served=True)),
    "another driver's": ([SOURCE], set(), Placement(served=False)),
    "unbound": ([Row("", vif_type="unbound")], set(), Placement(served=False)),
    "failed": ([Row("h1", vif_type="binding_failed")], set(), Placement(served=False)),
    "prepared": ([SOURCE, TARGET], {"h1", "h2"}, Placement(served=True, targets=(H2,))),
    "to another driver's host": ([SOURCE, TARGET], {"h1"}, Placement(served=True)),
    "from another driver's host": (
        [SOURCE, TARGET],
        {"h2"},
        Placement(served=False, targets=(H2,)),
    ),
    "activated": ([Row("h2"), OLD], {"h2"}, Placement(served=True, sources=(H1,))),
    "between an activation's two transactions": (
        [Row("h1", vif_type="unbound"), TARGET],
        {"h2"},
        Placement(served=True, targets=(H2,)),
    ),
    "told in the profile": (
        [Row("h1", profile=TOLD)],
        {"h1"},
        Placement(served=True, targets=(H2,)),
    ),
    "told in the profile, and bound": (
        [Row("h1", profile=TOLD), TARGET],
        {"h1", "h2"},
        Placement(served=True, targets=(H2,)),
    ),
    "a profile of no sense": (
        [Row("h1", profile='{"migrating_to": 5}')],
        {"h1"},
        Placement(served=True),
    ),
}


@pytest.mark.parametrize(("rows", "ours", "wanted"), TABLE.values(), ids=TABLE)
def test_bindings_say_where_a_port_is_and_goes(
    rows: list[Row], ours: set[str], wanted: Placement
) -> None:
    assert placement(rows, {(PORT, host) for host in ours}) == wanted


def test_the_active_endpoint_is_first_and_yields_to_the_target() -> None:
    active = endpoint(2, host=H1)
    found = endpoints(active, Placement(served=True, targets=(H1, H2), sources=(H3,)))
    assert [(e.host, e.arriving_from, e.leaving_to) for e in found] == [
        ("h1", None, "h2"),
        ("h2", "h1", None),
        ("h3", None, "h1"),
    ]
    assert {e.addresses[0] for e in found} == {ip_address("10.65.0.2")}
