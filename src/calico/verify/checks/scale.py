"""S15: one network or many make no difference."""

from itertools import permutations

from calico.verify.checks.adjacency import check_frames, check_neighbours
from calico.verify.checks.hops import trace_all
from calico.verify.layout import MANY, many_key
from calico.verify.probes.nat import translations
from calico.verify.reach import both_ways, reach
from calico.verify.result import Tally
from calico.verify.stage import Stage


def check(stage: Stage, tally: Tally) -> None:
    """Repeat the essence of S1-S4, S7-S9 and S14 among many networks."""
    one, many = stage.on("A"), [stage.sites[key] for key in ("m1", "m2", "m3")]
    reach(tally, permutations(one, 2), "one network: ")
    trace_all(tally, permutations(one[:3], 2), "one network: ")
    pairs = [*permutations(many, 2), *both_ways((one[0], site) for site in many)]
    why = f"{MANY} networks: "
    reach(tally, pairs, why)
    trace_all(tally, pairs[:6], why)
    check_neighbours(stage, tally, pairs)
    check_frames(stage, tally, pairs[:2])
    for host in stage.cloud.topology.hosts:
        found = translations(stage.cloud.place(host.name))
        tally.case(f"{why}no NAT entry on {host.name}", "; ".join(found[:3]) or None)
    for site in many:
        net = stage.net_of(site)
        outside = [
            a for a in site.addresses if a not in net.cidr4 and a not in net.cidr6
        ]
        tally.case(f"{why}addresses of {site.short}", str(outside) if outside else None)
    _check_truth(stage, tally)


def _check_truth(stage: Stage, tally: Tally) -> None:
    reply = stage.cloud.api("demo1").network.get("/networks").json()["networks"]
    told = {network["id"]: network.get("l2_adjacency") for network in reply}
    for number in range(MANY):
        key = many_key(number)
        value = told.get(stage.nets[key].id, "missing")
        wrong = None if value is False else f"l2_adjacency is {value!r}"
        tally.case(f"the API on network {key}", wrong)
