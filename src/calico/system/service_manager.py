"""Tells systemd that the agent is ready, as sd_notify(3) does: one datagram."""

import os
import socket


def notify_ready() -> None:
    """Say READY=1 where somebody asked to be told; OSError if he cannot be."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return
    if address.startswith("@"):  # in the abstract namespace (unix(7))
        address = "\0" + address[1:]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.sendto(b"READY=1", address)
