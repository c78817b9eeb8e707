"""What BIRD says of itself through its control socket, parsed.

Replies are lines of a four-digit code, '-' where more lines follow, and text; a line
that repeats the code has a space in its place (BIRD's programmer's manual, "Commands").
"""

import re
from dataclasses import dataclass
from ipaddress import ip_address

from calico.model.ids import Address

_LINE = re.compile(r"(?P<code>\d{4})(?P<more>[ -])(?P<text>.*)")
_ROUTES = re.compile(r"(\d+) imported(?:, \d+ filtered)?, (\d+) exported")


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer of BIRD: its final code and all its text."""

    code: int
    text: str

    @property
    def failed(self) -> bool:
        """Return whether BIRD refused: codes from 8000 are run-time, 9000 syntax."""
        return self.code >= 8000


@dataclass(frozen=True, slots=True, kw_only=True)
class ProtocolStatus:
    """One of BIRD's protocols: a BGP session has a neighbour, others have none.

    `state` is BIRD's ("up", "start", "down"), `detail` a session's state in words,
    such as "Established". The counts are of routes, all channels together.
    """

    name: str
    kind: str
    state: str
    detail: str = ""
    neighbor: Address | None = None
    imported: int = 0
    exported: int = 0

    @property
    def established(self) -> bool:
        """Return whether it is a BGP session that exchanges routes."""
        return self.kind == "BGP" and self.detail.startswith("Established")


def parse_reply(received: str) -> Reply | None:
    """Return the reply in what was received so far; None while it is incomplete."""
    if not received.endswith("\n"):
        return None
    texts: list[str] = []
    for line in received.splitlines():
        match = _LINE.fullmatch(line)
        texts.append(match["text"] if match else line[1:])
        if match and match["more"] == " ":
            return Reply(int(match["code"]), "\n".join(texts).strip())
    return None


def parse_protocols(text: str) -> tuple[ProtocolStatus, ...]:
    """Return the protocols in the text of a reply to `show protocols all`."""
    blocks = re.split(r"\n(?=\S)", text)
    found = [_parse_protocol(block) for block in blocks if block.strip()]
    return tuple(protocol for protocol in found if protocol is not None)


def _parse_protocol(block: str) -> ProtocolStatus | None:
    first, *rest = block.splitlines()
    words = first.split(maxsplit=5)
    if len(words) < 5 or words[0] == "Name":
        return None
    name, kind, _, state = words[:4]
    neighbor = None
    imported = exported = 0
    for line in rest:
        label, _, value = line.strip().partition(":")
        if label == "Neighbor address":
            neighbor = ip_address(value.strip())
        elif label == "Routes" and (counts := _ROUTES.search(value)):
            imported += int(counts[1])
            exported += int(counts[2])
    return ProtocolStatus(
        name=name,
        kind=kind,
        state=state,
        detail=words[5].strip() if len(words) > 5 else "",
        neighbor=neighbor,
        imported=imported,
        exported=exported,
    )
