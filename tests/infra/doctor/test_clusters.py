"""Existing clusters: a real API server plays one, reached by kubectl as a person would."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from infra import config, namespaces
from infra.config import Cluster, Site
from infra.declared import declare
from infra.doctor import clusters
from infra.doctor.clusters import Facts
from infra.doctor.report import Finding, Verdict
from infra.plugin.kinds import BUILT_IN
from switchboard.kinds import MODEL_SERVERS, NAMESPACES, SERVICE_ACCOUNTS
from switchboard.kube import Credentials, Kube
from tests.conftest import ControlPlane

KINDS = BUILT_IN | {(MODEL_SERVERS.api_version, MODEL_SERVERS.kind): MODEL_SERVERS}
ID = "11111111-1111-4111-8111-111111111111"
WELL = Facts(
    "public",
    "bank-public",
    "/k",
    ID,
    "Pulumi.staging.yaml",
    contexts=("bank-public",),
    version=(1, 37, 0),
    id=ID,
    skew_s=-0.4,
    refused=(),
    asked=81,
)


def _by_check(facts: Facts) -> dict[str, Finding]:
    return {each.check.removeprefix("sites/public/"): each for each in clusters.judge(facts)}


def test_a_cluster_that_is_well() -> None:
    assert {name: each.status for name, each in _by_check(WELL).items()} == dict.fromkeys(
        ["cluster", "identity", "version", "clock", "permissions"], Verdict.OK
    )


@pytest.mark.parametrize(
    ("check", "changes", "status", "told"),
    [
        ("cluster", {"no_kubectl": True, "version": None}, "skipped", "kubectl is missing"),
        ("cluster", {"contexts": None, "version": None, "problem": "yaml"}, "failed", "can't be read: yaml"),
        (
            "cluster",
            {"contexts": ("a", "b"), "version": None},
            "failed",
            "no context bank-public (it has a, b)",
        ),
        ("cluster", {"version": None, "problem": "dial tcp: refused"}, "failed", "is not reached: dial tcp"),
        ("cluster", {"version": None, "problem": "Unauthorized: x"}, "failed", "refuses the login"),
        ("identity", {"id": "2"}, "failed", f"is cluster 2, the stack file names {ID}"),
        ("identity", {"wanted_id": None}, "failed", f"is cluster {ID}; the stack file names none"),
        ("identity", {"id": None}, "skipped", "may not read"),
        ("version", {"version": (1, 30, 9)}, "failed", "older than 1.31.0"),
        ("version", {"version": (1, 99, 0)}, "warning", "newer"),
        ("clock", {"skew_s": 90.0}, "warning", "90 s ahead of"),
        ("clock", {"skew_s": -90.0}, "warning", "90 s behind"),
        ("clock", {"skew_s": None}, "skipped", "didn't tell"),
        ("permissions", {"refused": ("create roles",)}, "failed", "may not create roles"),
        ("permissions", {"refused": None, "problem": "Forbidden"}, "skipped", "Forbidden"),
    ],
)
def test_what_is_found(check: str, changes: dict[str, Any], status: str, told: str) -> None:
    found = _by_check(replace(WELL, **changes))[check]
    assert found.status == status
    assert told in found.what
    assert found.mend or status == "skipped"


def test_nothing_is_asked_after_what_makes_it_pointless() -> None:
    assert set(_by_check(replace(WELL, version=None, problem="x"))) == {"cluster"}


def _site(kubeconfig: Path, context: str = "public", id: str | None = None) -> Site:
    return Site(
        name="public",
        role="public",
        region="cn-shenzhen",
        cluster=Cluster(context=context, kubeconfig=kubeconfig, id=id),
    )


async def test_a_real_cluster_is_well(control_plane: ControlPlane) -> None:
    async with Kube(Credentials.from_kubeconfig(control_plane.kubeconfig)) as kube:
        uid = (await kube.get(NAMESPACES, "kube-system"))["metadata"]["uid"]
    facts = await clusters.look(_site(control_plane.kubeconfig, id=uid), "staging")
    assert {name: each.status for name, each in _by_check(facts).items()} == {
        **dict.fromkeys(["cluster", "identity", "version", "clock", "permissions"], Verdict.OK),
        "model servers": Verdict.SKIPPED,
    }
    assert facts.skew_s is not None


@pytest.fixture
async def with_token(control_plane: ControlPlane, tmp_path: Path) -> AsyncIterator[Path]:
    """A kubeconfig of a service account that may do nothing."""
    name = f"doctor-{uuid.uuid4().hex[:8]}"
    async with Kube(Credentials.from_kubeconfig(control_plane.kubeconfig)) as kube:
        await kube.create(SERVICE_ACCOUNTS, {"metadata": {"name": name, "namespace": "default"}})
        request = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}}
        answer = await kube.create(SERVICE_ACCOUNTS, request, "default", name=name, subresource="token")
        document = yaml.safe_load(control_plane.kubeconfig.read_text())
        document["users"][0]["user"] = {"token": answer["status"]["token"]}
        path = tmp_path / "kubeconfig"
        path.write_text(yaml.safe_dump(document))
        yield path
        await kube.delete(SERVICE_ACCOUNTS, name, "default")


def _edit(kubeconfig: Path, part: str, entry: str, value: dict[str, str]) -> None:
    document = yaml.safe_load(kubeconfig.read_text())
    document[part][0][entry] = value
    kubeconfig.write_text(yaml.safe_dump(document))


async def test_a_user_without_rights_is_told_which(with_token: Path) -> None:
    found = _by_check(await clusters.look(_site(with_token), "staging"))
    assert found["permissions"].status is Verdict.FAILED
    assert "get namespaces, list namespaces" in found["permissions"].what
    assert found["identity"].status is Verdict.SKIPPED


async def test_a_credential_that_is_refused_is_told(with_token: Path) -> None:
    _edit(with_token, "users", "user", {"token": "expired"})
    found = _by_check(await clusters.look(_site(with_token), "staging"))
    assert set(found) == {"cluster"}
    assert "refuses the login" in found["cluster"].what


async def test_a_cluster_that_is_not_there(with_token: Path) -> None:
    _edit(with_token, "clusters", "cluster", {"server": "https://127.255.1.1:1"})
    found = _by_check(await clusters.look(_site(with_token), "staging"))
    assert "is not reached" in found["cluster"].what
    assert "refused" in found["cluster"].what


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("apiVersion: v1\nkind: Config\n", "has no context public (it has none)"),
        ("{[", "can't be read"),
    ],
)
async def test_a_kubeconfig_that_does_not_serve(tmp_path: Path, text: str, told: str) -> None:
    path = tmp_path / "kubeconfig"
    path.write_text(text)
    found = _by_check(await clusters.look(_site(path), "staging"))
    assert found["cluster"].status is Verdict.FAILED
    assert told in found["cluster"].what


@pytest.mark.parametrize("stack", ["local", "production"])
def test_all_that_the_program_declares_is_asked_for(stack: str) -> None:
    """A kind that a stack declares and that nobody asks for would be refused in the middle of an `up`."""
    declared = {
        KINDS[each.manifest["apiVersion"], each.kind] for each in declare(config.load(stack), name=stack)
    }
    asked = {
        (group, resource, where is not None)
        for where, group, resource, _ in clusters.needed(namespaces.SERVING_NAMESPACE, serving=True)
    }
    groups = {kind: kind.api_version.rpartition("/")[0] for kind in declared}
    unasked = {(groups[kind], kind.plural, kind.namespaced) for kind in declared} - asked
    assert not unasked, "add them to the tables of infra.doctor.clusters"


def test_all_that_waits_take_is_asked_for() -> None:
    """Each object is watched until it is ready or gone."""
    asked = clusters.needed("n", serving=True)
    declared = {(where, group, resource) for where, group, resource, verb in asked if verb == "delete"}
    assert {(*each, verb) for each in declared for verb in ("list", "watch")} <= set(asked)


@pytest.mark.parametrize("role", ["private", "public"])
def test_no_more_is_asked_than_a_site_takes(role: str) -> None:
    """Rights that nobody needs would be asked of whoever runs the private cluster."""
    asked = clusters.needed("n", serving=role == "public")
    kinds = {
        KINDS[each.manifest["apiVersion"], each.kind].plural
        for stack in ("local", "production")
        for loaded in [config.load(stack)]
        for each in declare(loaded, name=stack)
        if loaded.site(each.site).role == role
    }
    unneeded = {resource for _, _, resource, verb in asked if verb == "delete"} - kinds
    assert unneeded <= {"secrets", "jobs", "persistentvolumeclaims", "poddisruptionbudgets"}


@pytest.mark.parametrize("stack", ["local", "production"])
def test_all_that_a_stack_grants_is_asked_for(stack: str) -> None:
    """The API server refuses a Role of whoever hasn't its rights."""
    asked = {
        (group, resource, verb)
        for where, group, resource, verb in clusters.needed(namespaces.SERVING_NAMESPACE, serving=True)
        if where is not None
    }
    granted = {
        (group, resource, verb)
        for each in declare(config.load(stack), name=stack)
        if each.kind == "Role"
        for rule in each.manifest["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }
    assert granted
    assert granted <= asked
