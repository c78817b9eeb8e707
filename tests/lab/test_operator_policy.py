"""An operator's policies in a lab: written to its datastore, seen by packets."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any

import pytest

from calico.lab.instances import Instance
from calico.lab.lab import Lab
from calico.verify.inside import NamespacePlace
from calico.verify.parallel import eventually
from calico.verify.probes.flows import Course, FlowFailed, Flows, cut

NEAR, FAR = "host-1-1", "host-2-1"
NAME = f"o{os.getpid()}"
NO_WEB = f"""\
apiVersion: projectcalico.org/v3
kind: GlobalNetworkPolicy
metadata: {{name: {NAME}-no-web}}
spec:
  order: 5
  selector: openstack.projectcalico.org/network-name == '{NAME}'
  ingress:
  - action: Log
    protocol: TCP
  - action: Deny
    protocol: TCP
    source:
      selector: openstack.projectcalico.org/network-name == '{NAME}'
    destination: {{ports: [8080]}}
"""
GUARD = f"""\
apiVersion: projectcalico.org/v3
kind: HostEndpoint
metadata:
  name: {NAME}
  labels: {{guarded: {NAME}}}
spec: {{node: {FAR}, interfaceName: "*", profiles: [projectcalico-default-allow]}}
---
apiVersion: projectcalico.org/v3
kind: GlobalNetworkPolicy
metadata: {{name: {NAME}-hosts}}
spec:
  order: 5
  selector: guarded == '{NAME}'
  ingress:
  - action: Deny
    protocol: TCP
    destination: {{ports: ["8000:8099"]}}
  - action: Allow
"""


@dataclass(frozen=True, slots=True)
class Bed:
    """Two instances of one network, on two hosts, that flow to each other."""

    lab: Lab
    flows: Flows
    one: Instance
    two: Instance

    def course(self, port: int) -> Course:
        """Return the way from one instance to a port of the other."""
        return Course(
            name=f"to {port}",
            kind="TCP",
            source=NamespacePlace("one", self.one.netns),
            target=NamespacePlace("two", self.two.netns),
            address=ip_address(self.two.addresses[0]),
            port=port,
        )

    def to_host(self, port: int) -> Course:
        """Return the way from one host to a port of the other."""
        near, far = (self.lab.netns_of(host) for host in (NEAR, FAR))
        return Course(
            name=f"host to {port}",
            kind="TCP",
            source=NamespacePlace(NEAR, near),
            target=NamespacePlace(FAR, far),
            address=address_of(self.lab, FAR),
            port=port,
        )

    def begins(self, course: Course) -> bool:
        """Tell whether a connection can begin."""
        try:
            flow = self.flows.begin(course)
        except FlowFailed:
            return False
        self.flows.end([flow])
        return True

    def told(self, source: str, target: str, *words: str) -> dict[str, Any]:
        """Return what is explained of a TCP packet to port 8080."""
        ends = ["--from", source, "--to", target, "--dport", "8080", "-4"]
        result = calico("explain", *ends, *words, "--json", "--lab", self.lab.name)
        body: dict[str, Any] = json.loads(result.stdout)
        return body


def address_of(lab: Lab, host: str) -> Any:
    topology = lab.topology
    return topology.uplink(topology.node(host))[0].address4.ip


def calico(*words: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "calico", *words],
        input=stdin,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def apply(lab: Lab, cleanup: ExitStack, text: str) -> None:
    """Write what an operator says, until the end."""
    cleanup.callback(delete, lab, text)
    result = calico("policy", "apply", "-", "--lab", lab.name, stdin=text)
    assert result.returncode == 0, result.stderr


def delete(lab: Lab, text: str) -> None:
    calico("policy", "delete", "-f", "-", "--lab", lab.name, stdin=text)


@pytest.fixture(scope="module")
def bed(lab: Lab) -> Iterator[Bed]:
    with ExitStack() as cleanup:
        api = lab.connection("demo1").network
        network = api.create_network(name=NAME)
        cleanup.callback(api.delete_network, network.id)
        api.create_subnet(network_id=network.id, ip_version=4, cidr="10.232.0.0/24")
        made = []
        for part, host in (("one", NEAR), ("two", FAR)):
            name = f"{NAME}-{part}"
            made.append(lab.create_instance(name, network=network.id, host=host))
            cleanup.callback(lab.delete_instance, name)
        flows = cleanup.enter_context(Flows())
        yield Bed(lab, flows, *made)


def test_p07_what_an_operator_denies_is_cut_and_explained(bed: Bed) -> None:
    ends = bed.one.name, bed.two.name
    gone, kept = (bed.flows.begin(bed.course(port)) for port in (8080, 9090))
    with ExitStack() as written:
        apply(bed.lab, written, NO_WEB)
        assert cut([gone], time.monotonic(), 5.0) == {gone: None}
        assert bed.begins(bed.course(9091))
        since = time.monotonic()
        assert eventually(lambda: kept.first > since, 5.0), "others go on"
        found = bed.told(*ends, "--send")
        assert (found["verdict"], found["agree"]) == ("denied", True)
        assert found["rule"]["policy"] == f"{NAME}-no-web"
        assert (
            found["hops"][-1]["detail"]
            == f"denied by policy {NAME}-no-web, ingress rule 2"
        )
        written_lines = bed.lab.paths.policy_log(FAR).read_text
        assert eventually(lambda: f'"{NAME}-no-web"' in written_lines(), 5.0)
        hits = calico("policy", "hits", "--json", "--lab", bed.lab.name).stdout
        denied = [
            hit["packets"]
            for hit in json.loads(hits)
            if (hit["policy"], hit["rule"]) == (f"{NAME}-no-web", "2")
        ]
        assert sum(denied) > 0
    assert eventually(lambda: bed.begins(bed.course(8080)), 10.0)
    found = bed.told(*ends, "--send")
    assert (found["verdict"], found["agree"]) == ("allowed", True)
    bed.flows.end([gone, kept])


def test_a_host_endpoint_guards_the_host_and_nothing_else(bed: Bed) -> None:
    hosts = [str(address_of(bed.lab, host)) for host in (NEAR, FAR)]
    assert bed.begins(bed.to_host(8088))
    assert bed.told(*hosts)["verdict"] == "allowed"
    with ExitStack() as written:
        apply(bed.lab, written, GUARD)
        assert eventually(lambda: not bed.begins(bed.to_host(8089)), 10.0)
        found = bed.told(*hosts)
        assert found["rule"] == {
            "id": "1",
            "group": None,
            "policy": f"{NAME}-hosts",
            "direction": "ingress",
        }
        assert bed.begins(bed.to_host(9092))
        assert bed.begins(bed.course(8080)), "what a host forwards is not its own"
        assert bed.lab.sessions(FAR)[0] == bed.lab.sessions(FAR)[1], "BGP goes on"
    assert eventually(lambda: bed.begins(bed.to_host(8090)), 10.0)
