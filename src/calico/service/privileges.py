"""Giving up what root may do, but for listening on a port below 1024."""

import ctypes
import os
import pwd
import struct

USER = "nobody"
_KEEP_CAPABILITIES, _NO_NEW_PRIVILEGES = 8, 38  # PR_SET_*
_VERSION = 0x20080522  # _LINUX_CAPABILITY_VERSION_3
_NET_BIND_SERVICE = 1 << 10
_LIBC = ctypes.CDLL(None, use_errno=True)


def drop_privileges() -> None:
    """Go on as `nobody`, unless this is not root's process; OSError if refused.

    To be called before there are threads: a capability is a thread's.
    """
    if os.geteuid() != 0:
        return
    user = pwd.getpwnam(USER)
    _check(_LIBC.prctl(_KEEP_CAPABILITIES, 1, 0, 0, 0))
    os.setgroups([])
    os.setresgid(user.pw_gid, user.pw_gid, user.pw_gid)
    os.setresuid(user.pw_uid, user.pw_uid, user.pw_uid)
    header = struct.pack("=Ii", _VERSION, 0)
    # Effective, permitted and inheritable: the lower 32, then the upper.
    wanted = struct.pack("=6I", _NET_BIND_SERVICE, _NET_BIND_SERVICE, 0, 0, 0, 0)
    _check(_LIBC.capset(header, wanted))
    _check(_LIBC.prctl(_NO_NEW_PRIVILEGES, 1, 0, 0, 0))


def _check(result: int) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
