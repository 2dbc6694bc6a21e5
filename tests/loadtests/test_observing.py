"""What a run sees of the cloud, at a real API server."""

from __future__ import annotations

import os
from typing import Any

import pytest

from loadtests.observing import Observer
from loadtests.starting import START_S, Start
from switchboard.kinds import MODEL_SERVERS, PODS
from switchboard.kube import Credentials, Kube
from switchboard.labels import NAME
from switchboard.pods import start_s
from tests import pods
from tests.conftest import ControlPlane
from tests.definitions import define_model_servers
from tests.pods import until

CREATED, READY = "2026-01-01T00:00:00Z", "2026-01-01T00:00:04Z"


async def test_it_sees_replicas_and_how_long_those_took_that_came(control_plane: ControlPlane) -> None:
    credentials = Credentials.from_kubeconfig(control_plane.kubeconfig)
    async with Kube(credentials) as kube:
        await define_model_servers(kube)
        space = await pods.namespace(kube, f"observing-{os.urandom(4).hex()}")
        spec = {
            "model": {"name": "m", "alias": "champion"},
            "image": "i",
            "dataRegions": ["cn-shenzhen"],
            "scaling": {"maxReplicas": 3},
        }
        await kube.apply(
            MODEL_SERVERS,
            {"metadata": {"name": "chat", "namespace": space}, "spec": spec},
            field_manager="test",
        )
        await status(kube, space, 1)
        await pod(kube, space, "before")
        with Observer(credentials, space, "chat") as observer:
            await until(lambda: observer.looks, what="a look")
            assert (observer.looks[-1].desired, observer.looks[-1].ready) == (1, 1)
            await pod(kube, space, "one")
            await pod(kube, space, "other", name="voice")
            await status(kube, space, 2)
            await until(lambda: observer.looks[-1].ready == 2, what="another look")
            await until(lambda: observer.starts, what="a replica that started")
            seen = len(observer.looks)
            await until(lambda: len(observer.looks) > seen + 1, what="more looks")
        assert len(observer.starts) == 1, "not the one that was there, and each once"
        assert 0 <= observer.starts[0] < 60
        assert observer.looks[-1].weight is None


async def pod(kube: Kube, space: str, own: str, name: str = "chat") -> None:
    await pods.pod(kube, space, own, ip="127.35.9.9", labels={NAME: name}, ports={"http": 8080})
    found = await kube.get(PODS, own, space)
    ready = {"type": "Ready", "status": "True", "lastTransitionTime": found["metadata"]["creationTimestamp"]}
    await kube.patch(
        PODS, own, {"status": {"conditions": [ready]}}, space, patch_type="strategic", subresource="status"
    )


async def status(kube: Kube, space: str, replicas: int) -> None:
    own = {"status": {"desiredReplicas": replicas, "readyReplicas": replicas}}
    await kube.patch(MODEL_SERVERS, "chat", own, space, subresource="status")


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        ({"conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": READY}]}, 4.0),
        ({"conditions": [{"type": "Ready", "status": "False", "lastTransitionTime": READY}]}, None),
        ({"conditions": [{"type": "Ready", "status": "True"}]}, None),
        ({"conditions": [{"type": "Initialized", "status": "True", "lastTransitionTime": READY}]}, None),
        (
            {
                "conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": READY}],
                "containerStatuses": [{"restartCount": 0}, {"restartCount": 1}],
            },
            None,
        ),
        ({}, None),
    ],
    ids=["ready", "not ready", "since nobody knows when", "another condition", "begun anew", "nothing"],
)
def test_how_long_a_pod_took(status: dict[str, Any], expected: float | None) -> None:
    assert start_s({"metadata": {"creationTimestamp": CREATED}, "status": status}) == expected


@pytest.mark.parametrize(
    ("given", "starts", "expected", "said"),
    [
        (None, [], Start(START_S), "20 s (not measured: none started in the run)"),
        (None, [3.0, 9.0, 4.0], Start(9.0, 3), "9 s (p95 of 3 in the run, by whole seconds)"),
        (None, [n / 10 for n in range(100, 0, -1)], Start(9.5, 100), "9.5 s (p95 of 100 in the run"),
        (None, [200.0, 300.0], Start(60.0, 2), "60 s (p95 of 2 in the run"),
        (7.5, [3.0], Start(7.5, given=True), "7.5 s (as given)"),
        (0.0, [3.0], Start(0.0, given=True), "0 s (as given)"),
    ],
)
def test_how_long_is_waited(given: float | None, starts: list[float], expected: Start, said: str) -> None:
    found = Start.of(given, starts)
    assert found == expected
    assert str(found).startswith(said)
