"""Compare etcd clients: calls a second of each, and the ratio to this project's.

python benchmarks/etcd_client.py [--other PYTHON]

PYTHON is an interpreter that has the other clients (aetcd, etcd-sdk-python, etcd3gw);
each runs in a process of its own, against one etcd on loopback that this starts.
"""

import argparse
import asyncio
import importlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

CALLS = 2000
VALUE = b"x" * 600  # about an endpoint's size
Figures = dict[str, float]


def run_calico(endpoint: str) -> Figures:
    """Measure this project's client."""
    config = importlib.import_module("calico.config")
    client = importlib.import_module("calico.datastore.client")
    mine = client.Client(config.EtcdSettings(endpoints=(endpoint,)))
    return measure(
        lambda n: mine.put(f"/b/{n}", VALUE),
        lambda n: mine.get(f"/b/{n}"),
        lambda: mine.get_prefix("/b/"),
    )


def run_pyetcd(endpoint: str) -> Figures:
    """Measure etcd-sdk-python."""
    host, port = address(endpoint)
    other = importlib.import_module("pyetcd").client(host=host, port=port)
    return measure(
        lambda n: other.put(f"/b/{n}", VALUE),
        lambda n: other.get(f"/b/{n}"),
        lambda: list(other.get_prefix("/b/")),
    )


def run_etcd3gw(endpoint: str) -> Figures:
    """Measure etcd3gw, which speaks JSON over HTTP to etcd's gateway."""
    host, port = address(endpoint)
    other = importlib.import_module("etcd3gw").client(
        host=host, port=port, api_path="/v3/"
    )
    return measure(
        lambda n: other.put(f"/b/{n}", VALUE.decode()),
        lambda n: other.get(f"/b/{n}"),
        lambda: other.get_prefix("/b/"),
    )


def run_aetcd(endpoint: str) -> Figures:
    """Measure aetcd, one call at a time as a thread of ours would make them."""
    host, port = address(endpoint)
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    other = importlib.import_module("aetcd").Client(host=host, port=port)
    wait: Callable[[Any], object] = loop.run_until_complete
    figures = measure(
        lambda n: wait(other.put(f"/b/{n}".encode(), VALUE)),
        lambda n: wait(other.get(f"/b/{n}".encode())),
        lambda: wait(other.get_prefix(b"/b/")),
    )
    wait(other.close())
    return figures


RUNS = {
    "calico": run_calico,
    "etcd-sdk-python": run_pyetcd,
    "aetcd": run_aetcd,
    "etcd3gw": run_etcd3gw,
}


def measure(
    put: Callable[[int], object],
    get: Callable[[int], object],
    get_all: Callable[[], object],
) -> Figures:
    """Return puts, gets and items listed, a second."""
    put(0)
    started = time.perf_counter()
    for n in range(CALLS):
        put(n)
    written = time.perf_counter()
    for n in range(CALLS):
        get(n)
    read = time.perf_counter()
    for _ in range(10):
        get_all()
    listed = time.perf_counter()
    return {
        "puts/s": CALLS / (written - started),
        "gets/s": CALLS / (read - written),
        "listed/s": 10 * CALLS / (listed - read),
    }


def address(endpoint: str) -> tuple[str, int]:
    """Return host and port of a URL."""
    url = urlsplit(endpoint)
    return url.hostname or "", url.port or 0


def compare(other: str | None) -> None:
    """Run every client that can be run and print the table."""
    sys.path.insert(0, str(Path(__file__).parents[1]))
    etcd_server = importlib.import_module("tests.etcd_server")
    baseline: Figures = {}
    with etcd_server.EtcdServer() as server:
        for name in RUNS:
            python = sys.executable if name == "calico" else other
            if python is None:
                continue
            figures = run_one(python, name, server.endpoint)
            baseline = baseline or figures
            print(f"{name:16}", end="")
            for kind, value in figures.items():
                print(f"  {value:8.0f} {kind} ({value / baseline[kind]:4.2f})", end="")
            print(flush=True)


def run_one(python: str, name: str, endpoint: str) -> Figures:
    """Measure one client in an interpreter; no figures if it cannot run there."""
    done = subprocess.run(
        [python, __file__, "--run", name, endpoint],
        capture_output=True,
        text=True,
        check=False,
        # Proxies are for the web; one client would send its requests there.
        env={k: v for k, v in os.environ.items() if "proxy" not in k.lower()},
    )
    if done.returncode:
        print(f"{name}: {done.stderr.strip().splitlines()[-1]}")
        return {}
    figures: Figures = json.loads(done.stdout)
    return figures


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--other", help="an interpreter that has the other clients")
    parser.add_argument("--run", nargs=2, metavar=("CLIENT", "URL"))
    arguments = parser.parse_args()
    if arguments.run:
        print(json.dumps(RUNS[arguments.run[0]](arguments.run[1])))
    else:
        compare(arguments.other)
