"""A host with instances, as far as DHCP needs it: bridge, taps, routes, clients."""

import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from ipaddress import ip_address
from itertools import count
from pathlib import Path
from typing import Self

from tests.kernel.netns import Netns, eventually, in_netns

from calico.lab import dhclient
from calico.lab.processes import kill_inhabitants
from calico.model.ids import (
    DeviceId,
    HostName,
    Mac,
    NetworkId,
    PortId,
    ProjectId,
    SubnetId,
    host_side_mac,
    tap_name,
)
from calico.model.records import DhcpOption, Endpoint, Subnet
from calico.model.world import World
from calico.plan.dnsmasq import BRIDGE, plan_dnsmasq
from calico.reconcile.problem import Problem
from calico.system.dhcp import DhcpService

HOST = HostName("host-1")


def endpoint(
    number: int,
    *addresses: str,
    network: str = "net-1",
    mac: str | None = None,
    options: tuple[DhcpOption, ...] = (),
    fqdn: str | None = None,
) -> Endpoint:
    port = PortId(f"{number:08x}-0000-4000-8000-000000000000")
    return Endpoint(
        host=HOST,
        device=DeviceId(f"device-{number}"),
        port=port,
        interface=tap_name(port),
        mac=Mac(mac or f"fa:16:3e:00:00:{number:02x}"),
        network=NetworkId(network),
        project=ProjectId("project"),
        addresses=tuple(ip_address(address) for address in addresses),
        dhcp_options=options,
        fqdn=fqdn,
    )


def world(endpoints: list[Endpoint], subnets: list[Subnet]) -> World:
    return World(
        host=HOST,
        endpoints=tuple(sorted(endpoints, key=lambda e: e.port)),
        subnets={SubnetId(s.id): s for s in subnets},
    )


class Guest:
    """An instance: a namespace with `eth0`, whose other end is the host's tap."""

    def __init__(self, netns: Netns, state: Path) -> None:
        self.netns = netns
        self.state = state

    def start_client(self, *arguments: str) -> None:
        dhclient.prepare(self.state)
        log = (self.state / "log").open("w")
        with log:
            self.client = self.netns.popen(
                dhclient.command("eth0", self.state, *arguments),
                stdout=log,
                stderr=log,
            )

    def lease(self, kind: str, timeout: float = 15) -> dict[str, str]:
        """Wait for an answer: `dhcp4`, `dhcp6` or `ra`."""
        kept = lambda: dhclient.lease(self.state).get(kind)  # noqa: E731
        eventually(kept, timeout, self.said)
        return dhclient.lease(self.state)[kind]

    def said(self) -> str:
        return (self.state / "log").read_text()

    def stop_client(self) -> None:
        """End the client; its own processes have sessions of their own."""
        kill_inhabitants([self.netns.name])
        self.client.wait()

    def has(self, text: str, *ip_arguments: str) -> None:
        """Wait until `ip ARGUMENTS` in the guest prints `text`."""
        eventually(
            lambda: text in self.netns.ip(*ip_arguments),
            15,
            lambda: self.netns.ip(*ip_arguments) + self.said(),
        )


class Asking:
    """A client that asks for an offer again and again and counts the answers."""

    def __init__(self, netns: Netns) -> None:
        self.answered = self.unanswered = 0
        self._netns = netns
        self._enough = threading.Event()
        self._thread = threading.Thread(target=self._ask)

    def __enter__(self) -> Self:
        self._thread.start()
        eventually(lambda: self.answered > 0)
        return self

    def __exit__(self, *error: object) -> None:
        self._enough.set()
        self._thread.join()

    def _ask(self) -> None:
        with in_netns(self._netns):
            asking = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        mac = bytes.fromhex(
            self._netns.run(["cat", "/sys/class/net/eth0/address"]).stdout.replace(
                ":", ""
            )
        )
        with asking:
            asking.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"eth0")
            asking.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
            asking.bind(("0.0.0.0", 68))
            asking.settimeout(1)
            for number in count(1):
                asking.sendto(_discover(number, mac), ("255.255.255.255", 67))
                try:
                    # Two answer while the one takes over from the other.
                    while asking.recv(1500)[4:8] != number.to_bytes(4, "big"):
                        pass
                    self.answered += 1
                except TimeoutError:
                    self.unanswered += 1
                if self._enough.is_set():
                    return


def _discover(number: int, mac: bytes) -> bytes:
    """A DHCPDISCOVER (RFC 2131 2) that wants its answer broadcast."""
    fixed = struct.pack("!4BIHH16x", 1, 1, 6, 0, number, 0, 0x8000)
    options = bytes([99, 130, 83, 99, 53, 1, 1, 255])
    return fixed + mac.ljust(16, b"\0") + bytes(192) + options + bytes(60)


class DhcpHost:
    """A host namespace that serves a world with the real daemons; a context manager."""

    def __init__(self, run_dir: Path) -> None:
        self.run_dir = run_dir
        self.netns = Netns("host")
        self.service = DhcpService(run_dir)
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        self._stack.enter_context(self.netns)
        self._stack.callback(self.service.stop)
        for name in ("ipv4/ip_forward", "ipv6/conf/all/forwarding"):
            self.netns.sysctl(f"net/{name}", 1)
        # As on any host: the router's own address is not up for discussion.
        self.netns.sysctl("net/ipv6/conf/default/accept_dad", 0)
        self.netns.ip("link", "add", BRIDGE, "type", "bridge")
        self.netns.ip("link", "set", BRIDGE, "up")
        # What instances ask of the world behind the host.
        self.netns.ip("address", "add", "198.51.100.80/32", "dev", "lo")
        self.netns.ip("address", "add", "2001:db8:ffff::80/128", "dev", "lo", "nodad")
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    def apply(self, wanted: World) -> list[Problem]:
        present = self.netns.ip("-o", "address", "show", "dev", BRIDGE)
        for gateway in plan_dnsmasq(wanted).gateways:
            if f" {gateway} " not in present:
                self.netns.ip(
                    *("address", "add", str(gateway), "dev", BRIDGE),
                    *("noprefixroute", "nodad"),
                )
        with in_netns(self.netns):
            return self.service.apply(wanted)

    def running(self, program: str) -> int:
        """Return how many processes of a program there are for this host."""
        found = 0
        for file in Path("/proc").glob("[0-9]*/cmdline"):
            with suppress(OSError):  # it ended meanwhile
                command = file.read_text().split("\0")
                found += command[0] == program and str(self.run_dir) in "".join(command)
        return found

    def log(self) -> str:
        files = sorted(self.run_dir.glob("dnsmasq-?.log"))
        return "".join(file.read_text() for file in files)

    def remove_gateway(self, address: str) -> None:
        self.netns.ip("address", "del", address, "dev", BRIDGE)

    def guest(self, port: Endpoint) -> Guest:
        """Attach an instance to the port's tap; its client is not started."""
        tap = port.interface
        netns = self._stack.enter_context(Netns("guest"))
        self.netns.ip(
            *("link", "add", tap, "address", host_side_mac(port.mac), "type", "veth"),
            *("peer", "name", "eth0", "address", port.mac, "netns", netns.name),
        )
        self.netns.sysctl(f"net/ipv4/conf/{tap}/proxy_arp", 1)
        self.netns.sysctl(f"net/ipv4/neigh/{tap}/proxy_delay", 0)
        self.netns.ip("link", "set", tap, "up")
        for address in port.addresses:
            self.netns.ip("route", "add", str(address), "dev", tap)
        netns.ip("link", "set", "eth0", "up")
        guest = Guest(netns, self.run_dir / f"client-{port.interface}")
        self._stack.callback(kill_inhabitants, [netns.name])
        return guest

    def remove(self, port: Endpoint) -> None:
        self.netns.ip("link", "del", port.interface)


@contextmanager
def dhcp_host(directory: Path) -> Iterator[DhcpHost]:
    """A host whose files everyone may read, as dnsmasq's user has to."""
    for part in (directory, *directory.parents[:2]):
        part.chmod(0o755)
    with DhcpHost(directory) as host:
        yield host
