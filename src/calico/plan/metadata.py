"""Who may ask the metadata service, and who each is: what the host's proxy is told."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import msgspec

from calico.model.ids import DeviceId, InterfaceName, ProjectId
from calico.model.records import Endpoint
from calico.plan.host import accept


@dataclass(frozen=True, slots=True, kw_only=True)
class MetadataPort:
    """A port whose instance may ask: its interface, by name and index, and who it is.

    `addresses` are its fixed addresses, in Neutron's order.
    """

    interface: InterfaceName
    index: int
    device: DeviceId
    project: ProjectId
    addresses: tuple[str, ...] = ()


def plan_metadata(
    endpoints: Iterable[Endpoint], index_of: Callable[[InterfaceName], int | None]
) -> tuple[MetadataPort, ...]:
    """Return the ports to listen for, by the index of each interface that there is.

    Of two endpoints with one interface, the one that is served counts.
    """
    accepted, _ = accept(endpoints)
    return tuple(
        MetadataPort(
            interface=one.interface,
            index=index,
            device=one.device,
            project=one.project,
            addresses=tuple(map(str, one.addresses)),
        )
        for one in accepted
        if (index := index_of(one.interface)) is not None
    )


def encode_ports(ports: Iterable[MetadataPort]) -> bytes:
    """Return ports as the proxy's file has them."""
    return msgspec.json.encode(tuple(ports))


def decode_ports(text: bytes) -> tuple[MetadataPort, ...]:
    """Return the ports in a file; msgspec's errors for anything else."""
    return msgspec.json.decode(text, type=tuple[MetadataPort, ...])
