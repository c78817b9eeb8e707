"""Sockets that hear of one interface only, whatever address they have."""

import socket
from ipaddress import IPv4Address

from calico.model.ids import Address

_BIND_TO_INDEX = 62  # SO_BINDTOIFINDEX, linux/socket.h
_FREEBIND = {4: (socket.IPPROTO_IP, 15), 6: (socket.IPPROTO_IPV6, 78)}  # *_FREEBIND


def bound(
    kind: socket.SocketKind, index: int, address: Address, port: int
) -> socket.socket:
    """Return a socket of an address and of one interface; OSError if there is none.

    The address need not be there yet: that comes and goes with the kernel's state.
    """
    four = isinstance(address, IPv4Address)
    found = socket.socket(socket.AF_INET if four else socket.AF_INET6, kind)
    try:
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        found.setsockopt(socket.SOL_SOCKET, _BIND_TO_INDEX, index)
        found.setsockopt(*_FREEBIND[address.version], 1)
        if four:
            found.bind((str(address), port))
        else:
            found.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            scope = index if address.is_link_local else 0
            found.bind((str(address), port, 0, scope))
        found.setblocking(False)
    except OSError:
        found.close()
        raise
    return found
