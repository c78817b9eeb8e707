"""Run by test_status, outside of pytest: a pass of the status loop, interrupted.

The test looks at what it left in Neutron.
"""

import sys
import urllib.request

from neutron.common import config

from calico.model.ids import HostName, PortId
from calico.server import status
from neutron import manager


class Moving(frozenset[tuple[HostName, PortId]]):
    """Reports that have their port move to `h2` at the moment they are looked at."""

    url = ""
    moved = False

    def __contains__(self, report: object) -> bool:
        if not Moving.moved:
            Moving.moved = True
            move = urllib.request.Request(  # noqa: S310 - an http URL of our own
                Moving.url,
                method="PUT",
                data=b'{"port":{"binding:host_id":"h2"}}',
                headers={"Content-Type": "application/json", "Connection": "close"},
            )
            with urllib.request.urlopen(move, timeout=30):  # noqa: S310 - as above
                pass
        return super().__contains__(report)


settings, api, port = sys.argv[1:]
config.register_common_config_options()
config.init(["--config-file", settings])
manager.init()
Moving.url = f"{api}/v2.0/ports/{port}"
status._apply_batch([port], Moving({(HostName("h1"), PortId(port))}))
assert Moving.moved
