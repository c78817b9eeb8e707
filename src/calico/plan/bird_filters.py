"""The filters of a host's BIRD: no foreign prefix in, none out.

A route may be exchanged if it lies within one of the cloud's subnets. The host says
which of its own routes are instances' by their protocol number in the kernel.
"""

from collections.abc import Collection
from ipaddress import collapse_addresses

from calico.model.ids import Address, Prefix
from calico.plan.items import PROTOCOL, YIELDING_METRIC

_OURS = f"krt_source = {PROTOCOL}"  # how the kernel tells this host's own routes
PREPENDED = 8
"""How much longer the path of a route that yields is: more than any way in a fabric.

The other host may be some routers away, and the one that yields next to the sender.
"""
_YIELDS = f"krt_metric = {YIELDING_METRIC}"  # of an instance on the way out


def render_filters(
    version: int,
    prefixes: Collection[Prefix],
    source: Address | None,
    as_number: int,
    *,
    singles: bool = False,
) -> str:
    """Render a family's filters: which routes come in, go out, and are in the kernel.

    `prefixes` are the cloud's subnets (those of the other family do not count),
    `source` is the host's own address, `as_number` its AS. With `singles` any address
    by itself is taken for an instance's, between hosts and peers.

    What is learned from the kernel: this host's routes to instances, and whatever the
    host uses to reach next hops. The first beat BGP's (preference 100), so that an
    address with a second home elsewhere stays announced from here. The second go to a
    table of their own besides: a next hop must not be looked up among BGP's routes,
    whose default would have to be resolved by itself.

    A route that yields is announced as the worse one, so that everybody takes the
    other host's as soon as that announces it; and this host too, which withdraws its
    own by that. A preference does not leave an AS, and an AS must not be in a path
    within itself: so it is said in two ways, to peers of this AS and to others.
    """
    kernel = _kernel_filters(version, prefixes, source, singles=singles)
    return kernel + _bgp_filters(version, as_number)


def _kernel_filters(
    version: int,
    prefixes: Collection[Prefix],
    source: Address | None,
    *,
    singles: bool,
) -> str:
    length = 32 if version == 4 else 128
    alone = f"net.len = {length} || " if singles else ""
    prefer = f"  krt_prefsrc = {source};\n" if source else ""
    return f"""\
ipv{version} table nexthops{version};
function calico{version}() {{
  return {_in_subnets(prefixes, version)};
}}
function instance{version}() {{
  return {alone}calico{version}();
}}
filter kernel_in{version} {{
  if {_OURS} then {{
    if !instance{version}() then reject;
    if {_YIELDS} then preference = 50; else preference = 200;
    accept;
  }}
  if calico{version}() then reject;
  accept;
}}
filter kernel_out{version} {{
  if source != RTS_BGP then reject;
{prefer}  accept;
}}
filter underlay{version} {{
  if proto = "kernel{version}" && !({_OURS}) then accept;
  reject;
}}
"""


def _bgp_filters(version: int, as_number: int) -> str:
    default = "0.0.0.0/0" if version == 4 else "::/0"
    longer = "\n".join([f"    bgp_path.prepend({as_number});"] * PREPENDED)
    own = f'proto = "kernel{version}" && {_OURS} && instance{version}()'
    return f"""\
filter peer_in{version} {{
  if net = {default} || instance{version}() then accept;
  reject;
}}
filter host_in{version} {{
  if instance{version}() then accept;
  reject;
}}
filter bgp_out{version} {{
  if !({own}) then reject;
  if {_YIELDS} then {{
{longer}
  }}
  accept;
}}
filter ibgp_out{version} {{
  if !({own}) then reject;
  if {_YIELDS} then bgp_local_pref = 50;
  accept;
}}
"""


def _in_subnets(prefixes: Collection[Prefix], version: int) -> str:
    """Render the test for a prefix within a subnet; no subnet, nothing passes."""
    wanted = {p for p in prefixes if p.version == version and p.prefixlen > 0}
    covered = collapse_addresses(wanted)  # type: ignore[type-var]  # of one version
    lines = ",\n".join(f"    {prefix}+" for prefix in covered)
    return f"net ~ [\n{lines}\n  ]" if lines else "false"
