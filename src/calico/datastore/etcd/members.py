"""Connections to the members of an etcd cluster: failover, TLS, tokens, errors.

A call goes to the member that answered last; where that one fails, to each of the
others once (P26). Connections are opened by the first call in a process, so a client
made before a fork may be used after it.
"""

import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlsplit

import grpc

from calico.config import EtcdSettings
from calico.datastore.etcd import etcd_pb2 as pb
from calico.datastore.etcd.stub import Metadata, Stub
from calico.datastore.store import Broken, LeaseLost, Temporary

_T = TypeVar("_T")
Call = Callable[[Stub, Metadata], _T]

_OPTIONS: list[tuple[str, int]] = [
    ("grpc.max_receive_message_length", -1),  # a range's reply has no limit in etcd
    ("grpc.max_send_message_length", -1),
    ("grpc.enable_http_proxy", 0),  # http_proxy is for the web, not for the datastore
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 1000),
    ("grpc.max_reconnect_backoff_ms", 1000),
    # A dead peer is noticed by HTTP/2 pings; etcd allows one in five seconds.
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 5_000),
]

_REFUSALS = {
    grpc.StatusCode.PERMISSION_DENIED,
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.UNIMPLEMENTED,
    grpc.StatusCode.FAILED_PRECONDITION,
    grpc.StatusCode.UNAUTHENTICATED,
}
_STALE_TOKEN = (
    "invalid auth token",
    "revision of auth store is old",
    "user name is empty",
)
_BAD_TLS = (
    "CERTIFICATE_VERIFY_FAILED",
    "WRONG_VERSION_NUMBER",
    "Hostname Verification",
)


class Members:
    """All members, and which of them to ask."""

    def __init__(self, settings: EtcdSettings) -> None:
        self._settings = settings
        self._lock = threading.Lock()
        self._channels: dict[int, tuple[grpc.Channel, Stub]] = {}
        self._pid = 0
        self._current = 0
        self._token: str | None = None

    def call(self, wish: str, call: Call[_T]) -> _T:
        """Return what a member replies; `wish` names the call in errors.

        Raises Temporary if no member can answer now, LeaseLost, Broken if they refuse.
        """
        failures: list[str] = []
        broken = False
        for _ in self._settings.endpoints:
            index = self._current
            try:
                return self._authorised(self.stub(index), call)
            except grpc.RpcError as e:
                failures.append(f"{self._settings.endpoints[index]}: {text(e)}")
                if _code(e) is grpc.StatusCode.NOT_FOUND:
                    raise LeaseLost(f"{wish}: {failures[-1]}") from e
                if _code(e) in _REFUSALS:
                    raise Broken(f"{wish}: {failures[-1]}") from e
                broken = broken or any(sign in text(e) for sign in _BAD_TLS)
                self.avoid(index)
        raise (Broken if broken else Temporary)(f"{wish}: {'; '.join(failures)}")

    @property
    def current(self) -> int:
        """Return the number of the member to ask next."""
        return self._current

    def avoid(self, index: int) -> None:
        """Ask the next member from now on, unless another thread saw to that."""
        with self._lock:
            if self._current == index:
                self._current = (index + 1) % len(self._settings.endpoints)

    def stub(self, index: int) -> Stub:
        """Return a member's calls, connecting if need be."""
        with self._lock:
            if self._pid != os.getpid():
                # What the parent opened is its own; it must not even be closed here.
                self._channels, self._pid, self._token = {}, os.getpid(), None
            if index not in self._channels:
                channel = self._connect(self._settings.endpoints[index])
                self._channels[index] = channel, Stub(channel)
            return self._channels[index][1]

    def metadata(self, stub: Stub) -> Metadata:
        """Return what a call must carry: a token where a user is configured."""
        if self._settings.user is None:
            return ()
        with self._lock:
            token = self._token
        if token is None:
            token = self._authenticate(stub)
        return (("token", token),) if token else ()

    def forget_token(self) -> None:
        """Have the next call authenticate anew."""
        with self._lock:
            self._token = None

    def close(self) -> None:
        """Close all connections; the next call opens them again."""
        with self._lock:
            channels = self._channels if self._pid == os.getpid() else {}
            self._channels = {}
        for channel, _ in channels.values():
            channel.close()

    def _authorised(self, stub: Stub, call: Call[_T]) -> _T:
        try:
            return call(stub, self.metadata(stub))
        except grpc.RpcError as e:
            if self._settings.user is None or not is_stale_token(e):
                raise
        self.forget_token()
        return call(stub, self.metadata(stub))

    def _authenticate(self, stub: Stub) -> str:
        request = pb.AuthenticateRequest(
            name=self._settings.user or "", password=self._settings.password or ""
        )
        try:
            reply = stub.authenticate(
                request, timeout=self._settings.timeout, metadata=()
            )
        except grpc.RpcError as e:
            if "authentication is not enabled" not in text(e):
                raise
            # Not an error: calls need no token. Once it is enabled, they are refused
            # as stale, and authenticate.
            return ""
        with self._lock:
            self._token = reply.token
        return reply.token

    def _connect(self, endpoint: str) -> grpc.Channel:
        url = urlsplit(endpoint)
        if url.scheme not in {"http", "https"} or not url.netloc:
            raise Broken(f"{endpoint} is not http://HOST:PORT or https://HOST:PORT")
        if url.scheme == "http":
            return grpc.insecure_channel(url.netloc, _OPTIONS)
        credentials = grpc.ssl_channel_credentials(
            _read(self._settings.ca),
            _read(self._settings.key),
            _read(self._settings.cert),
        )
        return grpc.secure_channel(url.netloc, credentials, _OPTIONS)


def is_stale_token(error: grpc.RpcError) -> bool:
    """Return whether a call failed for want of a current token."""
    return any(sign in text(error) for sign in _STALE_TOKEN)


def _read(file: Path | None) -> bytes | None:
    try:
        return file.read_bytes() if file else None
    except OSError as e:
        raise Broken(f"{file}: {e.strerror}") from e


def _code(error: grpc.RpcError) -> grpc.StatusCode | None:
    return error.code() if isinstance(error, grpc.Call) else None


def text(error: grpc.RpcError) -> str:
    """Return a failed call's status and reason on one line."""
    if isinstance(error, grpc.Call):
        return f"{error.code().name} {error.details()}"
    return str(error)
