"""Endpoints for tests of what one host does."""

from dataclasses import replace
from ipaddress import ip_address
from typing import Any

from tests.policies import OPEN

from calico.model.ids import (
    DeviceId,
    HostName,
    Mac,
    NetworkId,
    PortId,
    ProjectId,
    tap_name,
)
from calico.model.records import Endpoint

HOST = HostName("host-a")
NETWORK = NetworkId("net-a")
PROJECT = ProjectId("project")


def endpoint(number: int, **changes: Any) -> Endpoint:
    """Return the endpoint of guest `number`: 10.65.0.N and 2001:db8:65::N."""
    port = PortId(f"{number:08x}-{number:02x}00-0000")
    return replace(
        Endpoint(
            host=HOST,
            device=DeviceId(f"device-{number}"),
            port=port,
            interface=tap_name(port),
            mac=Mac(f"fa:16:3e:00:00:{number:02x}"),
            network=NETWORK,
            project=PROJECT,
            addresses=(
                ip_address(f"10.65.0.{number}"),
                ip_address(f"2001:db8:65::{number:x}"),
            ),
            groups=frozenset({OPEN}),
        ),
        **changes,
    )
