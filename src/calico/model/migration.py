"""Live migrations in the Calico v3 model: one resource for each port on the move.

This project's agents read what they need from the endpoints' own annotations, since an
endpoint and its migration are watched apart and may be seen one without the other. The
resource is for other readers of the model.
"""

from calico.model.keys import Keys, namespace
from calico.model.records import Endpoint
from calico.model.resource import Json, Resource, encode


def encode_migration(
    source: Endpoint, target: Endpoint, keys: Keys, old: bytes | None = None
) -> bytes:
    """Return the LiveMigration of a port from one endpoint to another, as JSON.

    `old` is the stored value, whose unknown fields are kept.
    """
    return encode(
        Resource(
            kind="LiveMigration",
            name=keys.endpoint_name(target.host, target.device, target.port),
            namespace=namespace(keys.region),
            spec={"source": _end(source), "target": _end(target)},
            created=target.created,
        ),
        old,
    )


def _end(endpoint: Endpoint) -> Json:
    return {
        "workloadEndpoint": {
            "hostname": endpoint.host,
            "orchestratorID": "openstack",
            "workloadID": endpoint.device,
            "endpointID": endpoint.port,
        }
    }
