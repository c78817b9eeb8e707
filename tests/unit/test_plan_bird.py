"""The text of BIRD's configuration follows from the world, whatever its order."""

import random
from dataclasses import replace
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_interface, ip_network

from calico.model.ids import HostName, NetworkId, SubnetId
from calico.model.records import BgpConfiguration, BgpPeer, Node, Subnet
from calico.model.world import World
from calico.plan.bird import BgpFacts, own_as, plan_bird, plan_sessions

H1 = HostName("h1")
FACTS = BgpFacts(
    host=H1,
    address4=IPv4Address("172.30.0.1"),
    address6=IPv6Address("fd00::1"),
    uplinks=("eth1", "eth0"),
    connected=(ip_interface("172.30.0.1/24"), ip_interface("fd00::1/64")),
)


def subnet(prefix: str) -> Subnet:
    return Subnet(
        id=SubnetId(prefix), network=NetworkId("n"), prefix=ip_network(prefix)
    )


def node(name: str, number: int, as_number: int | None = None) -> Node:
    return Node(
        name=HostName(name),
        address4=IPv4Address(f"172.30.0.{number}"),
        address6=IPv6Address(f"fd00::{number}"),
        as_number=as_number,
    )


def peer(name: str, address: str, *, host: str | None = None) -> BgpPeer:
    return BgpPeer(
        name=name,
        address=ip_address(address),
        as_number=65000,
        node=HostName(host) if host else None,
    )


def world(*subnets: str, **more: object) -> World:
    made = World(host=H1, subnets={SubnetId(p): subnet(p) for p in subnets})
    return replace(made, **more)  # type: ignore[arg-type]  # as the test says


def addresses(world: World, facts: BgpFacts = FACTS) -> list[str]:
    return [str(session.address) for session in plan_sessions(world, facts)]


def test_the_text_does_not_depend_on_the_order_of_objects() -> None:
    subnets = [f"10.{n}.0.0/24" for n in range(9)] + ["fd65::/64", "fd66::/64"]
    nodes = [node(f"h{n}", n) for n in range(1, 9)]
    peers = [peer(f"p{n}", f"172.30.0.{n}") for n in range(100, 108)]
    wanted = plan_bird(world(*subnets, nodes=tuple(nodes), peers=tuple(peers)), FACTS)
    chance = random.Random(1)
    for _ in range(20):
        for items in (subnets, nodes, peers):
            chance.shuffle(items)
        again = world(*subnets, nodes=tuple(nodes), peers=tuple(peers))
        facts = replace(FACTS, uplinks=("eth0", "eth1"))
        assert plan_bird(again, facts) == wanted


def test_p43_a_mesh_is_all_other_nodes_in_both_families() -> None:
    nodes = (node("h1", 1), node("h2", 2), node("h3", 3, 64999))
    sessions = plan_sessions(world(nodes=nodes), FACTS)
    assert [str(s.address) for s in sessions] == [
        "172.30.0.2",
        "172.30.0.3",
        "fd00::2",
        "fd00::3",
    ]
    assert [s.as_number for s in sessions] == [64512, 64999, 64512, 64999]
    assert all(s.host for s in sessions)


def test_without_full_mesh_only_peers_count() -> None:
    settings = BgpConfiguration(full_mesh=False)
    peers = (
        peer("mine", "172.30.0.9", host="h1"),
        peer("all", "172.30.0.8"),
        peer("others", "172.30.0.7", host="h2"),
    )
    made = world(nodes=(node("h2", 2),), bgp=settings, peers=peers)
    assert addresses(made) == ["172.30.0.8", "172.30.0.9"]


def test_no_session_with_the_host_itself() -> None:
    assert addresses(world(peers=(peer("a", "172.30.0.1"), peer("b", "fd00::1")))) == []
    assert addresses(world(nodes=(node("other-name", 1),))) == []


def test_no_session_in_a_family_that_the_host_lacks() -> None:
    made = world(nodes=(node("h2", 2),))
    assert addresses(made, replace(FACTS, address6=None)) == ["172.30.0.2"]
    assert addresses(made, replace(FACTS, address4=None)) == ["fd00::2"]


def test_of_peers_with_one_address_the_most_particular_counts() -> None:
    peers = (peer("a-global", "172.30.0.2"), peer("z-own", "172.30.0.2", host="h1"))
    made = world(nodes=(node("h2", 2),), peers=peers)
    first = plan_sessions(made, FACTS)[0]
    assert (first.description, first.host) == ("z-own", False)


def test_the_as_is_the_nodes_else_the_clouds() -> None:
    settings = BgpConfiguration(as_number=64600)
    assert own_as(world(bgp=settings)) == 64600
    assert own_as(world(bgp=settings, nodes=(node("h1", 1, 64700),))) == 64700
    assert own_as(world(bgp=settings, nodes=(node("h2", 2, 64700),))) == 64600


def test_a_session_keeps_its_name_when_others_come_and_go() -> None:
    few = plan_sessions(world(nodes=(node("h5", 5),)), FACTS)
    many = plan_sessions(world(nodes=tuple(node(f"h{n}", n) for n in (2, 5))), FACTS)
    assert {s.name for s in few} < {s.name for s in many}


def test_names_of_different_addresses_differ() -> None:
    texts = ("fd00::1:2", "fd00:1::2", "fd00::12", "10.1.2.3", "10.12.0.3", "10.1.20.3")
    peers = tuple(peer(f"p{n}", text) for n, text in enumerate(texts))
    sessions = plan_sessions(world(peers=peers), FACTS)
    assert len({s.name for s in sessions}) == len(texts)


def test_no_text_of_an_object_can_add_to_the_configuration() -> None:
    evil = 'x"; }\nprotocol static { route 0.0.0.0/0 blackhole'
    facts = replace(FACTS, uplinks=("eth0", 'e"; accept'))
    text = plan_bird(world(peers=(peer(evil, "172.30.0.9"),)), facts)
    assert "protocol static {" not in text
    assert "accept\n" not in text
    (line,) = (line for line in text.splitlines() if "description" in line)
    assert line.count('"') == 2


def test_no_subnet_no_route() -> None:
    text = plan_bird(world(), FACTS)
    assert text.count("return false;") == 2
    assert "net ~" not in text


def test_a_subnet_of_everything_opens_no_filter() -> None:
    assert "return false;" in plan_bird(world("0.0.0.0/0"), FACTS)


def test_other_hosts_are_believed_no_default_route() -> None:
    made = world(nodes=(node("h2", 2),), peers=(peer("tor", "172.30.0.254"),))
    text = plan_bird(made, FACTS)
    mesh, router = text.index("bgp4_172_30_0_2 "), text.index("bgp4_172_30_0_254 ")
    assert "import filter host_in4" in text[mesh:router]
    assert "import filter peer_in4" in text[router:]


def test_a_peer_beyond_the_link_is_reached_from_the_hosts_own_address() -> None:
    text = plan_bird(world(peers=(peer("far", "203.0.113.9"),)), FACTS)
    assert "multihop;\n  source address 172.30.0.1;" in text
    text = plan_bird(world(peers=(peer("near", "172.30.0.9"),)), FACTS)
    assert "direct;" in text
    assert "multihop" not in text


def test_bfd_only_where_asked() -> None:
    near = peer("near", "172.30.0.9")
    assert "bfd" not in plan_bird(world(peers=(near,)), FACTS)
    assert "bfd on;" in plan_bird(world(peers=(replace(near, bfd=True),)), FACTS)


def test_p48_p49_the_kernel_protocols_keep_bursts_and_routes() -> None:
    text = plan_bird(world(), FACTS)
    for option in ("netlink rx buffer 67108864;", "persist;", "merge paths on;"):
        assert text.count(option) == 2
    made = world(nodes=(node("h2", 2),))
    assert plan_bird(made, FACTS).count("  graceful restart on;") == 4


def test_a_host_without_ipv4_has_a_router_id_that_stays() -> None:
    only6 = replace(FACTS, address4=None)
    first = plan_bird(world(), only6)
    assert first == plan_bird(world(), only6)
    assert "router id 0.0.0.0" not in first
