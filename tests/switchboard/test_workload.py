"""What runs of a ModelServer: as values, and at a real API server that enforces the restricted Pod Security level."""

from __future__ import annotations

import asyncio
import copy
import uuid
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
from hypothesis import given
from hypothesis import strategies as st

from operators.servers.workloads import digest
from switchboard import labels, workload
from switchboard.api.model_server import Spec
from switchboard.kinds import POD_DISRUPTION_BUDGETS, Kind
from switchboard.kube import (
    DEPLOYMENTS,
    NAMESPACES,
    PERSISTENT_VOLUME_CLAIMS,
    PODS,
    SERVICE_ACCOUNTS,
    Credentials,
    Kube,
    Object,
)
from tests.conftest import ControlPlane

EDGE = {"placement": {"tier": "edge", "region": "cn-beijing"}}


def spec(**changes: Any) -> Spec:
    return Spec.model_validate(
        {
            "model": {"name": "chat-intent", "alias": "champion", "registry": "http://mlflow:5000"},
            "image": "switchboard.dev/switchboard:0.1.0",
            "dataClass": "customer",
            "dataRegions": ["cn-shenzhen", "cn-beijing"],
            "scaling": {"maxReplicas": 20},
            **changes,
        }
    )


def server(name: str = "chat", **meta: Any) -> Object:
    own = {
        labels.SITE: "public",
        labels.SITE_ROLE: "public",
        labels.REGION: "cn-shenzhen",
        "team": "models",
        "app.kubernetes.io/name": "by-hand",
    }
    notes = {
        "note": "of a person's",
        "kubectl.kubernetes.io/last-applied-configuration": "{}",
        "pulumi.com/patchForce": "true",
    }
    return {
        "metadata": {
            "name": name,
            "namespace": "core",
            "uid": "u-1",
            "labels": own,
            "annotations": notes,
            **meta,
        }
    }


def template(**changes: Any) -> Object:
    found: Object = workload.deployment(server(), spec(**changes))["spec"]["template"]
    return found


def container(**changes: Any) -> Object:
    (found,) = template(**changes)["spec"]["containers"]
    return dict(found)


def variables(**changes: Any) -> dict[str, str]:
    return {one["name"]: one["value"] for one in container(**changes)["env"] if "value" in one}


@pytest.mark.parametrize("changes", [{}, EDGE, {"service": "voice"}])
def test_the_selector_finds_the_pods_and_no_others(changes: Object) -> None:
    made = workload.deployment(server(), spec(**changes))
    match = made["spec"]["selector"]["matchLabels"]
    assert match == workload.selector("chat", spec(**changes))
    assert match.items() <= made["spec"]["template"]["metadata"]["labels"].items()
    assert match == {
        "app.kubernetes.io/name": "chat",
        "app.kubernetes.io/component": "model-server",
        "app.kubernetes.io/part-of": "switchboard",
        labels.MODEL_SERVER: changes.get("service", "chat"),
        labels.TIER: "edge" if changes is EDGE else "core",
    }
    budget = workload.budget(server(), spec(**changes))
    assert budget["spec"]["selector"]["matchLabels"] == match


@pytest.mark.parametrize(
    ("changes", "region"), [({}, "cn-shenzhen"), (EDGE, "cn-beijing")], ids=["the site's", "the edge's"]
)
def test_pods_say_where_they_are_and_what_they_see(changes: Object, region: str) -> None:
    meta = template(**changes)["metadata"]
    where = {labels.SITE: "public", labels.SITE_ROLE: "public", labels.REGION: region}
    assert (where | {labels.DATA_CLASS: "customer"}).items() <= meta["labels"].items()
    assert "team" not in meta["labels"]  # a person's label is no reason for new pods
    assert meta["annotations"] == {
        labels.DATA_REGIONS: "cn-beijing,cn-shenzhen",
        labels.SCRAPE: "true",
        labels.SCRAPE_PORT: "8080",
        labels.SCRAPE_PATH: "/metrics",
    }


def test_objects_have_the_labels_and_notes_of_their_model_server() -> None:
    for made in (workload.deployment(server(), spec()), workload.budget(server(), spec())):
        meta = made["metadata"]
        assert (meta["name"], meta["namespace"]) == ("chat", "core")
        assert (meta["labels"]["team"], meta["labels"]["app.kubernetes.io/name"]) == ("models", "chat")
        assert meta["annotations"] == {"note": "of a person's", labels.DATA_REGIONS: "cn-beijing,cn-shenzhen"}
    claim = workload.claim(server(), spec())["metadata"]
    assert (claim["name"], claim["labels"][labels.DATA_CLASS]) == ("chat-models", "internal")
    assert "annotations" not in claim  # what is in it is bound to no region


def test_data_that_is_bound_to_no_region_says_none() -> None:
    made = workload.deployment(server(), spec(dataClass="internal", dataRegions=[]))
    assert labels.DATA_REGIONS not in made["metadata"]["annotations"]
    assert labels.DATA_REGIONS not in made["spec"]["template"]["metadata"]["annotations"]


def test_all_goes_with_its_model_server() -> None:
    for make in (workload.deployment, workload.claim, workload.budget):
        (owner,) = make(server(), spec())["metadata"]["ownerReferences"]
        assert (owner["kind"], owner["name"], owner["uid"]) == ("ModelServer", "chat", "u-1")
        assert owner["controller"]
    declared = server()
    del declared["metadata"]["uid"]  # judged before it is made
    assert "ownerReferences" not in workload.deployment(declared, spec())["metadata"]


def test_the_number_of_replicas_is_not_the_templates() -> None:
    assert "replicas" not in workload.deployment(server(), spec(replicas=4))["spec"]


def test_what_the_process_is_told() -> None:
    found = variables(capacity={"concurrency": 7})
    assert found["MODEL_URI"] == "models:/chat-intent@champion"
    assert (found["MAX_CONCURRENCY"], found["SERVICE_TIER"]) == ("7", "core")
    assert found["MLFLOW_TRACKING_URI"] == "http://mlflow:5000"
    found = variables(model={"name": "chat-intent", "version": 7}, **EDGE)
    assert (found["MODEL_URI"], found["SERVICE_TIER"]) == ("models:/chat-intent/7", "edge")
    assert "MLFLOW_TRACKING_URI" not in found
    assert container(service="voice")["command"] == ["python", "-m", "serving.voice"]


@pytest.mark.parametrize(
    ("start_s", "probe_s", "deadline_s"),
    [(1, 120, 600), (30, 120, 600), (60, 240, 600), (420, 1680, 3360), (3600, 14_400, 28_800)],
)
def test_a_slow_start_is_no_failure(start_s: int, probe_s: int, deadline_s: int) -> None:
    """A container may start for longer than is said; a rollout is given up later than that."""
    wanted = spec(capacity={"startSeconds": start_s})
    made = workload.deployment(server(), wanted)["spec"]
    probe = made["template"]["spec"]["containers"][0]["startupProbe"]
    assert probe["periodSeconds"] * probe["failureThreshold"] == probe_s == workload.startup_s(wanted)
    assert made["progressDeadlineSeconds"] == deadline_s > probe_s


def test_a_rollout_takes_no_capacity_away() -> None:
    assert workload.deployment(server(), spec())["spec"]["strategy"]["rollingUpdate"]["maxUnavailable"] == 0


@pytest.mark.parametrize(("changes", "mode"), [({}, "ReadWriteMany"), (EDGE, "ReadWriteOnce")])
def test_replicas_share_a_claim(changes: Object, mode: str) -> None:
    cache = {"size": "3Gi", "storageClass": "files"}
    claim = workload.claim(server(), spec(**changes, cache=cache))["spec"]
    assert claim == {
        "accessModes": [mode],
        "resources": {"requests": {"storage": "3Gi"}},
        "storageClassName": "files",
    }
    assert "storageClassName" not in workload.claim(server(), spec(**changes))["spec"]
    (volume,) = [one for one in template(**changes)["spec"]["volumes"] if one["name"] == "models"]
    assert volume["persistentVolumeClaim"]["claimName"] == "chat-models"


def test_the_same_gives_the_same_and_nothing_is_changed() -> None:
    """The digest says whether something has to be applied: the order of what comes in is no difference."""
    wanted, first = spec(), server()
    before = copy.deepcopy(first)
    turned = copy.deepcopy(first)
    turned["metadata"]["labels"] = dict(reversed(turned["metadata"]["labels"].items()))
    for make in (workload.deployment, workload.claim, workload.budget):
        assert digest(make(first, wanted)) == digest(make(turned, spec()))
    assert first == before
    read = Spec.model_validate(wanted.model_dump(mode="json", by_alias=True))
    assert digest(workload.deployment(first, read)) == digest(workload.deployment(first, wanted))


@pytest.mark.parametrize(
    ("changes", "meta", "others"),
    [
        pytest.param({"image": "other:1"}, {}, {"deployment"}, id="an image"),
        pytest.param({"cache": {"size": "2Gi"}}, {}, {"claim"}, id="a size"),
        pytest.param({"capacity": {"concurrency": 7}}, {}, {"deployment"}, id="a capacity"),
        pytest.param({"scaling": {"maxReplicas": 5}}, {}, set(), id="a bound"),
        pytest.param({"replicas": 5}, {}, set(), id="a number"),
        pytest.param({}, {"generation": 9, "resourceVersion": "9"}, set(), id="a generation"),
        pytest.param({}, {"uid": "u-2"}, {"deployment", "claim", "budget"}, id="another owner"),
        pytest.param({}, {"labels": {"team": "voice"}}, {"deployment", "claim", "budget"}, id="a label"),
        pytest.param({}, {"annotations": {"note": "another"}}, {"deployment", "budget"}, id="a note"),
        pytest.param(
            {}, {"annotations": {"note": "of a person's", "pulumi.com/x": "y"}}, set(), id="Pulumi's note"
        ),
    ],
)
def test_what_makes_a_difference(changes: Object, meta: Object, others: set[str]) -> None:
    makes = {"deployment": workload.deployment, "claim": workload.claim, "budget": workload.budget}
    found = {
        name
        for name, make in makes.items()
        if digest(make(server(), spec())) != digest(make(server(**meta), spec(**changes)))
    }
    assert found == others


# At a real API server


@pytest_asyncio.fixture(loop_scope="session")
async def kube(control_plane: ControlPlane) -> AsyncIterator[Kube]:
    async with Kube(Credentials.from_kubeconfig(control_plane.kubeconfig), timeout_s=30) as found:
        yield found


@pytest_asyncio.fixture(loop_scope="session")
async def namespace(kube: Kube) -> AsyncIterator[str]:
    name = f"workload-{uuid.uuid4().hex[:8]}"
    level = {"pod-security.kubernetes.io/enforce": "restricted"}
    await kube.create(NAMESPACES, {"metadata": {"name": name, "labels": level}})
    async with asyncio.timeout(60):
        while await kube.get_or_none(SERVICE_ACCOUNTS, "default", name) is None:
            await asyncio.sleep(0.05)
    yield name
    await kube.delete(NAMESPACES, name)


CHANGES: list[Any] = [
    pytest.param({}, id="core"),
    pytest.param(EDGE, id="edge"),
    pytest.param({"service": "voice"}, id="another service"),
    pytest.param({"dataClass": "public", "dataRegions": []}, id="public data"),
    pytest.param({"cache": {"size": "3Gi", "storageClass": "files"}}, id="a class of volumes"),
    pytest.param(
        {"resources": {"cpu": "1500m", "cpuLimit": "2", "memory": "1Gi", "memoryLimit": "3Gi"}},
        id="resources",
    ),
    pytest.param({"capacity": {"concurrency": 10_000, "startSeconds": 3600}}, id="the slowest"),
]


@pytest.mark.parametrize("changes", CHANGES)
async def test_an_api_server_takes_it(kube: Kube, namespace: str, changes: Object) -> None:
    """As it is, with no word that it doesn't know, and its pods at the restricted level."""
    owner, wanted = server(namespace=namespace), spec(**changes)
    made = workload.deployment(owner, wanted)
    bodies: list[tuple[Kind, Object]] = [
        (DEPLOYMENTS, made),
        (PERSISTENT_VOLUME_CLAIMS, workload.claim(owner, wanted)),
        (POD_DISRUPTION_BUDGETS, workload.budget(owner, wanted)),
    ]
    for kind, body in bodies:
        applied = await kube.apply(kind, body, field_manager="test", dry_run=True)
        assert holds(applied["spec"], body["spec"]), kind.kind
        await strictly(kube, kind, body, namespace)
    pod = made["spec"]["template"]
    await strictly(
        kube, PODS, {"metadata": {**pod["metadata"], "name": "one"}, "spec": pod["spec"]}, namespace
    )


async def strictly(kube: Kube, kind: Kind, body: Object, namespace: str) -> None:
    """Create it, though not for good; unknown and repeated fields are errors."""
    whole = {"apiVersion": kind.api_version, "kind": kind.kind, **body}
    await kube.create(kind, whole, namespace, params={"dryRun": "All", "fieldValidation": "Strict"})


def holds(found: Any, said: Any) -> bool:
    """Whether all that was said is there as it was said."""
    if isinstance(said, dict):
        return all(key in found and holds(found[key], value) for key, value in said.items())
    if isinstance(said, list):
        return len(found) == len(said) and all(holds(*pair) for pair in zip(found, said, strict=True))
    return bool(found == said)


@given(st.integers(1, 3600))
def test_probes_allow_for_every_start_time(start_s: int) -> None:
    assert workload.startup_s(spec(capacity={"startSeconds": start_s})) >= max(start_s, 120)
