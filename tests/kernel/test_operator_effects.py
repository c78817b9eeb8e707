"""What an operator's policies do to guests that talk."""

import socket
from collections.abc import Iterator
from dataclasses import replace

import pytest
from tests.kernel.data_path import HostBed, host_bed
from tests.kernel.netns import in_netns
from tests.kernel.talks import SERVERS, A, B, talks
from tests.policies import OPEN, OPEN_GROUPS, OPEN_POLICY

from calico.model.groups import Groups
from calico.model.operator import Action, End, GlobalPolicy, OperatorRule
from calico.model.operator_world import NO_OPERATOR, OperatorWorld
from calico.model.records import Endpoint, PortRange
from calico.model.selectors import Has
from calico.system.counters import read_hits
from calico.system.nft import Nft

STATELESS = Groups(policies={OPEN: replace(OPEN_POLICY, stateful=False)})
CLOSED = replace(OPEN_POLICY, group=SERVERS, ingress=(), stateful=False)
PORT_80 = End(ports=(PortRange(first=80, last=80),))
ANY = OperatorRule(action=Action.DENY)


@pytest.fixture
def bed() -> Iterator[HostBed]:
    with host_bed() as one:
        one.plug(A)
        one.plug(B)
        yield one


def on_server(**policy: object) -> OperatorWorld:
    """Return one policy, for guest B alone."""
    made = {"name": "deny-web", "order": 1.0, "selector": Has("server"), **policy}
    return OperatorWorld(
        policies=(GlobalPolicy(**made),),  # type: ignore[arg-type] # checked there
        labels={B.port: {"server": ""}},
    )


def deny_web(protocol: int = 6) -> OperatorWorld:
    rule = OperatorRule(action=Action.DENY, protocol=protocol, destination=PORT_80)
    return on_server(ingress=(rule,))


def serve(bed: HostBed, operator: OperatorWorld, *ports: Endpoint) -> None:
    bed.operator = operator
    assert bed.serve(*ports).problems == ()


def ports(*, port_security: bool = True) -> tuple[Endpoint, Endpoint]:
    groups = frozenset({OPEN})
    a, b = (replace(e, groups=groups, port_security=port_security) for e in (A, B))
    return a, b


STATEFUL, *OTHERS = (
    pytest.param(OPEN_GROUPS, True, id="stateful"),
    pytest.param(STATELESS, True, id="stateless"),
    pytest.param(OPEN_GROUPS, False, id="open"),
)
WHICH = ("groups", "port_security")


# The lab's test cuts a connection of a stateful port.
@pytest.mark.parametrize(WHICH, OTHERS)
def test_p07_what_an_operator_denies_is_cut_and_nothing_else(
    bed: HostBed, groups: Groups, *, port_security: bool
) -> None:
    bed.groups = groups
    both = ports(port_security=port_security)
    serve(bed, NO_OPERATOR, *both)
    with talks(bed, socket.SOCK_DGRAM, 80, 81) as (gone, kept):
        assert gone.passes()
        assert gone.passes(back=True)
        assert kept.passes()
        serve(bed, deny_web(17), *both)
        assert not gone.passes()
        assert not gone.passes(back=True), "and neither does an answer"
        assert kept.passes()
        assert kept.passes(back=True)
        serve(bed, NO_OPERATOR, *both)
        assert gone.passes(), "allowed again"
    assert bed.changes(*both) == []


@pytest.mark.parametrize(WHICH, [STATEFUL, *OTHERS])
def test_operators_are_asked_about_the_beginning_of_connections_only(
    bed: HostBed, groups: Groups, *, port_security: bool
) -> None:
    bed.groups = groups
    serve(bed, on_server(egress=(ANY,)), *ports(port_security=port_security))
    with talks(bed, socket.SOCK_DGRAM, 80) as (talk,):
        assert not talk.passes(back=True), "the server may begin nothing"
        assert talk.passes()
        assert talk.passes(back=True), "but answer"


def test_p06_after_its_beginning_groups_without_state_decide(bed: HostBed) -> None:
    bed.groups = Groups(policies={OPEN: OPEN_POLICY, SERVERS: CLOSED})
    allow = OperatorRule(action=Action.ALLOW)
    client, server = ports()
    server = replace(server, groups=frozenset({SERVERS}))
    serve(bed, on_server(order=None, ingress=(allow,)), client, server)
    with talks(bed, socket.SOCK_DGRAM, 80) as (talk,):
        assert talk.passes(), "what the groups leave open, the operator allows"
        assert talk.passes(back=True)
        assert not talk.passes(), "no longer the beginning"


def test_a_rule_of_an_operator_counts_what_it_meets(bed: HostBed) -> None:
    bed.groups = OPEN_GROUPS
    log = OperatorRule(action=Action.LOG)
    deny = OperatorRule(action=Action.DENY, protocol=17, destination=PORT_80)
    serve(bed, on_server(ingress=(log, deny)), *ports())
    with talks(bed, socket.SOCK_DGRAM, 80, 81) as (denied, allowed):
        assert not denied.passes()
        assert allowed.passes()
    with in_netns(bed.host):
        hits = {
            (hit.direction, hit.rule): hit.packets
            for hit in read_hits(Nft())
            if hit.policy == "deny-web"
        }
    assert hits == {("ingress", "1"): 2, ("ingress", "2"): 1}
