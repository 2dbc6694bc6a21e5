"""Type tokens become API resources; what isn't supported says what to do instead."""

from __future__ import annotations

import pytest

from infra.plugin.kinds import (
    BUILT_IN,
    TypeToken,
    Unsupported,
    name_of_urn,
    parse_token,
    type_of_urn,
)
from switchboard.kube import Credentials, Kube
from tests.conftest import ControlPlane


@pytest.mark.parametrize(
    ("token", "declared", "expected"),
    [
        ("kubernetes:core/v1:ConfigMap", None, TypeToken("v1", "ConfigMap")),
        ("kubernetes:apps/v1:Deployment", "Deployment", TypeToken("apps/v1", "Deployment")),
        ("kubernetes:apps/v1:DeploymentPatch", "Deployment", TypeToken("apps/v1", "Deployment", patch=True)),
        ("kubernetes:core/v1:ServicePatch", None, TypeToken("v1", "Service", patch=True)),
        ("kubernetes:a.dev/v1:Foo", "Foo", TypeToken("a.dev/v1", "Foo")),
        ("kubernetes:a.dev/v1:FooPatch", "Foo", TypeToken("a.dev/v1", "Foo", patch=True)),
        ("kubernetes:a.dev/v1:CrossPatch", "CrossPatch", TypeToken("a.dev/v1", "CrossPatch")),
        ("kubernetes:a.dev/v1:PlayList", "PlayList", TypeToken("a.dev/v1", "PlayList")),
    ],
)
def test_tokens(token: str, declared: str | None, expected: TypeToken) -> None:
    assert parse_token(token, declared) == expected


@pytest.mark.parametrize(
    ("token", "why"),
    [
        ("kubernetes:core/v1:ConfigMapList", "declare its items"),
        ("kubernetes:helm.sh/v3:Release", "needs the official Kubernetes plugin"),
        ("kubernetes:kustomize/v2:Directory", "needs the official Kubernetes plugin"),
        ("kubernetes:yaml/v2:ConfigGroup", "needs the official Kubernetes plugin"),
        ("aws:s3/bucket:Bucket", "not a type of the package kubernetes"),
    ],
)
def test_what_is_not_done_is_said(token: str, why: str) -> None:
    with pytest.raises(Unsupported, match=why):
        parse_token(token)


def test_urns() -> None:
    urn = "urn:pulumi:local::switchboard::switchboard:Site$kubernetes:apps/v1:Deployment::a::b"
    assert type_of_urn(urn) == "kubernetes:apps/v1:Deployment"
    assert name_of_urn(urn) == "a::b"


async def test_the_table_of_built_in_kinds_is_the_servers(control_plane: ControlPlane) -> None:
    async with Kube(Credentials.from_kubeconfig(control_plane.kubeconfig)) as kube:
        for version in sorted({version for version, _ in BUILT_IN}):
            root = "/apis/" if "/" in version else "/api/"
            served = {
                item["kind"]: (item["name"], item["namespaced"])
                for item in (await kube.request("GET", root + version))["resources"]
                if "/" not in item["name"]
            }
            ours = {kind: (k.plural, k.namespaced) for (v, kind), k in BUILT_IN.items() if v == version}
            assert {kind: served.get(kind) for kind in ours} == ours
