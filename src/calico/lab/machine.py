"""The machine around an instance: what is between a tap and a guest's card.

A namespace of its own with a bridge. The guest's card is always on it; of the taps,
one or, while the instance moves, two, the one on whose host the guest runs. So the same
guest, with its connections, goes from host to host, and is on one at a time.
"""

import socket
import threading
import time
from contextlib import suppress
from dataclasses import dataclass

from calico.lab import inside, namespaces

_BRIDGE, _CARD = "br0", "card"
_RARP = 0x8035
_ROUNDS = (0.0, 0.05, 0.15, 0.25, 0.35)  # seconds between QEMU's announcements


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """The machine of an instance; `netns` is its own, `guest` the instance's."""

    netns: str
    guest: str

    def create(self, interface: str, mac: str, mtu: int) -> None:
        """Make the guest, and its card with this name and MAC in it, with no tap."""
        namespaces.create([self.netns, self.guest])
        names = ("all", "default")
        quiet = {f"net.ipv6.conf.{name}.disable_ipv6": "1" for name in names}
        namespaces.write_sysctls(self.netns, quiet)
        peer = f"peer name {interface} address {mac} netns {self.guest}"
        namespaces.ip_batch(
            [
                f"link add {_BRIDGE} type bridge mcast_snooping 0",
                f"link set {_BRIDGE} up",
                f"link add {_CARD} mtu {mtu} type veth {peer}",
                f"link set {_CARD} master {_BRIDGE} up",
            ],
            netns=self.netns,
        )

    def plug(self, host: str, host_netns: str, tap: str, mac: str, mtu: int) -> None:
        """Make a tap on a host, up; the guest is not behind it yet."""
        address = f"address {mac}" if mac else ""
        wire = f"type veth peer name {host} mtu {mtu} netns {self.netns}"
        namespaces.ip_batch(
            [f"link add {tap} mtu {mtu} {address} {wire}", f"link set {tap} up"],
            netns=host_netns,
        )
        namespaces.ip_batch([f"link set {host} up"], netns=self.netns)

    def run_on(self, host: str, before: str | None = None) -> None:
        """Have the guest run on a host where it has a tap, no longer on `before`."""
        pause = [f"link set {before} nomaster"] if before else []
        resume = f"link set {host} master {_BRIDGE}"
        namespaces.ip_batch([*pause, resume], netns=self.netns)

    def announce(self, host: str, mac: str) -> None:
        """Say on a host's tap that the guest is there, as QEMU does: by reverse ARP.

        Returns at once; it is said a few times.
        """
        own = bytes.fromhex(mac.replace(":", ""))
        request = b"\x00\x01\x08\x00\x06\x04\x00\x03" + (own + bytes(4)) * 2
        frame = b"\xff" * 6 + own + _RARP.to_bytes(2, "big") + request

        def send() -> None:
            inside.enter(self.netns)
            with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as wire:
                wire.bind((host, 0))
                for pause in _ROUNDS:
                    time.sleep(pause)
                    with suppress(OSError):  # moved on meanwhile
                        wire.send(frame.ljust(60, b"\0"))

        threading.Thread(target=send, name="announce", daemon=True).start()

    def unplug(self, host: str) -> None:
        """Take the tap on a host away."""
        namespaces.ip_batch([f"link delete {host}"], netns=self.netns)

    def delete(self) -> None:
        """Take everything away; what is gone is no error."""
        namespaces.delete([self.guest, self.netns])
