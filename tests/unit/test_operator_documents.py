"""Operators' files: what is in them, and what is wrong with them and where."""

import json
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from calico.model.ids import Invalid
from calico.model.keys import Keys
from calico.operator import documents, yaml_text
from calico.operator.documents import Reading

HEAD = "apiVersion: projectcalico.org/v3\nkind: "
SET = HEAD + "NetworkSet\nmetadata: {name: office"
POLICY = HEAD + "GlobalNetworkPolicy\nmetadata: {name: guard}\n"


def read(*texts: str, keys: Keys | None = None) -> Reading:
    sources = [(f"{chr(97 + n)}.yaml", text) for n, text in enumerate(texts)]
    return documents.read(sources, keys)


def complaints(*texts: str, keys: Keys | None = None) -> list[str]:
    reading = read(*texts, keys=keys)
    return [str(problem) for problem in reading.problems]


def test_several_documents_in_several_files_are_read() -> None:
    reading = read(
        f"# only a comment\n---\n{POLICY}---\n{SET}}}\n---\n",
        json.dumps(
            {
                "apiVersion": "projectcalico.org/v3",
                "kind": "HostEndpoint",
                "metadata": {"name": "host1", "resourceVersion": "7", "uid": "x"},
                "spec": {"node": "host1", "interfaceName": "*"},
            },
            indent="\t",
        ),
    )
    assert reading.problems == ()
    assert list(map(str, reading.documents)) == [
        "GlobalNetworkPolicy guard",
        "NetworkSet office",
        "HostEndpoint host1",
    ]
    assert reading.documents[1].place == "a.yaml, document 2"
    assert reading.documents[2].place == "b.yaml"


@pytest.mark.parametrize("kind", ["GlobalNetworkPolicyList", "List"])
def test_a_list_as_calicoctl_prints_it_is_read(kind: str) -> None:
    item = {
        "apiVersion": "projectcalico.org/v3",
        "kind": "GlobalNetworkPolicy",
        "metadata": {"name": "default.guard"},
        "spec": {"order": 1},
    }
    listed = {"kind": kind, "metadata": {"resourceVersion": "9"}, "items": [item]}
    for text in (json.dumps(listed), json.dumps([item])):
        (document,) = read(text).documents
        assert (str(document), document.place) == (
            "GlobalNetworkPolicy guard",
            "a.yaml, items[0]",
        )


def test_all_that_is_wrong_is_told_at_once_with_its_place() -> None:
    selector = "spec.selector: character 3: found '=', expected =="
    first = "GlobalNetworkPolicy guard is in c.yaml, document 1"
    node = "expected the node content, but found '<stream end>'"
    assert complaints(
        f"{POLICY}spec: {{selector: a = 'b'}}\n---\n{POLICY}spec: {{order: [1]}}",
        "kind: [",
        f"{POLICY}---\n{POLICY}",
    ) == [
        f"a.yaml, document 1: {selector}\n    a = 'b'\n      ^",
        "a.yaml, document 2: spec.order: [1] is not a number",
        f"b.yaml: line 1, column 8: {node}",
        f"c.yaml, document 2: {first} already",
    ]


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "there is nothing in it"),
        ("guard", "'guard' is not a resource"),
        ("kind: GlobalNetworkPolicy", "apiVersion: '' is not projectcalico.org/v3"),
        (f"{POLICY}spec: 7", "metadata and spec must be objects"),
        (f"{POLICY}specs: {{order: 1}}", "specs: unknown field"),
        (
            f"{POLICY}spec: {{order: 1, order: 2}}",
            "line 4, column 18: 'order' is there",
        ),
        (f"{POLICY}spec: {{7: 1}}", "line 4, column 8: the name 7 is not a text"),
        (f"{POLICY}spec: &a {{types: *a}}", "cannot be said in JSON"),
        (f"{POLICY}spec: !!python/name:os.system", "could not determine a constructor"),
        (f"{HEAD}GlobalNetworkPolicy", "name is '', not a text"),
        (
            f"{HEAD}GlobalNetworkPolicy\nmetadata: {{name: A}}",
            "name 'A' is not made of",
        ),
        (
            f"{HEAD}GlobalNetworkPolicy\nmetadata: {{name: a, namespace: b}}",
            "metadata.namespace: a GlobalNetworkPolicy has none",
        ),
        (
            f"{HEAD}GlobalNetworkPolicy\nmetadata: {{name: a, owner: me}}",
            "metadata.owner: unknown field",
        ),
        (
            f"{SET}, labels: {{role: 7}}}}",
            "metadata.labels must map names to texts",
        ),
        (f"{SET}, namespace: default}}", "'default' is not 'openstack', the only one"),
        (f"{HEAD}IPPool", "kind 'IPPool': it is none of GlobalNetworkPolicy, NetworkS"),
        (
            f"{HEAD}NetworkPolicy\nmetadata: {{name: ossg.default.x}}",
            "kind 'NetworkPolicy': security groups are Neutron's",
        ),
        (
            f"{HEAD}NetworkSet\nmetadata: {{name: osag.8f2c}}",
            "NetworkSet osag.8f2c is an address group of Neutron's",
        ),
        ('{"kind": "a", "kind": "b"}', "'kind' is there twice"),
        ('{"order": NaN}', "NaN is no number"),
        ("[" * 100_000, "recursion"),
    ],
)
def test_what_is_no_resource_of_an_operators_is_refused(
    text: str, complaint: str
) -> None:
    (found,) = complaints(text)
    assert found.startswith("a.yaml: ")
    assert complaint in found


def test_a_set_lies_in_this_clouds_namespace() -> None:
    east = Keys("east")
    (document,) = read(SET + "}", keys=east).documents
    assert document.resource.namespace == "openstack-region-east"
    (complaint,) = complaints(f"{SET}, namespace: openstack}}", keys=east)
    assert "metadata.namespace: 'openstack' is not 'openstack-region-east'" in complaint
    # Without a datastore any cloud's will do.
    (document,) = read(f"{SET}, namespace: openstack-region-west}}").documents
    assert document.resource.namespace == "openstack-region-west"


def test_yaml_has_no_surprises() -> None:
    text = "[20:25, no, 2026-01-01, 010, 1_000, .inf, <<, 0x10, 7, 1.5, true, ~]"
    assert yaml_text.read_all(text) == [
        [
            *("20:25", "no", "2026-01-01", "010", "1_000", ".inf", "<<", "0x10"),
            *(7, 1.5, True, None),
        ]
    ]


texts = st.text(st.characters(exclude_categories=["C"])) | st.sampled_from(
    ["20:25", "no", "yes", "1e3", "1.5", "07", "0x1", "2026-01-01", "~", "", "=", "<<"]
)
values = st.recursive(
    texts | st.integers() | st.booleans() | st.none() | st.floats(-1e6, 1e6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner),
    max_leaves=10,
)


@given(values)
def test_what_is_written_as_yaml_is_read_again(value: object) -> None:
    assert yaml_text.read_all(yaml_text.write(value)) == [value]


@pytest.mark.parametrize("text", ["a: b: c", "\x07", "a: {b", "- a\n b: c", "a: *b"])
def test_what_is_no_yaml_is_refused_in_one_line(text: str) -> None:
    with pytest.raises(Invalid) as caught:
        yaml_text.read_all(text)
    assert "\n" not in str(caught.value)


def test_the_examples_of_the_guide_are_valid() -> None:
    guide = (Path(__file__).parents[2] / "docs/policy.md").read_text()
    examples = re.findall(r"```yaml\n(.*?)```", guide, re.DOTALL)
    reading = documents.read((str(n), text) for n, text in enumerate(examples))
    assert reading.problems == ()
    assert {document.kind.name for document in reading.documents} == {
        "GlobalNetworkPolicy",
        "GlobalNetworkSet",
        "HostEndpoint",
    }
