"""The state's checks: locks of real processes, checkpoints as Pulumi writes them."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from infra import locks, pulumi_cli
from infra.doctor import state
from infra.doctor.drift import Drift, Recorded
from infra.doctor.report import Finding, Verdict
from infra.doctor.state import Facts
from infra.local import cloud
from infra.locks import Lock
from switchboard.kinds import MODEL_SERVERS
from switchboard.kube import DEPLOYMENTS, NAMESPACES

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
        ("drift", {"drift": Drift(9, written=("secret/a",))}, "warning", "1 written by somebody else, maybe"),
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
            {
                **_resource("apps/v1:Deployment", "d", namespace="n", uid="2", generation=3),
                "inputs": {"spec": {}},
                "ignoreChanges": ["spec.replicas"],
            },
            _resource("switchboard.dev/v1alpha1:ModelServer", "m", namespace="n"),
            _resource("monitoring.example/v1:Probe", "p", namespace="n"),  # a kind that not every cluster has
            {"urn": "urn:pulumi:x::switchboard::switchboard:infra:Site::s", "type": "switchboard:infra:Site"},
            {**_resource("core/v1:ConfigMap", "old", namespace="n"), "delete": True},  # waits to be deleted
        ),
    )
    facts, objects = state.look(stack)
    assert facts.pending == ("creating core/v1:Service s",)
    assert facts.resources == 7
    n, d = {"name": "n", "uid": "1"}, {"name": "d", "namespace": "n", "uid": "2", "generation": 3}
    assert objects == [
        Recorded("/k", "public", NAMESPACES, None, "n", {"metadata": n}),
        Recorded("/k", "public", DEPLOYMENTS, "n", "d", {"metadata": d}, {"spec": {}}, ("spec.replicas",)),
        Recorded("/k", "public", MODEL_SERVERS, "n", "m", {"metadata": {"name": "m", "namespace": "n"}}),
    ]
