"""Instances: real ports of Neutron's, real DHCP, real packets."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest
from tests.kernel.netns import eventually
from tests.lab.networks import dual_stack

from calico.lab.dhclient import state_of
from calico.lab.instances import Instance
from calico.lab.lab import Lab
from calico.lab.namespaces import LabFailed, existing
from calico.lab.topology import INTERNET_WEB4, INTERNET_WEB6


@dataclass(frozen=True, slots=True)
class Pair:
    """Two instances in two racks, on two networks."""

    one: Instance
    two: Instance


@pytest.fixture(scope="module")
def pair(lab: Lab) -> Iterator[Pair]:
    with ExitStack() as cleanup:
        networks = [_network(lab, number, cleanup) for number in (1, 2)]
        made = []
        for number, host in ((1, "host-1-1"), (2, "host-2-1")):
            name = f"i{os.getpid()}-{number}"
            made.append(
                lab.create_instance(name, network=networks[number - 1], host=host)
            )
            cleanup.callback(lab.delete_instance, name)
        yield Pair(*made)


def _network(lab: Lab, number: int, cleanup: ExitStack) -> str:
    """Make a dual-stack network of demo1's and return its id."""
    api = lab.connection("demo1").network
    return dual_stack(api, cleanup, f"n{os.getpid()}-{number}", 200 + number)


def pings(instance: Instance, address: object) -> bool:
    argv = ["ping", "-n", "-c", "2", "-W", "2", str(address)]
    return instance.run(argv).returncode == 0


def test_instances_of_two_networks_in_two_racks_talk(pair: Pair) -> None:
    for address in pair.two.addresses:
        assert pings(pair.one, address)
    for address in pair.one.addresses:
        assert pings(pair.two, address)


def test_an_instance_reaches_the_internet(pair: Pair) -> None:
    for address in (INTERNET_WEB4, INTERNET_WEB6):
        assert pings(pair.one, address)
    page = pair.one.run(["busybox", "wget", "-qO-", f"http://{INTERNET_WEB4}"])
    assert "Welcome" in page.stdout


def test_an_instance_finds_another_of_its_project_by_name(lab: Lab, pair: Pair) -> None:
    command = [sys.executable, "-m", "calico", "lab", "exec", "--lab", lab.name]
    asking = [*command, pair.one.name, "--", "getent", "ahosts", pair.two.name]

    def found() -> set[str]:
        done = subprocess.run(asking, capture_output=True, text=True, check=False)
        return {line.split()[0] for line in done.stdout.splitlines()}

    eventually(lambda: found() == set(pair.two.addresses))


def test_a_wish_that_cannot_be_fulfilled_leaves_nothing(lab: Lab) -> None:
    before = existing(f"calico-{lab.name}-")
    with pytest.raises(LabFailed, match="no network 'nowhere'"):
        lab.create_instance("wish", network="nowhere")
    with pytest.raises(LabFailed, match="no host 'host-9-9'"):
        lab.create_instance("wish", network="nowhere", host="host-9-9")
    assert existing(f"calico-{lab.name}-") == before


def test_a_name_is_used_once(lab: Lab, pair: Pair) -> None:
    with pytest.raises(LabFailed, match="already"):
        lab.create_instance(pair.one.name, network="any")


def test_the_port_of_another_instance_is_refused(lab: Lab, pair: Pair) -> None:
    with pytest.raises(LabFailed, match=f"in use by the instance '{pair.one.name}'"):
        lab.create_instance("wish", port_id=pair.one.port_id, host="host-1-2")
    assert pings(pair.two, pair.one.addresses[0])


def test_a_port_goes_with_its_network_and_its_own_groups(lab: Lab, pair: Pair) -> None:
    api = lab.connection("demo1").network
    port = api.create_port(network_id=pair.one.network_id)
    name = f"i{os.getpid()}-4"
    try:
        with pytest.raises(LabFailed, match="not on network"):
            lab.create_instance(name, port_id=port.id, network=pair.two.network_id)
        with pytest.raises(LabFailed, match="security groups"):
            lab.create_instance(name, port_id=port.id, security_groups=["default"])
        lab.create_instance(name, port_id=port.id, network=pair.one.network_id)
        lab.delete_instance(name)
    finally:
        api.delete_port(port)


def test_one_name_of_two_networks_is_refused(lab: Lab) -> None:
    with ExitStack() as cleanup:
        api = lab.connection("demo1").network
        for _ in range(2):
            network = api.create_network(name=f"twice{os.getpid()}")
            cleanup.callback(api.delete_network, network)
        with pytest.raises(LabFailed, match="give the network's id"):
            lab.create_instance("wish", network=f"twice{os.getpid()}")


def test_a_guest_says_nothing_to_the_machines_resolver(
    lab: Lab, tmp_path: Path
) -> None:
    # dhcpcd's hook prefers resolvconf(8), where there is one, to the guest's file.
    program, said = tmp_path / "resolvconf", tmp_path / "said"
    program.write_text(f'#!/bin/sh\necho "$@" >>{said}\n')
    program.chmod(0o755)
    with ExitStack() as cleanup:
        api = lab.connection("demo1").network
        network = _network(lab, 3, cleanup)
        for subnet in api.subnets(network_id=network, ip_version=4):
            api.update_subnet(subnet, dns_nameservers=["192.0.2.53"])
        name = f"i{os.getpid()}-3"
        command = ["lab", "instance", "create", name, "--lab", lab.name]
        subprocess.run(
            [sys.executable, "-m", "calico", *command, "--network", network],
            env={**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"},
            check=True,
        )
        cleanup.callback(lab.delete_instance, name)
        own = state_of(lab.netns_of(name)) / "resolv.conf"
        eventually(lambda: "nameserver 192.0.2.53" in own.read_text())
    assert not said.exists()
