"""The inside of an instance: its DHCP client, and the wait for its addresses."""

import json
import shutil
import sys
import time
from collections.abc import Sequence
from ipaddress import ip_address

from calico.lab import dhclient, namespaces
from calico.lab.namespaces import LabFailed
from calico.lab.paths import LabPaths
from calico.lab.processes import Processes

_TIMEOUT = 30.0
_POLL = 0.1


def configure(
    paths: LabPaths, instance: str, interface: str, addresses: Sequence[str]
) -> None:
    """Bring an instance's interface up and wait until DHCP or RA gave it its addresses.

    The client stays, to renew its leases, and ends with the namespace. Raises LabFailed
    with the addresses that did not come.
    """
    netns = paths.instance_netns(instance)
    log = paths.logs / f"dhcp-{instance}.log"
    namespaces.ip_batch([f"link set {interface} up"], netns=netns)
    Processes(paths.processes).spawn(
        client_name(instance),
        [sys.executable, "-m", "calico.lab.dhclient", interface],
        netns=netns,
        log=log,
    )
    wanted = {ip_address(address) for address in addresses}
    deadline = time.monotonic() + _TIMEOUT
    while missing := wanted - _present(netns, interface):
        if time.monotonic() > deadline:
            names = ", ".join(sorted(map(str, missing)))
            raise LabFailed(f"{instance} did not get {names}; its client logs to {log}")
        time.sleep(_POLL)


def client_name(instance: str) -> str:
    """Return the name that an instance's DHCP client is recorded under."""
    return f"dhcp-{instance}"


def forget(netns: str) -> None:
    """Remove the files of the DHCP client that ran in a namespace."""
    shutil.rmtree(dhclient.state_of(netns), ignore_errors=True)


def _present(netns: str, interface: str) -> set[object]:
    """Return the usable addresses of an interface: not those under detection."""
    result = namespaces.run(netns, ["ip", "-json", "address", "show", "dev", interface])
    entries = json.loads(result.stdout or "[]")
    return {
        ip_address(entry["local"])
        for link in entries
        for entry in link.get("addr_info", ())
        if not entry.get("tentative")
    }
