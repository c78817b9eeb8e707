"""What one change of policy costs an agent, by the size of what is there: ratios.

python benchmarks/policy_change.py   (root; in namespaces of its own)

A change is what etcd says: a member's key that comes, a group's value with a rule less.
What is measured is all that the agent does of it, from the picture of the datastore to
the kernel's transaction and the look at connections. Each size is measured against a
tenth of it, side by side in one run, the two taking turns.
"""

import ctypes
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from ipaddress import ip_address, ip_network

from calico import obs
from calico.agent.cutter import Cutter, KernelConnections
from calico.agent.keeper import Keeper
from calico.agent.loop import Loop, Parts
from calico.agent.statuses import StatusWriter
from calico.config import AgentSettings
from calico.datastore.memory import MemoryStore
from calico.model.codec import encode_endpoint
from calico.model.ids import (
    DeviceId,
    GroupId,
    HostName,
    Mac,
    NetworkId,
    PortId,
    ProjectId,
    tap_name,
)
from calico.model.keys import Keys
from calico.model.policy_codec import encode_policy
from calico.model.records import Endpoint, Policy, PortRange, RemoteGroup, Rule
from calico.model.world import World, WorldBuilder
from calico.obs import Metrics
from calico.reconcile.loop import Intervals, Pacer
from calico.system.kernel import Kernel

HOST = HostName("bench")
KEYS = Keys()
GROUPS_OF_PORT = 5
PEERS = GroupId("group-0")
_NEW_NETWORK = 0x40000000  # CLONE_NEWNET
_ANY = 0  # kind of namespace
_TIMES = 25
_LIBC = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """What a host serves: ports with five groups each, members of one, its rules."""

    endpoints: int = 100
    members: int = 1000
    rules: int = 50


def endpoint(number: int, groups: int) -> Endpoint:
    """Return a port with five of the groups."""
    port = PortId(f"{number:08x}-00-bench")
    return Endpoint(
        host=HOST,
        device=DeviceId(f"d{number}"),
        port=port,
        interface=tap_name(port),
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


def member_key(address: str) -> str:
    """Return the key of a member of the group that others name."""
    return KEYS.member(PEERS, ip_network(address), PortId("there"))


class Host:
    """An agent's loop over a kernel of its own, whose datastore is a mapping."""

    def __init__(self, size: Size) -> None:
        if _LIBC.unshare(_NEW_NETWORK):
            sys.exit("a new network namespace takes root")
        self._netns = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        groups = max(GROUPS_OF_PORT, size.endpoints // 5)
        endpoints = [endpoint(n, groups) for n in range(1, size.endpoints + 1)]
        lines = [
            f"link add {e.interface} type veth peer name p{e.interface[3:]}"
            for e in endpoints
        ]
        batch = "\n".join(lines).encode()
        subprocess.run(["ip", "-batch", "-"], input=batch, check=True)
        first = int(ip_address("11.0.0.0"))
        policies = [policy(n, size.rules) for n in range(groups)]
        self.items = {
            **{
                KEYS.endpoint(HOST, e.device, e.port): encode_endpoint(e)
                for e in endpoints
            },
            **{KEYS.policy(p.group): encode_policy(p) for p in policies},
            **{
                member_key(str(ip_address(first + n))): b"" for n in range(size.members)
            },
        }
        self.rule_goes = (
            KEYS.policy(PEERS),
            encode_policy(replace(policies[0], ingress=policies[0].ingress[:-1])),
        )
        self._changed: set[str] = set(self.items)
        self._builder = WorldBuilder(HOST, KEYS)
        settings = AgentSettings(host=HOST)
        self._loop = Loop(
            Parts(
                host=HOST,
                keys=KEYS,
                world=self._world,
                keeper=Keeper(Kernel(), settings),
                cutter=Cutter(KernelConnections()),
                services=(),
                writer=StatusWriter(MemoryStore(), KEYS, HOST),
                metrics=Metrics(),
                reload=lambda: None,
            ),
            Pacer(Intervals(resync=3600.0)),
        )
        self.make_pass()

    def make_pass(self) -> None:
        """Have the agent look at its datastore and follow."""
        if problems := self._loop.make_pass():
            sys.exit(f"not applied: {problems[0]}")

    def _world(self) -> World:
        changed, self._changed = self._changed, set()
        # A copy, as the watch gives one.
        return self._builder.build(dict(self.items), changed)

    def seconds(self, key: str, value: bytes) -> float:
        """Return how long a change takes, the mean of there and back."""
        _LIBC.setns(self._netns, _ANY)
        before = self.items.get(key)
        start = time.perf_counter()
        self._put(key, value)
        self._put(key, before)
        return (time.perf_counter() - start) / 2

    def _put(self, key: str, value: bytes | None) -> None:
        if value is None:
            del self.items[key]
        else:
            self.items[key] = value
        self._changed.add(key)
        self.make_pass()


def ratio(
    large: Host, small: Host, change: Callable[[Host], tuple[str, bytes]]
) -> float:
    """Return what a change costs a host, in what it costs another one."""
    pairs = [
        (large.seconds(*change(large)), small.seconds(*change(small)))
        for _ in range(_TIMES)
    ]
    return statistics.median(p[0] for p in pairs) / statistics.median(
        p[1] for p in pairs
    )


def main() -> None:
    """Print the ratios."""
    obs.configure_logging("warning", as_json=False)
    base = Size()
    larger = {
        "1,000 endpoints": replace(base, endpoints=1000),
        "10,000 members": replace(base, members=10_000),
        "500 rules": replace(base, rules=500),
    }
    small = Host(base)
    print(f"{'ten times':18} {'a member comes':>16} {'a rule goes':>14}")
    for name, size in larger.items():
        large = Host(size)
        member = ratio(large, small, lambda _: (member_key("198.51.100.9"), b""))
        rule = ratio(large, small, lambda host: host.rule_goes)
        print(f"{name:18} {member:15.2f}x {rule:13.2f}x")


if __name__ == "__main__":
    main()
