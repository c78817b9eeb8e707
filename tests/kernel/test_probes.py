"""Every probe of the verifier is shown a broken network, and has to see it."""

import fcntl
import os
import secrets
import select
import socket
import struct
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from ipaddress import IPv4Address, IPv4Network, IPv6Address, ip_address
from typing import Self

import pytest
from tests.kernel.netns import Netns, eventually, link

from calico.model.records import ICMP, PORT_PROTOCOLS
from calico.policy.evaluate import Packet
from calico.verify.checks.flat import Ends, Watch, exchange
from calico.verify.cloud import Address, CloudError
from calico.verify.explain.probe import send
from calico.verify.inside import NamespacePlace
from calico.verify.probes.capture import Capture, Frame
from calico.verify.probes.echo import PORT, Responder, ask_datagram
from calico.verify.probes.frames import Sender, Target, mark_of, transmit, trespasses
from calico.verify.probes.nat import translations
from calico.verify.probes.neighbours import Neighbour, neighbours, strangers
from calico.verify.probes.ospf import Ospf
from calico.verify.probes.trace import judge, trace
from calico.verify.reach import PROTOCOLS

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="namespaces need root")

MAC_A, MAC_B = "02:00:00:00:00:0a", "02:00:00:00:00:0b"
MAC_RA, MAC_RB = "02:00:00:00:01:0a", "02:00:00:00:01:0b"
ONE = {4: ip_address("192.0.2.10"), 6: ip_address("2001:db8:a::a")}
OTHER = {4: ip_address("192.0.2.210"), 6: ip_address("2001:db8:b::b")}


@dataclass(frozen=True, slots=True)
class Path:
    """Two guests, with a router between them or only a wire."""

    a: NamespacePlace
    b: NamespacePlace
    router: Netns | None


def place(netns: Netns) -> NamespacePlace:
    return NamespacePlace(netns.name, netns.name)


def give(guest: Netns, *, address: Address, prefix: int, gateway: str = "") -> None:
    guest.ip("address", "add", f"{address}/{prefix}", "dev", "eth0", *_nodad(address))
    if gateway:
        guest.ip("route", "add", "default", "via", gateway, "dev", "eth0")


def _nodad(address: Address) -> list[str]:
    return ["nodad"] if address.version == 6 else []


@pytest.fixture
def routed() -> Iterator[Path]:
    """Two guests on a router, as instances of Calico are; a responder in the second."""
    with Netns("a") as a, Netns("b") as b, Netns("r") as router, Responder() as echo:
        for each in (a, b, router):
            each.sysctl("net.ipv6.conf.default.accept_dad", 0)
        link(a, "eth0", router, "to-a", macs=(MAC_A, MAC_RA))
        link(b, "eth0", router, "to-b", macs=(MAC_B, MAC_RB))
        router.sysctl("net.ipv4.ip_forward", 1)
        router.sysctl("net.ipv6.conf.all.forwarding", 1)
        for name, four, six in (
            ("to-a", "192.0.2.1/25", "2001:db8:a::1/64"),
            ("to-b", "192.0.2.129/25", "2001:db8:b::1/64"),
        ):
            router.ip("address", "add", four, "dev", name)
            router.ip("address", "add", six, "dev", name, "nodad")
        give(a, address=ONE[4], prefix=25, gateway="192.0.2.1")
        give(a, address=ONE[6], prefix=64, gateway="2001:db8:a::1")
        give(b, address=OTHER[4], prefix=25, gateway="192.0.2.129")
        give(b, address=OTHER[6], prefix=64, gateway="2001:db8:b::1")
        echo.serve(place(b))
        yield Path(place(a), place(b), router)


@pytest.fixture
def wired() -> Iterator[Path]:
    """Two guests on one wire: what must not be."""
    with Netns("a") as a, Netns("b") as b, Responder() as echo:
        for each in (a, b):
            each.sysctl("net.ipv6.conf.default.accept_dad", 0)
        link(a, "eth0", b, "eth0", macs=(MAC_A, MAC_B))
        for guest, own in ((a, ONE), (b, OTHER)):
            give(guest, address=own[4], prefix=24)
            give(guest, address=own[6], prefix=32)
        echo.serve(place(b))
        yield Path(place(a), place(b), None)


def nft(path: Path, ruleset: str) -> None:
    assert path.router
    path.router.run(["nft", "-f", "-"], input=ruleset)


BOTH = pytest.mark.parametrize("version", [4, 6])
CHAIN = "table inet broken {{\n chain c {{\n type {0}\n {1}\n }}\n}}\n"
ERRORS = "icmp type time-exceeded drop\n icmpv6 type time-exceeded drop"
DROP_ERRORS = CHAIN.format("filter hook output priority 0;", ERRORS)
TRANSLATE = CHAIN.format(
    "nat hook postrouting priority 100;", 'oifname "to-b" masquerade'
)
IDLE = CHAIN.format("nat hook prerouting priority -100;", "ct state new accept")


@BOTH
@pytest.mark.parametrize("protocol", sorted(PROTOCOLS))
def test_s01_a_probe_misses_what_is_dropped(
    routed: Path, protocol: str, version: int
) -> None:
    probe = PROTOCOLS[protocol]
    assert probe(routed.a, OTHER[version]) is None
    what = {"ICMP": "meta l4proto { icmp, icmpv6 }"}.get(
        protocol, f"meta l4proto {protocol.lower()}"
    )
    nft(routed, CHAIN.format("filter hook forward priority 0;", f"{what} drop"))
    wrong = probe(routed.a, OTHER[version])
    assert wrong is not None
    assert str(OTHER[version]) in wrong


@BOTH
def test_s02_a_router_is_a_hop_and_takes_one(routed: Path, version: int) -> None:
    path = trace(routed.a, (OTHER[version], PORT))
    assert judge(path) is None
    router = {4: "192.0.2.1", 6: "2001:db8:a::1"}[version]
    assert path.hops == (ip_address(router),)


@BOTH
def test_s02_a_wire_is_no_hop(wired: Path, version: int) -> None:
    assert "no hop" in (judge(trace(wired.a, (OTHER[version], PORT))) or "")


@BOTH
def test_s02_a_hop_that_does_not_answer_is_seen(routed: Path, version: int) -> None:
    nft(routed, DROP_ERRORS)
    assert "*" in (judge(trace(routed.a, (OTHER[version], PORT))) or "")


def trespassers(path: Path) -> tuple[set[str], set[str], bool]:
    """Send all trespassing frames; return the names sent, those seen, and ARP's."""
    assert isinstance(ONE[4], IPv4Address)
    assert isinstance(ONE[6], IPv6Address)
    assert isinstance(OTHER[4], IPv4Address)
    assert isinstance(OTHER[6], IPv6Address)
    sender = Sender(interface="eth0", mac=MAC_A, ipv4=ONE[4], ipv6=ONE[6])
    subnet = IPv4Network("192.0.2.128/25")
    target = Target(
        mac=MAC_B,
        gateway_mac=MAC_RA,
        ipv4=OTHER[4],
        ipv6=OTHER[6],
        subnet4=subnet,
    )
    mark = secrets.token_hex(8).encode()
    frames = trespasses(sender, target, mark)
    with Capture(path.b, "eth0") as capture:
        transmit(path.a, "eth0", list(frames.values()))
        control = mark_of(mark, "control")
        assert not isinstance(ask_datagram(path.a, (OTHER[4], PORT), control), str)
        eventually(lambda: capture.marked(control), 2, "the control is seen")
        seen = {n for n in frames if capture.marked(mark_of(mark, n))}
        arp = any(f.ethertype == 0x806 and f.source == MAC_A for f in capture.frames())
    return {name for name in frames if not name.startswith("ARP")}, seen, arp


def test_s03_nothing_of_a_shared_link_passes_a_router(routed: Path) -> None:
    _, seen, arp = trespassers(routed)
    assert seen == set()
    assert not arp


def test_s03_each_trespassing_frame_is_seen_on_a_wire(wired: Path) -> None:
    sent, seen, arp = trespassers(wired)
    assert seen == sent
    assert arp


def _answered(probe: Callable[[], str | None]) -> bool:
    return probe() is None


def test_s03_neighbour_tables_tell_a_wire_from_a_router(
    routed: Path, wired: Path
) -> None:
    for path in (routed, wired):
        for version in (4, 6):
            probe = partial(PROTOCOLS["ICMP"], path.a, OTHER[version])
            eventually(partial(_answered, probe), 10, f"IPv{version} is answered")
    assert strangers(neighbours(routed.a, "eth0"), MAC_RA) is None
    assert MAC_B in (strangers(neighbours(wired.a, "eth0"), MAC_RA) or "")


def test_s03_a_neighbour_that_is_missing_proves_nothing() -> None:
    four, six, wrong = (
        Neighbour(address=address, mac=mac)
        for address, mac in ((OTHER[4], MAC_RA), (OTHER[6], MAC_RA), (ONE[6], MAC_B))
    )
    assert "IPv6" in (strangers((), MAC_RA) or "")
    assert "IPv6" in (strangers((four,), MAC_RA, [four.address]) or "")
    assert str(four.address) in (strangers((six,), MAC_RA, [four.address]) or "")
    assert strangers((four, six), MAC_RA, [four.address]) is None
    assert MAC_B in (strangers((four, six, wrong), MAC_RA) or "")


def test_s03_a_neighbour_solicitation_is_a_true_one(wired: Path) -> None:
    """On a wire the peer answers it: a frame that it dropped would prove nothing."""
    with Capture(wired.a, "eth0") as capture:
        trespassers(wired)
        eventually(lambda: any(map(_advertises, capture.frames())), 2, "no answer")


def _advertises(frame: Frame) -> bool:
    """Tell whether a frame is a neighbour advertisement (RFC 4861) that came in."""
    return not frame.outgoing and frame.protocol() == 58 and frame.octets[54] == 136


def test_s03_the_same_daemons_are_neighbours_on_a_wire(wired: Path) -> None:
    with (
        Ospf(wired.a, "eth0", "192.0.2.1") as one,
        Ospf(wired.b, "eth0", "192.0.2.2") as other,
    ):
        eventually(one.speaks, 5, "OSPF runs")
        eventually(lambda: "192.0.2.2" in one.neighbours(), 15, "it finds the other")
        eventually(lambda: "192.0.2.1" in other.neighbours(), 15, "and is found")


def exchanged(path: Path, version: int) -> dict[str, str | None]:
    assert path.router
    with ExitStack() as stack:
        captures = [
            stack.enter_context(Capture(where))
            for where in (path.a, path.b, place(path.router))
        ]
        ends = Ends(path.a, ONE[version], OTHER[version])
        return exchange(ends, Watch(captures[0], captures[1], {"r": captures[2]}))


@BOTH
def test_s09_addresses_that_stay_are_right(routed: Path, version: int) -> None:
    nft(routed, IDLE)
    assert exchanged(routed, version) == {"UDP": None, "TCP": None, "ICMP": None}
    assert routed.router
    assert translations(place(routed.router)) == []


@BOTH
def test_s09_translation_is_seen_in_packets_and_tables(
    routed: Path, version: int
) -> None:
    nft(routed, TRANSLATE)
    assert all(exchanged(routed, version).values())
    assert routed.router
    found = translations(place(routed.router))
    assert any(str(ONE[version]) in line for line in found)


@dataclass(frozen=True, slots=True)
class Overlay:
    """Two guests on two hosts, between which a tunnel can be dug."""

    a: Netns
    b: Netns
    left: Netns
    right: Netns

    def dig(self, device: Callable[[Netns, str, str], None]) -> None:
        """Lead what goes from host to host through a device, `tunnel` on both."""
        for router, number in ((self.left, 1), (self.right, 2)):
            device(router, f"10.0.0.{number}", f"10.0.0.{3 - number}")
            router.ip("address", "add", f"10.0.1.{number}/30", "dev", "tunnel")
            router.ip("link", "set", "tunnel", "up")
        self.left.ip("route", "add", "192.0.2.128/25", "via", "10.0.1.2")
        self.right.ip("route", "add", "192.0.2.0/25", "via", "10.0.1.1")


@pytest.fixture
def overlay() -> Iterator[Overlay]:
    with ExitStack() as stack:
        a, b, left, right = (stack.enter_context(Netns(n)) for n in "ablr")
        echo = stack.enter_context(Responder())
        link(a, "eth0", left, "to-a")
        link(b, "eth0", right, "to-b")
        link(left, "core", right, "core")
        for router, number in ((left, 1), (right, 2)):
            router.sysctl("net.ipv4.ip_forward", 1)
            router.ip("address", "add", f"10.0.0.{number}/30", "dev", "core")
        left.ip("address", "add", "192.0.2.1/25", "dev", "to-a")
        right.ip("address", "add", "192.0.2.129/25", "dev", "to-b")
        give(a, address=ONE[4], prefix=25, gateway="192.0.2.1")
        give(b, address=OTHER[4], prefix=25, gateway="192.0.2.129")
        echo.serve(place(b))
        yield Overlay(a, b, left, right)


def followed(overlay: Overlay, passes: Sequence[Sequence[str]]) -> list[str | None]:
    """Return what an exchange finds; `wire` is what a router between would see."""
    with ExitStack() as stack:
        here, there, left, right = (
            stack.enter_context(Capture(place(node)))
            for node in (overlay.a, overlay.b, overlay.left, overlay.right)
        )
        wire = stack.enter_context(Capture(place(overlay.left), "core"))
        between = {"left": left, "right": right, "wire": wire}
        ends = Ends(place(overlay.a), ONE[4], OTHER[4])
        return [*exchange(ends, Watch(here, there, between, passes)).values()]


def vxlan(router: Netns, local: str, remote: str) -> None:
    kind = ["type", "vxlan", "id", "7", "dstport", "4789"]
    router.ip("link", "add", "tunnel", *kind, "local", local, "remote", remote)


def test_s09_a_tunnel_is_seen_on_the_way(overlay: Overlay) -> None:
    """The ends see their own addresses; only the wire between shows the tunnel."""
    overlay.dig(vxlan)
    assert all("10.0.0.1 > 10.0.0.2" in (w or "") for w in followed(overlay, ()))


def test_s09_a_tunnel_that_hides_what_it_carries_is_found(overlay: Overlay) -> None:
    with Cipher() as cipher:
        overlay.dig(cipher.device)
        assert followed(overlay, ()) == [None] * 3, "nothing that is seen is wrong"
        assert followed(overlay, [["left"], ["right"]]) == [None] * 3
        hidden = followed(overlay, [["left"], ["right"], ["wire"]])
    assert all("wire: a tunnel hides it" in (wrong or "") for wrong in hidden)


def test_s09_without_a_tunnel_the_wire_shows_every_packet(overlay: Overlay) -> None:
    overlay.left.ip("route", "add", "192.0.2.128/25", "via", "10.0.0.2")
    overlay.right.ip("route", "add", "192.0.2.0/25", "via", "10.0.0.1")
    assert followed(overlay, [["left"], ["right"], ["wire"]]) == [None] * 3


class Cipher:
    """A tunnel that changes every octet of what it carries, as encryption does."""

    def __init__(self) -> None:
        self._ends: list[tuple[int, socket.socket, tuple[str, int]]] = []
        self._stop, self._stopped = socket.socketpair()
        self._thread = threading.Thread(target=self._carry)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self._stop.close()
        if self._thread.is_alive():
            self._thread.join()
        self._stopped.close()
        for tap, wire, _ in self._ends:
            os.close(tap)
            wire.close()

    def device(self, router: Netns, local: str, remote: str) -> None:
        """Make one end; with the second it begins to carry.

        Both are up by then: a device that is down refuses what is written to it.
        """
        tap, wire = place(router).inside(lambda: (_open_tap("tunnel"), _bound(local)))
        router.ip("link", "set", "tunnel", "up")
        self._ends.append((tap, wire, (remote, _CIPHER_PORT)))
        if len(self._ends) == 2:
            self._thread.start()

    def _carry(self) -> None:
        while True:
            sources = [source for end in self._ends for source in end[:2]]
            ready, *_ = select.select([self._stopped, *sources], [], [])
            if self._stopped in ready:
                return
            for tap, wire, remote in self._ends:
                if tap in ready:
                    wire.sendto(os.read(tap, 65535).translate(_CIPHER), remote)
                if wire in ready:
                    os.write(tap, wire.recv(65535).translate(_CIPHER))


_CIPHER = bytes(octet ^ 0xA5 for octet in range(256))
_CIPHER_PORT = 4790


def _bound(address: str) -> socket.socket:
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.bind((address, _CIPHER_PORT))
    return sock


def _open_tap(name: str) -> int:
    """Make a TAP device (linux/if_tun.h: TUNSETIFF, IFF_TAP | IFF_NO_PI)."""
    file = os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC)
    fcntl.ioctl(file, 0x400454CA, struct.pack("16sH22x", name.encode(), 0x1002))
    return file


@BOTH
@pytest.mark.parametrize("protocol", [6, 17, 47, 132, 136, "icmp"])
def test_one_packet_is_seen_if_it_arrives_and_only_then(
    routed: Path, protocol: int | str, version: int
) -> None:
    number = ICMP[version] if isinstance(protocol, str) else protocol
    packet = Packet(
        source=ONE[version],
        destination=OTHER[version],
        protocol=number,
        port=7 if number in PORT_PROTOCOLS else None,
        icmp_type={4: 8, 6: 128}[version] if protocol == "icmp" else None,
        icmp_code=0 if protocol == "icmp" else None,
    )
    # A tracker that finds fault with the packet would let a stateful filter drop it.
    drop = f"meta l4proto {number} ct state"
    invalid = f"{drop} invalid drop" if number != 136 else ""
    nft(routed, CHAIN.format("filter hook forward priority 0;", invalid))
    assert send(routed.a, routed.b, "eth0", packet).arrived
    new = CHAIN.format("filter hook forward priority 0;", f"{drop} new,invalid drop")
    nft(routed, new)
    sent = send(routed.a, routed.b, "eth0", packet)
    assert not sent.arrived
    assert "not seen" in sent.detail


def test_a_table_that_cannot_be_read_is_not_an_empty_one() -> None:
    with pytest.raises((CloudError, OSError)):
        translations(NamespacePlace("nowhere", "ct-no-such-namespace"))
