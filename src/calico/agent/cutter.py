"""Cuts the connections that policy no longer allows, and no others (P7, S16).

New packets meet the new rules at once. A connection that began under the old ones would
go on for ever, so after a change each one is judged anew.

One that a floating IP led to another address than it leads to now is forgotten instead:
its next packet begins anew, and goes where the floating IP is. So is one that others
see as from a floating IP which its sender has no more.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

from calico.agent.keeper import Outcome
from calico.model.groups import Groups
from calico.model.ids import Address
from calico.model.operator_world import NO_OPERATOR, OperatorWorld
from calico.plan.antispoof import FLOATING, FORWARDED
from calico.policy.floating import Standing
from calico.policy.flows import Connections
from calico.reconcile.filter import FilterChange
from calico.reconcile.problem import Problem
from calico.system.conntrack import (
    Connection,
    delete_connections,
    mark_connections,
    read_connections,
)

_POLICY_PARTS = (
    "in",
    "out",
    "members",
    "nets",
    "policy",
    "before",
    "after",
    FLOATING,
    FORWARDED,
)


class Tracked(Protocol):
    """The seam to the kernel's connections."""

    def read(self, concern: Callable[[Address], bool]) -> Iterator[Connection]:
        """Yield the connections with an end that is of concern."""

    def mark(self, connections: Sequence[Connection], *, cut: bool) -> list[Problem]:
        """Cut connections off, or let them go on."""

    def forget(self, connections: Sequence[Connection]) -> list[Problem]:
        """Let the next packet of each connection begin it anew."""


class KernelConnections:
    """The connections of the calling thread's network namespace."""

    def read(self, concern: Callable[[Address], bool]) -> Iterator[Connection]:
        """Yield the connections with an end that is of concern."""
        return read_connections(concern)

    def mark(self, connections: Sequence[Connection], *, cut: bool) -> list[Problem]:
        """Cut connections off, or let them go on."""
        return mark_connections(connections, cut=cut)

    def forget(self, connections: Sequence[Connection]) -> list[Problem]:
        """Let the next packet of each connection begin it anew."""
        return delete_connections(connections)


class Cutter:
    """Judges connections after what may have changed the verdict on them."""

    def __init__(self, tracked: Tracked) -> None:
        self._tracked = tracked
        self._due = True  # what changed while no agent was here is not known

    def follow(
        self,
        outcome: Outcome,
        change: FilterChange,
        groups: Groups,
        operator: OperatorWorld = NO_OPERATOR,
    ) -> list[Problem]:
        """Judge connections, if the change of the filter was one of policy."""
        self._due |= concerns_policy(change)
        if not self._due:
            return []
        judge = Connections(outcome.plan.served, groups, operator)
        standing = Standing(outcome.plan.translations)
        cut: list[Connection] = []
        restored: list[Connection] = []
        stale: list[Connection] = []

        def concern(address: Address) -> bool:
            return judge.concern(address) or standing.concern(address)

        try:
            for one in self._tracked.read(concern):
                if standing.is_stale(one.course):
                    stale.append(one)
                    continue
                allowed = judge.allow(one.packet)
                if allowed == one.cut:
                    (restored if allowed else cut).append(one)
            problems = self._tracked.forget(stale)
            problems += self._tracked.mark(cut, cut=True)
            problems += self._tracked.mark(restored, cut=False)
        except OSError as e:
            return [Problem("connections", "judge", str(e))]
        self._due = bool(problems)
        return problems


def concerns_policy(change: FilterChange) -> bool:
    """Tell whether a change of the filter may change the verdict on a connection.

    A floating IP is policy here too: it says where a connection leads.
    """
    names = {element.set for element in (*change.elements.put, *change.elements.drop)}
    names |= {part.name for part in (*change.put, *change.drop)}
    return any(name.startswith(_POLICY_PARTS) for name in names)
