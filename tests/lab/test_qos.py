"""`openstack network qos`: what it asks for holds between instances on two hosts."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack

import pytest
from tests.kernel.netns import eventually
from tests.kernel.rates import stream

from calico.lab.instances import Instance
from calico.lab.lab import Lab

NAME = f"qos{os.getpid()}"
MBIT, BURST = 1_000_000, 200_000


@pytest.fixture
def instances(lab: Lab) -> Iterator[tuple[Instance, Instance]]:
    """Give two instances of a network, on two hosts."""
    with ExitStack() as cleanup:
        api = lab.connection("demo1").network
        network = api.create_network(name=NAME)
        cleanup.callback(api.delete_network, network)
        cleanup.callback(forget_policy, lab)
        api.create_subnet(network_id=network.id, ip_version=4, cidr="10.221.0.0/24")
        found = []
        for number, host in enumerate(lab.hosts()[:2]):
            name = f"{NAME}-{number}"
            found.append(lab.create_instance(name, network=network.id, host=host))
            cleanup.callback(lab.delete_instance, name)
        yield found[0], found[1]


def openstack(lab: Lab, *commands: str) -> None:
    """Give commands to one `openstack`, which costs seconds to start.

    It ends with 1 whatever became of them.
    """
    result = subprocess.run(
        [f"{sys.prefix}/bin/openstack"],
        input="\n".join(commands),
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **lab.environment("admin")},
    )
    assert result.stderr == ""


def forget_policy(lab: Lab) -> None:
    api = lab.connection("admin").network
    for policy in api.qos_policies(name=NAME):
        api.delete_qos_policy(policy)


def queue(lab: Lab, instance: Instance) -> str:
    """Return the queue of what an instance sends, as its host's kernel has it."""
    argv = ["tc", "qdisc", "show", "dev", "lim" + instance.tap[3:]]
    return lab.run(instance.host, argv).stdout


def test_p16_a_policy_of_a_port_limits_its_instance_and_changes_live(
    lab: Lab, instances: tuple[Instance, Instance]
) -> None:
    sender, receiver = instances
    api = lab.connection("admin").network
    openstack(
        lab,
        f"network qos policy create {NAME}",
        "network qos rule create --type bandwidth-limit --egress"
        f" --max-kbps 8000 --max-burst-kbits 200 {NAME}",
        f"port set --qos-policy {NAME} {sender.port_id}",
    )
    (policy,) = api.qos_policies(name=NAME)
    (rule,) = api.qos_bandwidth_limit_rules(policy)
    eventually(lambda: "rate 8Mbit burst 25" in queue(lab, sender), timeout=30)
    with stream(sender.netns, receiver.netns, receiver.addresses[0]) as one:
        assert one.read(1) > 4 * MBIT
        assert one.total <= BURST + 8 * MBIT * one.elapsed
        changed = one.elapsed
        api.update_qos_bandwidth_limit_rule(rule, policy, max_kbps=40_000)
        eventually(lambda: "rate 40Mbit" in queue(lab, sender), timeout=30)
        # The sender may keep to the old rate for a while, as BBR does.
        eventually(lambda: one.read(0.5) > 12 * MBIT, timeout=20)
        later = 40 * MBIT * (one.elapsed - changed)
        assert one.total <= 2 * BURST + 8 * MBIT * changed + later
    api.update_port(sender.port_id, qos_policy_id=None)
    eventually(lambda: queue(lab, sender) == "", timeout=30)
