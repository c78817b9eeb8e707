"""A whole lab for the tests that need one.

CALICO_TEST_LAB names a running lab to use; otherwise the session makes one of its own
and takes it down.
"""

import logging
import os
from collections.abc import Iterator

import pytest

from calico.lab import build
from calico.lab.lab import Lab, Plan

_LOG = logging.getLogger(__name__)


@pytest.fixture(scope="session")
def lab() -> Iterator[Lab]:
    """Give a lab that is up, shared by all tests of the session."""
    given = os.environ.get("CALICO_TEST_LAB")
    if given:
        yield Lab.load(given)
        return
    if os.geteuid() != 0:
        pytest.skip("a lab needs root")
    made = build.up(Plan(name=f"t{os.getpid()}"), _LOG.info)
    try:
        yield made
    finally:
        build.down(made.name)
