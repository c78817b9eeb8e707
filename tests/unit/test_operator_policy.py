"""What an operator's policies mean, and that what follows from them says the same."""

from dataclasses import replace
from ipaddress import ip_address, ip_network
from random import Random

import pytest
from tests.endpoints import HOST, endpoint
from tests.operator_cases import OperatorCorners
from tests.policies import OPEN_GROUPS
from tests.policy_cases import Corners

from calico.model.operator import (
    Action,
    End,
    GlobalPolicy,
    HostEndpoint,
    OperatorRule,
)
from calico.model.operator_world import OperatorWorld, Selectable
from calico.model.records import AddressPair, PortRange
from calico.model.selectors import Has
from calico.plan.filter import (
    FilterFacts,
    FilterPlanner,
    Sections,
    Wishes,
    merged,
    plan_filter,
)
from calico.plan.host_policy import Guarded, host_section
from calico.plan.operator import place_of, policy_section, told_name
from calico.policy.evaluate import Direction, Packet
from calico.policy.flows import Connections
from calico.policy.operator import Decision, Judgement, judge_port
from calico.reconcile.filter import FilterState, compare, compare_sections

CORNERS = {
    4: tuple(ip_address(f"10.65.0.{n}") for n in (2, 3, 8, 9)),
    6: tuple(ip_address(f"2001:db8:65::{n}") for n in (2, 3, 8, 9)),
}
NEAR = endpoint(2)
PACKET = Packet(
    source=ip_address("10.65.0.9"),
    destination=ip_address("10.65.0.2"),
    protocol=6,
    port=80,
)
ALLOW, DENY, LOG, PASS = (
    OperatorRule(action=action)
    for action in (Action.ALLOW, Action.DENY, Action.LOG, Action.PASS)
)


def policy(name: str, order: float | None, *rules: OperatorRule) -> GlobalPolicy:
    return GlobalPolicy(name=name, order=order, ingress=rules)


def judged(*policies: GlobalPolicy, port_security: bool = True) -> Judgement:
    near = replace(NEAR, port_security=port_security)
    operator = OperatorWorld(policies=policies)
    return judge_port(operator, OPEN_GROUPS, near, Direction.INGRESS, PACKET)


def by(name: str, number: int, action: Action) -> Decision:
    return Decision(
        policy=name, direction=Direction.INGRESS, number=number, action=action
    )


@pytest.mark.parametrize(
    ("policies", "allowed", "decision"),
    [
        ([policy("b", 1, DENY), policy("a", 2, ALLOW)], False, ("b", 1, Action.DENY)),
        ([policy("b", 1, DENY), policy("a", 1, ALLOW)], True, ("a", 1, Action.ALLOW)),
        ([policy("a", 1, LOG, DENY)], False, ("a", 2, Action.DENY)),
        ([policy("a", 1, PASS), policy("b", 2, DENY)], True, None),
        ([policy("a", None, DENY)], True, None),
        ([GlobalPolicy(name="a", order=1, egress=(DENY,))], True, None),
        ([replace(policy("a", 1, DENY), selector=Has("other"))], True, None),
    ],
    ids=["order", "name", "log", "pass", "after", "direction", "selector"],
)
def test_policies_with_an_order_come_before_the_groups(
    policies: list[GlobalPolicy],
    decision: tuple[str, int, Action] | None,
    *,
    allowed: bool,
) -> None:
    found = judged(*policies)
    assert found.allowed is allowed
    assert found.by == (by(*decision) if decision else None)
    asked_groups = decision is None
    assert (found.groups is not None) is asked_groups


@pytest.mark.parametrize(
    ("rules", "allowed"),
    [((ALLOW,), True), ((DENY,), False), ((PASS, ALLOW), False), ((LOG,), False)],
    ids=["allow", "deny", "pass", "log"],
)
def test_policies_without_an_order_come_after_the_groups(
    rules: tuple[OperatorRule, ...], *, allowed: bool
) -> None:
    operator = OperatorWorld(policies=(policy("a", None, *rules),))
    near = replace(NEAR, groups=frozenset())
    found = judge_port(operator, OPEN_GROUPS, near, Direction.INGRESS, PACKET)
    assert found.allowed is allowed


def test_p05_a_port_without_security_is_subject_to_what_comes_before_groups() -> None:
    assert not judged(policy("a", 1, DENY), port_security=False).allowed
    assert judged(policy("a", None, DENY), port_security=False).allowed
    assert judged(policy("a", 1, PASS), port_security=False).allowed


@pytest.mark.parametrize("seed", range(150))
def test_connections_are_judged_as_the_operators_judge_does(seed: int) -> None:
    random = Random(seed)
    corners = OperatorCorners(random, CORNERS)
    groups_of = Corners(random, CORNERS)
    groups = groups_of.groups()
    wide = AddressPair(prefix=ip_network("10.65.0.8/30"), mac=NEAR.mac)
    a = replace(NEAR, groups=groups_of.of_port(), pairs=(wide,))
    b = replace(
        endpoint(3), groups=groups_of.of_port(), port_security=random.random() < 0.7
    )
    operator = OperatorWorld(
        policies=corners.policies(),
        labels={a.port: corners.labels(), b.port: corners.labels()},
        selectable=corners.selectable(),
    )
    judge = Connections((a, b), groups, operator)
    for _ in range(30):
        packet = corners.packet(operator, Direction.INGRESS, b.addresses)
        ends = (
            (packet.source, Direction.EGRESS),
            (packet.destination, Direction.INGRESS),
        )
        expected = all(
            judge_port(operator, groups, owner, direction, packet).allowed
            for address, direction in ends
            for owner in (a, b)
            if address in owner.addresses or (owner is a and address in wide.prefix)
        )
        assert judge.allow(packet) is expected, packet


@pytest.mark.parametrize("seed", range(40))
def test_p51_policies_that_are_kept_say_what_a_fresh_plan_says(seed: int) -> None:
    random = Random(seed)
    corners = OperatorCorners(random, CORNERS)
    planner, state = FilterPlanner(), FilterState()
    left: Sections = {}
    facts = FilterFacts(taps=frozenset({NEAR.interface}))
    for _ in range(4):
        operator = OperatorWorld(
            policies=corners.policies(),
            labels={NEAR.port: corners.labels()},
            selectable=corners.selectable(),
            host_endpoints=random.choice(
                [(), (HostEndpoint(name="up", host=HOST, labels=corners.labels()),)]
            ),
        )
        wishes = Wishes(operator=operator)
        sections = (
            planner.replan(OPEN_GROUPS, operator)
            if left
            else planner.plan([NEAR], [], OPEN_GROUPS, facts, wishes)
        )
        fresh = plan_filter([NEAR], [], OPEN_GROUPS, facts, wishes)
        whole = merged(sections.values())
        assert (whole.parts, whole.elements) == (fresh.parts, fresh.elements)
        state = compare_sections(sections, left).applied_to(state)
        assert not compare(fresh.parts, fresh.elements, state)
        again = planner.replan(OPEN_GROUPS, operator)
        assert not compare_sections(again, sections)
        left = sections


def test_p51_who_is_selected_costs_elements_and_no_rules() -> None:
    rule = OperatorRule(action=Action.DENY, source=End(selector=Has("web")))
    planner = FilterPlanner()

    def planned(*addresses: str) -> Sections:
        nets = tuple(map(ip_network, addresses))
        operator = OperatorWorld(
            policies=(policy("a", 1, rule),),
            selectable=(Selectable({"web": ""}, nets),),
        )
        return planner.plan(
            [NEAR], [], OPEN_GROUPS, FilterFacts(), Wishes(operator=operator)
        )

    before = planned("10.0.0.1/32", "10.1.0.0/16")
    after = planned("10.0.0.1/32", "10.0.0.2/32", "10.1.0.0/16")
    change = compare_sections(after, before)
    assert not change.has_parts
    assert [e.key for e in change.elements.put] == ["10.0.0.2"]
    assert not change.elements.drop


def test_names_of_any_length_fit_into_what_the_kernel_remembers() -> None:
    names = ["a" * 252 + end for end in "xy"]
    assert len({told_name(name) for name in names}) == 2
    for name in names:
        rules = (replace(LOG, source=End(nets=(ip_network("10.0.0.0/8"),))), DENY)
        one = policy(name, 1, *rules)
        section = policy_section(one, place_of(one, Direction.INGRESS))
        for part in section.parts.values():
            assert len(part.name) <= 127
            for line in getattr(part, "rules", ()):
                assert len(line.comment) <= 128
                quoted = line.text.split('"')[1] if '"' in line.text else ""
                assert len(quoted) < 127


def test_bfd_of_bgp_peers_passes_whatever_policies_say() -> None:
    peers = (ip_address("192.0.2.9"), ip_address("2001:db8::9"))
    up = HostEndpoint(name="up", host=HOST)
    section = host_section(Guarded(endpoints=(up,), bfd_peers=peers))
    texts = {
        part.name: [line.text for line in getattr(part, "rules", ())]
        for part in section.parts.values()
    }
    ports = "udp dport { 3784, 3785, 4784 } accept"
    assert f"ip saddr {{ 192.0.2.9 }} {ports}" in texts["host_in"]
    assert f"ip6 daddr {{ 2001:db8::9 }} {ports}" in texts["host_out"]


def test_a_rule_that_can_match_nothing_is_no_rule() -> None:
    some = (PortRange(first=80, last=80),)
    rule = OperatorRule(
        action=Action.DENY, protocol=6, destination=End(ports=some, not_ports=some)
    )
    one = policy("a", 1, rule)
    section = policy_section(one, place_of(one, Direction.INGRESS))
    assert [getattr(part, "rules", None) for part in section.parts.values()] == [()]
