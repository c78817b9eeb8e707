"""Typed calls of one etcd member: paths of etcd's v3 services, over one channel."""

from collections.abc import Callable, Iterator
from typing import Protocol, TypeVar

import grpc
from google.protobuf.message import Message

from calico.datastore.etcd import etcd_pb2 as pb

Metadata = tuple[tuple[str, str], ...]

_Request_contra = TypeVar("_Request_contra", bound=Message, contravariant=True)
_Reply_co = TypeVar("_Reply_co", bound=Message, covariant=True)


class Unary(Protocol[_Request_contra, _Reply_co]):
    """One request, one reply; raises grpc.RpcError."""

    def __call__(
        self, request: _Request_contra, /, *, timeout: float, metadata: Metadata
    ) -> _Reply_co:
        """Call the member."""
        ...


class Stream(Protocol):
    """An open watch stream: replies as they come, until cancelled."""

    def __iter__(self) -> Iterator[pb.WatchResponse]:
        """Return the replies; raises grpc.RpcError where the stream breaks."""
        ...

    def cancel(self) -> bool:
        """End the stream, from any thread."""
        ...


class Stub:
    """The calls that this project makes, of one member."""

    def __init__(self, channel: grpc.Channel) -> None:
        def unary(
            path: str, reply: type[_Reply_co]
        ) -> "grpc.UnaryUnaryMultiCallable[Message, _Reply_co]":
            return channel.unary_unary(path, _serialize, _parser(reply))

        self.range: Unary[pb.RangeRequest, pb.RangeResponse]
        self.range = unary("/etcdserverpb.KV/Range", pb.RangeResponse)
        self.txn: Unary[pb.TxnRequest, pb.TxnResponse]
        self.txn = unary("/etcdserverpb.KV/Txn", pb.TxnResponse)
        self.lease_grant: Unary[pb.LeaseGrantRequest, pb.LeaseGrantResponse]
        self.lease_grant = unary(
            "/etcdserverpb.Lease/LeaseGrant", pb.LeaseGrantResponse
        )
        self.lease_revoke: Unary[pb.LeaseRevokeRequest, pb.LeaseRevokeResponse]
        self.lease_revoke = unary(
            "/etcdserverpb.Lease/LeaseRevoke", pb.LeaseRevokeResponse
        )
        self.authenticate: Unary[pb.AuthenticateRequest, pb.AuthenticateResponse]
        self.authenticate = unary(
            "/etcdserverpb.Auth/Authenticate", pb.AuthenticateResponse
        )
        self._keepalive = channel.stream_stream(
            "/etcdserverpb.Lease/LeaseKeepAlive",
            _serialize,
            _parser(pb.LeaseKeepAliveResponse),
        )
        self._watch = channel.stream_stream(
            "/etcdserverpb.Watch/Watch", _serialize, _parser(pb.WatchResponse)
        )

    def lease_keepalive(
        self,
        request: pb.LeaseKeepAliveRequest,
        /,
        *,
        timeout: float,
        metadata: Metadata,
    ) -> pb.LeaseKeepAliveResponse:
        """Renew one lease once: a stream of one request."""
        replies = self._keepalive(iter([request]), timeout=timeout, metadata=metadata)
        return next(iter(replies))

    def watch(
        self, requests: Iterator[pb.WatchRequest], /, *, metadata: Metadata
    ) -> Stream:
        """Open a watch stream."""
        return self._watch(requests, metadata=metadata)


def _serialize(message: Message) -> bytes:
    return message.SerializeToString()


def _parser(kind: type[_Reply_co]) -> Callable[[bytes], _Reply_co]:
    return kind.FromString
