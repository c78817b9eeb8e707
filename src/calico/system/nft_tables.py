"""Whether nftables has a table at all, asked of the kernel by name: two messages.

Listing a table says nothing both of one that is absent and of one that could not be
listed; what is made anew where it is absent must not be where it is unreadable.
"""

import errno
import os
import socket
import struct

_NETFILTER = 12  # NETLINK_NETFILTER
_GET_TABLE = 10 << 8 | 1  # NFNL_SUBSYS_NFTABLES, NFT_MSG_GETTABLE
_REQUEST = 1  # NLM_F_REQUEST
_ERROR = 2  # NLMSG_ERROR
_NAME = 1  # NFTA_TABLE_NAME
_HEADER = struct.Struct("=IHHIIBBH")  # struct nlmsghdr, then struct nfgenmsg
_FAMILIES = {"inet": 1, "ip": 2, "arp": 3, "netdev": 5, "bridge": 7, "ip6": 10}


def has_table(family: str, name: str) -> bool:
    """Return whether there is a table; OSError if the kernel does not say."""
    text = name.encode() + b"\0"
    attribute = struct.pack("=HH", 4 + len(text), _NAME) + text
    attribute += bytes(-len(attribute) % 4)
    length = _HEADER.size + len(attribute)
    header = (length, _GET_TABLE, _REQUEST, 1, 0, _FAMILIES[family], 0, 0)
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETFILTER) as kernel:
        kernel.settimeout(10)
        kernel.send(_HEADER.pack(*header) + attribute)
        reply = kernel.recv(4096)
    _, kind = struct.unpack_from("=IH", reply)
    if kind != _ERROR:
        return True
    (code,) = struct.unpack_from("=i", reply, 16)
    if -code == errno.ENOENT:
        return False
    raise OSError(-code, f"table {family} {name}: {os.strerror(-code)}")
