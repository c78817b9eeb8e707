"""A change of the filter in transactions: the same in the end, and safe in between."""

from dataclasses import replace
from random import Random

import pytest
from tests.endpoints import endpoint
from tests.policy_cases import Corners
from tests.unit.hosts import SUBNET
from tests.unit.test_plan_host import CORNERS

from calico.plan.filter import FilterFacts, FilterPlanner, Sections
from calico.reconcile.filter import (
    FilterChange,
    FilterState,
    compare_sections,
)
from calico.reconcile.transactions import transactions

A = endpoint(2)


def changes(seed: int) -> list[FilterChange]:
    """Return what random changes of one port's groups come to, one after the other."""
    corners = Corners(Random(seed), CORNERS)
    planner = FilterPlanner()
    left: Sections = {}
    found = []
    port = replace(A, groups=corners.of_port())
    for _ in range(5):
        groups = corners.groups()
        sections = planner.plan([port], [SUBNET], groups, FilterFacts())
        found.append(compare_sections(sections, left))
        left = sections
    return found


def _sets(change: FilterChange, *kinds: str) -> set[str]:
    """Return the groups' sets whose elements a change puts, drops or replaces."""
    return {
        element.set
        for kind in kinds
        for element in getattr(change.elements, kind)
        if "." in element.set
    }


@pytest.mark.parametrize("seed", range(40))
def test_transactions_come_to_the_whole_change(seed: int) -> None:
    at_once = stepwise = FilterState()
    for change in changes(seed):
        at_once = change.applied_to(at_once)
        for part in transactions(change):
            assert part
            stepwise = part.applied_to(stepwise)
        assert stepwise == at_once


@pytest.mark.parametrize("seed", range(40))
def test_no_transaction_leaves_to_the_kernel_what_is_seen_first(seed: int) -> None:
    """Sets of ranges are seen later than rules, and each by itself."""
    for change in changes(seed):
        parts = transactions(change)
        for number, part in enumerate(parts):
            put, gone = _sets(part, "put"), _sets(part, "drop", "replaced")
            if part.present:
                assert not put | gone, "rules, and elements that they may need"
            if put:
                assert gone <= put, (
                    "of a set that only loses, in time for one that wins"
                )
            later = {
                name for each in parts[number + 1 :] for name in _sets(each, "put")
            }
            if gone - put:
                assert not later, "goes before what may stand for it comes"
