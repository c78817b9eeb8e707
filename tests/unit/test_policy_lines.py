"""What the kernel tells of a packet, as a line of the policy log."""

import struct
from dataclasses import replace
from ipaddress import ip_address

import pytest
from tests.endpoints import PROJECT, endpoint
from tests.kernel.packets import frame
from tests.unit.hosts import world

from calico.agent.policy_lines import fields_of, ports_of
from calico.model.ids import LogId
from calico.model.logs import Event, Log
from calico.policy.evaluate import Packet
from calico.system.headers import read_headers
from calico.system.nflog import LoggedPacket

ONE, TWO = endpoint(2), endpoint(3)
LOGS = tuple(
    Log(id=LogId(name), project=PROJECT, port=ONE.port, events=frozenset(events))
    for name, events in (("accepts", [Event.ACCEPT]), ("all", list(Event)))
)
PORTS = ports_of(replace(world(ONE, TWO), logs=LOGS))
SOURCE, TARGET = {4: "10.65.0.2", 6: "2001:db8::2"}, {4: "10.9.9.9", 6: "2001:db8::9"}


def packet(version: int, protocol: int, **more: int) -> bytes:
    """Return an IP packet from port 40000, or with that identifier."""
    wanted = Packet(
        source=ip_address(SOURCE[version]),
        destination=ip_address(TARGET[version]),
        protocol=protocol,
        port=more.get("port"),
        icmp_type=more.get("icmp_type"),
        icmp_code=more.get("icmp_code"),
    )
    return frame(wanted, (ONE.mac, TWO.mac), 40000, b"mark")[14:]


def told(prefix: str, **changes: object) -> LoggedPacket:
    ends = {"incoming": ONE.interface, "outgoing": TWO.interface}
    return replace(LoggedPacket(prefix=prefix), **{**ends, **changes})  # type: ignore[arg-type] # names of its fields


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize(
    ("protocol", "more", "name", "fields"),
    [
        (6, {"port": 443}, "tcp", {"sport": 40000, "dport": 443}),
        (17, {"port": 53}, "udp", {"sport": 40000, "dport": 53}),
        (132, {"port": 9}, "sctp", {"sport": 40000, "dport": 9}),
        (47, {}, "47", {}),
        (None, {"icmp_type": 8, "icmp_code": 1}, "icmp", {}),
    ],
)
def test_a_line_tells_who_talks_to_whom(
    version: int,
    protocol: int | None,
    more: dict[str, int],
    name: str,
    fields: dict[str, int],
) -> None:
    if protocol is None:
        protocol, name = (1, name) if version == 4 else (58, name + "v6")
        fields = more
    line = fields_of(told("x", payload=packet(version, protocol, **more)), PORTS)
    assert line == {
        "prefix": "x",
        "in_interface": ONE.interface,
        "out_interface": TWO.interface,
        "proto": name,
        "src": SOURCE[version],
        "dst": TARGET[version],
        **fields,
    }


def test_a_line_names_the_logs_that_want_the_event() -> None:
    for event, logs in (("accept", ["accepts", "all"]), ("drop", ["all"])):
        line = fields_of(told(f"group/out/{event}"), PORTS)
        assert line == {
            "action": event.upper(),
            "project_id": PROJECT,
            "log_resource_ids": logs,
            "vm_port": ONE.port,
            "direction": "egress",
            "in_interface": ONE.interface,
            "out_interface": TWO.interface,
        }


def test_what_no_log_wants_any_more_is_no_line() -> None:
    assert fields_of(told("group/in/drop"), PORTS) is None, "of a port without logs"
    assert fields_of(told("group/out/drop", incoming=None), PORTS) is None
    assert fields_of(told("group/out/drop"), {}) is None


@pytest.mark.parametrize(
    ("prefix", "fields"),
    [
        ("policy/deny-ssh/in", {"policy": "deny-ssh", "vm_port": TWO.port}),
        ("policy/a/b/out", {"policy": "a/b", "vm_port": ONE.port}),
        ("policy/in", {"prefix": "policy/in"}),
        ("group/in/other", {"prefix": "group/in/other"}),
        ("", {"prefix": ""}),
    ],
)
def test_other_rules_are_told_by_their_own_prefix(
    prefix: str, fields: dict[str, str]
) -> None:
    line = fields_of(told(prefix), PORTS)
    assert line is not None
    assert fields.items() <= line.items()
    assert "log_resource_ids" not in line


def test_a_later_fragment_has_no_ports() -> None:
    whole = packet(4, 17, port=53)
    later = whole[:6] + struct.pack(">H", 185) + whole[8:]
    headers = read_headers(later)
    assert headers is not None
    assert (headers.protocol, headers.ports) == (17, None)


def test_ipv6_extension_headers_are_looked_behind() -> None:
    whole = packet(6, 17, port=53)
    options, fragment = bytes([44, 0]) + bytes(6), bytes([17]) + bytes(7)
    extended = whole[:6] + bytes([0]) + whole[7:40] + options + fragment + whole[40:]
    headers = read_headers(extended)
    assert headers is not None
    assert (headers.protocol, headers.ports) == (17, (40000, 53))


@pytest.mark.parametrize("version", [4, 6])
def test_a_packet_that_is_cut_short_anywhere_tells_what_it_can(version: int) -> None:
    whole = packet(version, 6, port=443)
    for length in range(len(whole)):
        headers = read_headers(whole[:length])
        assert headers is None or str(headers.source) == SOURCE[version]
    assert read_headers(b"\x00" * 64) is None
