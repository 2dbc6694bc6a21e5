"""The facts by ModelServer, of objects as watches show them (`servers/test_workloads.py` has real ones)."""

from __future__ import annotations

from typing import Any

import pytest

from operators import facts
from operators.signals.values import Place
from operators.view import GATEWAY_AGE_S, View
from switchboard import labels
from switchboard.kube import Credentials, Kube, Object

READY = "2026-01-05T08:00:00Z"
READY_S = 1767600000.0


@pytest.fixture
def view() -> View:
    return View(Kube(Credentials("https://127.0.0.1:1")), "core")


def pod(name: str, own: Object, **status: Any) -> Object:
    conditions = [{"type": "Ready", "status": "True", "lastTransitionTime": READY}]
    meta = {"name": name, "namespace": "core", "uid": f"u-{name}", "resourceVersion": "1", "labels": own}
    return {
        "metadata": {**meta, "ownerReferences": [{"kind": "ReplicaSet", "name": "chat-5c9d7b8f6d"}]},
        "spec": {"containers": []},
        "status": {"phase": "Running", "podIP": "10.0.0.1", "conditions": conditions, **status},
    }


def shown(view: View, informer: int, old: Object | None, new: Object | None) -> None:
    """As an informer shows a change: what was before is what was kept of it."""
    body = new or old
    assert body is not None
    kept = facts.stub(old) if old is not None else None
    on_change = view.informers[informer]._on_change
    assert on_change is not None
    on_change((body["metadata"]["namespace"], body["metadata"]["name"]), kept, new)


PODS, DEPLOYMENTS, CLAIMS, BUDGETS, GATEWAYS = range(5)


def test_pods_come_and_go(view: View) -> None:
    one, other = pod("chat-1", {facts.NAME: "chat"}), pod("voice-1", {facts.NAME: "voice"})
    for each in (one, other):
        shown(view, PODS, None, each)
    assert {name: set(found) for name, found in view.pods.items()} == {
        "chat": {"chat-1"},
        "voice": {"voice-1"},
    }
    ended = pod("chat-1", {facts.NAME: "chat"}, phase="Failed")
    shown(view, PODS, one, ended)
    assert view.pods["chat"] == {}
    shown(view, PODS, other, None)
    assert view.pods["voice"] == {}
    shown(view, PODS, None, pod("stray", {}))
    assert set(view.pods) == {"chat", "voice"}


def deployment(version: int, replicas: int, uid: str = "u-1") -> Object:
    meta = {"name": "chat", "namespace": "core", "uid": uid, "resourceVersion": str(version), "generation": 1}
    return {"metadata": meta, "spec": {"replicas": replicas}}


def test_whose_facts_have_changed_is_told_once(view: View) -> None:
    assert view.changed() == set()
    one, other = pod("chat-1", {facts.NAME: "chat"}), pod("voice-1", {facts.NAME: "voice"})
    for each in (one, other):
        shown(view, PODS, None, each)
    assert view.changed() == {"chat", "voice"}
    assert view.changed() == set()
    shown(view, PODS, one, None)
    view.told("voice", deployment(5, 3))
    assert view.changed() == {"chat", "voice"}
    view.told("voice", deployment(4, 3))  # older than what is known
    shown(view, PODS, None, pod("stray", {}))
    assert view.changed() == set()
    shown(view, DEPLOYMENTS, deployment(5, 3), None)
    assert view.changed() == {"chat"}


def test_an_answer_may_be_quicker_than_the_watch(view: View) -> None:
    shown(view, DEPLOYMENTS, None, deployment(5, 3))
    assert view.told("chat", deployment(9, 6)).replicas == 6
    shown(view, DEPLOYMENTS, deployment(5, 3), deployment(7, 3))  # what was before the answer
    assert view.deployments["chat"].replicas == 6
    shown(view, DEPLOYMENTS, deployment(7, 3), deployment(10, 8))
    assert view.deployments["chat"].replicas == 8
    assert view.told("chat", deployment(9, 6)).replicas == 8
    assert view.told("chat", deployment(2, 1, uid="u-2")).replicas == 1  # another one
    shown(view, DEPLOYMENTS, deployment(10, 8), None)
    assert view.deployments == {}


def test_claims_are_found_by_whose_they_are(view: View) -> None:
    body = {
        "metadata": {
            "name": "chat-models",
            "namespace": "core",
            "uid": "u-c",
            "resourceVersion": "1",
            "labels": {facts.NAME: "chat"},
            "annotations": {facts.APPLIED: "abc"},
        }
    }
    shown(view, CLAIMS, None, body)
    assert view.claims == {"chat": facts.Made("u-c", "abc")}
    shown(view, CLAIMS, body, None)
    assert view.claims == {}
    assert view.budgets == {}


EDGE = {labels.TIER: "edge", labels.REGION: "cn-beijing"}


def test_gateways_and_where_they_are(view: View) -> None:
    core = {labels.TIER: "core", labels.REGION: "cn-shenzhen"}
    for number, own in enumerate((core, core, EDGE, {})):
        shown(view, GATEWAYS, None, pod(f"gateway-{number}", own))
    shown(view, GATEWAYS, None, pod("gateway-9", core, podIP=None))  # it doesn't serve
    later = READY_S + GATEWAY_AGE_S
    assert view.gateways_at(later) == {Place(): 3, Place("edge", "cn-beijing"): 1}
    shown(view, GATEWAYS, pod("gateway-0", core), pod("gateway-0", core, conditions=[]))
    assert view.gateways_at(later) == {Place(): 2, Place("edge", "cn-beijing"): 1}


@pytest.mark.parametrize(
    ("later", "count"),
    [
        pytest.param(0.0, 0, id="only just ready: it may not have been scraped"),
        pytest.param(GATEWAY_AGE_S - 0.1, 0, id="not for long"),
        pytest.param(GATEWAY_AGE_S, 1, id="for long enough"),
        pytest.param(-3600.0, 1, id="the clock was set back: one that is missing is missed"),
    ],
)
def test_a_gateway_is_missed_from_some_time_on(view: View, later: float, count: int) -> None:
    shown(view, GATEWAYS, None, pod("gateway-0", {labels.TIER: "core"}))
    assert view.gateways_at(READY_S + later).get(Place(), 0) == count
