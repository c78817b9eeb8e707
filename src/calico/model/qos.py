"""What a port may send and be sent at most, and how its packets are marked.

As `qosControls` of a WorkloadEndpoint it has the names and units of Calico's model:
bits and packets, seen from the instance, as Neutron sees them.
"""

from dataclasses import dataclass

from calico.model.ids import Invalid
from calico.model.resource import Json

LARGEST_BURST = 34_359_738_360  # bits: what Calico's model takes, in octets a u32
LONGEST_BURST = 250
"""Seconds: the kernel tells a bucket's depth as a time of 32 bits, of 64 ns each."""
_FASTEST = 10**15  # bits a second, Calico's limit
_MOST_PACKETS = 10**9  # a second: nftables counts nanoseconds for each
_LARGEST_PACKET_BURST = 2**32 - 1
_DEFAULT_BURST = 0.8  # seconds: Neutron's own for TCP (DEFAULT_BURST_RATE)
_DEFAULT_PACKET_BURST = 0.1  # seconds; Neutron has none


@dataclass(frozen=True, slots=True, kw_only=True)
class Bandwidth:
    """A limit in bits a second, and how many bits may pass at once after a pause."""

    rate: int
    burst: int

    def __post_init__(self) -> None:
        if not 1 <= self.rate <= _FASTEST:
            raise Invalid(f"bandwidth of {self.rate} bit/s")
        if not 1 <= self.burst <= min(LARGEST_BURST, LONGEST_BURST * self.rate):
            raise Invalid(f"burst of {self.burst} bits at {self.rate} bit/s")


@dataclass(frozen=True, slots=True, kw_only=True)
class PacketRate:
    """A limit in packets a second, and how many may pass at once after a pause."""

    rate: int
    burst: int

    def __post_init__(self) -> None:
        if not 1 <= self.rate <= _MOST_PACKETS:
            raise Invalid(f"rate of {self.rate} packets/s")
        if not 1 <= self.burst <= _LARGEST_PACKET_BURST:
            raise Invalid(f"burst of {self.burst} packets")


@dataclass(frozen=True, slots=True, kw_only=True)
class Qos:
    """The limits of a port; None is none. `ingress` is what the instance is sent.

    `dscp` is what the packets that it sends are marked with.
    """

    ingress: Bandwidth | None = None
    egress: Bandwidth | None = None
    ingress_packets: PacketRate | None = None
    egress_packets: PacketRate | None = None
    dscp: int | None = None

    def __post_init__(self) -> None:
        if self.dscp is not None and not 0 <= self.dscp <= 63:
            raise Invalid(f"DSCP {self.dscp}")


UNLIMITED = Qos()


def bandwidth(rate: int, burst: int = 0) -> Bandwidth:
    """Return a limit; a burst of 0 is 80% of a second's, as Neutron advises for TCP."""
    default = min(int(rate * _DEFAULT_BURST), LARGEST_BURST)
    return Bandwidth(rate=rate, burst=burst or max(default, 1))


def packet_rate(rate: int, burst: int = 0) -> PacketRate:
    """Return a limit; a burst of 0 is what comes in a tenth of a second."""
    return PacketRate(
        rate=rate, burst=burst or max(int(rate * _DEFAULT_PACKET_BURST), 1)
    )


def encode_qos(qos: Qos) -> Json | None:
    """Return the limits as `qosControls`; None if there are none."""
    controls: Json = {}
    for way, limit, packets in (
        ("ingress", qos.ingress, qos.ingress_packets),
        ("egress", qos.egress, qos.egress_packets),
    ):
        if limit:
            controls |= {f"{way}Bandwidth": limit.rate, f"{way}Burst": limit.burst}
        if packets:
            controls[f"{way}PacketRate"] = packets.rate
            controls[f"{way}PacketBurst"] = packets.burst
    if qos.dscp is not None:
        controls["dscp"] = qos.dscp
    return controls or None


def parse_qos(spec: Json) -> Qos:
    """Return the limits in an endpoint's `spec`; Invalid says what is wrong."""
    controls = spec.get("qosControls")
    return UNLIMITED if controls is None else parse_controls(controls)


def parse_controls(controls: object) -> Qos:
    """Return the limits in `qosControls`; Invalid says what is wrong.

    Another writer may leave bursts out, or write 0 where there is no limit.
    """
    if not isinstance(controls, dict):
        raise Invalid(f"qosControls is {controls!r}")
    return Qos(
        ingress=_bandwidth(controls, "ingress"),
        egress=_bandwidth(controls, "egress"),
        ingress_packets=_packet_rate(controls, "ingress"),
        egress_packets=_packet_rate(controls, "egress"),
        dscp=_number(controls, "dscp") if "dscp" in controls else None,
    )


def _bandwidth(controls: Json, way: str) -> Bandwidth | None:
    rate, burst = (_number(controls, way + name) for name in ("Bandwidth", "Burst"))
    # Others write one large burst for all rates; Neutron's are refused by the API.
    return bandwidth(rate, min(burst, rate * LONGEST_BURST)) if rate else None


def _packet_rate(controls: Json, way: str) -> PacketRate | None:
    rate = _number(controls, f"{way}PacketRate")
    burst = _number(controls, f"{way}PacketBurst")
    return packet_rate(rate, burst) if rate else None


def _number(controls: Json, name: str) -> int:
    value = controls.get(name, 0)
    if not isinstance(value, int) or isinstance(value, bool):
        raise Invalid(f"qosControls: {name} is {value!r}, not a number")
    return value
