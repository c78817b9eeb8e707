"""What an instance says first on its new host, and what anybody else may say there."""

from ipaddress import ip_address

import pytest
from tests.endpoints import endpoint
from tests.frames import FOREIGN, ONE, OWN, OWN6

from calico.model.records import Endpoint
from calico.plan.arrival import announces


@pytest.mark.parametrize("frame", OWN.values(), ids=OWN)
def test_p38_what_an_instance_says_of_itself_announces_it(frame: bytes) -> None:
    assert announces(frame, ONE)


@pytest.mark.parametrize("frame", FOREIGN.values(), ids=FOREIGN)
def test_p38_what_is_not_its_own_announces_nobody(frame: bytes) -> None:
    assert not announces(frame, ONE)


@pytest.mark.parametrize("frame", OWN.values(), ids=OWN)
def test_p41_a_frame_that_is_cut_anywhere_is_no_error(frame: bytes) -> None:
    for length in range(len(frame)):
        announces(frame[:length], ONE)


def test_a_port_of_one_family_is_announced_in_that_one() -> None:
    only6: Endpoint = endpoint(2, addresses=(ip_address(OWN6),))
    assert announces(OWN["neighbour advertisement"], only6)
    assert not announces(OWN["gratuitous ARP"], only6)
