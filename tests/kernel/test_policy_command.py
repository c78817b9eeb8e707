"""`calico policy` as an operator uses it, against a real etcd."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from tests.etcd_server import EtcdServer, free_port

from calico.cli.main import main
from calico.datastore.client import Client
from calico.model.ids import AddressGroupId, GroupId
from calico.model.keys import GLOBAL_POLICIES, Keys
from calico.model.operator_codec import parse_global_policy
from calico.model.policy_codec import encode_address_group, encode_policy
from calico.model.records import AddressGroup, Policy, Rule

Calico = Callable[..., Result]

HEAD = "apiVersion: projectcalico.org/v3\n"
GUARD = f"""\
{HEAD}kind: GlobalNetworkPolicy
metadata:
  name: no-management
spec:
  order: 10
  selector: projectcalico.org/orchestrator == 'openstack'
  types: [Egress]
  egress:
  - action: Deny
    destination:
      selector: role == 'management'
  - action: Allow
    protocol: TCP
    destination: {{nets: [192.0.2.0/24], ports: [22, "80:90"]}}
"""
SET = f"""\
{HEAD}kind: GlobalNetworkSet
metadata: {{name: management, labels: {{role: management}}}}
spec: {{nets: [198.51.100.0/24, "2001:db8::/64"]}}
"""
HOST = f"""\
{HEAD}kind: HostEndpoint
metadata: {{name: host1}}
spec: {{node: host-1, interfaceName: "*"}}
"""
LATE = f"{HEAD}kind: GlobalNetworkPolicy\nmetadata: {{name: late}}\nspec: {{}}\n"


@pytest.fixture(scope="module")
def etcd() -> Iterator[EtcdServer]:
    with EtcdServer() as server:
        yield server


@pytest.fixture
def store(etcd: EtcdServer) -> Iterator[Client]:
    client = Client(etcd.settings)
    yield client
    for key in client.get_prefix("/calico/").items:
        client.delete(key)
    client.close()


@pytest.fixture
def calico(etcd: EtcdServer, store: Client, tmp_path: Path) -> Calico:
    """Run `calico policy ...` with an agent's settings, in which this etcd is."""
    del store  # it is emptied after each test
    config = tmp_path / "agent.toml"
    config.write_text(f'host = "here"\n[etcd]\nendpoints = ["{etcd.endpoint}"]\n')

    def call(*words: str, stdin: str = "") -> Result:
        options = () if words[0] == "validate" else ("--config", str(config))
        return CliRunner().invoke(main, ["policy", *words, *options], input=stdin)

    return call


@pytest.fixture
def file(tmp_path: Path) -> Callable[[str], str]:
    def write(text: str) -> str:
        path = tmp_path / "guard.yaml"
        path.write_text(text)
        return str(path)

    return write


def said(result: Result, code: int = 0) -> list[str]:
    assert result.exit_code == code, result.output
    return result.stdout.splitlines()


def test_a_policy_is_applied_shown_and_deleted(
    calico: Calico, store: Client, file: Callable[[str], str]
) -> None:
    guard = file(f"{SET}---\n{GUARD}")
    dry = said(calico("apply", "--dry-run", guard))
    assert dry[1] == "GlobalNetworkPolicy no-management would be created"
    assert store.get_prefix("/calico/").items == {}

    assert said(calico("apply", guard)) == [
        "GlobalNetworkSet management created",
        "GlobalNetworkPolicy no-management created",
    ]
    item = store.get(GLOBAL_POLICIES + "default.no-management")
    assert item is not None
    assert parse_global_policy(item.value).name == "no-management"
    revisions = {i.mod_revision for i in store.get_prefix("/calico/").items.values()}
    assert len(revisions) == 1, "one transaction"
    assert said(calico("apply", "-", stdin=GUARD)) == [
        "GlobalNetworkPolicy no-management unchanged"
    ]
    changed = GUARD.replace("order: 10", "order: 20")
    assert said(calico("apply", "-", stdin=changed)) == [
        "GlobalNetworkPolicy no-management configured"
    ]

    assert said(calico("show", "gnp", "no-management")) == [
        (
            "policy no-management of order 20, before the security groups,"
            " for projectcalico.org/orchestrator == 'openstack'"
        ),
        "egress:",
        "  1  deny to selector (role == 'management')",
        "  2  allow tcp to nets 192.0.2.0/24 and ports 22,80-90",
    ]

    assert said(calico("delete", "-f", guard)) == [
        "GlobalNetworkSet management deleted",
        "GlobalNetworkPolicy no-management deleted",
    ]
    assert store.get_prefix("/calico/").items == {}
    gone = calico("delete", "gnp", "no-management")
    assert said(gone, 1) == ["GlobalNetworkPolicy no-management not there"]


def test_what_is_shown_as_yaml_can_be_applied(calico: Calico) -> None:
    everything = f"{SET}---\n{GUARD}---\n{HOST}"
    calico("apply", "-", stdin=everything)
    for kind, name in (
        ("GlobalNetworkSet", "management"),
        ("policy", "default.no-management"),
        ("hep", "host1"),
    ):
        for form in ("--yaml", "--json"):
            text = "\n".join(said(calico("show", kind, name, form)))
            assert "default." not in text, "the name is the one that people gave"
            (line,) = said(calico("apply", "-", stdin=text))
            assert line.endswith(" unchanged"), line


def test_nothing_is_written_if_anything_is_wrong(
    calico: Calico, store: Client, file: Callable[[str], str]
) -> None:
    bad = GUARD.replace("action: Deny", "action: Reject").replace("role ==", "role =")
    path = file(f"{SET}---\n{bad}---\n{LATE.replace('{}', '{doNotTrack: true}')}")
    refused = calico("apply", path)
    assert said(refused, 1) == []
    where = f"{path}, document"
    assert refused.stderr.splitlines() == [
        f"{where} 2: spec.egress[0].action: 'Reject' is none of Allow, Deny, Log, Pass",
        (
            f"{where} 3: spec.doNotTrack: not supported: policies see connections,"
            " not single packets"
        ),
        "Error: 2 problems: nothing is done",
    ]
    assert store.get_prefix("/calico/").items == {}
    assert calico("validate", path).exit_code == 1
    assert said(calico("validate", file(GUARD))) == [
        f"{path}: GlobalNetworkPolicy no-management is valid"
    ]


def test_a_bad_selector_is_pointed_at(calico: Calico) -> None:
    refused = calico("validate", "-", stdin=GUARD.replace("role ==", "role ="))
    assert refused.exit_code == 1
    assert refused.stderr.splitlines() == [
        (
            "Error: standard input: spec.egress[0].destination.selector:"
            " character 6: found '=', expected =="
        ),
        "    role = 'management'",
        "         ^",
    ]


def test_policies_are_listed_in_their_turn(calico: Calico, store: Client) -> None:
    early = GUARD.replace("no-management", "zero").replace("order: 10", "order: 2")
    calico("apply", "-", stdin=f"{GUARD}---\n{early}---\n{LATE}---\n{SET}---\n{HOST}")
    store.put(GLOBAL_POLICIES + "default.broken", b'{"kind": "GlobalNetworkPolicy"}')
    lines = said(calico("list"))
    firsts = [line.split()[0] for line in lines if line]
    assert firsts == [
        *("policy", "zero", "no-management", "(security", "late"),
        *("GlobalNetworkSet", "management"),
        *("host", "host1"),
        "GlobalNetworkPolicy",
    ]
    assert lines[-1] == (
        "GlobalNetworkPolicy broken cannot be used: name is None, not a text"
    )
    assert lines[1].split()[1] == "2"
    assert lines[1].split()[-2:] == ["egress", "2"]

    entries = json.loads("\n".join(said(calico("list", "gnp", "--json"))))
    assert [(each["name"], each.get("stage")) for each in entries] == [
        ("zero", "before groups"),
        ("no-management", "before groups"),
        ("broken", None),
        ("late", "after groups"),
    ]
    assert [each["name"] for each in entries if not each["valid"]] == ["broken"]


def test_what_is_stored_and_cannot_be_used_is_shown_with_the_reason(
    calico: Calico, store: Client
) -> None:
    calico("apply", "-", stdin=GUARD)
    key = GLOBAL_POLICIES + "default.no-management"
    item = store.get(key)
    assert item is not None
    store.put(key, item.value.replace(b'"Deny"', b'"Drop"'))
    shown = calico("show", "gnp", "no-management")
    assert "  - action: Drop" in said(shown)
    assert "This cannot be used: spec.egress[0].action: 'Drop'" in shown.stderr
    (line,) = [line for line in said(calico("list", "gnp")) if "cannot" in line]
    assert line.startswith("GlobalNetworkPolicy no-management cannot be used: spec.eg")


def test_of_two_policies_of_one_name_the_second_cannot_be_used(
    calico: Calico, store: Client
) -> None:
    calico("apply", "-", stdin=LATE)
    item = store.get(GLOBAL_POLICIES + "default.late")
    assert item is not None
    store.put(GLOBAL_POLICIES + "late", item.value)
    *_, usable, unusable = said(calico("list", "gnp"))
    assert usable.split()[0] == "late"
    assert "policies/late has the name of another" in unusable


def test_address_groups_are_seen_and_not_touched(calico: Calico, store: Client) -> None:
    group = AddressGroup(id=AddressGroupId("8f2c"), name="office")
    key = Keys().address_group(group.id)
    store.put(key, encode_address_group(group))
    lines = said(calico("list", "networksets"))
    assert "osag.8f2c" in lines[1]
    assert "ag.projectcalico.org/openstack-8f2c=" in lines[1]

    refused = calico("delete", "networkset", "osag.8f2c")
    assert refused.exit_code == 1
    assert "is an address group of Neutron's" in refused.stderr
    own = f"{HEAD}kind: NetworkSet\nmetadata: {{name: osag.8f2c}}\n"
    assert calico("apply", "-", stdin=own).exit_code == 1
    item = store.get(key)
    assert item is not None
    assert item.value == encode_address_group(group)


def test_security_groups_are_listed_for_reading(calico: Calico, store: Client) -> None:
    web = Policy(group=GroupId("web"), name="we\x1bb", ingress=(Rule(version=4),))
    store.put(Keys().policy(web.group), encode_policy(web))
    store.put(Keys().policy(GroupId("bad")), b"{}")
    _, row, unusable = said(calico("list", "sg"))
    assert row.split() == ["web", "'we\\x1bb'", "yes", "1", "0"]
    assert unusable.startswith("NetworkPolicy ossg.default.bad cannot be used: kind")
    assert json.loads("\n".join(said(calico("list", "securitygroups", "--json")))) == [
        {
            "group": "web",
            "name": "we\x1bb",
            "stateful": True,
            "ingress_rules": 1,
            "egress_rules": 0,
        },
        {"group": "ossg.default.bad", "reason": "kind is None, not NetworkPolicy"},
    ]
    assert calico("show", "sg", "web").exit_code == 1


@pytest.mark.parametrize(
    ("words", "code", "complaint"),
    [
        (("show", "gnp", "nothing"), 1, "there is no GlobalNetworkPolicy nothing"),
        (("list", "networkpolicy"), 1, "security groups are Neutron's"),
        (("delete", "gnp"), 2, "give KIND and NAME, or -f FILE"),
        (("apply", "/nonexistent"), 2, "does not exist"),
    ],
)
def test_what_cannot_be_done_is_said_in_a_sentence(
    calico: Calico, words: tuple[str, ...], code: int, complaint: str
) -> None:
    result = calico(*words)
    assert result.exit_code == code
    assert complaint in result.stderr.splitlines()[-1]


def test_without_a_datastore_the_exit_code_is_two(tmp_path: Path) -> None:
    config = tmp_path / "agent.toml"
    config.write_text(
        f'host = "here"\n[etcd]\nendpoints = ["http://127.0.0.1:{free_port()}"]\n'
    )
    for settings in (config, tmp_path / "none.toml"):
        words = ["policy", "list", "--config", str(settings)]
        result = CliRunner().invoke(main, words)
        assert result.exit_code == 2
        (line,) = result.stderr.splitlines()
        assert line.startswith("Error: ")
