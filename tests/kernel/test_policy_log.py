"""What logs of security groups tell of real packets, and that they only tell."""

import errno
import json
import signal
import socket
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs
from tests.endpoints import PROJECT, endpoint
from tests.kernel.agent_host import KEYS, AgentHost, agent_host
from tests.kernel.data_path import HostBed, host_bed
from tests.kernel.netns import Netns, eventually, in_netns

from calico.agent.policy_log import PolicyLog
from calico.model.groups import Groups
from calico.model.ids import GroupId, LogId
from calico.model.logs import Event, Log, encode_log
from calico.model.records import Endpoint, Policy, PortRange, Rule
from calico.obs import Metrics
from calico.plan.ruleset import LOG_GROUP
from calico.system.nflog import Nflog

CLIENTS, SERVERS = GroupId("clients"), GroupId("servers")
A = replace(endpoint(2), groups=frozenset({CLIENTS}))
B = replace(endpoint(3), groups=frozenset({SERVERS}))
OPEN, SHUT = 7000, 7999
ANY = tuple(Rule(version=version) for version in (4, 6))
QUIET = 0.3  # seconds in which what was dropped may not arrive


def groups(*, stateful: bool = True, ports: tuple[int, ...] = (OPEN,)) -> Groups:
    """Clients may send anything; servers take UDP on some ports, and answer."""
    ingress = tuple(
        Rule(version=v, protocol=17, ports=PortRange(first=port, last=port))
        for v in (4, 6)
        for port in ports
    )
    return Groups(
        policies={
            CLIENTS: Policy(
                group=CLIENTS, name="", egress=ANY, ingress=ANY, stateful=stateful
            ),
            SERVERS: Policy(
                group=SERVERS, name="", ingress=ingress, egress=ANY, stateful=stateful
            ),
        }
    )


def log(name: str, *events: Event, **named: Any) -> Log:
    wanted = frozenset(events or Event)
    return Log(id=LogId(name), project=PROJECT, events=wanted, **named)


@dataclass
class Host:
    """A host with two guests and a policy log."""

    bed: HostBed
    file: Path
    metrics: Metrics = field(default_factory=Metrics)

    def serve(self, wanted: Groups, *logs: Log) -> None:
        self.bed.groups, self.bed.logs = wanted, logs
        assert self.bed.serve(A, B).problems == ()

    def lines(self) -> list[dict[str, Any]]:
        if not self.file.exists():
            return []
        return [json.loads(line) for line in self.file.read_text().splitlines()]

    def told(self, number: int) -> list[tuple[Any, ...]]:
        """Wait for lines, and return of each what matters here, sorted."""
        eventually(lambda: len(self.lines()) >= number, message=self.file.name)
        names = ("action", "vm_port", "direction", "dport", "log_resource_ids")
        found = [tuple(line[name] for name in names) for line in self.lines()]
        return sorted((*some, ",".join(logs)) for *some, logs in found)


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    with host_bed() as bed:
        bed.plug(A)
        bed.plug(B)
        yield Host(bed, tmp_path / "policy.log")


@pytest.fixture
def listening(host: Host) -> Iterator[Host]:
    """A host whose policy log is read."""
    with in_netns(host.bed.host):
        reader = PolicyLog(host.metrics, host.file)
        reader.start()
    assert reader.wait_listening(10)
    host.bed.inform = reader.follow
    yield host
    reader.stop()


@dataclass
class Way:
    """UDP from guest A to a port of guest B."""

    near: socket.socket
    far: socket.socket

    def sends(self, number: int = 1) -> int:
        """Send packets; return how many arrive."""
        for _ in range(number):
            self.near.send(b"x")
        return sum(self._arrives() for _ in range(number))

    def _arrives(self) -> bool:
        try:
            return bool(self.far.recv(1))
        except TimeoutError:
            return False

    def answers(self) -> None:
        self.far.sendto(b"y", self.near.getsockname())
        self.near.recv(1)


@pytest.fixture
def way(host: Host) -> Iterator[Any]:
    made: list[socket.socket] = []

    def way(port: int, version: int = 4) -> Way:
        ends = []
        for guest in (A, B):
            one = udp(host.bed.guests[guest.port], guest, version)
            made.append(one)
            ends.append(one)
        near, far = ends
        far.bind((address(B, version), port))
        near.connect((address(B, version), port))
        return Way(near, far)

    yield way
    for one in made:
        one.close()


def udp(guest: Netns, one: Endpoint, version: int) -> socket.socket:
    with in_netns(guest):
        family = socket.AF_INET if version == 4 else socket.AF_INET6
        made = socket.socket(family, socket.SOCK_DGRAM)
    made.settimeout(QUIET)
    if one is A:
        made.bind((address(A, version), 0))
    return made


def address(one: Endpoint, version: int) -> str:
    return next(str(a) for a in one.addresses if a.version == version)


@pytest.mark.parametrize("stateful", [True, False], ids=["stateful", "stateless"])
def test_an_accepted_connection_is_told_once_at_each_end_that_is_logged(
    listening: Host, way: Any, *, stateful: bool
) -> None:
    listening.serve(groups(stateful=stateful), log("all"))
    answered, alone = way(OPEN), way(OPEN + 1)
    listening.serve(groups(stateful=stateful, ports=(OPEN, OPEN + 1)), log("all"))
    assert alone.sends(3) == 3, "nobody answers, so all of them are new"
    assert answered.sends() == 1
    answered.answers()
    assert answered.sends(2) == 2
    expected = [
        ("ACCEPT", B.port, "ingress", OPEN, "all"),
        ("ACCEPT", B.port, "ingress", OPEN + 1, "all"),
        ("ACCEPT", A.port, "egress", OPEN, "all"),
        ("ACCEPT", A.port, "egress", OPEN + 1, "all"),
    ]
    last = way(SHUT)
    assert last.sends() == 0
    # What was told before the last packet has been read before it.
    expected += [
        ("ACCEPT", A.port, "egress", SHUT, "all"),
        ("DROP", B.port, "ingress", SHUT, "all"),
    ]
    assert listening.told(6) == sorted(expected)


def test_a_drop_is_told_with_all_that_the_packet_says(
    listening: Host, way: Any
) -> None:
    listening.serve(groups(), log("drops", Event.DROP, group=SERVERS))
    refused = way(SHUT, 6)
    assert refused.sends() == 0
    listening.told(1)
    (line,) = listening.lines()
    assert line.pop("timestamp")
    assert line == {
        "action": "DROP",
        "project_id": PROJECT,
        "log_resource_ids": ["drops"],
        "vm_port": B.port,
        "direction": "ingress",
        "in_interface": A.interface,
        "out_interface": B.interface,
        "proto": "udp",
        "src": address(A, 6),
        "dst": address(B, 6),
        "sport": refused.near.getsockname()[1],
        "dport": SHUT,
    }


def test_a_connection_that_is_cut_is_told_as_dropped(listening: Host, way: Any) -> None:
    drops = log("drops", Event.DROP, port=B.port)
    listening.serve(groups(), drops)
    talk = way(OPEN)
    assert talk.sends() == 1
    listening.serve(groups(ports=()), drops)
    assert talk.sends() == 0
    assert listening.told(1) == [("DROP", B.port, "ingress", OPEN, "drops")]


def test_what_no_log_wants_is_not_told(listening: Host, way: Any) -> None:
    nobody = log("other", port=endpoint(9).port)
    accepts = log("accepts", Event.ACCEPT, port=B.port)
    listening.serve(groups(), nobody, accepts)
    assert way(SHUT).sends() == 0
    listening.serve(groups(), nobody)
    assert way(OPEN + 2).sends() == 0
    listening.serve(groups(), nobody, accepts)
    assert way(OPEN).sends() == 1
    assert listening.told(1) == [("ACCEPT", B.port, "ingress", OPEN, "accepts")]
    events = "calico_agent_policy_log_events_total"
    assert listening.metrics.registry.get_sample_value(events) == 1, "nor read"


def test_the_limit_bounds_the_lines_and_changes_no_verdict(
    listening: Host, way: Any
) -> None:
    listening.bed.settings = replace(listening.bed.settings, log_rate=1, log_burst=2)
    listening.serve(groups(ports=tuple(range(OPEN, OPEN + 40))), log("all"))
    ways = [way(port) for port in range(OPEN, OPEN + 40)]
    assert [one.sends() for one in ways] == [1] * 40
    refused = way(SHUT)
    assert refused.sends(3) == 0
    # Drops have a limit of their own, and come last.
    told = listening.told(4)
    assert 1 <= len([line for line in told if line[0] == "ACCEPT"]) < 40


def test_what_the_reader_is_too_slow_for_is_counted(host: Host, way: Any) -> None:
    most = 1_000_000
    host.bed.settings = replace(host.bed.settings, log_rate=most, log_burst=most)
    host.serve(groups(), log("drops", Event.DROP))
    refused = way(SHUT)
    with in_netns(host.bed.host):
        reader = Nflog(LOG_GROUP)
        with pytest.raises(OSError, match="log group 5") as taken:
            Nflog(LOG_GROUP)
    assert taken.value.errno == errno.EPERM
    for _ in range(10_000):
        refused.near.send(b"x")
    with in_netns(host.bed.host):
        came = 0
        while not reader.lost and came < 10_000:
            came += len(reader.receive())
            refused.near.send(b"x")
    reader.close()
    assert came
    assert reader.lost


def test_a_group_that_is_taken_is_told_once_and_had_when_it_is_free(
    host: Host,
) -> None:
    reader = PolicyLog(host.metrics, host.file, pause=0.02)
    with in_netns(host.bed.host), capture_logs() as said:
        other = Nflog(LOG_GROUP)
        reader.start()
        eventually(lambda: said)
        assert not reader.wait_listening(0.1)
        other.close()
        assert reader.wait_listening(10)
        reader.stop()
    assert [line["event"] for line in said] == ["policy log does not listen"]


def test_a_file_that_cannot_be_written_costs_its_lines_and_nothing_else(
    listening: Host, way: Any
) -> None:
    listening.serve(groups(), log("drops", Event.DROP))
    listening.file.mkdir()
    refused = way(SHUT)
    with capture_logs() as said:
        assert refused.sends(2) == 0
        lost = "calico_agent_policy_log_lost_total"
        sample = listening.metrics.registry.get_sample_value
        eventually(lambda: sample(lost) == 2)
    assert [line["event"] for line in said] == ["policy log not written"]
    listening.file.rmdir()
    assert refused.sends() == 0
    assert listening.told(1) == [("DROP", B.port, "ingress", SHUT, "drops")]


FETCH_METRICS = (
    "import urllib.request as u;"
    "print(u.urlopen('http://127.0.0.1:9091/metrics').read().decode())"
)


def test_p40_an_agent_writes_its_file_and_opens_it_anew_on_sighup() -> None:
    with agent_host() as host:
        file, rotated = host.folder / "policy.log", host.folder / "policy.log.1"
        text = host.settings.read_text()
        host.settings.write_text(f'policy_log = "{file}"\n{text}')
        a, _ = host.bed.plug(A), host.bed.plug(B)
        agent = host.start()
        host.publish(A, B)  # nobody knows their groups, so they allow nothing
        drops = log("drops", Event.DROP, port=A.port)
        host.etcdctl("put", KEYS.log(drops.id), encode_log(drops).decode())
        host.await_statuses({A.port: "up", B.port: "up"})
        eventually(lambda: is_logged(host), message=lambda: host.log)
        assert not a.pings(address(B, 4))
        eventually(lambda: file.exists() and '"icmp"' in file.read_text())
        before = file.read_text()
        file.rename(rotated)
        agent.send_signal(signal.SIGHUP)
        eventually(lambda: "settings reloaded" in host.log)
        assert not a.pings(address(B, 4))
        eventually(lambda: file.exists() and '"icmp"' in file.read_text())
        assert rotated.read_text() == before
        metrics = host.bed.host.run([sys.executable, "-c", FETCH_METRICS]).stdout
        assert "calico_agent_policy_log_events_total 2.0" in metrics
        assert "calico_agent_policy_log_lost_total 0.0" in metrics


def is_logged(host: AgentHost) -> bool:
    """Tell whether the kernel was told of a log, and somebody listens to it."""
    argv = ["nft", "list", "set", "inet", "calico", "logged_drops"]
    told = host.bed.host.run(argv, check=False).stdout
    readers = ["cat", "/proc/net/netfilter/nfnetlink_log"]
    return A.interface in told and bool(host.bed.host.run(readers).stdout)
