"""What one change of policy costs a host, by the size of what is there: ratios.

python benchmarks/policy_change.py   (root; in a namespace of its own)

Each size is measured against a tenth of it, side by side in one run: planning, the
comparison and the kernel's transaction, of a member that comes and of a rule that goes.
"""

import ctypes
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from ipaddress import ip_address, ip_network

from calico.model.groups import Groups
from calico.model.ids import (
    DeviceId,
    GroupId,
    HostName,
    InterfaceName,
    Mac,
    NetworkId,
    PortId,
    ProjectId,
)
from calico.model.records import Endpoint, Policy, PortRange, RemoteGroup, Rule
from calico.plan.filter import FilterFacts, FilterPlanner, Sections
from calico.reconcile.filter import compare_sections
from calico.system.nft import Nft

_NEW_NETWORK = 0x40000000  # CLONE_NEWNET
_TIMES = 7
GROUPS_OF_PORT = 5
PEERS, NEW_MEMBER = GroupId("group-0"), ip_network("198.51.100.9/32")


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """What a host serves: ports with five groups each, members of one, its rules."""

    endpoints: int = 100
    members: int = 1000
    rules: int = 50


def endpoint(number: int, groups: int) -> Endpoint:
    """Return a port with five of the groups."""
    return Endpoint(
        host=HostName("bench"),
        device=DeviceId(f"d{number}"),
        port=PortId(f"p{number}"),
        interface=InterfaceName(f"tap{number:08x}-00"),
        mac=Mac(f"fa:16:3e:00:{number >> 8:02x}:{number & 255:02x}"),
        network=NetworkId("n"),
        project=ProjectId("p"),
        addresses=(ip_address("10.65.0.0") + number,),
        groups=frozenset(
            GroupId(f"group-{(number * GROUPS_OF_PORT + n) % groups}")
            for n in range(GROUPS_OF_PORT)
        ),
    )


def policy(number: int, rules: int) -> Policy:
    """Return a group; group 0 has the many rules, and its own members as a remote."""
    wanted = rules if number == 0 else 4
    return Policy(
        group=GroupId(f"group-{number}"),
        name="",
        ingress=tuple(
            Rule(
                version=4,
                protocol=6,
                ports=PortRange(first=2 * n, last=2 * n),
                remote=RemoteGroup(PEERS) if n % 2 else None,
                id=f"rule-{n}",
            )
            for n in range(wanted)
        ),
    )


class Bench:
    """A host of some size whose policy is in the kernel."""

    def __init__(self, nft: Nft, size: Size) -> None:
        self._nft = nft
        groups = max(GROUPS_OF_PORT, size.endpoints // 5)
        self._endpoints = [endpoint(n, groups) for n in range(size.endpoints)]
        policies = [policy(n, size.rules) for n in range(groups)]
        first = int(ip_address("11.0.0.0"))
        members = frozenset(ip_network(first + n) for n in range(size.members))
        self.groups = Groups(
            policies={p.group: p for p in policies}, members={PEERS: members}
        )
        self._planner = FilterPlanner()
        self._left: Sections = {}
        nft.read()
        self.apply(self.groups)

    def apply(self, groups: Groups) -> None:
        """Make the filter what these groups come to."""
        taps = frozenset(e.interface for e in self._endpoints)
        facts = FilterFacts(taps=taps)
        planned = self._planner.plan(self._endpoints, (), groups, facts)
        self._nft.apply(compare_sections(planned, self._left))
        self._left = planned

    def seconds(self, changed: Groups) -> float:
        """Return how long a change takes, there and back: the median of some."""
        times = []
        for _ in range(_TIMES):
            start = time.perf_counter()
            self.apply(changed)
            self.apply(self.groups)
            times.append((time.perf_counter() - start) / 2)
        return statistics.median(times)


def one_more_member(groups: Groups) -> Groups:
    """Return the groups with a member that comes."""
    return replace(groups, members={PEERS: groups.members[PEERS] | {NEW_MEMBER}})


def one_rule_less(groups: Groups) -> Groups:
    """Return the groups with a rule that goes."""
    first = groups.policies[PEERS]
    less = replace(first, ingress=first.ingress[:-1])
    return replace(groups, policies={**groups.policies, PEERS: less})


def measure(nft: Nft, size: Size, change: Callable[[Groups], Groups]) -> float:
    """Return the seconds of one change on a host of some size."""
    bench = Bench(nft, size)
    return bench.seconds(change(bench.groups))


def main() -> None:
    """Print the ratios."""
    if ctypes.CDLL(None, use_errno=True).unshare(_NEW_NETWORK):
        sys.exit("a new network namespace takes root")
    nft = Nft()
    base = Size()
    larger = {
        "1,000 endpoints": replace(base, endpoints=1000),
        "10,000 members": replace(base, members=10_000),
        "500 rules": replace(base, rules=500),
    }
    print(f"{'ten times':18} {'a member comes':>16} {'a rule goes':>14}")
    for name, size in larger.items():
        ratios = [
            measure(nft, size, change) / measure(nft, base, change)
            for change in (one_more_member, one_rule_less)
        ]
        print(f"{name:18} {ratios[0]:15.2f}x {ratios[1]:13.2f}x")


if __name__ == "__main__":
    main()
