"""Give a new Keystone the lab's projects, users and catalogue, through its own API.

The application is called in this process, so nothing needs to listen. Run as
`python -m calico.lab.tenants` with OS_KEYSTONE_CONFIG_DIR set, after
`keystone-manage bootstrap`.
"""

import json
import warnings
from collections.abc import Callable, Iterable
from io import BytesIO
from typing import Any

from calico.lab import keystone

# PEP 3333: an application is called with the environment and start_response.
Wsgi = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]


class Refused(RuntimeError):  # noqa: N818 - what Keystone did
    """Keystone did not do what it was asked; the message has both."""


class Api:
    """Keystone's API in this process, as the administrator."""

    def __init__(self, application: Wsgi) -> None:
        self._application = application
        self._token: str | None = None
        secret = {"password": keystone.password(keystone.ADMIN)}
        owner = {"name": keystone.ADMIN, "domain": {"id": "default"}}
        body = {
            "auth": {
                "identity": {
                    "methods": ["password"],
                    "password": {"user": owner | secret},
                },
                "scope": {"project": owner},
            }
        }
        headers, _ = self.call("POST", "/v3/auth/tokens", body)
        self._token = headers["X-Subject-Token"]

    def call(
        self, method: str, path: str, body: object = None
    ) -> tuple[dict[str, str], Any]:
        """Return an answer's headers and body; Refused where it is an error."""
        sent = json.dumps(body).encode() if body else b""
        answered: list[tuple[str, list[tuple[str, str]]]] = []
        environment = {
            "REQUEST_METHOD": method,
            "SCRIPT_NAME": "",
            "PATH_INFO": path.partition("?")[0],
            "QUERY_STRING": path.partition("?")[2],
            "SERVER_NAME": "localhost",
            "SERVER_PORT": "5000",
            "SERVER_PROTOCOL": "HTTP/1.1",
            "REMOTE_ADDR": "127.0.0.1",
            "CONTENT_TYPE": "application/json",
            "CONTENT_LENGTH": str(len(sent)),
            "wsgi.version": (1, 0),
            "wsgi.url_scheme": "http",
            "wsgi.input": BytesIO(sent),
            "wsgi.errors": BytesIO(),
            "wsgi.multithread": False,
            "wsgi.multiprocess": False,
            "wsgi.run_once": False,
        }
        if self._token:
            environment["HTTP_X_AUTH_TOKEN"] = self._token
        reply = self._application(
            environment,
            lambda status, headers, _=None: answered.append((status, headers)),
        )
        text = b"".join(reply)
        status, headers = answered[0]
        if not status.startswith("2"):
            raise Refused(f"{method} {path}: {status}: {text.decode()}")
        return dict(headers), json.loads(text) if text else None

    def make(self, kind: str, **values: object) -> str:
        """Create an object and return its id."""
        _, reply = self.call("POST", f"/v3/{kind}s", {kind: values})
        return str(reply[kind]["id"])

    def find(self, kind: str, name: str) -> str:
        """Return the id of the object of that kind and name."""
        _, reply = self.call("GET", f"/v3/{kind}s?name={name}")
        return str(reply[f"{kind}s"][0]["id"])

    def grant(self, project: str, user: str, role: str) -> None:
        """Give a user a role in a project, by ids and the role's name."""
        path = f"/v3/projects/{project}/users/{user}/roles/{self.find('role', role)}"
        self.call("PUT", path)


def make_tenants(api: Api) -> None:
    """Create what every lab has besides the administrator."""
    owners = [(name, name, ("member", "reader")) for name in keystone.PROJECTS]
    service = (keystone.SERVICE_PROJECT, keystone.SERVICE_USER, ("service", "admin"))
    for project_name, user_name, roles in (*owners, service):
        project = api.make("project", name=project_name, domain_id="default")
        user = api.make(
            "user",
            name=user_name,
            password=keystone.password(user_name),
            domain_id="default",
        )
        for role in roles:
            api.grant(project, user, role)
    network = api.make("service", name="neutron", type="network")
    api.make(
        "endpoint",
        service_id=network,
        interface="public",
        region_id=keystone.REGION,
        url="http://127.0.0.1:9696",  # put right at a lab's start
    )


def main() -> None:
    """Fill the Keystone that the environment's settings name."""
    warnings.simplefilter("ignore")  # theirs
    from keystone.server import (  # type: ignore[import-untyped]  # noqa: PLC0415
        wsgi,  # carries no types; reads settings as it loads
    )

    make_tenants(Api(wsgi.initialize_public_application()))


if __name__ == "__main__":
    main()
