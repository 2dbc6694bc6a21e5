"""`pulumi.com/waitFor`: conditions that a manifest states itself."""

from __future__ import annotations

from typing import Any

import pytest

from infra.plugin.await_.wait_for import rule

LIVE: dict[str, Any] = {
    "metadata": {"generation": 3, "labels": {"a.b/c": "d"}},
    "spec": {"n": 2, "on": True, "list": [{"name": "x", "v": "1"}, {"name": "y", "v": "2"}]},
    "status": {
        "phase": "Running",
        "conditions": [
            {"type": "Synced", "status": "True"},
            {"type": "Stalled", "status": "False"},
            {"type": "Old", "status": "True", "observedGeneration": 2},
        ],
    },
}


@pytest.mark.parametrize(
    ("text", "met"),
    [
        ("condition=Synced", True),
        ("condition=Synced=true", True),
        ("condition=Stalled", False),
        ("condition=Stalled=False", True),
        ("condition=Absent", False),
        ("condition=Old", False),
        ("jsonpath={.status.phase}=Running", True),
        ("jsonpath={.status.phase}=Pending", False),
        ("jsonpath={.status.phase}", True),
        ("jsonpath={.status.absent}", False),
        ("jsonpath={.spec.n}=2", True),
        ("jsonpath={.spec.on}=true", True),
        ("jsonpath={.spec.list[1].v}=2", True),
        ("jsonpath={.spec.list[-1].v}=2", True),
        ("jsonpath={.spec.list[7].v}", False),
        ('jsonpath={.spec.list[?(@.name=="y")].v}=2', True),
        ('jsonpath={.spec.list[?(@.name=="z")].v}=2', False),
        ('jsonpath={.status.conditions[?(@.type=="Synced")].status}=True', True),
        ("jsonpath={.metadata.labels['a.b/c']}=d", True),
        (r"jsonpath={.metadata.labels.a\.b/c}=d", True),
        ('["condition=Synced", "jsonpath={.spec.n}=2"]', True),
        ('["condition=Synced", "jsonpath={.spec.n}=3"]', False),
    ],
)
def test_conditions(text: str, met: bool) -> None:
    assert rule(text).check(LIVE, {}).done is met


def test_what_is_missing_is_named() -> None:
    verdict = rule('["condition=Synced", "condition=Stalled", "jsonpath={.spec.n}=3"]').check(LIVE, {})
    assert verdict.message == "not met yet: condition=Stalled, .spec.n=3"


@pytest.mark.parametrize(
    ("of_condition", "of_status", "met"),
    [
        ({}, {}, True),
        ({"observedGeneration": 3}, {"observedGeneration": 2}, True),
        ({"observedGeneration": 2}, {"observedGeneration": 3}, False),
        ({"observedGeneration": 0}, {}, False),
        ({}, {"observedGeneration": 3}, True),
        ({}, {"observedGeneration": 2}, False),
        ({}, {"observedGeneration": 0}, False),
    ],
)
def test_a_condition_of_an_earlier_generation_is_not_met(
    of_condition: dict[str, int], of_status: dict[str, int], met: bool
) -> None:
    """As `kubectl wait`, and the official plugin by the same code, have it."""
    ready = {"type": "Ready", "status": "True", "reason": "ReplicasReady", **of_condition}
    live = {"metadata": {"generation": 3}, "status": {"conditions": [ready], **of_status}}
    verdict = rule("condition=Ready").check(live, {})
    assert verdict.done is met
    assert met or verdict.message == "not met yet: condition=Ready", "what it says is of the past, too"


def test_a_condition_s_own_words_are_shown() -> None:
    ready = {"type": "Ready", "status": "False", "reason": "ImagePullFailed", "message": "no such image"}
    live = {"metadata": {"generation": 3}, "status": {"conditions": [ready]}}
    verdict = rule("condition=Ready").check(live, {})
    assert verdict.message == "not met yet: condition=Ready (ImagePullFailed: no such image)"


@pytest.mark.parametrize(
    "text",
    ["Ready", "condition=", "jsonpath=.status", "jsonpath={}", "jsonpath={.a[}", "[", "[]", "[1]", "{}"],
)
def test_malformed(text: str) -> None:
    with pytest.raises(ValueError, match="waitFor"):
        rule(text)
