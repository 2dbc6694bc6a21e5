"""A real API server takes every object that the program declares and that the operator makes of them, in namespaces at
the restricted level, and warns of none (an unknown field, a pod that the level wouldn't let in, an API that is going
away)."""

from __future__ import annotations

import copy
import subprocess
import time
import uuid
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
import yaml

from infra.local import toolchain
from tests.conftest import ControlPlane
from tests.infra.components.rendered import STACKS, declared, running

Object = dict[str, Any]


class Cluster:
    """The tests' control plane, spoken to by kubectl, with a namespace for each of a stack's."""

    def __init__(self, plane: ControlPlane) -> None:
        self._kubectl = [
            str(toolchain.locate(["kubectl"]).path("kubectl")),
            f"--kubeconfig={plane.kubeconfig}",
            "--request-timeout=60s",
        ]
        self._suffix = uuid.uuid4().hex[:8]

    def run(self, *words: str, objects: Sequence[Object] = ()) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*self._kubectl, *words],
            input=yaml.safe_dump_all(objects),
            capture_output=True,
            text=True,
            timeout=300,
        )

    def here(self, manifest: Object) -> Object:
        """The manifest in the namespaces of this test."""
        moved = copy.deepcopy(manifest)
        meta = moved["metadata"]
        if "namespace" in meta:
            meta["namespace"] = f"{meta['namespace']}-{self._suffix}"
        elif moved["kind"] == "Namespace":
            meta["name"] = f"{meta['name']}-{self._suffix}"
        for subject in moved.get("subjects") or ():
            subject["namespace"] = f"{subject['namespace']}-{self._suffix}"
        return moved

    def dry_run(self, objects: Sequence[Object]) -> subprocess.CompletedProcess[str]:
        return self.run(
            "apply", "--server-side", "--force-conflicts", "--dry-run=server", "--validate=strict", "-f", "-",
            objects=[self.here(one) for one in objects],
        )  # fmt: skip


@pytest.fixture(scope="module")
def cluster(control_plane: ControlPlane) -> Iterator[Cluster]:
    found = Cluster(control_plane)
    spaces = {
        one.name: found.here(one.revealed())
        for stack in STACKS
        for one in declared(stack)
        if one.kind == "Namespace"
    }
    made = found.run("create", "-f", "-", objects=list(spaces.values()))
    assert made.returncode == 0, made.stderr
    defined = [one.revealed() for one in declared("local") if one.kind == "CustomResourceDefinition"]
    for words in (
        ("apply", "--server-side", "--force-conflicts"),
        ("wait", "--for=condition=Established", "--timeout=120s"),
    ):
        done = found.run(*words, "-f", "-", objects=defined)
        assert done.returncode == 0, done.stderr
    for one in defined:  # what is established is not served at once
        while found.run("get", one["metadata"]["name"], "-A").returncode:
            time.sleep(0.2)
    yield found
    found.run("delete", "--wait=false", "-f", "-", objects=list(spaces.values()))


@pytest.mark.parametrize("stack", STACKS)
def test_the_api_server_takes_everything_without_a_warning(cluster: Cluster, stack: str) -> None:
    manifests = [one.revealed() for one in running(stack)]
    assert "ModelServer" in {one["kind"] for one in manifests}
    done = cluster.dry_run(manifests)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert len(done.stdout.splitlines()) == len(manifests)


def test_a_model_server_that_cannot_be_is_refused_by_name(cluster: Cluster) -> None:
    (manifest,) = [
        one.revealed() for one in declared("local") if (one.kind, one.name) == ("ModelServer", "chat")
    ]
    spoilt = copy.deepcopy(manifest)
    spoilt["spec"]["scaling"]["maxReplicas"] = 1
    assert "spec.scaling.minReplicas: Invalid value" in cluster.dry_run([spoilt]).stderr


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda spec: spec["containers"][0]["securityContext"].update(privileged=True), "privileged"),
        (lambda spec: spec["securityContext"].update(runAsNonRoot=False), "runAsNonRoot"),
        (lambda spec: spec.update(tolerationz=[]), "tolerationz"),
        (lambda spec: spec["containers"][0]["resources"]["limits"].update(cpu="1m"), "must be less than"),
    ],
    ids=["privileged", "root", "unknown field", "limit below request"],
)
def test_and_would_say_so(cluster: Cluster, spoil: Any, says: str) -> None:
    (manifest,) = [
        one.revealed() for one in declared("local") if (one.kind, one.name) == ("Deployment", "alertmanager")
    ]
    spoilt = copy.deepcopy(manifest)
    spoil(spoilt["spec"]["template"]["spec"])
    assert says in cluster.dry_run([spoilt]).stderr
