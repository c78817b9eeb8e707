"""One flat address space: what overlaps is refused, whoever owns it or is first."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from tests.neutron.conftest import Cloud
from tests.neutron.deployment import Api, ApiError, Deployment, deployment
from tests.neutron.test_guard import OTHER, refusal

STRICT: dict[str, dict[str, str]] = {
    "ml2": {"type_drivers": "local,flat"},
}


@pytest.fixture(scope="module")
def second(cloud: Cloud) -> Iterator[Deployment]:
    """Another API on the same database, of a cloud where all networks are routed."""
    with deployment(cloud.database.url, cloud.etcd.endpoint, STRICT) as neutron:
        neutron.start_api()
        neutron.wait_ready()
        # Its policies are loaded by the first request, and two at once disturb that.
        neutron.api.post("networks", network={"name": "first"})
        yield neutron


@pytest.fixture(scope="module")
def taken(cloud: Cloud) -> list[dict[str, Any]]:
    """Return subnets of both families that are there already."""
    network = cloud.api.post("networks", network={"name": "taken"})
    return [
        subnet(cloud.api, network, cidr)
        for cidr in ("10.151.0.0/23", "2001:db8:151::/64")
    ]


def subnet(api: Api, network: dict[str, Any], cidr: str, **more: Any) -> Any:
    body = {
        "network_id": network["id"],
        "cidr": cidr,
        "ip_version": 6 if ":" in cidr else 4,
        **more,
    }
    return api.post("subnets", subnet=body)


def subnets_of(cloud: Cloud, network: dict[str, Any]) -> list[Any]:
    found = cloud.api.get(f"subnets?network_id={network['id']}")
    assert isinstance(found, list)
    return found


@pytest.mark.parametrize(
    ("cidr", "there"),
    [
        ("10.151.0.0/23", "10.151.0.0/23"),
        ("10.151.1.0/24", "10.151.0.0/23"),
        ("10.150.0.0/15", "10.151.0.0/23"),
        ("2001:db8:151::/64", "2001:db8:151::/64"),
        ("2001:db8:100::/40", "2001:db8:151::/64"),
    ],
)
@pytest.mark.parametrize("project", ["same", "another"])
def test_p11_an_overlapping_subnet_is_refused(
    cloud: Cloud, taken: list[dict[str, Any]], cidr: str, there: str, project: str
) -> None:
    owner = {"project_id": OTHER} if project == "another" else {}
    network = cloud.api.post("networks", network={"name": "late", **owner})
    with pytest.raises(ApiError) as refused:
        subnet(cloud.api, network, cidr, name="mine", **owner)
    assert refused.value.status == 409
    for words in (cidr, "(mine)", there, taken[":" in there]["id"]):
        assert words in str(refused.value)
    assert subnets_of(cloud, network) == []
    # Nothing is left of it: what lies beside can be had, of the same name.
    beside = "2001:db8:152::/64" if ":" in cidr else "10.152.0.0/24"
    cloud.api.delete(f"subnets/{subnet(cloud.api, network, beside)['id']}")


def test_s10_all_that_a_subnet_overlaps_is_named(cloud: Cloud) -> None:
    networks = [cloud.api.post("networks", network={"name": "n"}) for _ in range(6)]
    there = [f"10.158.{n}.0/24" for n in range(5)]
    for network, cidr in zip(networks, there, strict=False):
        subnet(cloud.api, network, cidr)
    two = refusal(lambda: subnet(cloud.api, networks[5], "10.158.0.0/23"))
    assert all(cidr in two for cidr in there[:2])
    five = refusal(lambda: subnet(cloud.api, networks[5], "10.158.0.0/21"))
    assert sum(cidr in five for cidr in there) == 3
    assert "and with 2 more" in five


def test_s10_a_subnet_may_be_changed_in_all_but_its_space(
    cloud: Cloud, taken: list[dict[str, Any]]
) -> None:
    change = {"name": "renamed", "enable_dhcp": False}
    changed = cloud.api.put(f"subnets/{taken[0]['id']}", subnet=change)
    assert changed["name"] == "renamed"


def test_s10_space_that_is_given_back_can_be_had(cloud: Cloud) -> None:
    first, other = (cloud.api.post("networks", network={"name": n}) for n in "ab")
    cidr = "10.153.0.0/24"
    cloud.api.delete(f"subnets/{subnet(cloud.api, first, cidr)['id']}")
    assert subnet(cloud.api, other, cidr)["cidr"] == cidr


def test_s10_of_many_at_once_one_is_stored(cloud: Cloud, second: Deployment) -> None:
    """Two API processes and their threads, on networks of their own."""
    apis = [cloud.api, second.api] * 4
    networks = [cloud.api.post("networks", network={"name": "race"}) for _ in apis]
    for round_number in range(4):
        cidr = f"10.154.{round_number}.0/24"

        def attempt(api: Api, network: dict[str, Any], cidr: str = cidr) -> int:
            try:
                subnet(api, network, cidr)
            except ApiError as e:
                return e.status
            return 201

        with ThreadPoolExecutor(len(apis)) as pool:
            answers = sorted(pool.map(attempt, apis, networks))
        assert answers == [201] + [409] * 7
        stored = [s for n in networks for s in subnets_of(cloud, n)]
        assert [s["cidr"] for s in stored].count(cidr) == 1


def test_s10_networks_of_other_drivers_have_spaces_of_their_own(cloud: Cloud) -> None:
    vlan = {
        "name": "vlan",
        "provider:network_type": "vlan",
        "provider:physical_network": "physnet1",
        "provider:segmentation_id": 109,
    }
    other = cloud.api.post("networks", network=vlan)
    network = cloud.api.post("networks", network={"name": "routed"})
    subnet(cloud.api, other, "10.155.0.0/24")
    subnet(cloud.api, network, "10.155.0.0/24")
    again = cloud.api.post(
        "networks", network={**vlan, "provider:segmentation_id": 110}
    )
    subnet(cloud.api, again, "10.155.0.0/24")


def pool(api: Api, *prefixes: str) -> Any:
    body = {"name": "pool", "prefixes": list(prefixes), "default_prefixlen": 26}
    return api.post("subnetpools", subnetpool=body)


@pytest.mark.usefixtures("taken")
def test_s10_a_pool_takes_no_space_that_is_taken(
    cloud: Cloud, second: Deployment
) -> None:
    api = second.api
    assert "10.151.0.0/23" in refusal(lambda: pool(api, "10.151.0.0/16"))
    mine = pool(api, "10.156.0.0/24")
    network = api.post("networks", network={"name": "pooled"})
    body = {"network_id": network["id"], "subnetpool_id": mine["id"], "ip_version": 4}
    api.post("subnets", subnet=body)
    more = {"prefixes": ["10.156.0.0/23"]}
    grown = api.put(f"subnetpools/{mine['id']}", subnetpool=more)
    assert grown["prefixes"] == ["10.156.0.0/23"], "its own subnets are no obstacle"
    more = {"prefixes": ["10.156.0.0/23", "10.151.1.0/24"]}
    text = refusal(lambda: api.put(f"subnetpools/{mine['id']}", subnetpool=more))
    assert mine["id"] in text
    assert "10.151.0.0/23" in text
    kept = api.get(f"subnetpools/{mine['id']}")
    assert kept["prefixes"] == ["10.156.0.0/23"]
    # What is not the pool's may lie in it, and is no obstacle to changes elsewhere.
    network = api.post("networks", network={"name": "inside"})
    inside = subnet(api, network, "10.156.1.128/25")
    more = {"prefixes": ["10.156.0.0/23", "10.157.0.0/24"]}
    grown = api.put(f"subnetpools/{mine['id']}", subnetpool=more)
    assert sorted(grown["prefixes"]) == more["prefixes"]
    # A subnet of the same project may be taken into a pool.
    api.delete(f"subnets/{inside['id']}")
    subnet(api, network, "10.159.0.0/24")
    onboarded = {"network_id": network["id"]}
    path = f"subnetpools/{mine['id']}/onboard_network_subnets"
    api.call("PUT", path, onboarded)
    assert "10.159.0.0/24" in api.get(f"subnetpools/{mine['id']}")["prefixes"]
    # Where other drivers' networks have spaces of their own, a pool may be for those.
    pool(cloud.api, "10.151.0.0/24")


def test_s10_an_operators_exception_is_stored_and_logged(
    cloud: Cloud, taken: list[dict[str, Any]]
) -> None:
    settings = {"calico": {"overlapping_subnets": "audit"}}
    with deployment(cloud.database.url, cloud.etcd.endpoint, settings) as neutron:
        neutron.start_api()
        neutron.wait_ready()
        network = neutron.api.post("networks", network={"name": "meant"})
        stored = subnet(neutron.api, network, "10.151.0.0/24")
        assert stored["cidr"] == "10.151.0.0/24"
        assert f"overlaps with 10.151.0.0/23 of subnet {taken[0]['id']}" in neutron.log(
            "api"
        )
        neutron.api.delete(f"subnets/{stored['id']}")
