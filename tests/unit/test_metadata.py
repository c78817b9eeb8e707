"""Who is told to a metadata backend, and of which ports the proxy is told."""

from dataclasses import replace
from pathlib import Path

import h11
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.endpoints import endpoint

from calico.config import MetadataSettings, encode_metadata, read_metadata
from calico.metadata.headers import identity, signature, to_backend, to_guest
from calico.model.ids import DeviceId, InterfaceName, PortId
from calico.plan.metadata import MetadataPort, decode_ports, encode_ports, plan_metadata

ONE = endpoint(1)
PORT = MetadataPort(
    interface=ONE.interface,
    index=7,
    device=ONE.device,
    project=ONE.project,
    addresses=tuple(map(str, ONE.addresses)),
)
OURS = {
    "x-instance-id",
    "x-instance-id-signature",
    "x-tenant-id",
    "x-project-id",
    "x-forwarded-for",
}
# What says who asks, in the spellings that some server takes for it.
names = st.sampled_from(
    sorted(OURS | {"forwarded", "x-real-ip", "x-metadata-provider"})
).flatmap(
    lambda name: st.sampled_from(
        [name, name.upper(), name.title(), name.replace("-", "_"), f"{name}-"]
    )
)


def test_the_signature_is_novas() -> None:
    # hmac.new(b"secret", b"instance", sha256), computed with openssl
    assert signature(b"secret", "instance") == (
        "fac450cbc556373851e9f5755126936b598b1749a007d96b7e0b7f1a5cd274e9"
    )


@given(st.lists(st.tuples(names, st.just("forged")), max_size=8))
def test_p42_what_a_guest_says_of_itself_never_passes(
    said: list[tuple[str, str]],
) -> None:
    asked = h11.Request(
        method="GET", target="/", headers=[("Host", "a"), ("Accept", "x"), *said]
    )
    sent = to_backend(asked, b"", identity(PORT, b"secret", 4))
    assert all(b"forged" not in value for _, value in sent)
    found = [name.lower().decode().replace("_", "-") for name, _ in sent]
    assert sorted(found) == sorted(["accept", "connection", *OURS])


@pytest.mark.parametrize(
    ("addresses", "version", "wanted"),
    [
        (("10.0.0.1", "fd00::1"), 6, b"fd00::1"),
        (("10.0.0.1", "fd00::1"), 4, b"10.0.0.1"),
        (("10.0.0.1",), 6, b"10.0.0.1"),
        ((), 4, b""),
    ],
)
def test_the_address_is_the_ports_own(
    addresses: tuple[str, ...], version: int, wanted: bytes
) -> None:
    who = identity(replace(PORT, addresses=addresses), b"s", version)
    assert dict(who)[b"X-Forwarded-For"] == wanted


def test_an_answer_keeps_its_length_and_nothing_of_the_connection() -> None:
    answer = h11.Response(
        status_code=200,
        headers=[
            ("Content-Length", "2"),
            ("Keep-Alive", "5"),
            ("Connection", "keep-alive"),
            ("ETag", "x"),
        ],
    )
    assert to_guest(answer) == [
        (b"content-length", b"2"),
        (b"etag", b"x"),
        (b"Connection", b"close"),
    ]


def test_the_proxy_is_told_of_ports_whose_interface_is_there() -> None:
    there = {ONE.interface: 7}
    ports = plan_metadata([ONE, endpoint(2)], there.get)
    assert ports == (PORT,)
    assert decode_ports(encode_ports(ports)) == ports


def test_of_two_ports_of_one_interface_the_one_that_is_served_counts() -> None:
    other = replace(ONE, port=PortId(f"{ONE.port}-later"), device=DeviceId("another"))
    ports = plan_metadata([other, ONE], lambda _: 7)
    assert [port.device for port in ports] == [ONE.device]


def test_an_interface_that_is_no_tap_has_no_metadata() -> None:
    uplink = replace(ONE, interface=InterfaceName("eth0"))
    assert plan_metadata([uplink], lambda _: 2) == ()


def test_settings_come_back_from_the_proxys_file() -> None:
    settings = MetadataSettings(
        backends=("https://[2001:db8::1]:8775", "http://nova"),
        shared_secret="s",
        ca=Path("/etc/ca.pem"),
    )
    assert read_metadata(encode_metadata(settings, [1, 2])) == settings
    assert encode_metadata(settings, [1]) != encode_metadata(settings, [2])


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"backends": ("nova:8775",)}, "not like"),
        ({"backends": ("ftp://nova",)}, "not like"),
        ({"backends": ("http://nova/path",)}, "not like"),
        ({"backends": ("http://me:pw@nova",)}, "not like"),
        ({"backends": ("http://nova:99999",)}, "nova:99999"),
        ({"backends": ("http://nova",)}, "shared_secret"),
        (
            {
                "shared_secret_file": Path("/s"),
                "backends": ("http://n",),
                "shared_secret": "s",
            },
            "shared_secret",
        ),
        ({"cert": Path("/c")}, "cert and key"),
    ],
)
def test_settings_that_cannot_be_are_refused(
    settings: dict[str, object], reason: str
) -> None:
    with pytest.raises(ValueError, match=reason):
        MetadataSettings(**settings)  # type: ignore[arg-type] # a table of wrong ones
