"""S4: the API says of every Calico network that it is no L2 segment."""

from collections.abc import Mapping
from functools import partial
from typing import Any

from calico.verify.layout import is_many
from calico.verify.parallel import parallel
from calico.verify.result import Tally
from calico.verify.stage import PROJECTS, Stage

_OURS = ("local", "flat", None)  # types that Calico serves; tenants are not told


def check(stage: Stage, tally: Tally) -> None:
    """Ask as every user, by show and by list, before and after a restart."""
    # What Neutron by itself says depends on a network's subnets, so one each has none.
    bare = {project: _make_bare(stage, project) for project in PROJECTS}
    for when in ("", "after a restart "):
        if when:
            stage.tell("restarting Neutron")
            stage.cloud.control().restart_api()
        asks = [
            partial(_ask, stage, tally, (p, when), _seen_by(stage, p, bare))
            for p in PROJECTS
        ]
        parallel(asks, 3)


def _make_bare(stage: Stage, project: str) -> str:
    api = stage.cloud.api(project).network
    return str(api.create_network(name=f"{stage.prefix}-bare-{project}").id)


def _seen_by(stage: Stage, project: str, bare: Mapping[str, str]) -> dict[str, str]:
    """Return the ids of the run's networks that a project must be shown, and labels."""
    admin = project == "admin"
    found = {
        net.id: key
        for key, net in stage.nets.items()
        if admin or net.plan.provider or project == net.plan.project
    }
    owned = {own: f"bare-{p}" for p, own in bare.items() if admin or p == project}
    return found | owned


def _ask(
    stage: Stage, tally: Tally, who: tuple[str, str], expected: Mapping[str, str]
) -> None:
    project, when = who
    api = stage.cloud.api(project).network
    listed = _get(api, "/networks")["networks"]
    seen = {network["id"] for network in listed}
    for network_id, label in expected.items():
        wrong = None if network_id in seen else "it is not in the list"
        tally.case(f"{when}{project} lists {label}", wrong)
    # The many networks of S15 are alike: those with instances stand for all.
    shown_for = {net for net, label in expected.items() if not is_many(label)}
    shown_for |= {site.network for site in stage.sites.values()}
    for network in listed:
        if network.get("provider:network_type") not in _OURS:
            continue
        label = network["name"].removeprefix(stage.prefix + "-")
        tally.case(f"{when}{project}, list, {label}", _judge(network))
        if network["id"] in shown_for:
            shown = _get(api, f"/networks/{network['id']}")["network"]
            tally.case(f"{when}{project}, show, {label}", _judge(shown))


def _get(api: Any, path: str) -> Any:
    reply = api.get(path)
    reply.raise_for_status()
    return reply.json()


def _judge(network: dict[str, Any]) -> str | None:
    value = network.get("l2_adjacency", "missing")
    return None if value is False else f"l2_adjacency is {value!r}"
