"""S20: a port's status follows what is in the data path."""

import json
import time
from functools import partial
from typing import Any
from uuid import uuid4

from calico.verify.cloud import CloudError, Place
from calico.verify.layout import SitePlan
from calico.verify.parallel import eventually
from calico.verify.result import Tally
from calico.verify.stage import Stage

_UNPLUGGED = 3.0  # seconds in which a port without a tap must not leave BUILD
_PATIENCE = 20.0


def check(stage: Stage, tally: Tally) -> None:
    """Bind without a tap, plug, unplug, plug again, unbind, and watch the status."""
    host = stage.hosts[0]
    place = stage.cloud.place(host.name)
    api = stage.cloud.api("admin").network
    plan = SitePlan(key="status", net="A", project="demo1", where=0)
    port = stage.make_port(stage.nets["A"], plan)
    tally.case("unbound", _unless(_status(api, port.id) != "ACTIVE", "ACTIVE"))
    api.update_port(
        port.id,
        device_id=str(uuid4()),
        device_owner="compute:verify",
        binding_host_id=host.name,
    )
    tally.case("bound, no tap", _only_builds(api, port.id))
    tap = f"tap{port.id[:11]}"
    try:
        for when in ("plugged", "plugged again"):
            _plug(place, tap)
            tally.case(when, _active_with_routes(api, place, port))
            place.run(["ip", "link", "delete", tap])
            tally.case(f"{when}, tap gone", _await(api, port.id, "DOWN"))
    finally:
        place.run(["ip", "link", "delete", tap])
    gone = eventually(lambda: not _routed(place, port), _PATIENCE)
    tally.case("tap gone, routes gone", _unless(gone, str(_routed(place, port))))


def _unless(right: object, evidence: str) -> str | None:
    return None if right else evidence


def _only_builds(api: Any, port: str) -> str | None:
    deadline = time.monotonic() + _UNPLUGGED
    while time.monotonic() < deadline:
        status = _status(api, port)
        if status != "BUILD":
            return f"{status} without a tap"
        time.sleep(0.2)
    return None


def _plug(place: Place, tap: str) -> None:
    peer = f"vfy{tap[3:]}"
    for argv in (
        ["ip", "link", "add", tap, "type", "veth", "peer", "name", peer],
        ["ip", "link", "set", peer, "up"],
        ["ip", "link", "set", tap, "up"],
    ):
        done = place.run(argv)
        if done.returncode:
            raise CloudError(f"{place.name}: {' '.join(argv)}: {done.stderr.strip()}")


def _active_with_routes(api: Any, place: Place, port: Any) -> str | None:
    """At the first sight of ACTIVE, every address must be routed to the tap."""
    wrong = _await(api, port.id, "ACTIVE")
    if wrong:
        return wrong
    missing = {ip["ip_address"] for ip in port.fixed_ips} - _routed(place, port)
    return f"ACTIVE, but not routed: {', '.join(sorted(missing))}" if missing else None


def _await(api: Any, port: str, wanted: str) -> str | None:
    reached = eventually(lambda: _status(api, port) == wanted, _PATIENCE)
    return _unless(reached, f"{_status(api, port)} after {_PATIENCE:.0f} s")


def _status(api: Any, port: str) -> str:
    return str(api.get_port(port).status)


def _routed(place: Place, port: Any) -> set[str]:
    """Return the destinations that a host routes to a port's tap."""
    tap = f"tap{port.id[:11]}"
    show = partial(place.run, timeout=10.0)
    found: set[str] = set()
    for family in ("-4", "-6"):
        done = show(["ip", "-j", family, "route", "show", "dev", tap])
        found |= {route["dst"] for route in json.loads(done.stdout or "[]")}
    return {dst for dst in found if not dst.startswith(("fe80", "ff00"))}
