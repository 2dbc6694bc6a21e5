"""What the doctor makes of what the operator says of its model servers."""

from __future__ import annotations

from typing import Any

import pytest

from infra.doctor import servers
from infra.doctor.report import Finding, Verdict

READY = {"type": "Ready", "status": "True", "reason": "ReplicasReady", "message": "", "observedGeneration": 3}


def server(name: str = "chat", *conditions: dict[str, Any], **ready: Any) -> dict[str, Any]:
    return {
        "metadata": {"name": name, "generation": 3},
        "status": {"readyReplicas": 2, "desiredReplicas": 2, "conditions": [{**READY, **ready}, *conditions]},
    }


def found(*given: dict[str, Any]) -> list[Finding]:
    return servers.judge("sites/public", "public", given)


def test_all_that_serve_are_one_line() -> None:
    (one,) = found(server(), server("chat-cn-beijing"))
    assert one == Finding(
        check="sites/public/model servers", status=Verdict.OK, what="chat 2/2, chat-cn-beijing 2/2"
    )


def test_none_yet() -> None:
    (one,) = found()
    assert one.status is Verdict.SKIPPED


@pytest.mark.parametrize(
    ("ready", "status", "told", "mend"),
    [
        ({"reason": "ImagePullFailed", "message": "chat:2 isn't there"}, "failed", "chat:2 isn't there", "`images`"),
        ({"reason": "ReplicasFailing", "message": "exit 1"}, "failed", "exit 1", "logs -l app.kubernetes.io/name=chat"),
        ({"reason": "QuotaExceeded", "message": "2 pods"}, "failed", "2 pods", "scaling.maxReplicas"),
        ({"reason": "ReplicasStarting"}, "warning", "ReplicasStarting", "wait"),
        ({"reason": "RollingOut"}, "warning", "RollingOut", "wait"),
        ({"reason": "SomethingNew"}, "failed", "SomethingNew", "-n switchboard-serving describe modelserver chat"),
        ({"observedGeneration": 2}, "failed", "hasn't looked at it as it is now", "deployment/operator"),
    ],
)  # fmt: skip
def test_what_does_not_serve_is_told_with_its_mend(
    ready: dict[str, Any], status: str, told: str, mend: str
) -> None:
    (one,) = found(server("chat-cn-beijing"), server(status="False", **ready))
    assert (one.check, one.status) == ("sites/public/model servers/chat", status)
    assert told in one.what
    assert mend in (one.mend or "")


@pytest.mark.parametrize(
    ("condition", "told"),
    [
        ({"type": "ScalingActive", "status": "False", "reason": "NoSignals", "message": "unknown"}, "isn't sized"),
        ({"type": "ScalingActive", "status": "False", "reason": "Paused"}, None),
        ({"type": "AbleToScale", "status": "False", "reason": "ReplicasRefused", "message": "no"}, "can't be sized"),
        ({"type": "AbleToScale", "status": "False", "reason": "Shadow"}, None),
        ({"type": "AbleToScale", "status": "False", "reason": "RollingOut"}, None),
        ({"type": "ScalingLimited", "status": "False", "reason": "WithinBounds"}, None),
    ],
)  # fmt: skip
def test_what_serves_and_is_not_sized_is_a_warning(condition: dict[str, Any], told: str | None) -> None:
    (one,) = found(server("chat", condition))
    assert one.status == ("ok" if told is None else "warning")
    assert told is None or (told in one.what and one.mend)


def test_what_serves_and_can_have_no_more_is_a_warning() -> None:
    (one,) = found(server(message="QuotaExceeded: 2 pods are the most"))
    assert one.status is Verdict.WARNING
    assert "it serves, but QuotaExceeded" in one.what
    assert "raise the namespace's quota" in (one.mend or "")
