"""ModelServers at a real API server: what it refuses, with which sentence, and that pydantic says the same."""

from __future__ import annotations

import copy
import json
import os
import subprocess
import uuid
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import pytest_asyncio
from pydantic import ValidationError

from infra.local import toolchain
from switchboard.api.conditions import Condition, put
from switchboard.api.model_server import MODEL_SERVERS, Spec, Status
from switchboard.api.schema import structural
from switchboard.kube import NAMESPACES, ApiError, Credentials, Kube, Object
from tests.conftest import ControlPlane
from tests.definitions import define_model_servers

SMALLEST: Object = {
    "model": {"name": "chat-intent", "alias": "champion"},
    "image": "switchboard.dev/switchboard:0.1.0",
    "dataRegions": ["cn-shenzhen"],
    "scaling": {"maxReplicas": 10},
}


def spec(changes: Object) -> Object:
    """The smallest spec with values at dotted places; None takes one out."""
    made = copy.deepcopy(SMALLEST)
    for place, value in changes.items():
        *path, last = place.split(".")
        inner = made
        for part in path:
            inner = inner.setdefault(part, {})
        if value is None:
            inner.pop(last, None)
        else:
            inner[last] = value
    return made


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def kube(control_plane: ControlPlane) -> AsyncIterator[Kube]:
    """With the definition in force."""
    async with Kube(Credentials.from_kubeconfig(control_plane.kubeconfig)) as found:
        definition = await define_model_servers(found)
        for one in definition["status"]["conditions"]:
            assert (one["type"], one["status"]) != ("NonStructuralSchema", "True"), one["message"]
        yield found


@pytest_asyncio.fixture(loop_scope="session")
async def namespace(kube: Kube) -> AsyncIterator[str]:
    name = f"ms-{uuid.uuid4().hex[:8]}"
    await kube.create(NAMESPACES, {"metadata": {"name": name}})
    yield name
    await kube.delete(NAMESPACES, name)


async def create(kube: Kube, namespace: str, wanted: Object, name: str = "chat") -> Object:
    body = {
        "apiVersion": MODEL_SERVERS.api_version,
        "kind": MODEL_SERVERS.kind,
        "metadata": {"name": name, "namespace": namespace},
        "spec": wanted,
    }
    return await kube.create(MODEL_SERVERS, body, namespace, params={"fieldValidation": "Strict"})


async def test_defaults_are_those_of_the_models(kube: Kube, namespace: str) -> None:
    made = await create(kube, namespace, SMALLEST)
    assert Spec.model_validate(made["spec"]) == Spec.model_validate(SMALLEST)
    stored = made["spec"]
    assert stored["scaling"]["upWindowSeconds"] == 6
    assert stored["scaling"]["headroom"] == {"price": 60, "levelSeconds": 600, "historySeconds": 14400}
    assert stored["resources"]["memoryLimit"] == "1Gi"
    assert stored["placement"] == {"tier": "core"}


GOOD: list[Object] = [
    {},
    {"model.alias": None, "model.version": 7},
    {"placement.tier": "edge", "placement.region": "cn-beijing"},
    {"dataClass": "public", "dataRegions": None},
    {"replicas": 10},
    {"scaling.minReplicas": 0, "scaling.idleSeconds": 300},
    {"resources.cpu": "1", "resources.cpuLimit": "1000m"},
    {"resources.memory": "1Gi", "resources.memoryLimit": "1024Mi"},
    {"scaling.up": {"percent": 50}},
    {
        "scaling.schedules": [
            {"name": "day", "start": "08:00", "end": "20:00", "minReplicas": 3, "timeZone": "Asia/Shanghai"}
        ]
    },
]


@pytest.mark.parametrize("changes", GOOD, ids=json.dumps)
async def test_what_both_take(kube: Kube, namespace: str, changes: Object) -> None:
    made = await create(kube, namespace, spec(changes))
    assert Spec.model_validate(made["spec"]) == Spec.model_validate(spec(changes))


BAD: list[tuple[Object, str, str]] = [
    ({"scaling.minReplicas": 11}, "spec.scaling.minReplicas", "minReplicas is more than maxReplicas"),
    (
        {"scaling.fallbackReplicas": 11},
        "spec.scaling.fallbackReplicas",
        "fallbackReplicas is more than maxReplicas",
    ),
    ({"scaling.idleSeconds": 60}, "spec.scaling.idleSeconds", "idleSeconds is for minReplicas 0"),
    (
        {"scaling.schedules": [{"name": "x", "start": "08:00", "end": "09:00", "minReplicas": 11}]},
        "spec.scaling.schedules",
        "minReplicas is more than maxReplicas",
    ),
    ({"scaling.maxReplicas": 0}, "spec.scaling.maxReplicas", "greater than or equal to 1"),
    ({"scaling.maxReplicas": None}, "spec.scaling.maxReplicas", "Required value"),
    ({"scaling.mode": "fast"}, "spec.scaling.mode", "Unsupported value"),
    ({"scaling.utilization": 0}, "spec.scaling.utilization", "greater than 0"),
    ({"scaling.tolerance": "much"}, "spec.scaling.tolerance", "must be of type number"),
    ({"scaling.speed": 3}, "spec.scaling.speed", "unknown field"),
    ({"replicas": 11}, "spec.replicas", "replicas is more than scaling.maxReplicas"),
    ({"replicas": -1}, "spec.replicas", "greater than or equal to 0"),
    ({"model.version": 7}, "spec.model.alias", "one of alias and version says which model is served"),
    ({"model.alias": None}, "spec.model.alias", "one of alias and version says which model is served"),
    ({"model.name": "Chat Intent"}, "spec.model.name", "should match"),
    ({"placement.tier": "edge"}, "spec.placement.region", "an edge has a region"),
    (
        {"placement.tier": "edge", "placement.region": "cn-beijing", "scaling.minReplicas": 0},
        "spec.scaling.minReplicas",
        "minReplicas 0 is for the core",
    ),
    ({"placement.region": "cn-beijing"}, "spec.placement.region", "an edge has a region"),
    ({"dataRegions": None}, "spec.dataRegions", "may be in stated regions only"),
    ({"dataClass": "secret"}, "spec.dataClass", "Unsupported value"),
    ({"resources.cpuLimit": "100m"}, "spec.resources.cpuLimit", "cpuLimit is below cpu"),
    ({"resources.memory": "2Gi"}, "spec.resources.memoryLimit", "memoryLimit is below memory"),
    ({"resources.cpu": "fast"}, "spec.resources.cpu", "should match"),
    ({"capacity.concurrency": 0}, "spec.capacity.concurrency", "greater than or equal to 1"),
    (
        {"scaling.schedules": [{"name": "x", "start": "8:00", "end": "09:00", "minReplicas": 1}]},
        "spec.scaling.schedules[0].start",
        "should match",
    ),
    *(
        (
            {
                "scaling.schedules": [
                    {"name": "x", "start": "08:00", "end": "09:00", "minReplicas": 1, "timeZone": zone}
                ]
            },
            "spec.scaling.schedules[0]",
            "timeZone is no time zone: say it as Asia/Shanghai or UTC",
        )
        for zone in ("Mars/Base", "+08:00")
    ),
    (
        {
            "scaling.schedules": [
                {"name": "x", "start": "08:00", "end": "09:00", "minReplicas": 1},
                {"name": "x", "start": "10:00", "end": "11:00", "minReplicas": 1},
            ]
        },
        "spec.scaling.schedules[1]",
        "Duplicate value",
    ),
]


@pytest.mark.parametrize(("changes", "field", "says"), BAD, ids=[json.dumps(one[0]) for one in BAD])
async def test_what_both_refuse(kube: Kube, namespace: str, changes: Object, field: str, says: str) -> None:
    with pytest.raises(ValidationError):
        Spec.model_validate(spec(changes))
    with pytest.raises(ApiError) as caught:
        await create(kube, namespace, spec(changes))
    assert field in caught.value.message
    assert says in caught.value.message


async def test_a_bad_update_is_refused_and_the_object_stays(kube: Kube, namespace: str) -> None:
    await create(kube, namespace, SMALLEST)
    with pytest.raises(ApiError, match="minReplicas is more than maxReplicas"):
        await kube.patch(MODEL_SERVERS, "chat", {"spec": {"scaling": {"minReplicas": 20}}}, namespace)
    kept = await kube.get(MODEL_SERVERS, "chat", namespace)
    assert kept["spec"]["scaling"]["minReplicas"] == 1


@pytest.mark.parametrize(
    ("before", "changes", "field"),
    [
        pytest.param({}, {"service": "voice"}, "service", id="a service is stated"),
        pytest.param({"service": "voice"}, {"service": None}, "service", id="and isn't any more"),
        pytest.param({"service": "voice"}, {"service": "chat"}, "service", id="another service"),
        pytest.param({}, {"placement": {"tier": "edge", "region": "cn-beijing"}}, "placement", id="a tier"),
        pytest.param(
            {"placement": {"tier": "edge", "region": "cn-beijing"}},
            {"placement": {"region": "cn-hangzhou"}},
            "placement",
            id="a region",
        ),
    ],
)
async def test_whose_replicas_they_are_does_not_change(
    kube: Kube, namespace: str, before: Object, changes: Object, field: str
) -> None:
    made = await create(kube, namespace, spec(before))
    with pytest.raises(ApiError, match=rf"spec\.{field}: .*{field} can't be changed: delete the ModelServer"):
        await kube.patch(MODEL_SERVERS, "chat", {"spec": changes}, namespace)
    assert (await kube.get(MODEL_SERVERS, "chat", namespace))["spec"] == made["spec"]


@pytest.mark.parametrize(
    ("name", "service", "taken"),
    [
        ("c" * 32, None, True),
        ("c" * 33, None, False),
        ("c" * 52, "chat", True),
        ("c" * 53, "chat", False),
        ("chat.two", "chat", False),
    ],
)
async def test_names_are_bounded(
    kube: Kube, namespace: str, name: str, service: str | None, taken: bool
) -> None:
    if taken:
        assert await create(kube, namespace, spec({"service": service}), name)
        return
    with pytest.raises(ApiError, match=r"metadata\.name (has|is)"):
        await create(kube, namespace, spec({"service": service}), name)


async def test_status_is_apart_and_in_the_standard_form(kube: Kube, namespace: str) -> None:
    made = await create(kube, namespace, SMALLEST)
    now = datetime.now(UTC).replace(microsecond=0)
    conditions = put((), "Ready", "False", "Starting", "0 of 2 replicas serve", generation=1, now=now)
    status = Status(replicas=2, desired_replicas=2, selector="a=b", conditions=conditions)
    body = {
        "metadata": {"name": "chat", "namespace": namespace},
        "status": status.model_dump(by_alias=True, mode="json", exclude_none=True),
    }
    found = await kube.apply(MODEL_SERVERS, body, field_manager="operator", subresource="status")
    assert Status.model_validate(found["status"]) == status
    assert found["metadata"]["generation"] == made["metadata"]["generation"] == 1
    assert found["spec"] == made["spec"]
    with pytest.raises(ApiError, match=r"status\.conditions\[0\]\.status"):
        spoilt = copy.deepcopy(body)
        spoilt["status"]["conditions"][0]["status"] = "Maybe"
        await kube.apply(MODEL_SERVERS, spoilt, field_manager="operator", subresource="status")


def kubectl(control_plane: ControlPlane, *words: str) -> subprocess.CompletedProcess[str]:
    program = toolchain.locate(["kubectl"]).path("kubectl")
    return subprocess.run(
        [program, "--kubeconfig", control_plane.kubeconfig, *words],
        capture_output=True,
        text=True,
        timeout=180,
        env={**os.environ, "HOME": str(control_plane.kubeconfig.parent)},
    )


async def test_kubectl(kube: Kube, namespace: str, control_plane: ControlPlane) -> None:
    await create(kube, namespace, spec({"replicas": 2}))
    body = {
        "metadata": {"name": "chat", "namespace": namespace},
        "status": {"readyReplicas": 2, "desiredReplicas": 3, "revision": "7", "load": "64%", "replicas": 3},
    }
    await kube.apply(MODEL_SERVERS, body, field_manager="operator", subresource="status")
    shown = kubectl(control_plane, "get", "ms", "-n", namespace)
    head, row = shown.stdout.splitlines()
    assert head.split() == ["NAME", "MODEL", "REVISION", "READY", "DESIRED", "LOAD", "MODE", "AGE"]
    assert row.split()[:7] == ["chat", "chat-intent", "7", "2", "3", "64%", "active"]
    scaled = kubectl(control_plane, "scale", "ms/chat", "--replicas=5", "-n", namespace)
    assert scaled.returncode == 0, scaled.stderr
    assert (await kube.get(MODEL_SERVERS, "chat", namespace))["spec"]["replicas"] == 5
    refused = kubectl(control_plane, "scale", "ms/chat", "--replicas=50", "-n", namespace)
    assert refused.returncode == 1
    assert "replicas is more than scaling.maxReplicas" in refused.stderr
    explained = kubectl(control_plane, "explain", "ms.spec.scaling.drainSeconds")
    assert "drainSeconds <integer>" in explained.stdout


# The schema's making


def test_what_has_no_structural_form_is_an_error() -> None:
    from switchboard.api._base import Api

    class Either(Api):
        value: int | str

    class Anything(Api):
        value: Any

    for model in (Either, Anything):
        with pytest.raises(ValueError, match=rf"{model.__name__}\.value: "):
            structural(model)


def test_a_condition_keeps_the_time_of_its_last_change() -> None:
    start = datetime(2026, 1, 1, tzinfo=UTC)
    first = put((), "Ready", "False", "Starting", "", generation=1, now=start)
    other = put(first, "Scaling", "True", "Step", "", generation=1, now=start)
    same = put(other, "Ready", "False", "Waiting", "still", generation=2, now=start + timedelta(hours=1))
    assert [(one.type, one.reason) for one in same] == [("Ready", "Waiting"), ("Scaling", "Step")]
    assert same[0].last_transition_time == start
    assert same[0].observed_generation == 2
    changed = put(same, "Ready", "True", "Ready", "", generation=2, now=start + timedelta(hours=2))
    assert changed[0].last_transition_time == start + timedelta(hours=2)
    with pytest.raises(ValidationError):
        Condition(type="Ready", status="True", reason="with spaces", last_transition_time=start)
