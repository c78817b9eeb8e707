"""What the verifier takes for translated in a table of connections."""

import pytest

from calico.verify.probes.nat import is_translated

PING = "icmp 1 29 src=10.65.0.2 dst={} type=8 code=0 id=7 src=10.65.0.3 dst={} "
TALK = "udp 17 29 src=10.65.0.2 dst=10.65.0.3 sport=7 dport=53 "


@pytest.mark.parametrize(
    ("line", "translated"),
    [
        (PING.format("10.65.0.3", "10.65.0.2") + "type=0 code=0 id=7 mark=0", False),
        (PING.format("10.65.0.3", "10.65.0.2") + "type=0 code=0 id=8 mark=0", True),
        (PING.format("10.78.0.5", "10.65.0.2") + "type=0 code=0 id=7 mark=0", True),
        (PING.format("10.65.0.3", "192.0.2.1") + "type=0 code=0 id=7 mark=0", True),
        (TALK + "src=10.65.0.3 dst=10.65.0.2 sport=53 dport=7 use=1", False),
        (TALK + "[UNREPLIED] src=10.65.0.3 dst=10.65.0.2 sport=53 dport=7", False),
        (TALK + "src=10.65.0.3 dst=10.65.0.2 sport=53 dport=9 use=1", True),
        (TALK + "src=10.65.0.3 dst=10.65.0.2 sport=54 dport=7 use=1", True),
        ("unknown 89 599 src=10.0.0.1 dst=10.0.0.2 src=10.0.0.2 dst=10.0.0.1", False),
    ],
)
def test_s09_answers_that_come_from_elsewhere_are_of_a_translation(
    line: str, *, translated: bool
) -> None:
    assert is_translated(line) is translated
