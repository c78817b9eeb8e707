"""Hosts below a ToR (eBGP) and behind a route reflector (iBGP), with real BIRDs."""

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path

import pytest
from tests.kernel.bgp_hosts import Speaker, host_facts, lan, node, speaker, world_of
from tests.kernel.netns import eventually

from calico.model.records import BgpPeer
from calico.model.world import World
from calico.plan.items import YIELDING_METRIC

ROUTER = """
log stderr all;
router id 172.30.0.1;
ipv4 table t4;
ipv6 table t6;
protocol device {{ }}
protocol kernel {{ ipv4 {{ export all; }}; }}
protocol kernel {{ ipv6 {{ export all; }}; }}
protocol direct {{ ipv4 {{ table t4; }}; ipv6 {{ table t6; }}; }}
protocol static static4 {{
  ipv4;
  route 0.0.0.0/0 blackhole;
  route 192.0.2.0/24 blackhole;
  route 10.64.0.0/14 blackhole;
  route 10.65.200.0/24 blackhole;
}}
protocol static static6 {{
  ipv6;
  route ::/0 blackhole;
  route 2001:db8::/32 blackhole;
}}
template bgp session {{
  local as 65000;
  graceful restart on;
  connect delay time 1;
  connect retry time 2;
  error wait time 1, 2;
}}
"""
SESSION = """
protocol bgp {name} from session {{
  neighbor {address} as {as_number};
  {options}
  ipv{version} {{ import all; export all; igp table t{version}; {channel} }};
}}
"""
FOREIGN_IN = {"192.0.2.0/24", "10.64.0.0/14"}


def router(sessions: list[tuple[int, int]], options: str, channel: str = "") -> str:
    """Return a router's configuration: sessions with hosts (number, AS)."""
    text = ROUTER.format()
    for number, as_number in sessions:
        for version, address in ((4, f"172.30.0.{number}"), (6, f"fd00::{number}")):
            text += SESSION.format(
                name=f"h{number}_{version}",
                address=address,
                as_number=as_number,
                options=options,
                version=version,
                channel=channel,
            )
    return text


def peers() -> list[BgpPeer]:
    return [
        BgpPeer(name=f"router{a}", address=ip_address(a), as_number=65000)
        for a in ("172.30.0.1", "fd00::1")
    ]


def world(host: Speaker, own_as: int) -> World:
    assert host.facts is not None
    number = int(host.facts.host.removeprefix("h"))
    made = world_of(host.facts.host, peers=peers(), full_mesh=False)
    return replace(made, nodes=(node(number, own_as),))


def built(directory: Path, stack: ExitStack, hosts: int = 2) -> list[Speaker]:
    """Return a router (172.30.0.1) and hosts (from 172.30.0.2) on one LAN."""
    made = [stack.enter_context(speaker("router", directory))]
    made += [
        stack.enter_context(speaker(f"h{n}", directory, host_facts(n)))
        for n in range(2, hosts + 2)
    ]
    stack.enter_context(lan(*made))
    return made


@pytest.fixture(scope="module")
def rack(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[tuple[Speaker, Speaker, Speaker]]:
    """Yield a ToR and two hosts, each with an AS of its own."""
    with ExitStack() as stack:
        tor, a, b = built(tmp_path_factory.mktemp("rack"), stack)
        tor.apply(router([(2, 64902), (3, 64903)], "direct;"))
        a.serve(world(a, 64902))
        b.serve(world(b, 64903))
        for each, count in ((a, 2), (b, 2), (tor, 4)):
            each.await_sessions(count)
        yield tor, a, b


def test_a_tor_passes_routes_between_hosts(
    rack: tuple[Speaker, Speaker, Speaker],
) -> None:
    tor, a, b = rack
    a.add_route("10.65.0.5/32")
    a.add_route("fd65::5/128")
    tor.await_route("10.65.0.5")
    b.await_route("10.65.0.5")
    assert b.await_route("fd65::5", 6)["prefsrc"] == "fd00::3"
    a.del_route("10.65.0.5/32")
    a.del_route("fd65::5/128")
    b.await_no_route("10.65.0.5")


def test_the_tors_default_comes_in_and_no_foreign_prefix(
    rack: tuple[Speaker, Speaker, Speaker],
) -> None:
    _, a, _ = rack
    assert a.await_route("default")["gateway"] == "172.30.0.1"
    a.await_route("default", 6)
    a.await_route("10.65.200.0/24")
    assert set(a.routes()) == {"default", "10.65.200.0/24"}
    assert set(a.routes(6)) == {"default"}


def test_a_host_hands_nothing_on_but_its_own(
    rack: tuple[Speaker, Speaker, Speaker],
) -> None:
    tor, a, b = rack
    a.add_route("10.65.0.6/32")
    tor.await_route("10.65.0.6")
    # b has learned it, and the default, but says nothing of either to the ToR.
    b.await_route("10.65.0.6")
    text = tor.bird.ask("show route protocol h3_4").text
    assert "10.65.0.6" not in text
    assert "0.0.0.0/0" not in text
    a.del_route("10.65.0.6/32")
    b.await_no_route("10.65.0.6")


def test_an_address_that_moves_is_gone_from_its_first_home(
    rack: tuple[Speaker, Speaker, Speaker],
) -> None:
    tor, a, b = rack
    a.add_route("10.65.0.7/32")
    assert tor.await_route("10.65.0.7")["gateway"] == "172.30.0.2"
    b.add_route("10.65.0.7/32")
    a.del_route("10.65.0.7/32")
    eventually(lambda: tor.routes().get("10.65.0.7", {}).get("gateway") == "172.30.0.3")
    a.await_route("10.65.0.7")
    b.del_route("10.65.0.7/32")
    a.await_no_route("10.65.0.7")


def test_hosts_with_one_as_below_a_tor_reach_each_other(tmp_path: Path) -> None:
    with ExitStack() as stack:
        tor, a, b = built(tmp_path, stack)
        tor.apply(router([(2, 64900), (3, 64900)], "direct;"))
        a.serve(world(a, 64900))
        b.serve(world(b, 64900))
        a.await_sessions(2)
        b.await_sessions(2)
        a.add_route("10.65.0.5/32")
        b.await_route("10.65.0.5")
        a.add_route("10.65.0.7/32", "metric", str(YIELDING_METRIC))
        b.await_route("10.65.0.7")
        # Longer than any way through a fabric to the host that it yields to.
        said = b.bird.ask("show route for 10.65.0.7 all").text
        (path,) = (line for line in said.splitlines() if "BGP.as_path" in line)
        assert path.count("64900") > 6


def test_a_reflector_tells_hosts_of_each_other_and_of_all_homes(
    tmp_path: Path,
) -> None:
    with ExitStack() as stack:
        reflector, a, b, c = built(tmp_path, stack, hosts=3)
        reflector.apply(
            router(
                [(2, 65000), (3, 65000), (4, 65000)],
                "rr client; multihop;",
                "add paths on;",
            )
        )
        for host in (a, b, c):
            host.serve(world(host, 65000))
        for host in (a, b, c):
            host.await_sessions(2)
        a.add_route("10.65.0.5/32")
        assert b.await_route("10.65.0.5")["gateway"] == "172.30.0.2"
        b.add_route("10.65.0.5/32")
        eventually(
            lambda: len(c.routes().get("10.65.0.5", {}).get("nexthops", ())) == 2,
            message=lambda: str(c.routes()),
        )
