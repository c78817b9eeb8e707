"""An operator's policies as the host's rules: a chain for each policy and direction.

A policy's rules stay in their order, one after the other: operators have tens of them,
and the order is the meaning. Those that a port is subject to are a chain of their own
that calls them, shared by all ports that are subject to the same; a port itself is an
element in a map for each stage. Whom a rule's selector selects is a set, shared by all
rules that say the same, so that what comes and goes costs its element (P51).
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import assert_never

from calico.model.operator import Action, GlobalPolicy, OperatorRule
from calico.model.operator_world import OperatorWorld
from calico.model.records import Endpoint
from calico.plan.conditions import conditions
from calico.plan.policy import (
    NAMES,
    Section,
    Selected,
)
from calico.plan.ruleset import LOG_GROUP, Chain
from calico.plan.ruleset import Rule as FilterRule
from calico.policy.evaluate import Direction
from calico.policy.operator import Stage, in_stage, rules_in, stage_of

_UNSAFE_IN_NAMES = re.compile(r"[^0-9A-Za-z_-]")
_UNSAFE_IN_TEXT = re.compile(r"[^0-9A-Za-z_./-]")
_READABLE = 40  # characters of a policy's name in the name of its chain
_TOLD = 80  # characters of a policy's name in comments and logs, which are short
# A rule that everything matches must not fill the log.
_LOG_LIMIT = "limit rate 100/second burst 25 packets"


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a policy's rules are asked: what its chain is called, what Pass leads to.

    `denied` is where Deny leads to. `prefix` tells a host endpoint's chains from those
    of ports.
    """

    direction: Direction
    passed: str
    denied: str = "drop"
    prefix: str = "policy"

    def chain(self, policy: str) -> str:
        """Return the name of a policy's chain."""
        return f"{self.prefix}.{safe_name(policy)}.{NAMES[self.direction]}"


def port_place(direction: Direction, stage: Stage) -> Place:
    """Return where policies of ports are asked."""
    way = NAMES[direction]
    if stage is Stage.BEFORE:
        return Place(direction=direction, passed=f"goto {way}_groups")
    # The groups allowed it not: to who logs what they drop, it is theirs.
    dropped = f"goto {way}_dropped"
    return Place(direction=direction, passed=dropped, denied=dropped)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sequence:
    """The policies that some ports are subject to in a stage, in order."""

    stage: Stage
    direction: Direction
    policies: tuple[GlobalPolicy, ...]

    @property
    def chain(self) -> str:
        """Return the name of its chain."""
        names = "\n".join(policy.name for policy in self.policies)
        return f"{self.stage.value}.{_digest(names)}.{NAMES[self.direction]}"

    @property
    def map(self) -> str:
        """Return the map that leads its ports here."""
        return f"{NAMES[self.direction]}_{self.stage.value}"


def sequences_of(operator: OperatorWorld, endpoint: Endpoint) -> Iterator[Sequence]:
    """Yield the policies that a port is subject to, by stage and direction.

    After the groups of a port without any, nothing is asked.
    """
    labels = operator.labels_of(endpoint.port)
    for stage in Stage:
        if stage is Stage.AFTER and not endpoint.port_security:
            continue
        for direction in Direction:
            found = in_stage(operator.policies, labels, direction, stage)
            if found:
                yield Sequence(stage=stage, direction=direction, policies=found)


def sequence_section(chain: str, called: tuple[str, ...]) -> Section:
    """Return the chain that calls the chains of policies one after the other."""
    section = Section()
    lines = (FilterRule(f"jump {name}", "the next in order") for name in called)
    section.add(Chain(chain, tuple(lines)))
    return section


def policy_section(policy: GlobalPolicy, place: Place) -> Section:
    """Return a policy's rules of one direction, in their order, as a chain."""
    section = Section()
    lines: list[FilterRule] = []
    for number, rule in enumerate(rules_in(policy, place.direction) or (), 1):
        verdict = _verdict(rule.action, policy.name, place)
        note = f"{number} {told_name(policy.name)}"
        for asked in conditions(rule):
            text = " ".join([*asked, "counter", verdict])
            lines.append(FilterRule(text, note))
        section.remotes |= set(_selected(rule))
    section.add(Chain(place.chain(policy.name), tuple(lines)))
    return section


def safe_name(name: str) -> str:
    """Return what stands for any name in the name of a chain: readable, and its own."""
    return f"{_UNSAFE_IN_NAMES.sub('_', name)[:_READABLE]}-{_digest(name)}"


def told_name(name: str) -> str:
    """Return a name for comments and logs; a long one is cut, but still its own."""
    safe = _UNSAFE_IN_TEXT.sub("_", name)
    if len(safe) <= _TOLD and safe == name:
        return name
    return f"{safe[:_TOLD]}~{_digest(name)[:8]}"


def _digest(text: str) -> str:
    return sha256(text.encode()).hexdigest()[:16]


def _verdict(action: Action, policy: str, place: Place) -> str:
    match action:
        case Action.ALLOW:
            return "accept"
        case Action.DENY:
            return place.denied
        case Action.PASS:
            return place.passed
        case Action.LOG:
            prefix = f"policy/{told_name(policy)}/{NAMES[place.direction]}"
            return f'{_LOG_LIMIT} log prefix "{prefix}" group {LOG_GROUP}'
        case _:
            assert_never(action)


def _selected(rule: OperatorRule) -> Iterator[Selected]:
    for end in (rule.source, rule.destination):
        for selector in (end.selector, end.not_selector):
            if selector is not None:
                yield Selected(selector)


def policies_of(
    sequences: Iterable[Sequence],
) -> Mapping[tuple[str, Direction], GlobalPolicy]:
    """Return the policies in sequences, each once, by name and direction."""
    return {
        (policy.name, sequence.direction): policy
        for sequence in sequences
        for policy in sequence.policies
    }


def place_of(policy: GlobalPolicy, direction: Direction) -> Place:
    """Return where a policy of ports is asked."""
    return port_place(direction, stage_of(policy))
