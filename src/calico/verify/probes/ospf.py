"""A real OSPF daemon: BIRD, speaking OSPFv2 and OSPFv3 as it would on a shared link."""

import re
import subprocess
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Self

from calico.verify.cloud import Place

HELLO = 1  # seconds
DEAD = 4
_PROTOCOL_OSPF = 89
_CONFIG = """\
log "{directory}/log" all;
router id {router};
protocol device {{ }}
protocol ospf v2 verify4 {{
  ipv4 {{ import none; export none; }};
  area 0 {{ interface "{interface}" {{ {options} }}; }};
}}
protocol ospf v3 verify6 {{
  ipv6 {{ import none; export none; }};
  area 0 {{ interface "{interface}" {{ {options} }}; }};
}}
"""
_OPTIONS = f"type broadcast; hello {HELLO}; dead {DEAD}; wait {2 * HELLO}; priority 1;"
_NEIGHBOUR = re.compile(r"^(\d+\.\d+\.\d+\.\d+)\s+\d+\s+(\w+)", re.MULTILINE)


class Ospf:
    """One BIRD in a stack, with OSPF on an interface. Use as a context manager.

    `router` is its router id, an IPv4 address in text.
    """

    def __init__(self, place: Place, interface: str, router: str) -> None:
        self.router = router
        self._place = place
        self._interface = interface
        self._directory = tempfile.TemporaryDirectory(prefix="verify-ospf-")
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        directory = Path(self._directory.name)
        config = directory / "bird.conf"
        config.write_text(
            _CONFIG.format(
                directory=directory,
                router=self.router,
                interface=self._interface,
                options=_OPTIONS,
            )
        )
        argv = ["bird", "-f", "-c", str(config), "-s", str(self._control)]
        self._process = self._place.inside(
            lambda: subprocess.Popen(
                argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
            )
        )
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        self._directory.cleanup()

    @property
    def _control(self) -> Path:
        return Path(self._directory.name) / "ctl"

    def speaks(self) -> bool:
        """Whether the daemon runs OSPF on its interface, both versions."""
        return all(
            self._interface in self._ask("show", "ospf", "interface", name)
            for name in ("verify4", "verify6")
        )

    def neighbours(self) -> dict[str, str]:
        """Return the router ids it has heard from, each with the adjacency's state."""
        found: dict[str, str] = {}
        for name in ("verify4", "verify6"):
            found |= dict(
                _NEIGHBOUR.findall(self._ask("show", "ospf", "neighbors", name))
            )
        return found

    def _ask(self, *words: str) -> str:
        argv = ["birdc", "-s", str(self._control), *words]
        return subprocess.run(
            argv, capture_output=True, text=True, check=False, timeout=10
        ).stdout


def is_hello(octets: bytes) -> int | None:
    """Return the IP version if a frame is an OSPF packet, else None."""
    kind = int.from_bytes(octets[12:14], "big")
    if kind == 0x0800 and len(octets) > 23 and octets[23] == _PROTOCOL_OSPF:
        return 4
    if kind == 0x86DD and len(octets) > 20 and octets[20] == _PROTOCOL_OSPF:
        return 6
    return None
