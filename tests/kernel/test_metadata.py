"""The metadata service as guests see it: real taps, real proxy, real backends."""

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest
from tests.endpoints import endpoint
from tests.kernel.agent_host import agent_host
from tests.kernel.metadata_host import (
    BACKEND,
    JSON,
    MetadataHost,
    metadata_host,
    settings_for,
    with_ca,
)
from tests.kernel.netns import eventually, in_netns

from calico.config import MetadataSettings
from calico.lab.metadata import SECRET, command
from calico.metadata.headers import signature
from calico.model.ids import DeviceId
from calico.service.listeners import MOST

A, B = endpoint(2), endpoint(3)
FIRST, SECOND = 8775, 8776


@pytest.fixture(scope="module")
def host() -> Iterator[MetadataHost]:
    with metadata_host() as made:
        made.backend(FIRST)
        for one in (A, B):
            made.bed.plug(one)
        made.configure(settings_for(FIRST))
        assert made.serve(A, B) == []
        made.await_service(made.bed.guests[A.port])
        yield made


@pytest.mark.parametrize("version", [4, 6])
def test_an_instance_gets_its_own_metadata(host: MetadataHost, version: int) -> None:
    for one in (A, B) * 5:  # sockets that share what comes might be right once
        told = host.identity(host.bed.guests[one.port], version)
        assert told["x-instance-id"] == one.device
        assert told["x-instance-id-signature"] == signature(SECRET.encode(), one.device)
        assert told["x-tenant-id"] == told["x-project-id"] == one.project
        assert told["x-forwarded-for"] == str(one.addresses[0 if version == 4 else 1])


def test_a_pass_finds_nothing_to_change(host: MetadataHost) -> None:
    assert host.bed.changes(A, B) == []


def test_p42_an_address_of_another_gets_nothing(host: MetadataHost) -> None:
    guest = host.bed.guests[A.port]
    stolen = str(B.addresses[0])
    guest.ip("addr", "add", f"{stolen}/24", "dev", "eth0")
    try:
        status, _ = host.ask(
            guest, 4, JSON, "--interface", f"host!{stolen}", "--max-time", "1"
        )
        assert status == 0, "anti-spoofing lets another's address pass"
    finally:
        guest.ip("addr", "del", f"{stolen}/24", "dev", "eth0")


def test_p42_without_anti_spoofing_the_interface_tells(host: MetadataHost) -> None:
    open_port = replace(A, port_security=False)
    guest = host.bed.guests[A.port]
    stolen = str(B.addresses[1])
    assert host.serve(open_port, B) == []
    guest.ip("addr", "add", f"{stolen}/128", "dev", "eth0", "nodad")
    try:
        # From a stolen global address there is no way back by this tap; on the link
        # both ends have others, and the claim is in what is sent.
        told = host.identity(guest, 6, "-H", f"X-Forwarded-For: {stolen}")
        assert told["x-instance-id"] == A.device
        assert told["x-forwarded-for"] == str(A.addresses[1])
    finally:
        guest.ip("addr", "del", f"{stolen}/128", "dev", "eth0")
        host.serve(A, B)


def test_p42_forged_headers_do_not_reach_the_backend(host: MetadataHost) -> None:
    forged = {
        "X-Instance-ID": B.device,
        "X_Instance_ID": B.device,  # the same, to a WSGI server
        "X-Instance-ID-Signature": "0" * 64,
        "X-Tenant-ID": "another",
        "X-Project-ID": "another",
        "X-Forwarded-For": "192.0.2.1",
        "Forwarded": "for=192.0.2.1",
        "X-Metadata-Provider": "another",
        "Connection": "X-Instance-ID",
    }
    options = [part for n, v in forged.items() for part in ("-H", f"{n}: {v}")]
    guest = host.bed.guests[A.port]
    status, body = host.ask(guest, 4, JSON, *options)
    assert status == 200
    headers = json.loads(body)["headers"]
    named = [name for name, _ in headers]
    assert len(named) == len(set(named)), "a header is there twice"
    assert {name for name in named if name.startswith(("x", "forw"))} == {
        "x-instance-id",
        "x-instance-id-signature",
        "x-tenant-id",
        "x-project-id",
        "x-forwarded-for",
    }
    assert dict(headers)["x-instance-id"] == A.device


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"GET /openstack HTTP/1.1\r\nHost: a\r\n Folded\r\nA B: c\r\n\r\n", b"400"),
        (
            b"POST / HTTP/1.1\r\nContent-Length: 3\r\nHost: a\r\n%b\r\n0\r\n\r\n"
            % b"Transfer-Encoding: chunked\r\n",
            b"404",  # chunked alone counts (RFC 9112, 6.3), and what follows is nothing
        ),
        (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1, 2\r\n\r\nx", b"400"),
        (b"GET http://other/ HTTP/1.1\r\nHost: a\r\n\r\n", b"400"),
        (b"CONNECT a:80 HTTP/1.1\r\nHost: a\r\n\r\n", b"405"),
        (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 99999\r\n\r\n", b"413"),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"x" * 50000 + b"\r\n\r\n", b"431"),
    ],
    ids=["bad header", "two lengths", "odd length", "proxy", "CONNECT", "body", "head"],
)
def test_a_request_that_is_not_plain_is_refused(
    host: MetadataHost, request_: bytes, status: bytes
) -> None:
    with in_netns(host.bed.guests[A.port]):
        asking = socket.create_connection(("169.254.169.254", 80), 5)
    with asking:
        asking.sendall(request_)
        if status == b"413":
            asking.sendall(b"x" * 70000)
        assert asking.recv(100).split()[1] == status


def test_a_second_request_on_a_connection_is_never_read(host: MetadataHost) -> None:
    with in_netns(host.bed.guests[A.port]):
        asking = socket.create_connection(("169.254.169.254", 80), 5)
    with asking:
        one = b"GET /latest/meta-data/instance-id HTTP/1.1\r\nHost: a\r\n\r\n"
        asking.sendall(one * 2)
        heard = b""
        while received := asking.recv(4096):
            heard += received
    assert heard.count(A.device.encode()) == 1


def test_a_password_can_be_left(host: MetadataHost) -> None:
    status, body = host.ask(
        host.bed.guests[A.port], 6, "/openstack/latest/password", "-d", "x" * 2000
    )
    assert (status, json.loads(body)["received"]) == (404, 2000)


def test_one_guest_does_not_starve_another(host: MetadataHost) -> None:
    with ExitStack() as stack:
        with in_netns(host.bed.guests[A.port]):
            held = [
                stack.enter_context(
                    socket.create_connection(("169.254.169.254", 80), 5)
                )
                for _ in range(MOST)
            ]
            more = stack.enter_context(
                socket.create_connection(("169.254.169.254", 80), 5)
            )
        assert more.recv(1) == b""
        assert host.identity(host.bed.guests[B.port])["x-instance-id"] == B.device
        held[0].close()
    host.await_service(host.bed.guests[A.port])


def test_nothing_else_of_the_host_is_opened(host: MetadataHost) -> None:
    """P15, S17: a service on the same addresses, or on port 80 of others."""
    guest = host.bed.guests[A.port]
    listener = host.bed.host.popen(
        [sys.executable, "-m", "http.server", "--bind", "::", "81"], cwd="/proc/self/fd"
    )
    eventually(lambda: host.bed.host.run(["ss", "-Hltn", "sport", "=", "81"]).stdout)
    try:
        for address in ("169.254.169.254:81", "10.65.0.1:81", "10.65.0.1:80"):
            status = guest.run(
                ["curl", "-s", "--max-time", "0.4", f"http://{address}/"], check=False
            ).returncode
            assert status == 28, f"{address}: answered, not silence"
    finally:
        listener.kill()


def test_a_port_that_is_another_instance_now_is_that_one(host: MetadataHost) -> None:
    other = replace(B, device=DeviceId("another-device"))
    host.serve(A, other)
    guest = host.bed.guests[B.port]
    eventually(lambda: host.identity(guest)["x-instance-id"] == "another-device")
    host.bed.host.ip("link", "del", B.interface)
    host.bed.plug(B)  # under the old name, with another index
    host.serve(A, B)
    eventually(lambda: host.ask(guest)[0] == 200, message=host.log)
    assert host.identity(guest)["x-instance-id"] == B.device


def test_the_proxy_has_no_privileges_and_outlives_the_agent(
    host: MetadataHost,
) -> None:
    pid = host.proxies[0].pid()
    host.configure(host.settings)  # a new agent
    assert host.serve(A, B) == []
    assert host.proxies[0].pid() == pid
    status = Path(f"/proc/{pid}/status").read_text()
    fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    assert set(fields["Uid"].split()) != {"0"}
    assert int(fields["CapEff"], 16) == 1 << 10
    assert (host.run_dir / "metadata.json").stat().st_mode & 0o077 == 0


def test_where_a_backend_fails_another_is_asked(host: MetadataHost) -> None:
    second = host.backend(SECOND)
    dead = 1
    host.configure(settings_for(dead, SECOND))
    assert host.serve(A, B) == []
    guest = host.bed.guests[A.port]
    host.await_service(guest)
    assert host.identity(guest)["x-instance-id"] == A.device
    second.kill()
    second.wait()
    assert host.ask(guest)[0] == 503


def test_a_backend_that_proves_nothing_is_not_told_anything(
    host: MetadataHost, tmp_path: Path
) -> None:
    right, wrong = (_certificate(tmp_path / name) for name in ("right", "wrong"))
    host.backend(8777, *right)
    guest = host.bed.guests[A.port]
    for ca, status in ((wrong[0], 503), (right[0], 200)):
        host.configure(with_ca(settings_for(8777, scheme="https"), ca))
        assert host.serve(A, B) == []
        host.await_service(guest)
        assert host.ask(guest)[0] == status, host.log()
    assert "certificate" in host.log()


def test_a_secret_comes_from_a_file_and_a_wrong_one_is_refused(
    host: MetadataHost, tmp_path: Path
) -> None:
    secret = tmp_path / "secret"
    secret.write_text("not the backend's\n")
    url = f"http://{BACKEND}:{FIRST}"
    host.configure(MetadataSettings(backends=(url,), shared_secret_file=secret))
    assert host.serve(A, B) == []
    guest = host.bed.guests[A.port]
    host.await_service(guest)
    assert host.ask(guest)[0] == 403
    secret.write_text(f"{SECRET}\n")
    assert host.serve(A, B) == []
    host.await_service(guest)
    assert host.ask(guest)[0] == 200
    secret.unlink()
    assert [str(p) for p in host.serve(A, B)] != []


def test_without_backends_there_is_no_service(host: MetadataHost) -> None:
    host.configure(MetadataSettings())
    host.serve(A, B)
    assert host.proxies[0].pid() is None
    guest = host.bed.guests[A.port]
    for version in (4, 6):
        assert host.ask(guest, version, "/", "--max-time", "0.5")[0] == 0
    addresses = host.bed.host.ip("addr")
    assert "169.254.169.254" not in addresses
    assert "a9fe" not in addresses
    listed = host.bed.host.run(["nft", "list", "set", "inet", "calico", "metadata"])
    assert "tap" not in listed.stdout


def test_p40_metadata_goes_on_without_agent_and_etcd(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text(SECRET)
    with agent_host() as host:
        guest = host.bed.plug(A)
        host.bed.host.popen(command(BACKEND, FIRST, secret))
        host.settings.write_text(
            host.settings.read_text()
            + f'[metadata]\nbackends = ["http://{BACKEND}:{FIRST}"]\n'
            + f'shared_secret_file = "{secret}"\n'
        )
        host.publish(A)
        host.start()
        host.await_statuses({A.port: "up"})

        def told() -> str:
            url = "http://169.254.169.254/latest/meta-data/instance-id"
            asked = ["curl", "-s", "--max-time", "2", url]
            return guest.run(asked, check=False).stdout

        eventually(lambda: told() == A.device, 20, lambda: host.log[-2000:])
        record = host.folder / "run" / "metadata.pid"
        before = record.read_text()
        host.end(signal.SIGKILL)
        host.etcd.kill()
        assert told() == A.device
        with in_netns(host.bed.host):
            host.etcd.start()
        host.start()
        host.withdraw(A)
        host.await_statuses({})
        eventually(lambda: told() == "")
        assert record.read_text() == before, "the proxy was taken over"


def _certificate(stem: Path) -> tuple[Path, Path]:
    """Make a certificate of its own authority for the backend's address."""
    cert, key = stem.with_suffix(".pem"), stem.with_suffix(".key")
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "ec", "-nodes", "-days", "2"),
            *("-pkeyopt", "ec_paramgen_curve:prime256v1", "-subj", "/CN=backend"),
            *("-addext", f"subjectAltName=IP:{BACKEND}"),
            *("-keyout", os.fspath(key), "-out", os.fspath(cert)),
        ],
        check=True,
        capture_output=True,
    )
    return cert, key
