"""What a host's filter has where instances are to be seen as their floating IPs."""

from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network, ip_address, ip_network

from hypothesis import given
from hypothesis import strategies as st
from tests.endpoints import endpoint
from tests.policies import OPEN_GROUPS
from tests.unit.hosts import SUBNET, WIDE, world
from tests.unit.test_floating import FACTS, TAPS, E, floating

from calico.model.cloud_settings import CloudSettings
from calico.model.records import Endpoint, Nat
from calico.plan.filter import FilterFacts, FilterPlanner
from calico.plan.host import HostFacts, plan_host
from calico.plan.outgoing import cloud_elements

A, B, C = endpoint(2), endpoint(3), endpoint(4)
ON = CloudSettings(translate_sources=True)
OWN = floating(A, ("10.65.0.2", E))


def elements(
    *endpoints: Endpoint, settings: CloudSettings = ON, facts: HostFacts = FACTS
) -> dict[str, str]:
    """Return the elements that are about outgoing connections."""
    wanted = replace(world(*endpoints), settings=settings)
    found = plan_host(wanted, facts).whole_filter.elements
    names = {"outgoing4", "cloud4"}
    return {e.key: value for e, value in found.items() if e.set in names}


def test_s13_a_ports_addresses_lead_to_floating_ips_and_the_cloud_is_known() -> None:
    cloud = {str(SUBNET.prefix): "", str(WIDE.prefix): ""}
    assert elements(OWN, B) == {f'"{A.interface}" . 10.65.0.2': E, **cloud}


def test_p29_what_nobody_needs_is_not_there() -> None:
    assert elements(OWN, B, settings=CloudSettings()) == {}
    assert elements(A, B) == {}
    assert elements(OWN, B, facts=HostFacts()) == {}, "its interface is not there"
    elsewhere = replace(OWN, leaving_to=None, arriving_from=B.host)
    assert elements(elsewhere) == {}, "it runs on another host"


@given(st.permutations(["10.70.0.10", "10.70.0.9", "10.71.0.1"]))
def test_s13_of_several_floating_ips_of_an_address_the_lowest_is_seen(
    externals: list[str],
) -> None:
    nats = (
        Nat(internal=A.addresses[0], external=ip_address(each)) for each in externals
    )
    found = elements(replace(A, nats=tuple(nats)))
    assert found[f'"{A.interface}" . 10.65.0.2'] == "10.70.0.9"


def test_p39_a_subnet_that_comes_costs_nothing_of_a_port() -> None:
    planner = FilterPlanner()
    facts = FilterFacts(taps=TAPS, translate_sources=True)
    before = planner.plan([OWN, B], [SUBNET], OPEN_GROUPS, facts)
    after = planner.plan([OWN, B, C], [SUBNET, WIDE], OPEN_GROUPS, facts)
    changed = {name for name in after if after[name] is not before.get(name)}
    assert changed == {"broadcasts", "cloud", f"port {C.interface}"}


# Few bits, so that prefixes are equal, within each other, or neighbours.
PREFIXES = st.builds(
    lambda bits, length: IPv4Network(((10 << 24) | bits, length), strict=False),
    st.integers(0, 7),
    st.integers(28, 32),
)


@given(st.lists(PREFIXES, max_size=6), st.integers(0, 15))
def test_ranges_of_the_cloud_never_overlap_and_hold_every_subnet(
    prefixes: list[IPv4Network], last: int
) -> None:
    address = IPv4Address((10 << 24) | last)
    ranges = [ip_network(e.key) for e in cloud_elements(prefixes)]
    holding = [each for each in ranges if address in each]
    assert len(holding) == any(address in prefix for prefix in prefixes)
    assert set(ranges) <= set(prefixes), "none is merged with its neighbour"


def test_subnets_of_ipv6_are_not_of_the_set() -> None:
    assert not [*cloud_elements([ip_network("2001:db8::/64")])]
