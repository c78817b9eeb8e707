"""`openstack network log`: what it asks for is written on the instance's host."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from tests.kernel.netns import eventually

from calico.lab.instances import Instance
from calico.lab.lab import Lab
from calico.lab.topology import INTERNET_WEB4

NAME = f"log{os.getpid()}"


@pytest.fixture
def silenced(lab: Lab) -> Iterator[Instance]:
    """Give an instance whose group lets nothing out."""
    with ExitStack() as cleanup:
        api = lab.connection("demo1").network
        network = api.create_network(name=NAME)
        cleanup.callback(api.delete_network, network)
        api.create_subnet(network_id=network.id, ip_version=4, cidr="10.220.0.0/24")
        group = api.create_security_group(name=NAME)
        cleanup.callback(api.delete_security_group, group)
        for rule in group.security_group_rules:
            api.delete_security_group_rule(rule["id"])
        yield lab.create_instance(NAME, network=network.id, security_groups=[group.id])
        cleanup.callback(lab.delete_instance, NAME)


def openstack(lab: Lab, *argv: str) -> str:
    result = subprocess.run(
        [f"{sys.prefix}/bin/openstack", *argv],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **lab.environment("admin")},
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


def lines(lab: Lab, instance: Instance) -> list[dict[str, Any]]:
    """Return what the instance's host has written of the instance's port."""
    file: Path = lab.paths.policy_log(instance.host)
    text = file.read_text() if file.exists() else ""
    found = map(json.loads, text.splitlines())
    return [line for line in found if line["vm_port"] == instance.port_id]


def is_logged(lab: Lab, instance: Instance) -> bool:
    argv = ["nft", "list", "set", "inet", "calico", "logged_drops"]
    return instance.tap in lab.run(instance.host, argv).stdout


def ping(instance: Instance) -> None:
    """Send one echo request that nobody answers, and wait a second for that."""
    argv = ["ping", "-n", "-c", "1", "-W", "1", str(INTERNET_WEB4)]
    assert instance.run(argv).returncode != 0


def test_a_denied_packet_is_written_with_the_id_of_the_log_that_asked(
    lab: Lab, silenced: Instance
) -> None:
    made = openstack(
        lab,
        *("network", "log", "create", NAME, "--resource-type", "security_group"),
        *("--target", silenced.port_id, "--event", "DROP", "-f", "json"),
    )
    log = json.loads(made)["ID"]
    eventually(lambda: is_logged(lab, silenced), timeout=30)
    ping(silenced)
    eventually(lambda: lines(lab, silenced), message="no line")
    (line,) = lines(lab, silenced)
    assert line["log_resource_ids"] == [log]
    assert (line["action"], line["direction"]) == ("DROP", "egress")
    assert (line["proto"], line["dst"]) == ("icmp", str(INTERNET_WEB4))
    openstack(lab, "network", "log", "delete", log)
    eventually(lambda: not is_logged(lab, silenced), timeout=30)
    ping(silenced)
    assert lines(lab, silenced) == [line]
