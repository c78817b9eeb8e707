"""The lab's metadata server: stands where Nova's metadata API is in a cloud.

`python -m calico.lab.metadata ADDRESS PORT SECRET_FILE [CERT KEY]`. It takes what Nova
takes, an instance's id with a signature of it, and refuses what Nova refuses; there
being no Nova, what it tells of an instance is what it was asked with.
"""

import hashlib
import hmac
import json
import ssl
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from calico.lab.servers import Servers
from calico.lab.topology import CONTROL_ADDRESS

NAME = "metadata"
PORT = 8775  # Nova's
SECRET = "the lab's metadata"  # noqa: S105 - a lab has no secrets
_MOST = 1 << 20


def start(servers: Servers, directory: Path) -> None:
    """Start the server of a lab's cloud; its files are in `directory`."""
    directory.mkdir(parents=True, exist_ok=True)
    secret = directory / "secret"
    secret.write_text(SECRET)
    servers.start(NAME, command(str(CONTROL_ADDRESS), PORT, secret))


def url() -> str:
    """Return where the hosts reach it."""
    return f"http://{CONTROL_ADDRESS}:{PORT}"


def command(address: str, port: int, secret: Path, *tls: Path) -> list[str]:
    """Return the command that serves at an address; `tls` are certificate and key."""
    program = [sys.executable, "-m", "calico.lab.metadata"]
    return [*program, address, str(port), str(secret), *map(str, tls)]


class _Handler(BaseHTTPRequestHandler):
    """Answers one request at a time of a connection."""

    server: "_Server"

    def do_GET(self) -> None:
        """Answer with metadata, if the host that asks is one of the cloud's."""
        status, text = self._answer()
        self._send(status, text)

    def do_POST(self) -> None:
        """Answer with how much was sent, and by whom."""
        status, text = self._answer()
        length = min(int(self.headers.get("Content-Length", "0")), _MOST)
        said = self.rfile.read(length)
        self._send(status, json.dumps({"received": len(said), "as": text}))

    def _send(self, status: int, text: str) -> None:
        body = text.encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _answer(self) -> tuple[int, str]:
        instance = self.headers.get("X-Instance-ID", "")
        claimed = self.headers.get("X-Instance-ID-Signature", "")
        right = hmac.new(self.server.secret, instance.encode(), hashlib.sha256)
        if not hmac.compare_digest(right.hexdigest(), claimed):
            return 403, "Invalid proxy request signature."
        meta = {
            "uuid": instance,
            "project_id": self.headers.get("X-Tenant-ID", ""),
            "headers": [[name.lower(), value] for name, value in self.headers.items()],
        }
        answers = {
            "/openstack/latest/meta_data.json": json.dumps(meta),
            "/latest/meta-data/instance-id": instance,
            "/latest/meta-data/local-ipv4": self.headers.get("X-Forwarded-For", ""),
        }
        text = answers.get(self.path)
        return (404, "not found") if text is None else (200, text)


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, address: tuple[str, int], secret: bytes) -> None:
        self.secret = secret
        super().__init__(address, _Handler)


def main(address: str, port: str, secret: str, *tls: str) -> None:
    """Serve until killed."""
    server = _Server((address, int(port)), Path(secret).read_bytes())
    if tls:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(*tls)
        server.socket = context.wrap_socket(server.socket, server_side=True)
    server.serve_forever()


if __name__ == "__main__":
    main(*sys.argv[1:])
