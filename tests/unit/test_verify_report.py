"""The verifier's verdicts, its table and its JSON: nothing passes unproved."""

import dataclasses
import json
from collections.abc import Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from itertools import chain, permutations
from random import SystemRandom
from types import SimpleNamespace
from typing import Any

import pytest
import requests

from calico.verify.background import Background
from calico.verify.checks.leases import Promise, judge_lease
from calico.verify.checks.sameness import _routers
from calico.verify.cloud import CloudError, Host
from calico.verify.layout import (
    EXAMPLE,
    MANY,
    NETS,
    PLACEMENTS,
    SITES,
    STATEFUL,
    NetPlan,
    choose_hosts,
    choose_ranges,
    many_key,
    placement,
)
from calico.verify.many import MANY_PLANS, MANY_SITES, Many
from calico.verify.networks import DNS, ROUTED, Net
from calico.verify.report import as_json, as_rows
from calico.verify.result import Report, Result, Tally, Verdict
from calico.verify.stage import NTP, SEARCH
from calico.verify.statements import IDS, STATEMENTS

HOSTS = [Host(name=f"host-{r}-{n}", rack=f"rack {r}") for r in (1, 2) for n in (1, 2)]


def tallied(*wrong: str | None) -> Result:
    tally = Tally()
    for number, evidence in enumerate(wrong):
        tally.case(f"case {number}", evidence)
    return tally.result(("S1", "reachability"), 1.0)


def report(*results: Result) -> Report:
    return Report(cloud="lab x", seconds=2.04, results=results, notes=("one rack",))


def test_a_statement_holds_where_cases_ran_and_none_failed() -> None:
    assert tallied(None, None).verdict is Verdict.HOLDS
    assert tallied(None, "no answer").verdict is Verdict.FAILS


def test_without_a_case_a_statement_does_not_hold() -> None:
    result = tallied()
    assert result.verdict is Verdict.FAILS
    assert [failure.evidence for failure in result.failures] == ["no case was run"]


def test_one_that_nobody_checks_says_so_and_fails_no_run() -> None:
    unchecked = Result(id="S5", title="anycast", checked=False)
    found = report(tallied(None), unchecked)
    assert found.holds
    statement = as_json(found)["statements"][1]  # type: ignore[index]  # plain JSON
    assert statement["verdict"] == "not checked"
    assert as_rows(found)[1] == ("S5", "anycast", "", "not checked", "")


def test_json_has_every_failure_and_the_table_the_first_few() -> None:
    found = report(tallied(*(f"broken {n}" for n in range(5))))
    body = json.loads(json.dumps(as_json(found)))
    (statement,) = body["statements"]
    assert (statement["id"], statement["verdict"]) == ("S1", "fails")
    assert statement["cases"] == len(statement["failures"]) == 5
    assert statement["failures"][4] == {"case": "case 4", "evidence": "broken 4"}
    assert body["holds"] is False
    assert as_rows(found)[0][4].splitlines()[-1] == "and 2 more"


def test_every_statement_is_in_the_table_once() -> None:
    assert tuple(f"S{n}" for n in range(1, 22)) == IDS
    unchecked = {s.id for s in STATEMENTS if s.check is None}
    assert unchecked == {"S6"}


def test_s07_instances_stand_in_every_relation_and_placement() -> None:
    hosts = choose_hosts(HOSTS)
    nets = {net.key: net for net in NETS}
    found = set()
    for one, other in permutations(SITES, 2):
        ends: Any = [SimpleNamespace(host=hosts[s.where]) for s in (one, other)]
        kinds = frozenset(nets[s.net].provider for s in (one, other))
        found.add((one.net == other.net, kinds, placement(*ends)))
    for where in PLACEMENTS:
        for wanted in ({True}, {False}, {True, False}):
            assert (False, frozenset(wanted), where) in found
        assert (True, frozenset({False}), where) in found
    # Within provider networks too (S11).
    for where in PLACEMENTS:
        assert (True, frozenset({True}), where) in found


def test_with_one_host_everything_stands_there() -> None:
    assert {host.name for host in choose_hosts(HOSTS[:1])} == {"host-1-1"}


def test_ranges_overlap_nothing_and_each_other_not() -> None:
    existing = ["10.0.0.0/9", "172.18.5.0/24", "fd00::/64"]
    ranges = choose_ranges(existing, SystemRandom())
    assert ranges.taken == ("A", "P")
    four = [IPv4Network(cidr) for cidr in existing[:2]]
    four += [pair[0] for pair in ranges.by_key.values()]
    assert not any(a.overlaps(b) for a, b in permutations(four, 2))


def test_s15_hundreds_of_networks_are_made_in_a_few_requests() -> None:
    requests: list[list[str]] = []

    def make(plans: Sequence[NetPlan]) -> list[Net]:
        requests.append([plan.key for plan in plans])
        return []

    background = Background()
    many = Many(background, make)
    many.begin()
    many.wait()
    background.close()
    assert MANY >= 100
    assert [len(keys) for keys in requests] == [10] * (MANY // 10)
    assert [*chain(*requests)] == [many_key(number) for number in range(MANY)]
    assert {site.net for site in MANY_SITES} < {*chain(*requests)}
    assert {plan.project for plan in MANY_PLANS} == {"demo1"}  # a request has but one


def test_s09_the_example_is_used_where_it_is_free() -> None:
    ranges = choose_ranges([], SystemRandom())
    assert ranges.taken == ()
    assert {key: ranges.by_key[key][0] for key in EXAMPLE} == EXAMPLE


@pytest.mark.parametrize("status", [200, 404, 500, 503])
def test_s08_no_router_is_what_the_api_says_and_nothing_else(status: int) -> None:
    reply = requests.Response()
    reply.status_code, reply._content = status, b'{"routers": []}'
    api = SimpleNamespace(get=lambda _: reply)
    if status in {200, 404}:
        assert _routers(api) == 0
    else:
        with pytest.raises(CloudError, match=str(status)):
            _routers(api)


NET = Net(
    plan=NetPlan(key="C", project="demo1", mode6=STATEFUL, mtu=1400),
    id="n",
    cidr4=IPv4Network("10.1.0.0/24"),
    cidr6=IPv6Network("fd00:1::/64"),
    subnet4="s4",
    subnet6="s6",
    mtu=1400,
)
SITE: Any = SimpleNamespace(
    address={4: IPv4Address("10.1.0.7"), 6: IPv6Address("fd00:1::7")}.__getitem__
)
LEASE = {
    "dhcp4": {
        "ip_address": "10.1.0.7",
        "subnet_cidr": "24",
        "routers": "10.1.0.1",
        "domain_name_servers": DNS[0],
        "interface_mtu": "1400",
        "ntp_servers": NTP,
        "classless_static_routes": f"{ROUTED} 10.1.0.9 0.0.0.0/0 10.1.0.1",
    },
    "dhcp6": {
        "dhcp6_ia_na1_ia_addr1": "fd00:1::7",
        "dhcp6_name_servers": DNS[1],
        "dhcp6_domain_search": SEARCH,
    },
    "ra": {"nd1_mtu": "1400"},
}


def wrong_of(lease: dict[str, dict[str, str]], net: Net = NET) -> set[str]:
    return {
        what
        for what, wrong in judge_lease(net, SITE, lease, Promise(gateway=1))
        if wrong
    }


def test_s19_a_lease_that_says_what_neutron_says_is_right() -> None:
    assert wrong_of(LEASE) == set()


@pytest.mark.parametrize(
    ("kind", "option"), [(kind, option) for kind in LEASE for option in LEASE[kind]]
)
def test_s19_each_option_that_differs_is_found(kind: str, option: str) -> None:
    assert len(wrong_of({**LEASE, kind: {**LEASE[kind], option: "192.0.2.99"}})) == 1


def test_s19_p13_a_subnet_that_was_changed_promises_something_else() -> None:
    dns = ("192.0.2.99", "2001:db8::99")
    changed = Promise(dns=dns, gateway=254, next_hop=99)
    wrong = {what for what, why in judge_lease(NET, SITE, LEASE, changed) if why}
    assert wrong == {"gateway", "DNS", "host route", "DHCPv6 DNS"}


def test_s19_without_leases_everything_is_wrong() -> None:
    assert len(wrong_of({})) == len(
        list(judge_lease(NET, SITE, {}, Promise(gateway=1)))
    )


def test_s19_slaac_wants_the_prefix_and_no_dhcpv6() -> None:
    slaac = dataclasses.replace(NET, plan=NetPlan(key="A", project="demo1"))
    wrong = wrong_of(LEASE, slaac)
    assert wrong == {"prefix by RA", "IPv6 DNS by RA", "no DHCPv6"}
