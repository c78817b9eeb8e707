"""S4: the API says of every Calico network that it is no L2 segment."""

from functools import partial
from typing import Any

from calico.verify.parallel import parallel
from calico.verify.result import Tally
from calico.verify.stage import PROJECTS, Stage

_OURS = ("local", "flat", None)  # types that Calico serves; tenants are not told


def check(stage: Stage, tally: Tally) -> None:
    """Ask as every user, by show and by list, before and after a restart."""
    for when in ("", "after a restart "):
        if when:
            stage.tell("restarting Neutron")
            stage.cloud.control().restart_api()
        parallel([partial(_ask, stage, tally, (p, when)) for p in PROJECTS], 3)


def _ask(stage: Stage, tally: Tally, who: tuple[str, str]) -> None:
    project, when = who
    api = stage.cloud.api(project).network
    listed = _get(api, "/networks")["networks"]
    seen = {network["id"] for network in listed}
    expected = [
        net
        for net in stage.nets.values()
        if net.plan.provider or project in ("admin", net.plan.project)
    ]
    for net in expected:
        wrong = None if net.id in seen else "it is not in the list"
        tally.case(f"{when}{project} lists {net.plan.key}", wrong)
    for network in listed:
        if network.get("provider:network_type") not in _OURS:
            continue
        label = network["name"].removeprefix(stage.prefix + "-")
        tally.case(f"{when}{project}, list, {label}", _judge(network))
        if network["name"].startswith(stage.prefix):
            shown = _get(api, f"/networks/{network['id']}")["network"]
            tally.case(f"{when}{project}, show, {label}", _judge(shown))


def _get(api: Any, path: str) -> Any:
    reply = api.get(path)
    reply.raise_for_status()
    return reply.json()


def _judge(network: dict[str, Any]) -> str | None:
    value = network.get("l2_adjacency", "missing")
    return None if value is False else f"l2_adjacency is {value!r}"
