"""Why a pod isn't ready, in words."""

from __future__ import annotations

from typing import Any

import pytest

from infra.plugin.await_.pods import trouble_of, troubles


def pod(name: str = "p", created: str = "1", **status: Any) -> dict[str, Any]:
    return {
        "metadata": {"name": name, "creationTimestamp": created},
        "status": {"phase": "Pending", **status},
    }


def container(state: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"name": "app", "ready": False, "state": state, **more}


CRASHED = container(
    {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 10s"}},
    lastState={"terminated": {"exitCode": 1, "reason": "Error"}},
)


@pytest.mark.parametrize(
    ("status", "text"),
    [
        pytest.param({"conditions": [{"type": "Ready", "status": "True"}]}, None, id="ready"),
        pytest.param({"phase": "Succeeded"}, None, id="finished"),
        pytest.param({}, None, id="just made"),
        pytest.param(
            {"containerStatuses": [container({"waiting": {"reason": "ContainerCreating"}})]},
            None,
            id="starting",
        ),
        pytest.param(
            {
                "conditions": [
                    {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/2"}
                ]
            },
            "pod p: Unschedulable: 0/2",
            id="no node fits",
        ),
        pytest.param(
            {"containerStatuses": [CRASHED]},
            "pod p: container app: CrashLoopBackOff: back-off 10s: exit code 1",
            id="crashes",
        ),
        pytest.param(
            {
                "containerStatuses": [
                    container({"waiting": {"reason": "ErrImagePull", "message": "unknown image"}})
                ]
            },
            "pod p: container app: ErrImagePull: unknown image",
            id="no image",
        ),
        pytest.param(
            {"initContainerStatuses": [container({"terminated": {"exitCode": 137, "reason": "OOMKilled"}})]},
            "pod p: container app: exit code 137 (OOMKilled)",
            id="out of memory in an init container",
        ),
        pytest.param(
            {"phase": "Running", "containerStatuses": [container({"running": {}})]},
            "pod p: container app: running, but not ready (its readiness probe fails)",
            id="not ready",
        ),
        pytest.param(
            {"phase": "Failed", "reason": "Evicted", "message": "disk"}, "pod p: Evicted: disk", id="evicted"
        ),
    ],
)
def test_trouble(status: dict[str, Any], text: str | None) -> None:
    found = trouble_of(pod(**status))
    assert (str(found) if found else None) == text


def test_a_crash_s_log_is_that_of_the_run_before() -> None:
    crashed = trouble_of(pod(containerStatuses=[CRASHED]))
    assert crashed is not None
    assert (crashed.container, crashed.previous) == ("app", True)


def test_the_newest_pod_comes_first_and_leaving_ones_don_t_count() -> None:
    leaving = pod("leaving", "9", containerStatuses=[CRASHED])
    leaving["metadata"]["deletionTimestamp"] = "now"
    pods = [
        pod("old", "1", containerStatuses=[CRASHED]),
        leaving,
        pod("new", "2", containerStatuses=[CRASHED]),
    ]
    assert [trouble.pod for trouble in troubles(pods)] == ["new", "old"]
