"""An instance's DHCP client: Debian's dhcpcd, with files of its own.

The instances of a lab share the machine's files, so the client runs in a mount
namespace where its leases, its sockets and `/etc/resolv.conf` are private, and in a
host name namespace. What it was handed out is kept for tests and the verifier to read.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

STATE = Path("/run/calico-dhclient")  # a directory for each network namespace

# As cloud images do it: addresses from the MAC, as Neutron computes them for SLAAC.
# The address probes of noarp's absence are worth five seconds for each instance.
# The hook for resolv.conf writes that file, private here, if it finds no resolvconf(8),
# which would tell the machine's own resolver of the guest's DNS servers.
_SETTINGS = """\
duid ll
slaac hwaddr
ipv6rs
noarp
noipv4ll
nodelay
option domain_name_servers, domain_name, domain_search, host_name
option classless_static_routes, interface_mtu, ntp_servers
option tftp_server_name, bootfile_name
option dhcp6_name_servers, dhcp6_domain_search, dhcp6_bootfile_url
option dhcp6_sntp_servers
env resolvconf=/nonexistent
nohook hostname, ntp-common.conf, chrony.conf, timesyncd.conf, openntpd.conf
"""

# Keeps the variables of each kind of answer (dhcpcd-run-hooks(8)), then configures.
_HOOK = """\
#!/bin/sh
case $reason in
BOUND|RENEW|REBIND|REBOOT|INFORM) kind=dhcp4 ;;
BOUND6|RENEW6|REBIND6|REBOOT6|INFORM6) kind=dhcp6 ;;
ROUTERADVERT) kind=ra ;;
*) kind= ;;
esac
if [ "$kind" ]; then
    env > "{state}/$kind.new" && mv "{state}/$kind.new" "{state}/$kind"
fi
exec /usr/lib/dhcpcd/dhcpcd-run-hooks
"""

_ENTER = """\
mkdir -p /run/dhcpcd
mount --bind "$1/lib" /var/lib/dhcpcd
mount --bind "$1/run" /run/dhcpcd
mount --bind "$1/resolv.conf" /etc/resolv.conf
shift
exec "$@"
"""


# `ip netns exec` has a mount namespace of its own: nobody else sees this file there.
_TELL = """\
mount --bind "$1" /etc/resolv.conf
shift
exec "$@"
"""


def told(netns: str, command: Sequence[str]) -> Sequence[str]:
    """Return a command that resolves names as the client of a namespace was told.

    To be run by `ip netns exec`. Where there is no client it is the command itself.
    """
    own = state_of(netns) / "resolv.conf"
    if not own.exists():
        return command
    return ["sh", "-euc", _TELL, "sh", str(own), *command]


def state_of(netns: str) -> Path:
    """Return where the client of a network namespace keeps its files."""
    return STATE / netns


def command(interface: str, state: Path, *arguments: str) -> list[str]:
    """Return the command that configures `interface` and stays to renew the leases.

    To be run in the instance's network namespace; `prepare(state)` first. It does
    DHCPv4, and of DHCPv6 and SLAAC what router advertisements ask for. `arguments` are
    dhcpcd's own.
    """
    client = ["dhcpcd", "--nobackground", "--config", f"{state}/dhcpcd.conf"]
    hook = ["--script", f"{state}/hook"]
    enter = ["unshare", "--mount", "--uts", "--propagation", "private", "--"]
    shell = ["sh", "-euc", _ENTER, "sh", str(state)]
    return [*enter, *shell, *client, *hook, *arguments, interface]


def prepare(state: Path) -> None:
    """Make the client's files in `state`; what an earlier client left there goes."""
    shutil.rmtree(state, ignore_errors=True)
    for name in ("lib", "run"):
        (state / name).mkdir(parents=True)
    (state / "resolv.conf").touch()
    (state / "dhcpcd.conf").write_text(_SETTINGS)
    hook = state / "hook"
    hook.write_text(_HOOK.format(state=state))
    hook.chmod(0o755)


def lease(state: Path) -> dict[str, dict[str, str]]:
    """Return what a client was handed out: by `dhcp4`, `dhcp6` and `ra`.

    Each maps dhcpcd's names (`ip_address`, `interface_mtu`, `dhcp6_name_servers`,
    `nd1_prefix_information1_prefix`...) to values; one that did not answer is missing.
    """
    found = {}
    for kind in ("dhcp4", "dhcp6", "ra"):
        if (state / kind).exists():
            pairs = (
                line.partition("=") for line in (state / kind).read_text().splitlines()
            )
            found[kind] = {
                name.removeprefix("new_"): value
                for name, _, value in pairs
                if name.startswith(("new_", "nd"))
            }
    return found


def main(arguments: Sequence[str]) -> None:
    """Become the client of the interface named, in the network namespace at hand."""
    interface, *rest = arguments
    identify = ["ip", "netns", "identify", str(os.getpid())]
    netns = subprocess.run(identify, capture_output=True, text=True, check=True).stdout
    state = state_of(netns.strip() or "root")
    prepare(state)
    argv = command(interface, state, *rest)
    os.execvp(argv[0], argv)  # noqa: S606 - it becomes the client


if __name__ == "__main__":
    main(sys.argv[1:])
