"""What is said of packets that an operator's policies decide on."""

from dataclasses import replace
from typing import Any

import pytest
from tests.endpoints import HOST
from tests.unit.explaining import ONE, OTHER, TWO, TwoHosts, items, last, of_words

from calico.model.ids import HostName
from calico.model.keys import HOST_ENDPOINTS, global_policy
from calico.model.operator import (
    Action,
    GlobalPolicy,
    HostEndpoint,
    OperatorRule,
)
from calico.model.operator import (
    End as RuleEnd,
)
from calico.model.operator_codec import encode_global_policy, encode_host_endpoint
from calico.model.records import PortRange
from calico.model.selectors import Has
from calico.verify.explain.journey import Spot
from calico.verify.explain.picture import End
from calico.verify.explain.report import as_json
from calico.verify.explain.routes import Local

WEB = RuleEnd(ports=(PortRange(first=80, last=80),))
LOG = OperatorRule(action=Action.LOG)
LAST = "policy last, egress rule 1"
TCP: dict[str, Any] = {"protocol": "tcp", "port": 80}


def rule(action: Action) -> OperatorRule:
    return OperatorRule(action=action, protocol=6, destination=WEB)


def policy(name: str, **changes: Any) -> dict[str, bytes]:
    made = GlobalPolicy(**{"name": name, "order": 1, **changes})
    return {global_policy(name): encode_global_policy(made)}


def host_endpoint(host: HostName, *, default_allow: bool = False) -> dict[str, bytes]:
    one = HostEndpoint(
        name=f"{host}.all",
        host=host,
        labels={"host": ""},
        default_allow=default_allow,
    )
    return {HOST_ENDPOINTS + one.name: encode_host_endpoint(one)}


def test_a_policy_that_denies_is_named_with_its_rule() -> None:
    stored = items(ONE, TWO) | policy("no-web", ingress=(LOG, rule(Action.DENY)))
    found = of_words(stored, **TCP)
    assert last(found) == (OTHER, "ingress policy", "denied")
    assert found.hops[-1].detail == "denied by policy no-web, ingress rule 2"
    expected = {
        "id": "2",
        "group": None,
        "policy": "no-web",
        "direction": "ingress",
    }
    assert as_json(found)["rule"] == expected
    assert of_words(stored, protocol="udp", port=80).allowed


@pytest.mark.parametrize(
    ("action", "words"),
    [
        (Action.ALLOW, f"allowed by {LAST}"),
        (Action.PASS, f"{LAST} passes it on, and nothing that follows allows it"),
    ],
    ids=["allow", "pass"],
)
def test_a_policy_after_the_groups_is_named(action: Action, words: str) -> None:
    lonely = replace(ONE, groups=frozenset())
    stored = items(lonely, TWO) | policy("last", order=None, egress=(rule(action),))
    found = of_words(stored, **TCP)
    hop = next(hop for hop in found.hops if hop.what == "egress policy")
    assert hop.detail == words
    assert found.allowed is (action is Action.ALLOW)


def test_what_comes_to_a_host_itself_is_the_operators_to_decide() -> None:
    stored = items(ONE, TWO) | host_endpoint(OTHER)
    there = TwoHosts(routes={OTHER: Local()})

    def asked(more: dict[str, bytes], port: int = 80) -> tuple[str, str]:
        ends = {"target": "192.0.2.7", "protocol": "tcp", "port": port}
        found = of_words({**stored, **more}, there, **ends)
        hop = next(hop for hop in found.hops if hop.what == "ingress host policy")
        return hop.outcome.value, hop.detail

    name = f"host endpoint {OTHER}.all"
    assert asked({}) == ("denied", f"{name}: no policy allows it")
    assert asked({}, port=22) == (
        "allowed",
        f"{name}: a failsafe port: no policy is asked",
    )
    assert asked(host_endpoint(OTHER, default_allow=True)) == (
        "allowed",
        f"{name}: no policy speaks of ingress here, and the default is to allow",
    )
    allow = policy("web", selector=Has("host"), ingress=(rule(Action.ALLOW),))
    assert asked(allow) == (
        "allowed",
        f"{name}: allowed by policy web, ingress rule 1",
    )


def test_a_host_that_sends_is_subject_to_its_own_policies() -> None:
    class FromHost(TwoHosts):
        def start(self, source: End) -> Spot | None:
            del source
            return Spot(HOST)

    stored = items(ONE, TWO) | host_endpoint(HOST)
    found = of_words(stored, FromHost(), source="192.0.2.6", **TCP)
    assert last(found) == (HOST, "egress host policy", "denied")
