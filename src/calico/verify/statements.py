"""The table of statements: what is promised, and the check that looks at it."""

from collections.abc import Callable
from dataclasses import dataclass

from calico.verify.checks import (
    adjacency,
    admin_state,
    anycast,
    choice,
    flat,
    floating,
    groups,
    hops,
    leases,
    provider,
    reachability,
    sameness,
    scale,
    space,
    spoofing,
    status,
    tenant,
    truth,
    turning_on,
)
from calico.verify.result import Tally
from calico.verify.stage import Stage

Check = Callable[[Stage, Tally], None]


@dataclass(frozen=True, slots=True)
class Statement:
    """A promise: `needs` are the networks that its check asks for."""

    id: str
    title: str
    check: Check | None = None
    needs: tuple[str, ...] = ()
    last: bool = False  # takes something away under everybody else's feet


STATEMENTS = (
    Statement("S1", "reachability within a network", reachability.check, ("A",)),
    Statement("S2", "visible hops", hops.check, ("A",)),
    Statement("S3", "no L2 adjacency", adjacency.check, ("A",)),
    Statement("S4", "the API tells the truth", truth.check, (*"ABCPQ",), last=True),
    Statement("S5", "unicast and anycast", anycast.check, ("G",), last=True),
    Statement("S6", "multicast"),
    Statement("S7", "sameness of networks", sameness.check, (*"ABCPQ",)),
    Statement(
        "S8", "no isolation by default", sameness.check_without_router, (*"ABC",)
    ),
    Statement("S9", "one flat address space", flat.check, (*"AP",)),
    Statement("S10", "the address space is guarded", space.check, ("A",)),
    Statement("S11", "provider pattern", provider.check, (*"PQ",)),
    Statement("S12", "tenant pattern", tenant.check, (*"PTE",)),
    Statement("S13", "floating IPs", floating.check, (*"TE",)),
    Statement("S14", "fixed-IP choice", choice.check, (*"ABCPQ",)),
    Statement("S15", "one network or many", scale.check, (*"AM",)),
    Statement("S16", "security groups", groups.check, ("G",)),
    Statement("S17", "anti-spoofing", spoofing.check, ("G",)),
    Statement("S18", "admin_state_up", admin_state.check, ("G",)),
    Statement("S19", "DHCP and router advertisements", leases.check, (*"ABC",)),
    Statement("S20", "port status follows reality", status.check, ("A",)),
    Statement("S21", "both ways of turning it on", turning_on.check, ("A",)),
)
IDS = tuple(statement.id for statement in STATEMENTS)
