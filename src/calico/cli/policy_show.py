"""`calico policy list` and `show`: what operators stored, as it comes in turn."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from calico.cli import policy_groups
from calico.cli.output import print_json, print_table
from calico.cli.policy_store import failures, store_options, with_store
from calico.model.ids import Invalid
from calico.model.operator import GlobalPolicy, HostEndpoint, NetworkSet, OperatorRule
from calico.operator import yaml_text
from calico.operator.kinds import HOST_ENDPOINT, KINDS, POLICY, Kind, find_kind
from calico.operator.stored import Stored, stored, stored_one
from calico.policy.explain import printable
from calico.policy.operator_words import rule_words

_POLICY_COLUMNS = ("policy", "order", "selector", "types", "rules")
_SET_COLUMNS = ("labels", "nets")
_HOST_COLUMNS = (
    "host endpoint",
    "host",
    "interface",
    "addresses",
    "labels",
    "what no policy says",
)
_GROUPS_ROW = ("(security groups)", "", "the tenants' ports", "ingress, egress", "")
_json = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


@click.command(name="list")
@click.argument("kind", required=False)
@_json
@store_options
def list_(
    kind: str | None, *, as_json: bool, lab_name: str | None, config: Path
) -> None:
    """List policies in their turn, sets and host endpoints.

    Example: `calico policy list gnp`.

    KIND may be securitygroups too: what of Neutron's groups is stored. What cannot be
    used is listed with the reason. The exit code is 2 where there is no datastore.
    """
    if kind and kind.lower() in policy_groups.WORDS:
        with failures():
            groups = with_store(lab_name, config, policy_groups.stored_groups)
        policy_groups.print_groups(groups, as_json=as_json)
        return
    with failures():
        kinds = (find_kind(kind),) if kind else KINDS
        found = with_store(
            lab_name,
            config,
            lambda store, keys: [stored(store, k, keys) for k in kinds],
        )
    if as_json:
        print_json([_entry(one) for some in found for one in some])
        return
    tables = [lines for lines in zip(kinds, found, strict=True) if lines[1] or kind]
    for number, (each, some) in enumerate(tables):
        if number:
            click.echo()
        _print_kind(each, [one for one in some if one.record is not None])
    if not tables:
        click.echo("There are no policies, sets or host endpoints.")
    for one in (one for some in found for one in some if one.record is None):
        click.secho(
            f"{one.kind.name} {one.name} cannot be used: {one.reason}", fg="red"
        )


def _print_kind(kind: Kind, found: Sequence[Stored]) -> None:
    records = [one.record for one in found]
    if kind is POLICY:
        policies = [each for each in records if isinstance(each, GlobalPolicy)]
        before = [_policy_row(each) for each in policies if each.order is not None]
        after = [_policy_row(each) for each in policies if each.order is None]
        print_table(_POLICY_COLUMNS, [*before, _GROUPS_ROW, *after])
    elif kind is HOST_ENDPOINT:
        print_table(
            _HOST_COLUMNS,
            [_host_row(each) for each in records if isinstance(each, HostEndpoint)],
        )
    else:
        print_table(
            (kind.name, *_SET_COLUMNS),
            [
                (each.name, _labels(each.labels), len(each.nets))
                for each in records
                if isinstance(each, NetworkSet)
            ],
        )


def _policy_row(policy: GlobalPolicy) -> tuple[object, ...]:
    rules = len(policy.ingress or ()) + len(policy.egress or ())
    order = "" if policy.order is None else f"{policy.order:g}"
    selector = printable(str(policy.selector))
    return (policy.name, order, selector, ", ".join(_types(policy)), rules)


def _types(policy: GlobalPolicy) -> list[str]:
    directions = {"ingress": policy.ingress, "egress": policy.egress}
    return [name for name, rules in directions.items() if rules is not None]


def _host_row(endpoint: HostEndpoint) -> tuple[object, ...]:
    return (
        endpoint.name,
        endpoint.host,
        endpoint.interface or "*",
        ", ".join(map(str, endpoint.addresses)),
        _labels(endpoint.labels),
        "allowed" if endpoint.default_allow else "denied",
    )


def _labels(labels: Mapping[str, str]) -> str:
    written = (f"{name}={value}" for name, value in sorted(labels.items()))
    return printable(", ".join(written))


def _entry(one: Stored) -> dict[str, Any]:
    entry: dict[str, Any] = {"kind": one.kind.name, "name": one.name}
    match one.record:
        case None:
            return entry | {"valid": False, "reason": one.reason}
        case GlobalPolicy() as policy:
            said: dict[str, Any] = {
                "order": policy.order,
                "stage": _stage(policy),
                "selector": str(policy.selector),
                "types": _types(policy),
                "ingress": len(policy.ingress or ()),
                "egress": len(policy.egress or ()),
            }
        case NetworkSet() as network_set:
            nets = [str(net) for net in network_set.nets]
            said = {"labels": network_set.labels, "nets": nets}
        case HostEndpoint() as endpoint:
            said = {
                "host": endpoint.host,
                "interface": endpoint.interface or "*",
                "addresses": [str(address) for address in endpoint.addresses],
                "labels": endpoint.labels,
                "default_allow": endpoint.default_allow,
            }
    return entry | {"valid": True} | said


def _stage(policy: GlobalPolicy) -> str:
    return "after groups" if policy.order is None else "before groups"


@click.command()
@click.argument("kind")
@click.argument("name")
@_json
@click.option("--yaml", "as_yaml", is_flag=True, help="Print YAML, fit for `apply`.")
@store_options
def show(
    kind: str,
    name: str,
    *,
    as_json: bool,
    as_yaml: bool,
    lab_name: str | None,
    config: Path,
) -> None:
    """Show a resource, a policy's rules in words.

    Example: `calico policy show gnp guard`.

    The exit code is 1 where there is none of that name, 2 where there is no datastore.
    """
    with failures():
        which = find_kind(kind)
        shown = which.shown_name(name)
        found = with_store(
            lab_name, config, lambda store, keys: stored_one(store, which, shown, keys)
        )
        if found is None:
            raise Invalid(f"there is no {which.name} {shown}")
        if as_json:
            print_json(found.document())
        elif isinstance(found.record, GlobalPolicy) and not as_yaml:
            click.echo("\n".join(_policy_lines(found.record)))
        else:
            click.echo(yaml_text.write(found.document()), nl=False)
    if found.record is None:
        click.secho(f"This cannot be used: {found.reason}", fg="red", err=True)


def _policy_lines(policy: GlobalPolicy) -> Iterator[str]:
    order = "" if policy.order is None else f" of order {policy.order:g}"
    stage = _stage(policy).replace("groups", "the security groups")
    yield f"policy {policy.name}{order}, {stage}, for {policy.selector}"
    for direction, rules in (("ingress", policy.ingress), ("egress", policy.egress)):
        if rules is not None:
            yield f"{direction}:"
            yield from _rule_lines(rules)


def _rule_lines(rules: Sequence[OperatorRule]) -> Iterator[str]:
    for number, rule in enumerate(rules, 1):  # as in `hits`
        yield f"  {number}  {rule_words(rule)}"
    if not rules:
        yield "  no rules"
