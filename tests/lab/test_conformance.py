"""A part of OpenStack's own API tests: what a driver has to do something for.

`make conformance` runs all of them.
"""

import logging
import re
from pathlib import Path

from calico.conformance import run
from calico.conformance.inapplicable import Mode
from calico.lab.lab import Lab

_LOG = logging.getLogger(__name__)
_PLUGIN = "neutron_tempest_plugin.api"
# Agents, quotas, DNS names, tags in bulk, pools of floating IPs, topologies that are
# made at once, and the status of routers' interfaces.
_WANTED = (
    f"{_PLUGIN}.admin.test_agent_management.AgentManagementTestJSON",
    f"{_PLUGIN}.admin.test_quotas.QuotasTest",
    f"{_PLUGIN}.test_auto_allocated_topology.TestAutoAllocatedTopology",
    f"{_PLUGIN}.test_floating_ips.FloatingIPPoolTestJSON",
    f"{_PLUGIN}.test_ports.PortsTaggingOnCreationTestJSON",
    f"{_PLUGIN}.test_ports.PortsTestJSON",
    "tempest.api.network.test_routers.RoutersTest.test_add_multiple_router_interfaces",
)


def test_openstacks_own_tests_pass(lab: Lab, tmp_path: Path) -> None:
    names = "|".join(map(re.escape, _WANTED))
    wish = run.Wish(mode=Mode.REFUSE, only=rf"^({names})(\.|$)")
    judgement = run.run(lab, wish, tmp_path, _LOG.info)
    assert not judgement.failures
    assert not judgement.stale
    passed = [result.test for result in judgement.passed]
    for name in _WANTED:
        assert any(test.startswith(name) for test in passed), f"nothing of {name}"
