"""The lab's etcd, spoken to from outside its namespace.

Sockets of the namespace and etcd's JSON gateway are enough for what a lab asks: to
write a few resources, and to read who is there. Agents and Neutron use the project's
own client.
"""

import base64
import http.client
import json
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from calico.lab.inside import connect
from calico.lab.namespaces import LabFailed

_TIMEOUT = 5.0


@dataclass(frozen=True, slots=True)
class Store:
    """The datastore whose members are at `endpoints` in a namespace."""

    netns: str
    endpoints: Sequence[str]

    def put(self, values: Mapping[str, bytes]) -> None:
        """Write keys in one transaction; LabFailed where no member answers."""
        puts = [
            {"requestPut": {"key": _encode(key.encode()), "value": _encode(value)}}
            for key, value in values.items()
        ]
        self._ask("/v3/kv/txn", {"success": puts})

    def get_prefix(self, prefix: str) -> dict[str, bytes]:
        """Return the keys that begin with `prefix`; LabFailed without an answer."""
        return {
            base64.b64decode(kv["key"]).decode(): base64.b64decode(kv.get("value", ""))
            for kv in self._range(prefix)
        }

    def revisions(self, prefix: str) -> dict[str, int]:
        """Return, for the keys that begin with `prefix`, when each last changed."""
        return {
            base64.b64decode(kv["key"]).decode(): int(kv["mod_revision"])
            for kv in self._range(prefix)
        }

    def _range(self, prefix: str) -> Sequence[Mapping[str, str]]:
        first = prefix.encode()
        last = first[:-1] + bytes([first[-1] + 1])
        answer = self._ask(
            "/v3/kv/range", {"key": _encode(first), "range_end": _encode(last)}
        )
        found: Sequence[Mapping[str, str]] = answer.get("kvs", ())
        return found

    def _ask(self, path: str, request: Mapping[str, Any]) -> dict[str, Any]:
        reason = "no member"
        for endpoint in self.endpoints:
            try:
                return self._ask_member(endpoint, path, request)
            except (OSError, http.client.HTTPException, ValueError) as e:
                reason = str(e)
        raise LabFailed(f"the lab's etcd does not answer: {reason}")

    def _ask_member(
        self, endpoint: str, path: str, request: Mapping[str, Any]
    ) -> dict[str, Any]:
        url = urlsplit(endpoint)
        address = (url.hostname or "", url.port or 2379)
        client = http.client.HTTPConnection(*address, timeout=_TIMEOUT)
        with closing(client):
            client.sock = connect(self.netns, address, _TIMEOUT)
            client.request("POST", path, json.dumps(request))
            response = client.getresponse()
            body: dict[str, Any] = json.loads(response.read())
            if response.status != http.HTTPStatus.OK:
                raise ValueError(str(body.get("message", response.status)))
            return body


def _encode(value: bytes) -> str:
    return base64.b64encode(value).decode()
