"""What a live migration costs a flow: packets lost, warm and cold, and their ratio.

python benchmarks/live_migration.py [LAB] [ROUNDS]   (root; a lab of its own if none)

Moves an instance to and fro between two racks, at 1,000 packets a second from a third
host: with a prepared target and the guest's announcement, with a prepared target and a
silent guest, and as an evacuation does, with nothing prepared. One lost packet is a
millisecond of traffic.
"""

import os
import statistics
import sys
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial

from calico.lab import build, environment
from calico.lab.lab import Lab, Plan
from calico.lab.migration import Report

HOME, AWAY, SENDER = "host-1-1", "host-2-2", "host-2-1"


def main(name: str | None, rounds: int) -> None:
    """Print each way's losses, and the medians' ratio to a warm target's."""
    with ExitStack() as cleanup:
        if name is None:
            lab = build.up(Plan(name=f"bench{os.getpid()}"), print)
            cleanup.callback(build.down, lab.name)
        else:
            lab = Lab.load(name)
        api = lab.connection("demo1").network
        network = api.create_network(name="benchmark").id
        cleanup.callback(api.delete_network, network)
        api.create_subnet(network_id=network, ip_version=4, cidr="10.208.0.0/24")
        for instance, host in (("bmover", HOME), ("bpeer", SENDER)):
            lab.create_instance(instance, network=network, host=host)
            cleanup.callback(lab.delete_instance, instance)
        move = partial(lab.migrate_instance, "bmover", measure_from="bpeer")
        ways: dict[str, Callable[..., Report]] = {
            "warm": move,
            "warm, silent": partial(move, announced=False),
            "cold": partial(move, warm=False),
        }
        medians = {way: _measure(way, run, rounds) for way, run in ways.items()}
    for way, median in medians.items():
        ratio = median / max(medians["warm"], 1)
        print(f"{way}: median {median:g} ms, {ratio:.1f} of warm")


def _measure(way: str, run: Callable[..., Report], rounds: int) -> float:
    lost = []
    for number in range(2 * rounds):
        loss = run(to=HOME if number % 2 else AWAY).loss
        assert loss is not None
        lost.append(loss.lost)
    print(f"{way}: lost {' '.join(map(str, lost))} packets", flush=True)
    return float(statistics.median(lost))


if __name__ == "__main__":
    environment.prepare()
    given = sys.argv[1:]
    main(given[0] if given else None, int(given[1]) if len(given) > 1 else 3)
