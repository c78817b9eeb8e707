"""What the truth table asks the API for and tells the judge, and what it expects."""

from dataclasses import replace
from ipaddress import ip_address
from itertools import product

import pytest

from calico.model.groups import Groups
from calico.model.ids import GroupId
from calico.model.records import Policy
from calico.verify.configurations import CONFIGURATIONS, ESSENCE
from calico.verify.probes.shots import TCP, Shot, frame, read_key
from calico.verify.probes.volley import Outcome
from calico.verify.roster import Roster
from calico.verify.truth_table import expect
from calico.verify.wish import OUT, Names, OfAddresses, OfGroup, asked, judged

ONE, OTHER = ip_address("192.0.2.1"), ip_address("192.0.2.2")
SHOT = Shot(source=ONE, destination=OTHER, protocol=TCP, number=20000, port=8001)
NAMES = Names(
    {c.key: f"g-{c.key}" for c in CONFIGURATIONS},
    {"few": "a-few", "none": "a-none"},
    {
        key: (ip_address("192.0.2.9"), ip_address("2001:db8::9"))
        for c in CONFIGURATIONS
        for key in c.instances
    },
)
ALLOWS = [(c.key, a) for c in CONFIGURATIONS for a in c.allows]


def test_what_configurations_refer_to_exists() -> None:
    for chosen in (CONFIGURATIONS, ESSENCE):
        keys = {c.key for c in chosen}
        remotes = {a.whose for c in chosen for a in c.allows}
        assert {r.key for r in remotes if isinstance(r, OfGroup)} <= keys
        assert {m for c in chosen for m in c.more} <= keys


def test_p01_no_rule_loses_its_remote_on_the_way() -> None:
    for _, allow in ALLOWS:
        body, rule = asked(allow, NAMES), judged(allow, NAMES)
        remotes = [name for name in body if name.startswith("remote_")]
        assert len(remotes) == (allow.whose is not None)
        assert (rule.remote is None) == (allow.whose is None)
    assert any(isinstance(allow.whose, OfAddresses) for _, allow in ALLOWS)


def roster(*, stateful: bool, answers: bool) -> Roster:
    """Return two instances, of which the second's group has or has no connections."""
    every = judged(next(a for _, a in ALLOWS if a.direction is OUT), NAMES)
    every = replace(every, protocol=None, ports=None, remote=None, version=4)
    out = (every,) if answers else ()
    policies = {
        GroupId("one"): Policy(group=GroupId("one"), name="", egress=(every,)),
        GroupId("two"): Policy(
            group=GroupId("two"),
            name="",
            ingress=(every,),
            egress=out,
            stateful=stateful,
        ),
    }
    of_site = {"one": (GroupId("one"),), "two": (GroupId("two"),)}
    return Roster({}, of_site, Groups(policies=policies), {}, NAMES)


@pytest.mark.parametrize(
    ("stateful", "answers"), list(product((True, False), repeat=2))
)
def test_p06_a_group_without_connections_lets_answers_out_by_rule_only(
    *, stateful: bool, answers: bool
) -> None:
    found = expect(roster(stateful=stateful, answers=answers), ("one", "two"), SHOT)
    assert found == Outcome(arrived=True, answered=stateful or answers)


def test_what_is_not_allowed_in_neither_arrives_nor_is_answered() -> None:
    found = expect(roster(stateful=True, answers=True), ("two", "one"), SHOT)
    assert found == Outcome(arrived=False, answered=False)


def test_a_shot_is_known_by_its_frame() -> None:
    mac = "02:00:00:00:00:01"
    assert read_key(frame(SHOT, mac, mac)) == SHOT.key
    assert read_key(b"\0" * 60) is None
