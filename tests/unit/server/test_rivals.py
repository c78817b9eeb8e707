"""Two plugins for routers are never loaded together."""

import pytest

from calico.model.ids import Invalid
from calico.server.rivals import refuse_rivals


def test_port_forwarding_would_bring_neutrons_own_router() -> None:
    refuse_rivals(["calico-router", "calico-l2-adjacency", "qos", "segments"])
    with pytest.raises(Invalid, match=r"port_forwarding, router cannot be had beside"):
        refuse_rivals(["calico-router", "router", "port_forwarding"])
