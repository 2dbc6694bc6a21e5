"""Which change means what: nothing, an update, a replacement, and whether the old object must go first."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra.plugin.diff import Change, Options, compare, quantity, same_value
from infra.plugin.paths import parse_path
from infra.plugin.wire import UNKNOWN, Secret

AUTONAMED = {"pulumi.com/autonamed": "true"}


def obj(kind: str, version: str = "v1", name: str = "x", **fields: Any) -> dict[str, Any]:
    return {"apiVersion": version, "kind": kind, "metadata": {"name": name, "namespace": "n"}, **fields}


def changed(old: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    """`old` with `path` set to `value` (None: removed)."""
    new = copy.deepcopy(old)
    at: Any = new
    *parents, last = parse_path(path)
    for part in parents:
        at = at.setdefault(part, {}) if isinstance(at, dict) else at[part]
    if value is None:
        del at[last]
    else:
        at[last] = value
    return new


WORKLOAD: dict[str, Any] = {
    "replicas": 1,
    "selector": {"matchLabels": {"a": "b"}},
    "template": {"spec": {"containers": [{"name": "c", "image": "i"}]}},
}
DEPLOYMENT = obj("Deployment", "apps/v1", spec=WORKLOAD)
STATEFUL = obj("StatefulSet", "apps/v1", spec={**WORKLOAD, "serviceName": "s", "volumeClaimTemplates": []})
JOB = obj("Job", "batch/v1", spec={"template": {"spec": {}}, "backoffLimit": 1})
PVC = obj(
    "PersistentVolumeClaim",
    spec={
        "accessModes": ["ReadWriteOnce"],
        "storageClassName": "a",
        "resources": {"requests": {"storage": "1Gi"}},
    },
)
BINDING = obj("RoleBinding", "rbac.authorization.k8s.io/v1", roleRef={"name": "r"}, subjects=[{"name": "s"}])
SERVICE = obj("Service", spec={"clusterIP": "127.0.0.9", "ports": [{"port": 80}]})
CONFIG_MAP = obj("ConfigMap", data={"a": "1"})
SECRET = obj("Secret", type="Opaque", stringData=Secret({"a": "1"}))
POD = obj("Pod", spec={"containers": [{"name": "c", "image": "i", "args": ["x"]}]})

UPDATED = [
    ("a deployment's image", DEPLOYMENT, "spec.template.spec.containers[0].image", "j"),
    ("replicas", DEPLOYMENT, "spec.replicas", 2),
    ("a label", DEPLOYMENT, "metadata.labels", {"l": "1"}),
    ("a stateful set's template", STATEFUL, "spec.template.spec.containers[0].image", "j"),
    ("a job's limit", JOB, "spec.backoffLimit", 2),
    ("a claim grows", PVC, "spec.resources.requests.storage", "2Gi"),
    ("a binding's subjects", BINDING, "subjects[0].name", "t"),
    ("a service's port", SERVICE, "spec.ports[0].port", 81),
    ("a pod's deadline", POD, "spec.activeDeadlineSeconds", 60),
]
REPLACED = [
    ("another name", DEPLOYMENT, "metadata.name", "y"),
    ("another namespace", DEPLOYMENT, "metadata.namespace", "m"),
    ("a workload's selector", DEPLOYMENT, "spec.selector.matchLabels.a", "c"),
    ("the whole spec", DEPLOYMENT, "spec", None),
    ("a stateful set's service", STATEFUL, "spec.serviceName", "t"),
    ("its claims", STATEFUL, "spec.volumeClaimTemplates", [{"metadata": {"name": "d"}}]),
    ("a job's template", JOB, "spec.template.spec.restartPolicy", "Never"),
    ("a claim's class", PVC, "spec.storageClassName", "b"),
    ("a claim's access modes", PVC, "spec.accessModes[0]", "ReadOnlyMany"),
    ("a binding's role", BINDING, "roleRef.name", "q"),
    ("a service's address", SERVICE, "spec.clusterIP", "None"),
    ("a config map's data", CONFIG_MAP, "data.a", "2"),
    ("a secret's data", SECRET, "stringData", Secret({"a": "2"})),
    ("a secret's type", SECRET, "type", "kubernetes.io/tls"),
    ("a pod's image", POD, "spec.containers[0].image", "j"),
    ("a pod's arguments", POD, "spec.containers[0].args[0]", "y"),
]


@pytest.mark.parametrize(("old", "path", "value"), [c[1:] for c in UPDATED], ids=[c[0] for c in UPDATED])
def test_updated_in_place(old: dict[str, Any], path: str, value: Any) -> None:
    difference = compare(old, changed(old, path, value))
    assert difference.changes
    assert difference.replaces == ()
    assert not difference.delete_before_replace


@pytest.mark.parametrize(("old", "path", "value"), [c[1:] for c in REPLACED], ids=[c[0] for c in REPLACED])
def test_replaced(old: dict[str, Any], path: str, value: Any) -> None:
    difference = compare(old, changed(old, path, value))
    assert difference.replaces
    # The user's name is taken until the old object is gone, unless the new one is elsewhere.
    assert difference.delete_before_replace is (not path.startswith("metadata.name"))


@pytest.mark.parametrize(("old", "path", "value"), [c[1:] for c in REPLACED], ids=[c[0] for c in REPLACED])
def test_an_autonamed_object_is_replaced_by_one_beside_it(old: dict[str, Any], path: str, value: Any) -> None:
    old = changed(old, "metadata.annotations", AUTONAMED)
    difference = compare(old, changed(old, path, value))
    assert difference.replaces
    assert not difference.delete_before_replace


def test_patches_are_only_replaced_for_another_object() -> None:
    assert compare(CONFIG_MAP, changed(CONFIG_MAP, "data.a", "2"), patch=True).replaces == ()
    assert compare(CONFIG_MAP, changed(CONFIG_MAP, "metadata.name", "y"), patch=True).replaces


@pytest.mark.parametrize("old", [CONFIG_MAP, obj("Secret", data={"a": "MQ=="})], ids=["config map", "secret"])
def test_data_can_be_made_mutable(old: dict[str, Any]) -> None:
    options = Options(mutable_config_maps=True, mutable_secrets=True)
    assert compare(old, changed(old, "data.a", "Mg=="), options=options).replaces == ()
    sealed = {**old, "immutable": True}
    assert compare(sealed, changed(sealed, "data.a", "Mg=="), options=options).replaces == ("data.a",)


def test_another_kind_is_another_object_but_another_version_is_not() -> None:
    assert compare(DEPLOYMENT, {**DEPLOYMENT, "kind": "DaemonSet"}).replaces == ("kind",)
    assert compare(DEPLOYMENT, {**DEPLOYMENT, "apiVersion": "apps/v1beta2"}).replaces == ()


@pytest.mark.parametrize(
    ("path", "ignore", "left"),
    [
        ("spec.replicas", ["spec.replicas"], set()),
        ("spec.replicas", ["spec.template"], {"spec.replicas"}),
        ("spec.template.spec.containers[0].image", ["spec.template.spec.containers[*].image"], set()),
        ("spec.template.spec.containers[0].image", ["spec"], set()),
    ],
)
def test_ignored_changes(path: str, ignore: list[str], left: set[str]) -> None:
    assert set(compare(DEPLOYMENT, changed(DEPLOYMENT, path, 7), ignore=ignore).changes) == left


def test_what_is_not_known_yet_is_a_change() -> None:
    difference = compare(CONFIG_MAP, {**CONFIG_MAP, "data": {"a": UNKNOWN}})
    assert difference.changes == {"data.a": Change.UPDATE}
    assert difference.replaces == ("data.a",)
    assert compare(SERVICE, {**SERVICE, "spec": UNKNOWN}).changes == {"spec": Change.UPDATE}


def test_changes_are_told_apart_by_path() -> None:
    old = obj("X", "a/v1", spec={"gone": 1, "kept": [1, 2, 3], "was": {"deep": 1}})
    new = obj("X", "a/v1", spec={"new": 1, "kept": [1, 5], "was": {"deep": {"er": 1}}})
    assert compare(old, new).changes == {
        "spec.gone": Change.DELETE,
        "spec.kept[1]": Change.UPDATE,
        "spec.kept[2]": Change.DELETE,
        "spec.was.deep": Change.UPDATE,
        "spec.new": Change.ADD,
    }


@pytest.mark.parametrize(
    ("path", "old", "new", "same"),
    [
        ("resources.limits.cpu", "1000m", "1", True),
        ("resources.limits.memory", "1Gi", "1024Mi", True),
        ("resources.requests.cpu", "0.5", 0.5, True),
        ("resources.requests.cpu", "500m", "600m", False),
        ("emptyDir.sizeLimit", "1k", "1000", True),
        ("metadata.labels.cpu", "1000m", "1", False),
        ("spec.flag", True, 1, False),
        ("spec.port", 80, 80.0, True),
        ("spec.port", "80", 80, False),
    ],
)
def test_values_that_mean_the_same(path: str, old: Any, new: Any, same: bool) -> None:
    assert same_value(parse_path(path), old, new) is same


@pytest.mark.parametrize("text", ["", "x", "1Zi", "Mi", None, {}])
def test_what_is_no_quantity(text: Any) -> None:
    assert quantity(text) is None


json_like = st.recursive(
    st.text(max_size=4) | st.integers(-9, 9) | st.booleans() | st.just(Secret("s")),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text("abc", max_size=2), inner, max_size=3)
    ),
)


@given(json_like)
def test_nothing_changes_where_nothing_changes(spec: Any) -> None:
    assert compare(obj("X", "a/v1", spec=spec), obj("X", "a/v1", spec=spec)).changes == {}


@given(json_like, json_like)
def test_a_change_is_seen_both_ways(one: Any, other: Any) -> None:
    old, new = obj("X", "a/v1", spec=one), obj("X", "a/v1", spec=other)
    assert bool(compare(old, new).changes) == bool(compare(new, old).changes)
