"""What is asked of a backend in an instance's name: Nova's protocol, as a function.

Who asks is said by the host alone, in headers; of the guest's own only those pass that
are known to say nothing of that kind. A list of what must not pass could not be whole:
a WSGI server takes `X_Instance_ID` for `X-Instance-ID`.
"""

import hashlib
import hmac
from ipaddress import ip_address

import h11

from calico.plan.metadata import MetadataPort

METHODS = frozenset({b"GET", b"HEAD", b"POST", b"PUT"})
_ASKED = frozenset(
    {
        b"accept",
        b"accept-encoding",
        b"accept-language",
        b"cache-control",
        b"content-type",
        b"if-modified-since",
        b"if-none-match",
        b"range",
        b"user-agent",
    }
)
# Of one connection, not of the message (RFC 9110, 7.6.1).
_OF_CONNECTION = frozenset(
    {
        b"connection",
        b"keep-alive",
        b"proxy-authenticate",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
    }
)
Headers = list[tuple[bytes, bytes]]


def signature(secret: bytes, device: str) -> str:
    """Return what proves to Nova that it is the host that names an instance."""
    return hmac.new(secret, device.encode(), hashlib.sha256).hexdigest()


def identity(port: MetadataPort, secret: bytes, version: int) -> Headers:
    """Return who asks, by the port; `version` is that of IP that was used."""
    ours = [a for a in port.addresses if ip_address(a).version == version]
    fields = {
        "X-Instance-ID": port.device,
        "X-Instance-ID-Signature": signature(secret, port.device),
        "X-Tenant-ID": port.project,
        "X-Project-ID": port.project,
        "X-Forwarded-For": next(iter((*ours, *port.addresses)), ""),
    }
    return [(name.encode(), value.encode()) for name, value in fields.items()]


def to_backend(asked: h11.Request, body: bytes, who: Headers) -> Headers:
    """Return the headers of the question to a backend, but for its `Host`."""
    passed = [(name, value) for name, value in asked.headers if name in _ASKED]
    length = [(b"Content-Length", str(len(body)).encode())]
    framing = length if asked.method in {b"POST", b"PUT"} else []
    return [*passed, *framing, *who, (b"Connection", b"close")]


def to_guest(answer: h11.Response) -> Headers:
    """Return the headers of a backend's answer for the guest."""
    passed = [(n, v) for n, v in answer.headers if n not in _OF_CONNECTION]
    return [*passed, (b"Connection", b"close")]
