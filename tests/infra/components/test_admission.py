"""Who asked for a release and who approved of it, held true by a real API server for two people, each as themselves."""

from __future__ import annotations

import json
import subprocess
import uuid
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from infra.components.admission import NAME, binding_spec, policy_spec
from infra.local.toolchain import lookup
from switchboard.api.model_release import MODEL_RELEASES, crd
from switchboard.kinds import CUSTOM_RESOURCE_DEFINITIONS, Kind
from switchboard.kube import ApiError, Credentials, Kube, Object
from switchboard.labels import APPROVED_BY, REQUESTED_BY
from tests.conftest import ControlPlane
from tests.pods import until

POLICIES, BINDINGS = (
    Kind("admissionregistration.k8s.io/v1", plural, kind, namespaced=False)
    for plural, kind in (
        ("validatingadmissionpolicies", "ValidatingAdmissionPolicy"),
        ("validatingadmissionpolicybindings", "ValidatingAdmissionPolicyBinding"),
    )
)
Act = Callable[..., str]
"""`act(user, verb, release)`: what the API server said, empty where it did it."""


@pytest.fixture(scope="module")
async def kube(control_plane: ControlPlane) -> AsyncIterator[Kube]:
    """The policy in force; taken away afterwards, with the definition, from the control plane that tests share."""
    async with Kube(Credentials.from_kubeconfig(control_plane.kubeconfig)) as found:
        name = crd()["metadata"]["name"]
        await found.apply(CUSTOM_RESOURCE_DEFINITIONS, crd(), field_manager="test")
        await found.apply(POLICIES, {"metadata": {"name": NAME}, "spec": policy_spec()}, field_manager="test")
        await found.apply(
            BINDINGS, {"metadata": {"name": NAME}, "spec": binding_spec()}, field_manager="test"
        )
        probe = release("probe", {REQUESTED_BY: "nobody"})

        async def in_force() -> bool:
            try:
                await found.create(
                    MODEL_RELEASES, {**probe, "metadata": {**probe["metadata"], "namespace": "default"}}
                )
            except ApiError as error:
                return REQUESTED_BY in str(error)
            await found.delete(MODEL_RELEASES, "probe", "default")
            return False

        try:
            await until(in_force, timeout_s=120, what="the policy is in force")
            yield found
        finally:
            for kind, its in ((BINDINGS, NAME), (POLICIES, NAME), (CUSTOM_RESOURCE_DEFINITIONS, name)):
                await found.delete(kind, its)
            # Other modules define it again: one that is on its way out would take theirs along.
            await until(
                lambda: _gone(found, CUSTOM_RESOURCE_DEFINITIONS, name), what="the definition is gone"
            )


async def _gone(kube: Kube, kind: Kind, name: str) -> bool:
    return await kube.get_or_none(kind, name) is None


@pytest.fixture
def act(kube: Kube, control_plane: ControlPlane) -> Act:
    program = lookup.find("kubectl")
    assert program is not None
    base = [str(program.path), "--kubeconfig", str(control_plane.kubeconfig), "--as-group", "system:masters"]

    def run(user: str, verb: str, one: Object) -> str:
        words = [*base, "--as", user, verb, "-f", "-", "--validate=false"]
        if verb == "apply":
            words += ["--server-side", "--force-conflicts", "--field-manager", "test"]
        done = subprocess.run(words, input=json.dumps(one), capture_output=True, text=True, timeout=180)
        return "" if done.returncode == 0 else done.stderr

    return run


def release(name: str, notes: dict[str, str], **spec: Any) -> Object:
    return {
        "apiVersion": MODEL_RELEASES.api_version,
        "kind": MODEL_RELEASES.kind,
        "metadata": {"name": name, "namespace": "default", "annotations": notes},
        "spec": {"server": "chat", "version": 7, **spec},
    }


BY_LI = {REQUESTED_BY: "li"}
APPROVED = {REQUESTED_BY: "li", APPROVED_BY: "wu"}


@pytest.mark.parametrize(
    ("user", "notes", "says"),
    [
        ("li", BY_LI, ""),
        ("li", {}, f"{REQUESTED_BY} is the name of who makes"),
        ("li", {REQUESTED_BY: ""}, f"{REQUESTED_BY} is the name of who makes"),
        ("li", {REQUESTED_BY: "wu"}, f"{REQUESTED_BY} is the name of who makes"),
        ("li", {REQUESTED_BY: "Li"}, f"{REQUESTED_BY} is the name of who makes"),
        ("li", {**BY_LI, APPROVED_BY: "wu"}, f"{APPROVED_BY} is written by who approves"),
        ("li", {**BY_LI, APPROVED_BY: "li"}, f"{APPROVED_BY} is another person"),
    ],
)
def test_a_release_is_made_by_who_it_says(act: Act, user: str, notes: dict[str, str], says: str) -> None:
    said = act(user, "create", release(f"r-{uuid.uuid4().hex[:8]}", notes))
    assert says in said if says else said == ""


@pytest.mark.parametrize(
    ("before", "user", "notes", "spec", "says"),
    [
        # To approve, and to take that back.
        (BY_LI, "wu", APPROVED, {}, ""),
        (BY_LI, "li", {**BY_LI, APPROVED_BY: "li"}, {}, "is another person"),
        (BY_LI, "li", APPROVED, {}, "is written by who approves"),
        (BY_LI, "chen", APPROVED, {}, "is written by who approves"),
        (APPROVED, "chen", {**BY_LI, APPROVED_BY: "chen"}, {}, ""),
        (APPROVED, "wu", BY_LI, {}, ""),
        (APPROVED, "li", BY_LI, {}, ""),
        # To hand it to somebody else.
        (BY_LI, "wu", {REQUESTED_BY: "wu"}, {}, f"{REQUESTED_BY} is the name of who makes"),
        (APPROVED, "chen", {REQUESTED_BY: "chen", APPROVED_BY: "wu"}, {}, f"{REQUESTED_BY} is the name"),
        (BY_LI, "wu", {}, {}, f"{REQUESTED_BY} is the name of who makes"),
        # To change what was approved of.
        (APPROVED, "li", APPROVED, {"withinSeconds": 3600}, "can't be changed"),
        (APPROVED, "li", APPROVED, {"errorBudgetPercent": 90}, "can't be changed"),
        (APPROVED, "li", APPROVED, {"metrics": [{"name": "failed", "margin": 1}]}, "can't be changed"),
        (APPROVED, "li", BY_LI, {"withinSeconds": 3600}, ""),
        (APPROVED, "wu", APPROVED, {"withinSeconds": 3600}, ""),
        (BY_LI, "li", BY_LI, {"withinSeconds": 3600}, ""),
        # To hold it and to end it.
        (APPROVED, "li", APPROVED, {"paused": True}, ""),
        (APPROVED, "chen", APPROVED, {"order": "Abort", "reason": "no"}, ""),
    ],
)  # fmt: skip
def test_what_may_become_of_a_release(
    act: Act, before: dict[str, str], user: str, notes: dict[str, str], spec: dict[str, Any], says: str
) -> None:
    name = f"r-{uuid.uuid4().hex[:8]}"
    assert act("li", "create", release(name, BY_LI)) == ""
    if before is APPROVED:
        assert act("wu", "apply", release(name, APPROVED)) == ""
    said = act(user, "replace", release(name, notes, **spec))
    assert says in said if says else said == ""
