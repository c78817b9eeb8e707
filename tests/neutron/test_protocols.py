"""Whatever spelling of a protocol Neutron lets in means what Neutron means by it."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from calico.server import translate

ROOT = Path(__file__).parents[2]
ICMP = {4: 1, 6: 58}

Spelling = tuple[str | int | None, str | None, int | None]


@pytest.fixture(scope="module")
def spellings() -> list[Spelling]:
    reply = subprocess.run(
        [sys.executable, "-m", "tests.neutron.protocol_probe"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    return [tuple(one) for one in json.loads(reply.stdout)]


@pytest.mark.parametrize("version", [4, 6])
def test_p03_p55_every_spelling_that_neutron_accepts_has_its_number(
    version: int, spellings: list[Spelling]
) -> None:
    assert len(spellings) > 1000
    for spelling, stored, number in spellings:
        # ICMP's number in an IPv6 rule is ICMPv6, to Neutron as to us.
        wanted = ICMP[version] if number == 1 else number
        assert translate.protocol(spelling, version) == wanted, spelling
        assert translate.protocol(stored, version) == wanted, stored
