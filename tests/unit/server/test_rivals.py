"""Two plugins for routers are never loaded together."""

import pytest

from calico.model.ids import Invalid
from calico.server.rivals import refuse_rivals


def test_port_forwarding_would_bring_neutrons_own_router() -> None:
    refuse_rivals(["calico-router", "calico-port-forwarding", "qos", "segments"])
    words = r"port_forwarding, router cannot be had .*write calico-port-forwarding"
    with pytest.raises(Invalid, match=words):
        refuse_rivals(["calico-router", "router", "port_forwarding"])
