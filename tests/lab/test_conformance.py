"""A part of OpenStack's own API tests: what a driver has to do something for.

`make conformance` runs all of them.
"""

import logging
import re
from pathlib import Path

from calico.conformance import run
from calico.conformance.inapplicable import Mode
from calico.conformance.result import class_of
from calico.lab.lab import Lab

_LOG = logging.getLogger(__name__)
_PLUGIN = "neutron_tempest_plugin.api"
# Agents, DNS names, tags in bulk, pools of floating IPs, routers by name, topologies
# that are made at once, prefixes of pools, and the status of routers' interfaces.
_CLASSES = frozenset(
    {
        f"{_PLUGIN}.admin.test_agent_management.AgentManagementTestJSON",
        f"{_PLUGIN}.admin.test_quotas.QuotasTest",
        f"{_PLUGIN}.test_auto_allocated_topology.TestAutoAllocatedTopology",
        f"{_PLUGIN}.test_floating_ips.FloatingIPPoolTestJSON",
        f"{_PLUGIN}.test_floating_ips_negative.IndirectFloatingIPsNegativeTestJSON",
        f"{_PLUGIN}.test_ports.PortsTaggingOnCreationTestJSON",
        f"{_PLUGIN}.test_ports.PortsTestJSON",
        f"{_PLUGIN}.test_subnetpool_prefix_ops.SubnetPoolPrefixOpsIpv4Test",
        "tempest.api.network.test_routers.RoutersTest",
    }
)


def test_openstacks_own_tests_pass(lab: Lab, tmp_path: Path) -> None:
    classes = "|".join(map(re.escape, _CLASSES))
    wish = run.Wish(mode=Mode.REFUSE, only=rf"^({classes})\.")
    judgement = run.run(lab, wish, tmp_path, _LOG.info)
    assert not judgement.failures
    assert not judgement.stale
    assert {class_of(result.test) for result in judgement.passed} == _CLASSES
