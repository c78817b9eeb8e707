"""NAT on a host: entries of the connection table whose two directions do not match."""

from collections import defaultdict

from calico.verify.cloud import CloudError, Place

_MIRRORED = (("src", "dst"), ("sport", "dport"), ("id", "id"))


def translations(place: Place) -> list[str]:
    """Return the translated connections that a stack tracks, as conntrack(8) shows.

    CloudError where the table cannot be read: unread is not empty.

    Its own `--any-nat` takes every ping for translated on a host with a NAT rule, used
    or not: it compares the identifier with the type and code (NFCT_GOPT_IS_SPAT).
    """
    found: list[str] = []
    for family in ("ipv4", "ipv6"):
        done = place.run(["conntrack", "-L", "-f", family])
        if done.returncode != 0:
            raise CloudError(f"conntrack in {place.name}: {done.stderr.strip()}")
        lines = (line.strip() for line in done.stdout.splitlines())
        found += [line for line in lines if line and is_translated(line)]
    return found


def is_translated(line: str) -> bool:
    """Tell whether the answers of a connection are other than its first packet's."""
    words: dict[str, list[str]] = defaultdict(list)
    for word in line.split():
        name, _, value = word.partition("=")
        words[name].append(value)
    return any(
        words[there][:1] != words[back][1:2] or words[back][:1] != words[there][1:2]
        for there, back in _MIRRORED
    )
