"""How clusters differ from Pulumi's state: case by case, and after a real `pulumi up` on a real API server."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from infra.doctor import drift
from infra.doctor.drift import Drift, Recorded, Sealed
from infra.plugin.kinds import BUILT_IN
from switchboard.kube import CONFIG_MAPS, DEPLOYMENTS, NAMESPACES, SECRETS, Kube
from tests.conftest import ControlPlane, run_apart
from tests.infra.plugin.conftest import deployment
from tests.infra.plugin.project import Project, in_cluster, namespace

ROLES = BUILT_IN["rbac.authorization.k8s.io/v1", "Role"]

META = {"name": "x", "namespace": "n", "uid": "2", "resourceVersion": "7"}
ROLE = {"metadata": META, "rules": [{"verbs": ["get"]}]}
SERVER = {
    "metadata": {**META, "generation": 3},
    "spec": {"image": "a", "scaling": {"maxReplicas": 6, "minReplicas": 2}},
}
WORKLOAD = {
    "metadata": {**META, "generation": 3, "labels": {"a": "b"}},
    "spec": {"replicas": 2, "paused": True},
    "status": {"replicas": 2},
}
SECRET = {"metadata": META, "data": Sealed("v1:abc")}


def now(was: dict[str, Any], version: str = "8", **changes: Any) -> dict[str, Any]:
    """The object at another `resourceVersion`."""
    meta = {**was["metadata"], "resourceVersion": version, **changes.pop("meta", {})}
    return {**was, **changes, "metadata": meta}


CASES: dict[str, tuple[dict[str, Any], dict[str, Any] | None, str | None]] = {
    "it isn't there": (ROLE, None, "gone"),
    "another of its name": (ROLE, now(ROLE, meta={"uid": "9"}), "replaced"),
    "as it was": (ROLE, ROLE, None),
    "written and still the same": (ROLE, now(ROLE, meta={"managedFields": [{"manager": "x"}]}), None),
    "noted by a kubectl apply": (
        ROLE,
        now(ROLE, meta={"annotations": {"kubectl.kubernetes.io/last-applied-configuration": "{}"}}),
        None,
    ),
    "a rule of a role": (ROLE, now(ROLE, rules=[{"verbs": ["*"]}]), "changed"),
    "a label beside ours on what only users write": (ROLE, now(ROLE, meta={"labels": {"x": "y"}}), "changed"),
    "a state of an older release": (
        {**ROLE, "metadata": {"name": "x", "uid": "2"}},
        now(ROLE, rules=[]),
        "changed",
    ),
    "a workload's status": (WORKLOAD, now(WORKLOAD, status={"replicas": 1}), None),
    "a workload's field": (WORKLOAD, now(WORKLOAD, spec={"replicas": 2, "paused": False}), "changed"),
    "a workload's label, which raises no generation": (
        WORKLOAD,
        now(WORKLOAD, meta={"labels": {"a": "c"}}),
        "changed",
    ),
    "a model server, of which its operator tells": (
        SERVER,
        now(SERVER, status={"readyReplicas": 2}),
        None,
    ),
    "a model server's number, by kubectl scale": (
        SERVER,
        now(SERVER, meta={"generation": 4}, spec={**SERVER["spec"], "replicas": 5}),
        None,
    ),
    "a model server's scaling": (
        SERVER,
        now(SERVER, meta={"generation": 4}, spec={**SERVER["spec"], "scaling": {"maxReplicas": 6}}),
        "changed",
    ),
    "what the program ignores": (WORKLOAD, now(WORKLOAD, spec={"replicas": 9, "paused": True}), None),
    "what others added to a workload": (
        WORKLOAD,
        now(WORKLOAD, meta={"generation": 4}, spec={**WORKLOAD["spec"], "minReadySeconds": 5}),
        None,
    ),
    "encrypted, and not written since": (SECRET, {**SECRET, "data": {"k": "dg=="}}, None),
    "encrypted, and written since": (SECRET, now(SECRET, data={"k": "dg=="}), "written"),
    "encrypted, and changed for all to see": (SECRET, now(SECRET, data={"k": "dg=="}, type="x"), "changed"),
    "encrypted, and all gone": (SECRET, {"metadata": now(SECRET)["metadata"]}, "changed"),
    "a workload's encrypted value, while its generation is the same": (
        {**WORKLOAD, "spec": {"replicas": 2, "paused": Sealed("v1:abc")}},
        now(WORKLOAD),
        None,
    ),
    "a workload's encrypted value, of another generation": (
        {**WORKLOAD, "spec": {"replicas": 2, "paused": Sealed("v1:abc")}},
        now(WORKLOAD, meta={"generation": 4}),
        "written",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_what_became_of_an_object(case: str) -> None:
    was, live, expected = CASES[case]
    inputs = {key: value for key, value in was.items() if key != "status"}
    inputs["metadata"] = {k: v for k, v in was["metadata"].items() if k in ("name", "namespace", "labels")}
    each = Recorded("/k", "public", ROLES, "n", "x", was, inputs, ("spec.replicas",))
    there = {} if live is None else {(ROLES, "n", "x"): live}
    told = {} if expected is None else {expected: ("role/x",)}
    assert drift.compare([each], there) == replace(Drift(1), **told)


@pytest.fixture
def project(tmp_path: Path, control_plane: ControlPlane) -> Iterator[Project]:
    found = Project(tmp_path, control_plane)
    found.run("stack", "init", "t")
    name = namespace(found)
    run_apart(in_cluster(found, lambda kube: kube.create(NAMESPACES, {"metadata": {"name": name}})))
    yield found
    run_apart(in_cluster(found, lambda kube: kube.delete(NAMESPACES, name)))


def wanted() -> list[dict[str, Any]]:
    web = deployment(replicas=1, skipAwait="true")
    rule = {"api_groups": [""], "resources": ["pods"], "verbs": ["get"]}
    return [
        *(
            _object("ConfigMap", name, data={"a": "1"})
            for name in ("same", "edited", "added", "gone", "anew")
        ),
        *(_object("Role", name, rules=[rule]) for name in ("role", "labelled")),
        *(_object("Secret", name, string_data={"k": "v"}) for name in ("secret", "quiet")),
        *(
            {**_object("Deployment", name, **web), "options": {"ignore_changes": ["spec.replicas"]}}
            for name in ("scaled", "paused")
        ),
    ]


def _object(kind: str, name: str, **arguments: Any) -> dict[str, Any]:
    meta = {**arguments.pop("metadata", {}), "name": name}
    return {"kind": kind, "name": name, "args": {"metadata": meta, **arguments}}


def look(project: Project) -> Drift | None:
    latest = json.loads(project.checkpoint())["checkpoint"]["latest"]
    found = [replace(each, context="public") for each in drift.recorded(latest["resources"])]
    assert len(found) == len(project.wanted["objects"])
    return run_apart(drift.look(found, [Path(project.wanted["kubeconfig"])]))


async def by_hand(kube: Kube, where: str) -> None:
    """What people and operators do to a stack's objects."""
    await kube.patch(CONFIG_MAPS, "edited", {"data": {"a": "2"}}, where)
    await kube.patch(CONFIG_MAPS, "added", {"data": {"b": "2"}}, where)
    for name in ("gone", "anew"):
        await kube.delete(CONFIG_MAPS, name, where)
    await kube.create(CONFIG_MAPS, {"metadata": {"name": "anew", "namespace": where}, "data": {"a": "1"}})
    rule = {"op": "add", "path": "/rules/0/verbs/-", "value": "delete"}
    await kube.patch(ROLES, "role", [rule], where, patch_type="json")
    await kube.patch(ROLES, "labelled", {"metadata": {"labels": {"x": "y"}}}, where)
    await kube.patch(SECRETS, "secret", {"data": {"k": "bmV3"}}, where)
    await kube.patch(DEPLOYMENTS, "scaled", {"spec": {"replicas": 3}}, where)
    await kube.patch(DEPLOYMENTS, "paused", {"spec": {"paused": True, "replicas": 3}}, where)
    await kube.patch(
        DEPLOYMENTS, "paused", {"spec": {"template": {"spec": {"terminationGracePeriodSeconds": 9}}}}, where
    )


def test_drift_of_a_real_stack(project: Project) -> None:
    """Of every sort, seen once it is there and no longer when `up --refresh` has put it right."""
    # As embedded sites have it: the program takes back what somebody changed.
    project.want(provider={"enable_patch_force": True}, objects=wanted())
    project.up()
    assert look(project) == Drift(11)
    run_apart(in_cluster(project, lambda kube: by_hand(kube, namespace(project))))
    found = look(project)
    assert found is not None
    assert {what: set(names) for what, names in vars(found).items() if what != "compared"} == {
        "gone": {"configmap/gone"},
        "replaced": {"configmap/anew"},
        "changed": {
            "configmap/edited",
            "configmap/added",
            "role/role",
            "role/labelled",
            "deployment/paused",
        },
        "written": {"secret/secret"},
        "unasked": set(),
    }
    project.run("up", "--yes", "--skip-preview", "--refresh", "--stack", "t")
    assert look(project) == Drift(11)


async def test_a_site_that_doesn_t_run_says_nothing() -> None:
    each = Recorded("/nowhere", "public", ROLES, "n", "x", ROLE)
    assert await drift.look([each], []) is None
    found = await drift.look([each], [Path("/nowhere")])
    assert found is not None and "can't read the kubeconfig" in found.unasked[0]
