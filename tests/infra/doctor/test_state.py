"""The state's checks: locks of real processes, checkpoints as Pulumi writes them, drift on a real API server."""

from __future__ import annotations

import json
import os
import uuid
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from infra import locks, pulumi_cli
from infra.doctor import state
from infra.doctor.report import Finding, Verdict
from infra.doctor.state import Drift, Facts, Recorded
from infra.local import cloud
from infra.locks import Lock
from switchboard.kube import CONFIG_MAPS, DEPLOYMENTS, NAMESPACES, Credentials, Kube
from tests.conftest import ControlPlane

WELL = Facts("local", resources=58, drift=Drift(37))
HELD = Lock(Path("/l"), "`pulumi up` (pid 7, root on host)", True)


def _by_check(facts: Facts) -> dict[str, Finding]:
    return {each.check.removeprefix("state/"): each for each in state.judge(facts)}


def test_a_state_that_is_well() -> None:
    assert {name: each.status for name, each in _by_check(WELL).items()} == dict.fromkeys(
        ["lock", "checkpoint", "drift"], Verdict.OK
    )


@pytest.mark.parametrize(
    ("check", "changes", "status", "told"),
    [
        ("lock", {"at_work": "`switchboard up` (pid 3)"}, "warning", "`switchboard up` (pid 3) at work"),
        ("lock", {"locks": (HELD,)}, "warning", "`pulumi up` (pid 7, root on host) at work"),
        ("lock", {"locks": (replace(HELD, held=False),)}, "warning", "has ended without letting go"),
        ("checkpoint", {"exists": False}, "skipped", "none yet"),
        ("checkpoint", {"damaged": "/x: Expecting value"}, "failed", "/x: Expecting value"),
        ("checkpoint", {"pending": ("creating a b",)}, "warning", "1 unfinished: creating a b"),
        ("checkpoint", {"pending": ("creating a b",), "locks": (HELD,)}, "skipped", "by who is at work"),
        ("drift", {"drift": None}, "skipped", "no site runs"),
        ("drift", {"drift": Drift(9, gone=("service/a",))}, "warning", "of 9 objects 1 gone: service/a"),
        (
            "drift",
            {"drift": Drift(9, changed=tuple("abcdef"))},
            "warning",
            "6 changed by somebody else: a, b, c, d and",
        ),
        ("drift", {"drift": Drift(9, replaced=("a",))}, "warning", "made anew"),
        ("drift", {"drift": Drift(0, unasked=("public: refused",))}, "skipped", "public: refused"),
    ],
)
def test_what_is_found(check: str, changes: dict[str, Any], status: str, told: str) -> None:
    found = _by_check(replace(WELL, **changes))[check]
    assert found.status == status
    assert told in found.what
    assert found.mend or status == "skipped"


@pytest.fixture
def stack(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("SWITCHBOARD_STATE", str(tmp_path))
    return "x"


def _write(stack: str, text: str) -> None:
    path = pulumi_cli.backend(stack) / ".pulumi" / "stacks" / "switchboard" / f"{stack}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_who_holds_the_stack_is_named(stack: str) -> None:
    assert state.look(stack)[0] == Facts(stack, exists=False)
    with cloud.exclusive(stack, "switchboard up"):
        facts, _ = state.look(stack)
    assert facts.at_work.startswith(f"`switchboard up` (pid {os.getpid()}, ")
    assert state.look(stack)[0].at_work == "", "a lock doesn't outlive its holder"


def test_a_lock_that_was_left_is_told_from_one_that_is_held(stack: str) -> None:
    folder = pulumi_cli.backend(stack) / ".pulumi" / "locks" / "organization" / "switchboard" / stack
    folder.mkdir(parents=True)
    (folder / "1.json").write_text(json.dumps({"pid": 2**22 + 1, "username": "eve", "hostname": "h"}))
    facts, _ = state.look(stack)
    assert [lock.held for lock in facts.locks] == [False]
    found = _by_check(facts)["lock"]
    assert found.status is Verdict.WARNING
    assert "eve on h" in found.what
    locks.release_dead(pulumi_cli.backend(stack), stack)
    assert _by_check(state.look(stack)[0])["lock"].status is Verdict.OK


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"checkpoint": 1}', '{"checkpoint": {"latest": {"resources": [1]}}}']
)
def test_a_damaged_checkpoint_is_told(stack: str, text: str) -> None:
    _write(stack, text)
    facts, objects = state.look(stack)
    assert facts.damaged
    assert objects == []


def test_a_checkpoint_without_resources(stack: str) -> None:
    _write(stack, '{"checkpoint": {}}')
    assert state.look(stack) == (Facts(stack), [])


PROVIDER = "urn:pulumi:x::switchboard::pulumi:providers:kubernetes::public"


def _resource(kind: str, name: str, **metadata: Any) -> dict[str, Any]:
    return {
        "urn": f"urn:pulumi:x::switchboard::kubernetes:{kind}::{name}",
        "type": f"kubernetes:{kind}",
        "provider": f"{PROVIDER}::1",
        "outputs": {"metadata": {"name": name, **metadata}},
    }


def _checkpoint(*resources: dict[str, Any], kubeconfig: str = "/k") -> str:
    provider = {
        "urn": PROVIDER,
        "id": "1",
        "type": "pulumi:providers:kubernetes",
        "inputs": {"kubeconfig": kubeconfig, "context": "public"},
    }
    pending = [{"type": "creating", "resource": _resource("core/v1:Service", "s")}]
    return json.dumps(
        {"checkpoint": {"latest": {"resources": [provider, *resources], "pending_operations": pending}}}
    )


def test_a_checkpoint_is_read(stack: str) -> None:
    _write(
        stack,
        _checkpoint(
            _resource("core/v1:Namespace", "n", uid="1"),
            _resource("apps/v1:Deployment", "d", namespace="n", uid="2", generation=3),
            _resource("switchboard.dev/v1alpha1:ModelServer", "m", namespace="n"),  # a kind of a CRD
            {"urn": "urn:pulumi:x::switchboard::switchboard:infra:Site::s", "type": "switchboard:infra:Site"},
            {**_resource("core/v1:ConfigMap", "old", namespace="n"), "delete": True},  # waits to be deleted
        ),
    )
    facts, objects = state.look(stack)
    assert facts.pending == ("creating core/v1:Service s",)
    assert facts.resources == 6
    assert objects == [
        Recorded("/k", "public", NAMESPACES, None, "n", "1", None),
        Recorded("/k", "public", DEPLOYMENTS, "n", "d", "2", 3),
    ]


def _recorded(**changes: Any) -> Recorded:
    return replace(Recorded("/k", "public", DEPLOYMENTS, "n", "d", "2", 3), **changes)


@pytest.mark.parametrize(
    ("live", "drift"),
    [
        ({"uid": "2", "generation": 3}, Drift(1)),
        ({"uid": "2"}, Drift(1)),
        ({"uid": "2", "generation": 4}, Drift(1, changed=("deployment/d",))),
        ({"uid": "9", "generation": 1}, Drift(1, replaced=("deployment/d",))),
        (None, Drift(1, gone=("deployment/d",))),
    ],
)
def test_how_drift_is_told(live: dict[str, Any] | None, drift: Drift) -> None:
    there = {} if live is None else {(DEPLOYMENTS, "n", "d"): {"metadata": live}}
    assert state.compare([_recorded()], there) == drift


def test_what_has_no_generation_goes_by_its_uid() -> None:
    live = {(CONFIG_MAPS, "n", "c"): {"metadata": {"uid": "2"}}}
    assert state.compare([_recorded(kind=CONFIG_MAPS, name="c", generation=None)], live) == Drift(1)


async def test_drift_on_a_real_cluster(control_plane: ControlPlane) -> None:
    """One object as recorded, one made anew, one scaled, one deleted."""
    namespace = f"drift-{uuid.uuid4().hex[:8]}"
    labels = {"app": "d"}
    deployment = {
        "metadata": {"name": "d", "namespace": namespace},
        "spec": {
            "replicas": 0,
            "selector": {"matchLabels": labels},
            "template": {
                "metadata": {"labels": labels},
                "spec": {"containers": [{"name": "c", "image": "i"}]},
            },
        },
    }
    async with Kube(Credentials.from_kubeconfig(control_plane.kubeconfig)) as kube:
        await kube.create(NAMESPACES, {"metadata": {"name": namespace}})
        try:
            made = [await kube.create(DEPLOYMENTS, deployment)]
            for name in ("same", "anew", "gone"):
                body = {"metadata": {"name": name, "namespace": namespace}}
                made.append(await kube.create(CONFIG_MAPS, body))
            recorded = [
                _recorded(
                    kubeconfig=str(control_plane.kubeconfig),
                    kind=DEPLOYMENTS if index == 0 else CONFIG_MAPS,
                    namespace=namespace,
                    name=each["metadata"]["name"],
                    uid=each["metadata"]["uid"],
                    generation=each["metadata"].get("generation"),
                )
                for index, each in enumerate(made)
            ]
            running = [control_plane.kubeconfig]
            assert await state.look_for_drift(recorded, running) == Drift(4)
            await kube.patch(DEPLOYMENTS, "d", {"spec": {"paused": True}}, namespace)
            for name in ("anew", "gone"):
                await kube.delete(CONFIG_MAPS, name, namespace)
            await kube.create(CONFIG_MAPS, {"metadata": {"name": "anew", "namespace": namespace}})
            assert await state.look_for_drift(recorded, running) == Drift(
                4, gone=("configmap/gone",), replaced=("configmap/anew",), changed=("deployment/d",)
            )
            assert await state.look_for_drift(recorded, []) is None, "its site doesn't run"
        finally:
            await kube.delete(NAMESPACES, namespace)
    unreachable = [_recorded(kubeconfig="/nowhere")]
    drift = await state.look_for_drift(unreachable, [Path("/nowhere")])
    assert drift is not None and "can't read the kubeconfig" in drift.unasked[0]
