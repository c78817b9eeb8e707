"""BIRD's replies, as it sends them, however they are cut."""

from ipaddress import IPv4Address

from calico.plan.bird_status import parse_protocols, parse_reply

REPLY = """\
2002-Name       Proto      Table      State  Since         Info
1002-device1    Device     ---        up     09:16:01.123  
1006-
1002-kernel4    Kernel     master4    up     09:16:01.123  
1006-  Channel ipv4
     State:          UP
     Routes:         3 imported, 2 exported, 3 preferred
 
1002-bgp4_172_30_0_1 BGP        ---        up     09:16:01.904  Established   
1006-  Description:    host h1
   BGP state:          Established
     Neighbor address: 172.30.0.1
   Channel ipv4
     Routes:         5 imported, 1 filtered, 7 exported, 4 preferred
 
1002-bgp4_172_30_0_3 BGP        ---        start  09:16:01.904  Active        Socket: Connection refused
1006-  BGP state:          Active
     Neighbor address: 172.30.0.3
 
0000 
"""  # noqa: E501, W291, W293 - as BIRD sends it


def test_a_reply_is_complete_with_its_last_line_and_not_before() -> None:
    assert parse_reply("0001 BIRD 2.0.12 ready.\n") is not None
    for end in range(len(REPLY)):
        assert parse_reply(REPLY[:end]) is None
    reply = parse_reply(REPLY)
    assert reply is not None
    assert (reply.code, reply.failed) == (0, False)


def test_a_refusal_is_one() -> None:
    reply = parse_reply("0002-Reading configuration from x\n8002 x:1:2 syntax error\n")
    assert reply is not None
    assert reply.failed
    assert "syntax error" in reply.text


def test_protocols_are_read_with_neighbor_state_and_counts() -> None:
    reply = parse_reply(REPLY)
    assert reply is not None
    found = {p.name: p for p in parse_protocols(reply.text)}
    assert list(found) == [
        "device1",
        "kernel4",
        "bgp4_172_30_0_1",
        "bgp4_172_30_0_3",
    ]
    up, down = found["bgp4_172_30_0_1"], found["bgp4_172_30_0_3"]
    assert up.established
    assert up.neighbor == IPv4Address("172.30.0.1")
    assert (up.imported, up.exported) == (5, 7)
    assert not down.established
    assert down.detail.endswith("Connection refused")
    assert not found["kernel4"].established
