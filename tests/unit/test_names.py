"""Names of ports in DNS: where they are in etcd, and what is none."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from calico.model.ids import Invalid, PortId, ProjectId
from calico.model.keys import Keys
from calico.model.names import PortNames, encode_port_names, parse_port_names


@given(
    st.builds(
        PortNames,
        project=st.text("a/%-é", min_size=1).map(ProjectId),
        port=st.uuids().map(str).map(PortId),
        names=st.lists(
            st.sampled_from(["web", "web.cloud.example", "_s.x-1", "a" * 63]),
            min_size=1,
            max_size=3,
        ).map(tuple),
        addresses=st.lists(st.ip_addresses(), max_size=3).map(tuple),
    )
)
def test_a_ports_names_survive_the_round_trip(names: PortNames) -> None:
    keys = Keys("r")
    key = keys.port_names(names.project, names.port)
    assert key.startswith(keys.project_names(names.project))
    project, port = keys.parse_port_names(key)
    assert parse_port_names(project, port, encode_port_names(names)) == names


@pytest.mark.parametrize("name", ["", "Web", "a b", "web.", ".", "a" * 64, "a." * 127])
def test_what_is_no_name_of_dns_is_refused(name: str) -> None:
    with pytest.raises(Invalid, match="no name of DNS"):
        PortNames(project=ProjectId("p"), port=PortId("q"), names=(name,), addresses=())
