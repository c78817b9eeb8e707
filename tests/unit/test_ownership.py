"""Which pairs a port may have, against a judge that looks at each single address."""

from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network, IPv6Network, ip_address, ip_network

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from tests.endpoints import endpoint
from tests.unit.hosts import SUBNET, pair, world

from calico.model.ids import Address, NetworkId, Prefix, ProjectId, SubnetId
from calico.model.records import Endpoint, Subnet
from calico.plan.host import HostFacts, plan_host
from calico.policy.ownership import (
    Allowed,
    Grounds,
    Objection,
    RefusedPair,
    explain,
    grants,
    grounded,
    objection,
    own_pairs,
    survey,
)

MINE, THEIRS = ProjectId("mine"), ProjectId("theirs")
PORT = endpoint(2, project=MINE)


def subnet(
    prefix: str | Prefix, project: ProjectId | None, gateway: Address | None = None
) -> Subnet:
    return Subnet(
        id=SubnetId(f"{prefix}-{project}"),
        network=NetworkId("net"),
        prefix=ip_network(str(prefix)),
        project=project,
        gateway=gateway,
    )


CLOUD = (
    subnet("10.1.0.0/24", MINE, ip_address("10.1.0.1")),
    subnet("10.1.1.0/24", MINE),
    subnet("10.2.0.0/24", THEIRS, ip_address("10.2.0.1")),
    subnet("10.3.0.0/24", None),
    subnet("2001:db8:1::/64", MINE),
)


@pytest.mark.parametrize(
    ("prefix", "verdict"),
    [
        ("10.1.0.9/32", None),
        ("10.1.0.0/24", None),
        ("10.1.0.128/25", None),
        ("2001:db8:1::9/128", None),
        ("10.65.0.2/32", None),  # the port's own fixed address
        ("10.1.0.1/32", Objection.GATEWAY),
        ("10.2.0.1/32", Objection.GATEWAY),
        ("10.2.0.9/32", Objection.FOREIGN),
        ("10.3.0.9/32", Objection.FOREIGN),
        ("10.1.0.0/23", Objection.FOREIGN),  # two of his, but in neither wholly
        ("10.0.0.0/8", Objection.FOREIGN),
        ("0.0.0.0/0", Objection.FOREIGN),
        ("::/0", Objection.FOREIGN),
        ("192.0.2.1/32", Objection.FOREIGN),
    ],
)
def test_p47_a_pair_is_from_the_projects_own_subnets(
    prefix: str, verdict: Objection | None
) -> None:
    assert objection(ip_network(prefix), PORT, survey(CLOUD)) is verdict


def test_p47_what_is_granted_is_allowed_but_never_a_gateway() -> None:
    granted = replace(PORT, granted=(ip_network("10.2.0.0/24"),))
    space = survey(CLOUD)
    assert objection(ip_network("10.2.0.9/32"), granted, space) is None
    assert objection(ip_network("10.2.0.0/23"), granted, space) is Objection.FOREIGN
    gateway = ip_network("10.2.0.1/32")
    assert objection(gateway, granted, space) is Objection.GATEWAY
    routed = replace(PORT, addresses=(ip_address("10.2.0.1"),))
    assert objection(gateway, routed, space) is Objection.GATEWAY


def test_p47_a_port_of_no_project_owns_nothing_of_unknown_subnets() -> None:
    nobodys = replace(PORT, project=ProjectId(""))
    wanted = ip_network("10.3.0.9/32")
    cloud = (*CLOUD, subnet("10.3.0.0/16", ProjectId("")))
    assert objection(wanted, nobodys, survey(cloud)) is Objection.FOREIGN
    grounds = Grounds(reserved={ProjectId(""): frozenset({ip_address("10.3.0.9")})})
    assert grants([wanted], ProjectId(""), grounds) == ()


def test_p47_grants_are_reserved_addresses_and_what_the_operator_allows() -> None:
    grounds = Grounds(
        reserved={
            MINE: frozenset({ip_address("10.9.0.5")}),
            THEIRS: frozenset({ip_address("10.9.0.6")}),
        },
        allowed=(
            Allowed(prefix=ip_network("192.0.2.0/24")),
            Allowed(prefix=ip_network("198.51.100.0/24"), project=THEIRS),
        ),
    )
    asked = [
        ip_network(prefix)
        for prefix in (
            "198.51.100.1/32",
            "192.0.2.0/25",
            "192.0.0.0/16",
            "10.9.0.6/32",
            "10.9.0.5/32",
            "10.9.0.4/31",
        )
    ]
    assert [str(p) for p in grants(asked, MINE, grounds)] == [
        "10.9.0.5/32",
        "192.0.2.0/25",
    ]
    assert [str(p) for p in grants(asked, THEIRS, grounds)] == [
        "10.9.0.6/32",
        "192.0.2.0/25",
        "198.51.100.1/32",
    ]


# Sixteen addresses of each family, so that borders meet often, and one family's
# numbers are the other's too.
def _prefix(version: int, number: int, length: int) -> Prefix:
    if version == 4:
        return IPv4Network((number, 28 + length), strict=False)
    return IPv6Network((number, 124 + length), strict=False)


small = st.builds(
    _prefix, st.sampled_from([4, 6]), st.integers(0, 15), st.integers(0, 4)
)
projects = st.sampled_from([None, MINE, THEIRS])


@st.composite
def clouds(draw: st.DrawFn) -> tuple[tuple[Subnet, ...], Endpoint, Prefix]:
    subnets = draw(st.lists(st.tuples(small, projects), max_size=5))
    gateways = st.none() | st.integers(0, 15)
    cloud = tuple(
        subnet(prefix, project, _gateway(prefix, draw(gateways)))
        for prefix, project in subnets
    )
    claimant = replace(
        PORT,
        addresses=tuple(p.network_address for p in draw(st.lists(small, max_size=2))),
        granted=tuple(draw(st.lists(small, max_size=2))),
    )
    return cloud, claimant, draw(small)


def _gateway(prefix: Prefix, offset: int | None) -> Address | None:
    return None if offset is None else prefix[offset % prefix.num_addresses]


def allowed(cloud: tuple[Subnet, ...], claimant: Endpoint, asked: Prefix) -> bool:
    """Judge by single addresses; slow, and obvious."""
    wanted = set(asked)
    if len(wanted) == 1 and wanted <= {s.gateway for s in cloud}:
        return False
    shares: list[set[Address]] = [
        set(s.prefix) for s in cloud if s.project == claimant.project
    ]
    shares += [set(prefix) for prefix in claimant.granted]
    shares += [{address} for address in claimant.addresses]
    return any(wanted <= share for share in shares)


TWO = (subnet("0.0.0.0/29", MINE), subnet("0.0.0.8/29", MINE))


@given(clouds())
@example((TWO, replace(PORT, addresses=()), ip_network("0.0.0.0/28")))
@example(
    (
        (subnet("::/124", MINE),),
        replace(PORT, addresses=(IPv4Address("0.0.0.1"),)),
        ip_network("::1/128"),
    )
)
def test_p47_the_decision_is_that_of_each_single_address(
    case: tuple[tuple[Subnet, ...], Endpoint, Prefix],
) -> None:
    cloud, claimant, asked = case
    found = objection(asked, claimant, survey(cloud))
    assert (found is None) == allowed(cloud, claimant, asked)


def test_p47_pairs_are_parted_in_order() -> None:
    asked = ("10.1.0.9/32", "10.2.0.9/32", "10.1.0.1/32", "10.1.1.0/25")
    claimant = replace(PORT, pairs=tuple(pair(prefix) for prefix in asked))
    legal, refused = own_pairs(claimant, survey(CLOUD))
    assert [str(p.prefix) for p in legal] == ["10.1.0.9/32", "10.1.1.0/25"]
    assert [(str(r.prefix), r.reason) for r in refused] == [
        ("10.2.0.9/32", Objection.FOREIGN),
        ("10.1.0.1/32", Objection.GATEWAY),
    ]


@pytest.mark.parametrize("project", [None, THEIRS])
def test_p47_a_host_gives_no_route_for_a_pair_of_anothers_subnet(
    project: ProjectId | None,
) -> None:
    facts = HostFacts(taps=frozenset({PORT.interface}))
    mine = replace(PORT, project=ProjectId("project"), pairs=(pair("10.2.0.9/32"),))
    other = subnet("10.2.0.0/24", project)
    cloud = replace(world(mine), subnets={SUBNET.id: SUBNET, other.id: other})
    clean = replace(cloud, endpoints=(replace(mine, pairs=()),))
    plan = plan_host(cloud, facts)
    assert plan.refused_pairs == (
        RefusedPair(
            port=mine.port, prefix=ip_network("10.2.0.9/32"), reason=Objection.FOREIGN
        ),
    )
    assert plan.state == plan_host(clean, facts).state
    cleaned = plan_host(clean, facts).whole_filter
    assert plan.whole_filter.elements == cleaned.elements
    granted = replace(mine, granted=(ip_network("10.2.0.9/32"),))
    assert plan_host(replace(cloud, endpoints=(granted,)), facts).refused_pairs == ()


def test_p47_who_asks_learns_nothing_of_another_projects() -> None:
    foreign, gateway = ip_network("10.2.0.9/32"), ip_network("10.2.0.1/32")
    theirs = [s for s in CLOUD if s.project == THEIRS]
    texts = [
        explain(Objection.FOREIGN, foreign, theirs, MINE),
        explain(Objection.GATEWAY, gateway, theirs, MINE),
        explain(Objection.FOREIGN, ip_network("192.0.2.1/32"), [], MINE),
    ]
    assert len(set(texts)) == 1, "nor whether there is one"
    assert "not within the project's own subnets" in texts[0]


def test_p47_an_administrator_reads_whose_the_space_is() -> None:
    own, theirs = CLOUD[0], CLOUD[2]
    text = explain(Objection.FOREIGN, ip_network("10.2.0.9/32"), [theirs], None)
    assert text.endswith(f"it is of subnet {theirs.id} of project theirs")
    text = explain(Objection.FOREIGN, ip_network("192.0.2.1/32"), [], None)
    assert text.endswith("it is of no subnet")
    gateway = ip_network("10.1.0.1/32")
    for seen in (None, MINE):
        text = explain(Objection.GATEWAY, gateway, [own], seen)
        assert text == f"it is the gateway of subnet {own.id}"


@given(clouds())
def test_p47_a_host_comes_to_the_servers_verdict(
    case: tuple[tuple[Subnet, ...], Endpoint, Prefix],
) -> None:
    cloud, claimant, asked = case
    reserved = frozenset(p.network_address for p in claimant.granted)
    grounds = Grounds(space=survey(cloud), reserved={MINE: reserved})
    asking = replace(claimant, granted=(), pairs=(pair(str(asked)),))
    published, refused = grounded(asking, grounds)
    assert len(published.pairs) + len(refused) == 1
    assert own_pairs(published, survey(cloud)) == (published.pairs, ())
