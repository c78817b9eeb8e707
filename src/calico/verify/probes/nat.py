"""NAT on a host: entries of the connection table whose two directions do not match."""

from calico.verify.cloud import CloudError, Place


def translations(place: Place) -> list[str]:
    """Return the translated connections that a stack tracks, as conntrack(8) shows.

    CloudError where the table cannot be read: unread is not empty.
    """
    found: list[str] = []
    for family in ("ipv4", "ipv6"):
        done = place.run(["conntrack", "-L", "-f", family, "--any-nat"])
        if done.returncode != 0:
            raise CloudError(f"conntrack in {place.name}: {done.stderr.strip()}")
        found += [line.strip() for line in done.stdout.splitlines() if line.strip()]
    return found
