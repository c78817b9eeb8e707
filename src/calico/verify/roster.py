"""The instances of security group configurations, and what the judge knows of them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from ipaddress import ip_address, ip_network
from typing import Any

from calico.model.groups import Groups
from calico.model.ids import AddressGroupId, GroupId
from calico.model.records import Policy
from calico.verify.cloud import Site
from calico.verify.configurations import ADDRESS_GROUPS, DEFAULT, Configuration
from calico.verify.parallel import parallel
from calico.verify.probes.volley import End
from calico.verify.stage import Stage
from calico.verify.wish import IN, OUT, Names, asked, judged

NETWORK, PROJECT = "G", "demo1"
SERVED = (8001, 8005, 9000)  # ports that every instance answers on, TCP and UDP


@dataclass(frozen=True, slots=True)
class Roster:
    """The instances by key, the groups that each is in, and all that rules refer to."""

    sites: Mapping[str, Site]
    of_site: Mapping[str, tuple[GroupId, ...]]
    groups: Groups
    ends: Mapping[str, End]
    names: Names


def assemble(stage: Stage, configurations: Sequence[Configuration]) -> Roster:
    """Make groups, rules and instances of configurations, on the network `G`."""
    api = stage.cloud.api(PROJECT).network
    keys = [(c, key) for c in configurations for key in c.instances]
    groups = parallel([partial(_group, stage, c) for c in configurations], 4)
    ids = {c.key: g for c, g in zip(configurations, groups, strict=True)}
    ports = parallel([partial(_port, stage, ids, *each) for each in keys], 4)
    addresses = {
        key: tuple(ip_address(ip["ip_address"]) for ip in port.fixed_ips)
        for (_, key), port in zip(keys, ports, strict=True)
    }
    members = {
        key: [str(ip_network(a)) for m in found for a in addresses.get(m, ())]
        for key, found in ADDRESS_GROUPS.items()
    }
    address_groups = {
        key: api.create_address_group(name=f"{stage.prefix}-{key}", addresses=found).id
        for key, found in members.items()
    }
    names = Names(ids, address_groups, addresses)
    parallel([partial(_rules, stage, c, names) for c in configurations], 4)
    boots = [
        partial(_boot, stage, key, port.id, c.instances[key])
        for (c, key), port in zip(keys, ports, strict=True)
    ]
    return _roster(stage, configurations, parallel(boots, 6), names)


def _group(stage: Stage, wanted: Configuration) -> str:
    """Return a configuration's group, with no rules but those of `default`."""
    api = stage.cloud.api(PROJECT).network
    if wanted is DEFAULT:
        return str(next(iter(api.security_groups(name="default"))).id)
    name = f"{stage.prefix}-{wanted.key}"
    group = api.create_security_group(name=name, stateful=wanted.stateful)
    for rule in group.security_group_rules:
        api.delete_security_group_rule(rule["id"])
    return str(group.id)


def _port(stage: Stage, ids: Mapping[str, str], of: Configuration, key: str) -> Any:
    """Make an instance's port; in the default group by not naming any."""
    groups = [ids[k] for k in (of.key, *of.more)]
    named = {} if of is DEFAULT else {"security_group_ids": groups}
    net = stage.nets[NETWORK]
    return stage.cloud.api(PROJECT).network.create_port(
        network_id=net.id,
        name=f"{stage.prefix}-{key}",
        fixed_ips=[{"subnet_id": net.subnet4}, {"subnet_id": net.subnet6}],
        **named,
    )


def _rules(stage: Stage, of: Configuration, names: Names) -> None:
    group = {"security_group_id": names.groups[of.key]}
    bodies = [asked(allow, names) | group for allow in of.allows]
    if of is not DEFAULT and bodies:
        stage.cloud.api(PROJECT).network.create_security_group_rules(bodies)


def _boot(stage: Stage, key: str, port: str, where: int) -> tuple[str, Site]:
    site = stage.boot(key, port, stage.hosts[where])
    for number in SERVED:
        stage.responder.serve(site.place, number)
    return key, site


def _roster(
    stage: Stage,
    configurations: Sequence[Configuration],
    sites: Sequence[tuple[str, Site]],
    names: Names,
) -> Roster:
    of_site = {
        key: tuple(GroupId(names.groups[k]) for k in (c.key, *c.more))
        for c in configurations
        for key in c.instances
    }
    members = {
        GroupId(group): frozenset(
            ip_network(address)
            for key, of in of_site.items()
            if group in of
            for address in names.addresses[key]
        )
        for group in names.groups.values()
    }
    address_groups = {
        AddressGroupId(names.address_groups[key]): frozenset(
            ip_network(a) for member in found for a in names.addresses.get(member, ())
        )
        for key, found in ADDRESS_GROUPS.items()
    }
    policies = {GroupId(names.groups[c.key]): _policy(c, names) for c in configurations}
    groups = Groups(policies=policies, members=members, address_groups=address_groups)
    return Roster(
        sites=dict(sites),
        of_site=of_site,
        groups=groups,
        ends={key: end_of(stage, site) for key, site in sites},
        names=names,
    )


def end_of(stage: Stage, site: Site) -> End:
    """Return an instance's end of the wire."""
    gateway = stage.host_mac(site)
    return End(
        place=site.place, interface=site.interface, mac=site.mac, gateway=gateway
    )


def _policy(of: Configuration, names: Names) -> Policy:
    rules = [(allow.direction, judged(allow, names)) for allow in of.allows]
    return Policy(
        group=GroupId(names.groups[of.key]),
        name=of.key,
        ingress=tuple(rule for direction, rule in rules if direction is IN),
        egress=tuple(rule for direction, rule in rules if direction is OUT),
        stateful=of.stateful,
    )
