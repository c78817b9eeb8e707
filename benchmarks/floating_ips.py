"""What 1,000 floating IPs on a host cost, in what one costs; and how soon one answers.

python benchmarks/floating_ips.py [LAB]   (root; a lab of its own if none)

Two hosts of one rack serve the same ports; one of them has 1,000 floating IPs, the
other one. From the Internet, the two by turns: round trips of a flow, first packets of
new flows, and what one more floating IP takes from etcd's word to the kernel's route.
Last an association by the API, until the Internet is answered. What is in etcd only,
most of the floating IPs, Neutron knows nothing of.
"""

import itertools
import json
import os
import socket
import statistics
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from functools import partial
from ipaddress import IPv4Address, ip_network
from typing import Any

from calico.lab import build, environment, inside
from calico.lab.lab import Lab, Plan
from calico.model.codec import encode_endpoint, encode_subnet
from calico.model.ids import (
    DeviceId,
    HostName,
    Mac,
    NetworkId,
    PortId,
    ProjectId,
    SubnetId,
    tap_name,
)
from calico.model.keys import Keys
from calico.model.records import Endpoint, Nat, Subnet
from calico.plan.items import PROTOCOL

FEW, MANY = "host-1-1", "host-1-2"
CLIENT = "internet"
FLOATING = 1000
PORTS = 50
ROUNDS = 15
ASSOCIATIONS = 11
PACKETS = 1500
KEYS = Keys()
_ECHO_REPLY = 0
_CALM = 1.0  # seconds in which what the last change caused, here and there, is over
_ROUTES = 0x40  # RTMGRP_IPV4_ROUTE
_NEW_ROUTE, _DEL_ROUTE = 24, 25  # RTM_*
FLOWS = itertools.count(1)
_FIXED, _SPACE = ip_network("10.210.0.0/24"), ip_network("203.0.112.0/21")


@dataclass(frozen=True)
class Bed:
    """A lab with an instance on each of the two hosts, and their floating IPs."""

    lab: Lab
    addresses: dict[str, str]  # of the instances' floating IPs, by host

    def endpoint(self, host: str, number: int, nats: Sequence[IPv4Address]) -> Endpoint:
        """Return a port of a host that nobody but etcd knows."""
        port = PortId(f"f{host[-1]}{number:06x}-be-bench")
        internal = _FIXED[number]
        return Endpoint(
            host=HostName(host),
            device=DeviceId(f"bench{number}"),
            port=port,
            interface=tap_name(port),
            mac=Mac(f"fa:16:3f:00:0{host[-1]}:{number:02x}"),
            network=NetworkId("bench"),
            project=ProjectId("bench"),
            addresses=(internal,),
            nats=tuple(Nat(internal=internal, external=e) for e in nats),
        )

    def publish(self, *endpoints: Endpoint) -> None:
        """Write ports' records to etcd in one transaction."""
        self.lab.store.put(
            {
                KEYS.endpoint(e.host, e.device, e.port): encode_endpoint(e)
                for e in endpoints
            }
        )


def serve_ports(bed: Bed) -> None:
    """Give both hosts the same ports, and one of them nearly all floating IPs."""
    subnets = {"fixed": _FIXED, "space": _SPACE}
    bed.lab.store.put(
        {
            KEYS.subnet(SubnetId(f"bench-{name}")): encode_subnet(
                Subnet(
                    id=SubnetId(f"bench-{name}"),
                    network=NetworkId("bench"),
                    prefix=prefix,
                    project=ProjectId("bench"),
                    dhcp=False,
                )
            )
            for name, prefix in subnets.items()
        }
    )
    for host in (FEW, MANY):
        ports = [
            bed.endpoint(host, n, floating_of(n) if host == MANY else ())
            for n in range(1, PORTS + 1)
        ]
        taps = [(one.interface, f"p{one.interface[3:]}") for one in ports]
        run_ip(bed, host, [f"link add {t} type veth peer name {p}" for t, p in taps])
        run_ip(bed, host, [f"link set {p} up" for _, p in taps])
        for start in range(0, PORTS, 10):
            bed.publish(*ports[start : start + 10])
    await_count(bed, MANY, FLOATING)
    last = str(floating_of(PORTS)[-1])
    for address in (*bed.addresses.values(), last):
        await_way(bed, address)


def run_ip(bed: Bed, host: str, lines: Sequence[str]) -> None:
    """Run `ip` on a host with these lines."""
    argv = ["ip", "-n", bed.lab.netns_of(host), "-batch", "-"]
    subprocess.run(argv, input="\n".join(lines).encode(), check=True)


def await_count(bed: Bed, host: str, count: int) -> None:
    """Wait until a host translates that many floating IPs at least."""
    argv = ["nft", "-j", "list", "map", "inet", "calico", "floating4"]
    for _ in range(600):
        listed = json.loads(bed.lab.run(host, argv).stdout)["nftables"][1]["map"]
        if len(listed.get("elem", ())) >= count:
            return
        time.sleep(0.1)
    sys.exit(f"{host} does not translate {count} floating IPs")


def await_way(bed: Bed, address: str, *, exists: bool = True) -> None:
    """Wait until the Internet has a route to an address, or has none."""
    for _ in range(600):
        found = bed.lab.run(CLIENT, ["ip", "route", "show", address]).stdout
        if bool(found) == exists:
            return
        time.sleep(0.1)
    sys.exit(f"the Internet's route to {address}: {found!r}")


def asking(netns: str) -> socket.socket:
    """Return a socket of a namespace that asks for echoes.

    It is the kernels that answer: no process has to wake up for it.
    """
    made = inside_of(netns, partial(socket.socket, socket.AF_INET, socket.SOCK_RAW, 1))
    made.settimeout(1)
    return made


def inside_of(netns: str, make: Callable[[], socket.socket]) -> socket.socket:
    """Return a socket that is made in a namespace."""
    made: list[socket.socket] = []

    def run() -> None:
        inside.enter(netns)
        made.append(make())

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    return made[0]


def echoes(bed: Bed, host: str, *, anew: bool) -> float:
    """Return the seconds that an echo takes; `anew`: each of a flow of its own."""
    with asking(bed.lab.netns_of(CLIENT)) as client:
        client.connect((bed.addresses[host], 0))
        packets = [echo_request(next(FLOWS))]
        if anew:
            packets = [echo_request(next(FLOWS)) for _ in range(PACKETS)]
        start = time.perf_counter()
        for packet in packets * (PACKETS // len(packets)):
            client.send(packet)
            client.recv(64)
        return (time.perf_counter() - start) / PACKETS


def echo_request(flow: int) -> bytes:
    """Return an echo request whose identifier, and so whose connection, is this."""
    words = struct.pack(">BBHHH", 8, 0, 0, flow % 0xFFFF, 1)
    total = sum(struct.unpack(">4H", words))
    checksum = ~((total & 0xFFFF) + (total >> 16)) & 0xFFFF
    return struct.pack(">BBHHH", 8, 0, checksum, flow % 0xFFFF, 1)


def change(bed: Bed, host: str) -> float:
    """Return the seconds from etcd's word of a floating IP to the kernel's route."""
    before = floating_of(PORTS) if host == MANY else []
    new = IPv4Address(int(_SPACE[-2]) - (host == MANY))
    netns = bed.lab.netns_of(host)
    with inside_of(
        netns, partial(socket.socket, socket.AF_NETLINK, socket.SOCK_RAW, 0)
    ) as told:
        told.bind((0, _ROUTES))
        told.settimeout(30)
        time.sleep(_CALM)
        start = time.perf_counter()
        bed.publish(bed.endpoint(host, PORTS, [*before, new]))
        await_route(told, _NEW_ROUTE, new)
        taken = time.perf_counter() - start
        bed.publish(bed.endpoint(host, PORTS, before))
        await_route(told, _DEL_ROUTE, new)
    return taken


def await_route(told: socket.socket, kind: int, address: IPv4Address) -> None:
    """Wait until the kernel tells that a host's own route came or went."""
    while True:
        message = told.recv(1 << 16)
        found, protocol = struct.unpack_from("=H", message, 4)[0], message[16 + 5]
        if (found, protocol) == (kind, PROTOCOL) and address.packed in message:
            return


def floating_of(number: int) -> list[IPv4Address]:
    """Return the floating IPs of a port of the host that has many."""
    share = FLOATING // PORTS
    first = int(_SPACE[0]) + share * number
    return [IPv4Address(first + i) for i in range(share)]


def association(bed: Bed, api: Any, floating: Any, port: str) -> tuple[float, float]:
    """Return the seconds from the API's call, and its answer, to the Internet's."""
    there = (floating.floating_ip_address, 0)
    answered: list[float] = []
    with asking(bed.lab.netns_of(CLIENT)) as client:
        client.settimeout(0.005)

        def ask() -> None:
            while not answered:
                with suppress(OSError):  # there is no way, or no answer yet
                    client.sendto(echo_request(next(FLOWS)), there)
                    packet, source = client.recvfrom(64)
                    if source == there and packet[20] == _ECHO_REPLY:
                        answered.append(time.perf_counter())

        thread = threading.Thread(target=ask)
        thread.start()
        start = time.perf_counter()
        api.update_ip(floating, port_id=port)
        called = time.perf_counter()
        thread.join()
    api.update_ip(floating, port_id=None)
    await_way(bed, there[0], exists=False)
    return answered[0] - start, answered[0] - called


def by_turns(bed: Bed, measure: Callable[[Bed, str], float]) -> float:
    """Return what the host with many costs, in what the one with few does."""
    measured: dict[str, list[float]] = {FEW: [], MANY: []}
    for turn in range(ROUNDS + 1):
        for host in (FEW, MANY) if turn % 2 else (MANY, FEW):
            taken = measure(bed, host)
            if turn:  # the first warms up
                measured[host].append(taken)
    few, many = (statistics.median(measured[host]) for host in (FEW, MANY))
    print(f"  {1000 * few:.3f} ms with one, {1000 * many:.3f} ms with {FLOATING:,}")
    return many / few


def main(name: str | None) -> None:
    """Print the ratios, and how soon an association is seen from outside."""
    with ExitStack() as cleanup:
        if name is None:
            lab = build.up(Plan(name=f"bench{os.getpid()}"), print)
            cleanup.callback(build.down, lab.name)
        else:
            lab = Lab.load(name)
        public, network = make_networks(lab)
        api = lab.connection("demo1").network
        group = api.create_security_group(name="bench").id
        rule = {"direction": "ingress", "ether_type": "IPv4"}
        api.create_security_group_rule(security_group_id=group, **rule)

        def start(instance: str, host: str) -> str:
            made = lab.create_instance(
                instance, network=network, host=host, security_groups=[group]
            )
            cleanup.callback(lab.delete_instance, instance)
            return made.port_id

        addresses = {}
        for host, instance in ((FEW, "bfew"), (MANY, "bmany")):
            floating = api.create_ip(
                floating_network_id=public, port_id=start(instance, host)
            )
            addresses[host] = floating.floating_ip_address
        bed = Bed(lab, addresses)
        serve_ports(bed)
        for what, measure in (
            ("a packet of a flow", partial(echoes, anew=False)),
            ("a flow's first packet", partial(echoes, anew=True)),
            ("a change", change),
        ):
            print(f"{what}: {by_turns(bed, measure):.2f}", flush=True)
        floating = api.create_ip(floating_network_id=public)
        tell_associations(bed, api, floating, start("bthird", MANY))


def make_networks(lab: Lab) -> tuple[str, str]:
    """Make an external network and one of a project, with a router between them."""
    api, admin = lab.connection("demo1").network, lab.connection().network
    public = admin.create_network(name="benchpublic", is_router_external=True).id
    admin.create_subnet(network_id=public, ip_version=4, cidr="203.0.120.0/24")
    network = api.create_network(name="benchmark").id
    subnet = api.create_subnet(network_id=network, ip_version=4, cidr="10.209.0.0/24")
    gateway = {"network_id": public}
    router = api.create_router(name="bench", external_gateway_info=gateway)
    api.add_interface_to_router(router, subnet_id=subnet.id)
    return public, network


def tell_associations(bed: Bed, api: Any, floating: Any, port: str) -> None:
    """Print how soon the Internet is answered after an association by the API."""
    taken = [association(bed, api, floating, port) for _ in range(ASSOCIATIONS)]
    for number, what in enumerate(("call", "answer")):
        values = [seconds[number] for seconds in taken]
        print(
            f"from the API's {what} to the Internet's first answer: median "
            f"{statistics.median(values):.2f} s, worst {max(values):.2f} s"
        )


if __name__ == "__main__":
    environment.prepare()
    main(sys.argv[1] if len(sys.argv) > 1 else None)
