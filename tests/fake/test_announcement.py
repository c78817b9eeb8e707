"""What BGP is told while a host is without an address."""

from dataclasses import replace
from ipaddress import IPv4Address, IPv6Address, ip_interface

from calico.agent.announcement import kept
from calico.model.ids import HostName
from calico.plan.bird import BgpFacts

BOTH = BgpFacts(
    host=HostName("h"),
    address4=IPv4Address("192.0.2.1"),
    address6=IPv6Address("2001:db8::1"),
    uplinks=("eth0",),
    connected=(ip_interface("192.0.2.1/24"), ip_interface("2001:db8::1/64")),
)
SIX = replace(BOTH, address4=None, connected=BOTH.connected[1:])
NONE = replace(BOTH, address4=None, address6=None, connected=())


def test_what_a_host_lost_is_announced_from_as_long_as_nothing_takes_its_place() -> (
    None
):
    assert kept(SIX, None) == SIX
    assert kept(NONE, BOTH) == BOTH
    assert set(kept(SIX, BOTH).connected) == set(BOTH.connected)
    assert kept(SIX, BOTH).address4 == BOTH.address4


def test_a_host_with_another_address_is_another_speaker() -> None:
    moved = replace(
        BOTH,
        address4=IPv4Address("192.0.2.7"),
        connected=(ip_interface("192.0.2.7/24"), BOTH.connected[1]),
    )
    assert kept(moved, BOTH) == moved
