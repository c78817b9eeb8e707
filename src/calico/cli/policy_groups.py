"""`calico policy list securitygroups`: what is stored of them, to be read only."""

from collections.abc import Mapping

import click

from calico.cli.output import print_json, print_table
from calico.datastore.store import Item, Store
from calico.model.ids import Invalid
from calico.model.keys import Keys
from calico.model.policy_codec import parse_policy
from calico.model.records import Policy
from calico.policy.explain import printable

WORDS = frozenset({"securitygroup", "securitygroups", "sg"})
_COLUMNS = ("group", "name", "stateful", "ingress rules", "egress rules")


def stored_groups(store: Store, keys: Keys) -> dict[str, Policy | Invalid]:
    """Return the stored security groups by their resources' names, or what is wrong."""
    items: Mapping[str, Item] = store.get_prefix(keys.policies).items
    return {
        key.removeprefix(keys.policies): _read(item.value)
        for key, item in sorted(items.items())
    }


def _read(value: bytes) -> Policy | Invalid:
    try:
        return parse_policy(value)
    except Invalid as e:
        return e


def print_groups(found: Mapping[str, Policy | Invalid], *, as_json: bool) -> None:
    """Print security groups, those that cannot be used with the reason."""
    usable = [each for each in found.values() if isinstance(each, Policy)]
    unusable = {k: str(e) for k, e in found.items() if isinstance(e, Invalid)}
    rows = [
        (p.group, p.name, p.stateful, len(p.ingress), len(p.egress)) for p in usable
    ]
    if as_json:
        names = [column.replace(" ", "_") for column in _COLUMNS]
        entries = [dict(zip(names, row, strict=True)) for row in rows]
        wrong = [{"group": k, "reason": reason} for k, reason in unusable.items()]
        print_json([*entries, *wrong])
        return
    print_table(
        _COLUMNS,
        [
            (group, printable(name), "yes" if stateful else "no", *rules)
            for group, name, stateful, *rules in rows
        ],
    )
    for name, reason in unusable.items():
        click.secho(f"NetworkPolicy {name} cannot be used: {reason}", fg="red")
