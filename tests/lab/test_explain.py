"""What `calico explain` says of packets, and that packets do what it says."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import pytest
from tests.lab.networks import dual_stack

from calico.lab.instances import Instance
from calico.lab.lab import Lab
from calico.lab.topology import INTERNET_WEB4, INTERNET_WEB6
from calico.verify.parallel import eventually

NEAR, FAR = "host-1-1", "host-2-1"


@dataclass(frozen=True, slots=True)
class Cast:
    """Instances by their parts, and the ids of groups and of the one rule of `web`."""

    lab: Lab
    instances: Mapping[str, Instance]
    default: str
    web: str
    rules: Mapping[int, str]

    def name(self, part: str) -> str:
        """Return what an end is called: an instance, or what the word says."""
        return self.instances[part].name if part in self.instances else part


@pytest.fixture(scope="module")
def cast(lab: Lab) -> Iterator[Cast]:
    """Give `one` and `three` on one host, `two` and `served` on another."""
    with ExitStack() as cleanup:
        api = lab.connection("demo1").network
        network = dual_stack(api, cleanup, f"x{os.getpid()}", 231)
        default = api.find_security_group("default", ignore_missing=False).id
        web = api.create_security_group(name=f"web-{os.getpid()}")
        cleanup.callback(api.delete_security_group, web.id)
        rules = {
            version: api.create_security_group_rule(
                security_group_id=web.id,
                direction="ingress",
                ether_type=f"IPv{version}",
                protocol="tcp",
                port_range_min=80,
                port_range_max=80,
                remote_group_id=default,
            ).id
            for version in (4, 6)
        }
        made = {}
        parts = {"one": NEAR, "three": NEAR, "two": FAR, "served": FAR}
        for part, host in parts.items():
            name = f"x{os.getpid()}-{part}"
            groups = (web.id,) if part == "served" else (default,)
            made[part] = lab.create_instance(
                name, network=network, host=host, security_groups=groups
            )
            cleanup.callback(lab.delete_instance, name)
        yield Cast(lab, made, default, web.id, rules)


def explain(*argv: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "calico", "explain", *argv],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def told(
    cast: Cast, ends: tuple[str, str], *argv: str, code: int = 0
) -> dict[str, Any]:
    """Return the explanation of a packet that is sent as well."""
    source, target = map(cast.name, ends)
    words = ["--from", source, "--to", target, *argv, "--json"]
    result = explain("--lab", cast.lab.name, *words)
    assert result.returncode == code, result.stdout + result.stderr
    body: dict[str, Any] = json.loads(result.stdout)
    return body


def nodes(body: Mapping[str, Any]) -> list[str]:
    return list(dict.fromkeys(hop["node"] for hop in body["hops"]))


BOTH = pytest.mark.parametrize("version", [4, 6])


@BOTH
@pytest.mark.parametrize(
    ("target", "way"),
    [("three", [NEAR]), ("two", [NEAR, "tor-1", "spine-1", "tor-2", FAR])],
    ids=["same host", "across racks"],
)
def test_members_of_the_default_group_talk(
    cast: Cast, target: str, way: Sequence[str], version: int
) -> None:
    body = told(cast, ("one", target), f"-{version}", "--send")

    assert (body["verdict"], body["agree"]) == ("allowed", True)
    assert (body["rule"]["group"], body["rule"]["direction"]) == (
        cast.default,
        "ingress",
    )
    assert nodes(body) == way
    assert all(
        hop.keys() == {"node", "what", "outcome", "detail"} for hop in body["hops"]
    )


@BOTH
@pytest.mark.parametrize("source", ["one", "two"])
def test_a_rule_of_a_named_group_lets_in(cast: Cast, source: str, version: int) -> None:
    ends = (source, "served")
    body = told(cast, ends, "--dport", "80", f"-{version}", "--send")

    assert (body["verdict"], body["agree"]) == ("allowed", True)
    assert body["rule"] == {
        "id": cast.rules[version],
        "group": cast.web,
        "policy": None,
        "direction": "ingress",
    }
    assert f"web-{os.getpid()} ({cast.web})" in body["hops"][-1]["detail"]


@BOTH
@pytest.mark.parametrize(
    ("ends", "words"),
    [
        (("one", "served"), ("--dport", "81")),
        (("one", "served"), ("--proto", "udp", "--dport", "80")),
        (("served", "one"), ("--proto", "sctp", "--dport", "80")),
        (("served", "two"), ("--proto", "icmp")),
        (("internet", "one"), ("--dport", "80")),
    ],
    ids=" ".join,
)
def test_what_no_rule_allows_is_dropped_at_the_receivers_host(
    cast: Cast, ends: tuple[str, str], words: Sequence[str], version: int
) -> None:
    web = {4: INTERNET_WEB4, 6: INTERNET_WEB6}[version]
    ends = (str(web) if ends[0] == "internet" else ends[0], ends[1])
    body = told(cast, ends, *words, f"-{version}", "--send")

    assert (body["verdict"], body["agree"], body["rule"]) == ("denied", True, None)
    last = body["hops"][-1]
    assert (last["node"], last["what"]) == (
        cast.instances[ends[1]].host,
        "ingress policy",
    )


@pytest.mark.parametrize("address", [INTERNET_WEB4, INTERNET_WEB6], ids=str)
def test_an_egress_rule_leads_to_the_internet(cast: Cast, address: object) -> None:
    body = told(cast, ("one", str(address)), "--dport", "80", "--send")

    assert (body["verdict"], body["agree"]) == ("allowed", True)
    assert body["rule"]["direction"] == "egress"
    assert nodes(body) == [NEAR, "tor-1", "spine-1", "border-1", "internet"]
    assert body["hops"][-1]["what"] == "outside"


def test_a_filter_that_is_not_as_it_should_be_is_found_out(cast: Cast) -> None:
    ends, words = ("one", "served"), ("--dport", "80", "--send")
    agent = cast.lab.agent(FAR)
    agent.stop()  # it would put right what is about to be broken
    try:
        elements = f"in.{cast.web}.{cast.default}.4.ports4"
        broken = ["nft", "delete", "element", "inet", "calico", elements]
        result = cast.lab.run(FAR, [*broken, "{", "6", ".", "80", "}"])
        assert result.returncode == 0, result.stderr
        body = told(cast, ends, *words, code=1)
        assert (body["verdict"], body["agree"]) == ("allowed", False)
    finally:
        agent.start()
    whole = ["--lab", cast.lab.name, "--from", cast.name("one"), *words]
    whole += ["--to", cast.name("served")]
    assert eventually(lambda: explain(*whole).returncode == 0, 30.0)


def test_a_port_that_is_down_says_so(cast: Cast) -> None:
    api = cast.lab.connection("admin").network
    port = cast.instances["three"].port_id
    api.update_port(port, admin_state_up=False)
    try:

        def is_cut_off() -> bool:
            body = told(cast, ("three", "one"))
            return "administratively down" in str(body["hops"][0]["detail"])

        assert eventually(is_cut_off, 30.0)
        for ends in (("three", "one"), ("one", "three")):
            body = told(cast, ends, "--send")
            assert (body["verdict"], body["agree"]) == ("denied", True)
            assert "administratively down" in body["hops"][-1]["detail"]
    finally:
        api.update_port(port, admin_state_up=True)
    up = lambda: told(cast, ("one", "three"))["verdict"] == "allowed"  # noqa: E731
    assert eventually(up, 30.0)


def test_a_host_tells_its_own_part(cast: Cast) -> None:
    settings = str(cast.lab.agent(NEAR).settings)
    ports = [cast.instances[part].port_id for part in ("one", "two")]
    command = [sys.executable, "-m", "calico", "explain", "--config", settings]
    words = ["--from", ports[0], "--to", ports[1], "--json"]
    result = cast.lab.run(NEAR, [*command, *words])

    assert result.returncode == 0, result.stderr
    body = json.loads(result.stdout)
    assert (body["verdict"], body["complete"]) == ("allowed", False)
    unknown = [hop for hop in body["hops"] if hop["outcome"] == "unknown"]
    assert [hop["node"] for hop in unknown] == [FAR]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("--from", "nobody", "--to", "198.51.100.80"), "'nobody' is neither"),
        (("--from", "198.51.100.80", "--to", "2001:db8::1"), "no addresses of one"),
        (("--from", "198.51.100.80", "--to", "8.8.8.8", "-6"), "has no IPv6 address"),
        (("--from", "192.0.2.1", "--to", "192.0.2.2", "--proto", "x"), "--proto x"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_question_without_an_answer_is_named(
    lab: Lab, words: Sequence[str], sentence: str
) -> None:
    result = explain("--lab", lab.name, *words)
    assert result.returncode == 2
    (line,) = result.stderr.splitlines()
    assert sentence in line


def test_people_get_a_table_without_colours(cast: Cast) -> None:
    ends = ("--from", cast.name("one"), "--to", cast.name("served"))
    result = explain("--lab", cast.lab.name, *ends, "--dport", "443")

    assert result.returncode == 0
    assert result.stdout.startswith("denied: IPv4 TCP to port 443 from ")
    assert "\x1b" not in result.stdout
