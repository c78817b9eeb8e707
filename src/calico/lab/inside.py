"""Sockets inside a lab's network namespaces, without an interface into them.

A socket belongs for life to the namespace that its thread was in when it was made
(network_namespaces(7)), so a thread can go in, make one, and end, while the process
stays where it is.
"""

import ctypes
import os
import socket
import threading
from pathlib import Path

_NAMESPACES = Path("/run/netns")
_CLONE_NEWNET = 0x40000000


def enter(netns: str) -> None:
    """Move the calling thread into a namespace, given by name; OSError if it fails."""
    libc = ctypes.CDLL(None, use_errno=True)
    file = os.open(_NAMESPACES / netns, os.O_RDONLY | os.O_CLOEXEC)
    try:
        if libc.setns(file, _CLONE_NEWNET):
            code = ctypes.get_errno()
            raise OSError(code, f"namespace {netns}: {os.strerror(code)}")
    finally:
        os.close(file)


def connect(netns: str, address: tuple[str, int], timeout: float) -> socket.socket:
    """Return a TCP connection made inside a namespace; OSError if there is none."""
    made: list[socket.socket] = []
    failed: list[OSError] = []

    def inside() -> None:
        try:
            enter(netns)
            made.append(socket.create_connection(address, timeout))
        except OSError as e:
            failed.append(e)

    thread = threading.Thread(target=inside, name=f"inside {netns}")
    thread.start()
    thread.join()
    if failed:
        raise failed[0]
    return made[0]


def udp_socket(netns: str, family: int) -> socket.socket:
    """Return a UDP socket made inside a namespace; OSError if there is none."""
    made: list[socket.socket] = []

    def inside() -> None:
        enter(netns)
        made.append(socket.socket(family, socket.SOCK_DGRAM))

    thread = threading.Thread(target=inside, name=f"inside {netns}")
    thread.start()
    thread.join()
    if not made:
        raise OSError(f"namespace {netns} cannot be entered")
    return made[0]
