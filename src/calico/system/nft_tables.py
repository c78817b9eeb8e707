"""Whether nftables has a table, or a chain, asked of the kernel by name: two messages.

Listing a table says nothing both of one that is absent and of one that could not be
listed; what is made anew where it is absent must not be where it is unreadable.
"""

import errno
import os
import socket
import struct

from calico.system.nfnetlink import attribute

_NETFILTER = 12  # NETLINK_NETFILTER
_GET_TABLE = 10 << 8 | 1  # NFNL_SUBSYS_NFTABLES, NFT_MSG_GETTABLE
_REQUEST = 1  # NLM_F_REQUEST
_ERROR = 2  # NLMSG_ERROR
_GET_CHAIN = 10 << 8 | 4  # NFT_MSG_GETCHAIN
_TABLE_NAME = 1  # NFTA_TABLE_NAME
_CHAIN_TABLE, _CHAIN_NAME = 1, 3  # NFTA_CHAIN_TABLE, NFTA_CHAIN_NAME
_HEADER = struct.Struct("=IHHIIBBH")  # struct nlmsghdr, then struct nfgenmsg
_FAMILIES = {"inet": 1, "ip": 2, "arp": 3, "netdev": 5, "bridge": 7, "ip6": 10}


def has_table(family: str, name: str) -> bool:
    """Return whether there is a table; OSError if the kernel does not say."""
    return _has(family, _GET_TABLE, {_TABLE_NAME: name})


def has_chain(family: str, table: str, name: str) -> bool:
    """Return whether a table has a chain; OSError if the kernel does not say."""
    return _has(family, _GET_CHAIN, {_CHAIN_TABLE: table, _CHAIN_NAME: name})


def _has(family: str, kind: int, names: dict[int, str]) -> bool:
    attributes = b"".join(
        attribute(number, name.encode() + b"\0") for number, name in names.items()
    )
    length = _HEADER.size + len(attributes)
    header = (length, kind, _REQUEST, 1, 0, _FAMILIES[family], 0, 0)
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETFILTER) as kernel:
        kernel.settimeout(10)
        kernel.send(_HEADER.pack(*header) + attributes)
        reply = kernel.recv(4096)
    _, answer = struct.unpack_from("=IH", reply)
    if answer != _ERROR:
        return True
    (code,) = struct.unpack_from("=i", reply, 16)
    if -code == errno.ENOENT:
        return False
    text = " ".join(names.values())
    raise OSError(-code, f"table {family} {text}: {os.strerror(-code)}")
