"""S10: what would overlap is refused by the API, whoever asks; of a race one wins."""

from functools import partial
from ipaddress import IPv4Network, IPv6Network
from typing import Any

from calico.verify.parallel import parallel
from calico.verify.result import Tally
from calico.verify.stage import PROJECTS, Stage

Range = IPv4Network | IPv6Network

_RACERS = 6
_CONFLICT = 409


def check(stage: Stage, tally: Tally) -> None:
    """Ask as every project for what network A has; then for one range all at once."""
    asked = {p: _network(stage, p, "late") for p in PROJECTS}
    for project, network in asked.items():
        api = stage.cloud.api(project).network
        for taken in stage.ranges.by_key["A"]:
            for how, cidr in _overlapping(taken).items():
                reply = _ask(api, network, cidr)
                tally.case(f"{project}, {how} {taken}", _judge(reply, cidr, taken))
        left = [s.cidr for s in api.subnets(network_id=network)]
        wrong = f"subnets {left}" if left else None
        tally.case(f"{project}: nothing is stored", wrong)
    for cidr in stage.ranges.by_key["R"]:
        _race(stage, tally, cidr)


def _overlapping(taken: Range) -> dict[str, Range]:
    within, *_ = taken.subnets(prefixlen_diff=1)
    return {"the same as": taken, "within": within, "around": taken.supernet()}


def _network(stage: Stage, project: str, name: str) -> str:
    api = stage.cloud.api(project).network
    return str(api.create_network(name=f"{stage.prefix}-{name}-{project}").id)


def _ask(api: Any, network: str, cidr: Range) -> Any:
    subnet = {"network_id": network, "cidr": str(cidr), "ip_version": cidr.version}
    return api.post("/subnets", json={"subnet": subnet})


def _judge(reply: Any, cidr: Range, taken: Range) -> str | None:
    if reply.status_code != _CONFLICT:
        return f"the API says {reply.status_code} to {cidr}"
    if str(cidr) not in reply.text or str(taken) not in reply.text:
        return f"it does not name both: {reply.text}"
    return None


def _race(stage: Stage, tally: Tally, cidr: Range) -> None:
    """Ask for one range from many networks at the same moment."""
    asked = [PROJECTS[n % len(PROJECTS)] for n in range(_RACERS)]
    networks = [_network(stage, p, f"race{n}") for n, p in enumerate(asked)]
    replies = parallel(
        [
            partial(_ask, stage.cloud.api(project).network, network, cidr)
            for project, network in zip(asked, networks, strict=True)
        ],
        _RACERS,
    )
    told = sorted(reply.status_code for reply in replies)
    wrong = None if told == [201] + [_CONFLICT] * (_RACERS - 1) else f"answers: {told}"
    tally.case(f"{_RACERS} at once for {cidr}: one gets it", wrong)
    stored = [
        subnet.id
        for subnet in stage.cloud.api("admin").network.subnets(cidr=str(cidr))
        if subnet.network_id in networks
    ]
    wrong = None if len(stored) == 1 else f"{len(stored)} are stored"
    tally.case(f"{_RACERS} at once for {cidr}: one is stored", wrong)
