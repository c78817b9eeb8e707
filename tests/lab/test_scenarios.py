"""What guests rely on: metadata, and packets as large as their network says."""

import json
import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass

import pytest
from tests.kernel.netns import eventually
from tests.lab.networks import address, dual_stack

from calico.lab.instances import Instance
from calico.lab.lab import Lab

SMALL = 1400
ASK = """
import sys, urllib.request
print(urllib.request.urlopen(sys.argv[1], timeout=5).read().decode())
"""
HEADERS = {4: 28, 6: 48}  # IP's and ICMP's
METADATA = {4: "169.254.169.254", 6: "[fe80::a9fe:a9fe%25{}]"}


@dataclass(frozen=True, slots=True)
class Cast:
    """Instances in two racks: two of a network with a small MTU, one of another."""

    one: Instance
    far: Instance
    big: Instance


@pytest.fixture(scope="module")
def cast(lab: Lab) -> Iterator[Cast]:
    with ExitStack() as cleanup:
        small, large = (make_network(lab, n, cleanup) for n in (1, 2))
        hosts, made = lab.hosts(), {}
        for role, network, host in (
            ("one", small, hosts[0]),
            ("far", small, hosts[-1]),
            ("big", large, hosts[0]),
        ):
            name = f"sc{os.getpid()}-{role}"
            made[role] = lab.create_instance(name, network=network, host=host)
            cleanup.callback(lab.delete_instance, name)
        yield Cast(**made)


def make_network(lab: Lab, number: int, cleanup: ExitStack) -> str:
    """Make the network with a small MTU, shared, or another; return its id."""
    name, api = f"sc{os.getpid()}-{number}", lab.connection("admin").network
    if number == 1:
        return dual_stack(api, cleanup, name, 223, mtu=SMALL, is_shared=True)
    return dual_stack(lab.connection("demo1").network, cleanup, name, 224)


def pings(instance: Instance, to: str, size: int) -> str:
    """Ping once with a packet that must not be cut up; return what ping says."""
    argv = ["ping", "-n", "-c", "1", "-W", "2", "-M", "do", "-s", str(size), to]
    done = instance.run(argv)
    return str(done.stdout + done.stderr)


@pytest.mark.parametrize("version", [4, 6])
def test_p42_an_instance_learns_from_metadata_who_it_is(
    lab: Lab, cast: Cast, version: int
) -> None:
    host = METADATA[version].format(cast.one.interface)
    url = f"http://{host}/openstack/latest/meta_data.json"

    def answer() -> str:
        return str(cast.one.run([sys.executable, "-c", ASK, url]).stdout)

    said = eventually(answer, 20)
    port = lab.connection("admin").network.get_port(cast.one.port_id)
    assert json.loads(said)["uuid"] == port.device_id


@pytest.mark.parametrize("version", [4, 6])
def test_s19_packets_as_large_as_the_networks_mtu_cross_the_racks(
    cast: Cast, version: int
) -> None:
    to, size = address(cast.far, version), SMALL - HEADERS[version]
    eventually(lambda: " 0% packet loss" in pings(cast.one, to, size), 20)
    assert "essage too long" in pings(cast.one, to, size + 1)


@pytest.mark.parametrize("version", [4, 6])
def test_s01_who_sends_what_is_too_large_is_told_how_large_it_may_be(
    cast: Cast, version: int
) -> None:
    to, size = address(cast.one, version), SMALL - HEADERS[version]
    said = pings(cast.big, to, size + 1)
    assert f"mtu = {SMALL}" in said or f"mtu={SMALL}" in said
    eventually(lambda: " 0% packet loss" in pings(cast.big, to, size), 20)
