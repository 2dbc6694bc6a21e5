"""A pod's status as a kubelet reports it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from infra.local.node.records import Container, Ended, PodRecord, Problem
from infra.local.node.status import pod_status, same
from switchboard.kube import Object
from tests.infra.local.node.pods import container, pod

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def report(body: Object, record: PodRecord, ending: bool = False, now: datetime = NOW) -> Object:
    return pod_status(body, record, host_ip="127.1.0.11", ending=ending, now=now)


def condition(status: Object, kind: str) -> tuple[str, str | None]:
    found = next(c for c in status["conditions"] if c["type"] == kind)
    return found["status"], found["reason"]


def ended(code: int, **more: Any) -> Ended:
    return Ended(run_id="r", exit_code=code, reason="Error" if code else "Completed", finished_at=NOW, **more)


def runs(one: Container, ready: bool = True) -> None:
    one.phase, one.run_id, one.started_at, one.started, one.ready = "running", "r", NOW, True, ready


def ends(one: Container, code: int) -> None:
    one.phase, one.run_id, one.ended, one.started, one.ready = "exited", "r", ended(code), False, False


@pytest.fixture
def body() -> Object:
    return pod(container("a"), container("b"), init=[container("i")])


@pytest.fixture
def record(body: Object) -> PodRecord:
    return PodRecord.new(body, NOW)


def test_before_anything(body: Object, record: PodRecord) -> None:
    status = report(body, record)
    assert status["phase"] == "Pending"
    assert status["containerStatuses"][0]["state"] == {"waiting": {"reason": "PodInitializing"}}
    assert condition(status, "Initialized") == ("False", "ContainersNotInitialized")
    assert condition(status, "Ready") == ("False", "ContainersNotReady")
    assert condition(status, "PodReadyToStartContainers") == ("False", None)
    assert condition(status, "PodScheduled") == ("True", None)
    assert "podIP" not in status
    assert status["observedGeneration"] == 1


def test_running_and_ready(body: Object, record: PodRecord) -> None:
    record.ip, record.sandbox, record.initialized = "127.1.1.1", "boot", True
    ends(record.containers["i"], 0)
    runs(record.containers["a"])
    runs(record.containers["b"], ready=False)
    status = report(body, record)
    assert status["phase"] == "Running"
    assert (status["podIP"], status["podIPs"]) == ("127.1.1.1", [{"ip": "127.1.1.1"}])
    assert status["initContainerStatuses"][0]["ready"]
    assert status["initContainerStatuses"][0]["state"]["terminated"]["reason"] == "Completed"
    assert condition(status, "Ready") == ("False", "ContainersNotReady")
    record.containers["b"].ready = True
    later = report(body, record, now=NOW + timedelta(seconds=9))
    assert condition(later, "Ready") == ("True", None)
    assert condition(later, "Initialized") == ("True", None)
    times = {c["type"]: c["lastTransitionTime"] for c in later["conditions"]}
    assert times["Ready"] == "2026-01-02T03:04:14Z", "changed now"
    assert times["Initialized"] == "2026-01-02T03:04:05Z", "changed before"


def test_not_ready_as_soon_as_it_is_deleted(body: Object, record: PodRecord) -> None:
    record.initialized = True
    for one in record.containers.values():
        runs(one)
    assert condition(report(body, record), "Ready") == ("True", None)
    assert condition(report(body, record, ending=True), "Ready") == ("False", "PodTerminating")


def test_crash_loop(body: Object, record: PodRecord) -> None:
    record.initialized = True
    one = record.containers["a"]
    ends(one, 2)
    one.attempt, one.previous, one.problem = (
        1,
        ended(3),
        Problem(reason="CrashLoopBackOff", message="back-off 1s"),
    )
    runs(record.containers["b"])
    status = report(body, record)
    assert status["phase"] == "Running"
    shown = status["containerStatuses"][0]
    assert shown["restartCount"] == 1
    assert shown["state"] == {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 1s"}}
    assert shown["lastState"]["terminated"]["exitCode"] == 2
    one.problem = None
    shown = report(body, record)["containerStatuses"][0]
    assert shown["state"]["terminated"]["exitCode"] == 2
    assert shown["lastState"]["terminated"]["exitCode"] == 3


@pytest.mark.parametrize(("outcome", "reason"), [("Succeeded", "PodCompleted"), ("Failed", "PodFailed")])
def test_over(body: Object, record: PodRecord, outcome: Any, reason: str) -> None:
    record.initialized, record.outcome = True, outcome
    for one in record.containers.values():
        ends(one, 0 if outcome == "Succeeded" else 1)
    status = report(body, record)
    assert status["phase"] == outcome
    assert condition(status, "Ready") == ("False", reason)
    assert all("terminated" in c["state"] for c in status["containerStatuses"])


def test_why_the_agent_ended_it(body: Object, record: PodRecord) -> None:
    record.failure, record.outcome = Problem(reason="DeadlineExceeded", message="too long"), "Failed"
    status = report(body, record)
    assert (status["phase"], status["reason"], status["message"]) == (
        "Failed",
        "DeadlineExceeded",
        "too long",
    )


def test_a_readiness_gate_keeps_it_out() -> None:
    body = pod(container("a"), readinessGates=[{"conditionType": "example.org/gate"}])
    record = PodRecord.new(body, NOW)
    record.initialized = True
    runs(record.containers["a"])
    assert condition(report(body, record), "ContainersReady") == ("True", None)
    assert condition(report(body, record), "Ready") == ("False", "ReadinessGatesNotReady")
    body["status"]["conditions"] = [{"type": "example.org/gate", "status": "True"}]
    assert condition(report(body, record), "Ready") == ("True", None)


def test_the_scheduler_s_time_is_kept() -> None:
    body = pod()
    then = "2026-01-01T00:00:00Z"
    body["status"]["conditions"] = [{"type": "PodScheduled", "status": "True", "lastTransitionTime": then}]
    status = report(body, PodRecord.new(body, NOW))
    assert next(c for c in status["conditions"] if c["type"] == "PodScheduled")["lastTransitionTime"] == then


@pytest.mark.parametrize(
    ("wanted", "seen", "alike"),
    [
        ({"a": 1}, {"a": 1, "b": 2}, True),
        ({"a": {"b": [1, 2]}}, {"a": {"b": [1]}}, False),
        ({"reason": None}, {}, True),
        ({"reason": None}, {"reason": "x"}, False),
        ({"state": {"waiting": {"reason": "x"}}}, {"state": {"running": {}}}, False),
        (
            [{"type": "Ready", "status": "True"}],
            [{"type": "Other"}, {"type": "Ready", "status": "True"}],
            True,
        ),
        ([{"type": "Ready", "status": "True"}], [{"type": "Ready", "status": "False"}], False),
        ({"started": False}, {}, True),
        ({"restartCount": 0}, {"restartCount": 0}, True),
    ],
)
def test_same(wanted: Any, seen: Any, alike: bool) -> None:
    assert same(wanted, seen) is alike


def test_what_was_reported_is_the_same(body: Object, record: PodRecord) -> None:
    status = report(body, record)
    assert same(report(body, record, now=NOW + timedelta(hours=1)), status)
