"""`calico policy` in a lab, whose datastore is in a namespace of its own."""

import os
import subprocess
import sys

from calico.lab.lab import Lab
from calico.model.keys import GLOBAL_NETWORK_SETS

NAME = f"t{os.getpid()}"
SET = f"""\
apiVersion: projectcalico.org/v3
kind: GlobalNetworkSet
metadata: {{name: {NAME}}}
spec: {{nets: [192.0.2.0/24]}}
"""


def policy(*words: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "calico", "policy", *words],
        input=stdin,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def test_an_operators_file_reaches_the_datastore_of_a_lab(lab: Lab) -> None:
    applied = policy("apply", "-", "--lab", lab.name, stdin=SET)
    assert applied.stdout == f"GlobalNetworkSet {NAME} created\n", applied.stderr
    key = GLOBAL_NETWORK_SETS + NAME
    assert b"192.0.2.0/24" in lab.store.get_prefix(key)[key]
    listed = policy("list", "gns", "--lab", lab.name)
    assert NAME in listed.stdout
    deleted = policy("delete", "gns", NAME, "--lab", lab.name)
    assert deleted.stdout == f"GlobalNetworkSet {NAME} deleted\n", deleted.stderr
    assert lab.store.get_prefix(key) == {}


def test_a_lab_that_is_not_there_is_named() -> None:
    result = policy("list", "--lab", "nowhere")
    assert result.returncode == 2
    (line,) = result.stderr.splitlines()
    assert "there is no lab called 'nowhere'" in line
