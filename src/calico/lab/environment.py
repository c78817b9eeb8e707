"""What a lab needs of the environment that its commands, and so its servers, run in.

Debian's users have no /usr/sbin in their PATH, and `su` keeps it so. A proxy is for the
Internet, and the lab's APIs are on this machine.
"""

import os

_PROGRAMS = ("/usr/sbin", "/sbin")
_DIRECT = ("127.0.0.1", "localhost")
PROXIES = ("no_proxy", "NO_PROXY")  # some programs read the one, some the other


def prepare() -> None:
    """Make the environment fit, for this process and what it starts."""
    os.environ["PATH"] = _extended(os.environ.get("PATH", ""), _PROGRAMS, os.pathsep)
    direct = ",".join(filter(None, map(os.environ.get, PROXIES)))
    for name in PROXIES:
        os.environ[name] = _extended(direct, _DIRECT, ",")


def _extended(value: str, more: tuple[str, ...], separator: str) -> str:
    """Return a list in text with what it lacks at its end, and nothing twice."""
    parts = filter(None, value.split(separator))
    return separator.join(dict.fromkeys([*parts, *more]))
