"""The store in etcd: a Store, with leases, over one or more members.

Thread-safe. A call that fails at one member is tried at the others, so a write may
happen twice: a transaction with compares at most once, though its second try is then
answered `succeeded=False`; its writer reads again, as after losing to another.
"""

from calico.config import EtcdSettings
from calico.datastore.etcd import etcd_pb2 as pb
from calico.datastore.etcd.members import Members
from calico.datastore.store import (
    Compare,
    Delete,
    Item,
    LeaseLost,
    Put,
    Result,
    Snapshot,
    Transaction,
)
from calico.datastore.sync import Era


class Client:
    """etcd, as `settings` say. Connects at the first call; nothing before (fork)."""

    def __init__(self, settings: EtcdSettings) -> None:
        self.members = Members(settings)
        self._timeout = settings.timeout

    def get(self, key: str) -> Item | None:
        """Return a key's item, None if there is none."""
        reply = self._range(f"get {key}", pb.RangeRequest(key=key.encode()))
        return _item(reply.kvs[0]) if reply.kvs else None

    def get_prefix(self, prefix: str) -> Snapshot:
        """Return all items whose keys start with `prefix`."""
        return self.fetch(*prefix_range(prefix))[0]

    def fetch(self, start: bytes, end: bytes) -> tuple[Snapshot, Era]:
        """Return all items from `start` to before `end` (empty: just that key)."""
        request = pb.RangeRequest(key=start, range_end=end)
        reply = self._range(f"get {start.decode()} and on", request)
        items = {item.key: item for item in map(_item, reply.kvs)}
        snapshot = Snapshot(items=items, revision=reply.header.revision)
        return snapshot, era(reply.header)

    def transaction(self, transaction: Transaction) -> Result:
        """Do all of a transaction or nothing."""
        request = pb.TxnRequest(
            compare=[c for one in transaction.compares for c in _compares(one)],
            success=[_write(one) for one in transaction.writes],
        )
        reply = self.members.call(
            f"transaction of {', '.join(w.key for w in transaction.writes)}",
            lambda stub, metadata: stub.txn(
                request, timeout=self._timeout, metadata=metadata
            ),
        )
        return Result(succeeded=reply.succeeded, revision=reply.header.revision)

    def put(self, key: str, value: bytes, lease: int | None = None) -> int:
        """Write one key whatever it holds; return the revision."""
        write = Put(key=key, value=value, lease=lease)
        return self.transaction(Transaction(writes=(write,))).revision

    def delete(self, key: str) -> int:
        """Remove one key whatever it holds; return the revision."""
        return self.transaction(Transaction(writes=(Delete(key=key),))).revision

    def lease_grant(self, ttl: int) -> int:
        """Return a new lease's id; it lives `ttl` seconds."""
        request = pb.LeaseGrantRequest(TTL=ttl)
        return self.members.call(
            "grant a lease",
            lambda stub, metadata: stub.lease_grant(
                request, timeout=self._timeout, metadata=metadata
            ),
        ).ID

    def lease_keepalive(self, lease: int) -> int:
        """Renew a lease; return the seconds it now has, 0 if it is gone."""
        request = pb.LeaseKeepAliveRequest(ID=lease)
        return self.members.call(
            f"keep lease {lease:x} alive",
            lambda stub, metadata: stub.lease_keepalive(
                request, timeout=self._timeout, metadata=metadata
            ),
        ).TTL

    def lease_revoke(self, lease: int) -> None:
        """End a lease and delete its keys; nothing happens if it is gone."""
        request = pb.LeaseRevokeRequest(ID=lease)
        try:
            self.members.call(
                f"revoke lease {lease:x}",
                lambda stub, metadata: stub.lease_revoke(
                    request, timeout=self._timeout, metadata=metadata
                ),
            )
        except LeaseLost:
            return

    def close(self) -> None:
        """Close all connections; a later call opens them again."""
        self.members.close()

    def _range(self, wish: str, request: pb.RangeRequest) -> pb.RangeResponse:
        return self.members.call(
            wish,
            lambda stub, metadata: stub.range(
                request, timeout=self._timeout, metadata=metadata
            ),
        )


def prefix_range(prefix: str) -> tuple[bytes, bytes]:
    """Return the first key that starts with `prefix`, and the first after all such.

    Keys are UTF-8, which never holds the byte 255, so the last byte can be raised.
    """
    start = prefix.encode()
    if not start:
        return b"\0", b"\0"  # how etcd spells all keys
    return start, start[:-1] + bytes([start[-1] + 1])


def era(header: pb.ResponseHeader) -> Era:
    """Return the history that a reply speaks of."""
    return Era(
        cluster=header.cluster_id, term=header.raft_term, revision=header.revision
    )


def _item(kv: pb.KeyValue) -> Item:
    return Item(
        key=kv.key.decode(errors="surrogateescape"),
        value=kv.value,
        mod_revision=kv.mod_revision,
        create_revision=kv.create_revision,
        lease=kv.lease,
    )


def _compares(compare: Compare) -> list[pb.Compare]:
    key = compare.key.encode()
    found = []
    if compare.mod_revision is not None:
        found.append(
            pb.Compare(
                key=key, target=pb.Compare.MOD, mod_revision=compare.mod_revision
            )
        )
    if compare.create_revision is not None:
        found.append(
            pb.Compare(
                key=key,
                target=pb.Compare.CREATE,
                create_revision=compare.create_revision,
            )
        )
    return found


def _write(write: Put | Delete) -> pb.RequestOp:
    key = write.key.encode()
    if isinstance(write, Delete):
        return pb.RequestOp(request_delete_range=pb.DeleteRangeRequest(key=key))
    return pb.RequestOp(
        request_put=pb.PutRequest(key=key, value=write.value, lease=write.lease or 0)
    )
