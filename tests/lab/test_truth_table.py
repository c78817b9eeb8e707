"""Thousands of real packets say of security groups what the judge says."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from tests.kernel.netns import eventually

from calico.lab.lab import Lab
from calico.verify.configurations import CONFIGURATIONS
from calico.verify.lab_cloud import LabCloud
from calico.verify.probes.shots import SCTP, TCP, UDP
from calico.verify.roster import NETWORK, PROJECT, Roster, assemble
from calico.verify.stage import Stage
from calico.verify.truth_table import Case, cases, run


@dataclass(frozen=True)
class Table:
    """The instances, all cases, and the API that rules their groups."""

    stage: Stage
    roster: Roster
    cases: list[Case]

    def wrong(self, of: list[Case] | None = None) -> dict[str, str]:
        found = run(self.roster, self.cases if of is None else of)
        return {case.name: wrong for case, wrong in found if wrong}


@pytest.fixture(scope="module")
def table(lab: Lab) -> Iterator[Table]:
    with Stage(LabCloud(lab), lambda _: None) as stage:
        try:
            stage.open()
            stage.need([NETWORK])
            roster = assemble(stage, CONFIGURATIONS)
            yield Table(stage, roster, list(cases(roster)))
        finally:
            stage.sweep()


def test_the_table_is_large_and_has_everything_in_it(table: Table) -> None:
    assert len(table.cases) >= 2000
    assert len({c.key for c in CONFIGURATIONS}) >= 12
    count = Counter(
        (c.shot.protocol, c.shot.source.version, c.expected.arrived)
        for c in table.cases
    )
    # Of each protocol and family, some may pass and some may not.
    for protocol in (TCP, UDP, SCTP):
        for version in (4, 6):
            assert count[protocol, version, True] >= 20
            assert count[protocol, version, False] >= 20
    unanswered = [c for c in table.cases if c.expected.arrived and c.shot.answer]
    assert any(not c.expected.answered for c in unanswered), "p6: one-way groups"


def test_s16_packets_do_what_the_judge_says(table: Table) -> None:
    assert table.wrong() == {}


def test_a_rule_too_few_or_too_many_is_seen(table: Table) -> None:
    api = table.stage.cloud.api(PROJECT).network
    group = table.roster.names.groups["ranges"]
    to_it = [
        c
        for c in table.cases
        if c.pair[1] == table.roster.sites["ranges"]
        and (c.shot.source.version, c.shot.protocol) == (4, TCP)
    ]
    assert table.wrong(to_it) == {}
    rule = next(
        iter(
            api.security_group_rules(
                security_group_id=group, ether_type="IPv4", protocol="tcp"
            )
        )
    )
    api.delete_security_group_rule(rule.id)
    eventually(lambda: table.wrong(to_it), 10)
    assert all("missed" in wrong for wrong in table.wrong(to_it).values())
    wider = api.create_security_group_rule(
        security_group_id=group,
        direction="ingress",
        ether_type="IPv4",
        protocol="tcp",
        port_range_min=8000,
        port_range_max=9000,
    )
    eventually(
        lambda: "the shot came" in " ".join(table.wrong(to_it).values()), timeout=10
    )
    api.delete_security_group_rule(wider.id)
