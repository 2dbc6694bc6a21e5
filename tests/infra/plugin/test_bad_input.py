"""What users and clusters do wrong: one clear line each, nothing changed, and the next run works once it is mended.

Over the plugin's gRPC face, against the real API server.
"""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import yaml

from infra.local import pki
from infra.plugin.wire import Properties
from infra.plugin.writer import InitFailed
from switchboard.kube import Kind
from tests.conftest import ControlPlane
from tests.infra.plugin.conftest import CONFIG_MAP, DEPLOYMENT, Engine, Served, deployment
from tests.infra.plugin.rpc import Refusal

SERVICE = "kubernetes:core/v1:Service"
STATEFUL_SET = "kubernetes:apps/v1:StatefulSet"
JOB = "kubernetes:batch/v1:Job"
DEFINITION = "kubernetes:apiextensions.k8s.io/v1:CustomResourceDefinition"
RESOURCE_QUOTAS = Kind("v1", "resourcequotas", "ResourceQuota")
SKIP = {"annotations": {"pulumi.com/skipAwait": "true"}}


async def refused(engine: Engine, type_: str, news: Properties, **more: Any) -> str:
    """The one line that the user reads."""
    with pytest.raises(Refusal) as caught:
        await engine.up(type_, "x", news, **more)
    assert "\n" not in str(caught.value)
    assert "x" not in engine.states
    return str(caught.value)


def at(engine: Engine, properties: Properties) -> Properties:
    """Named `web` and not waited for, in the test's namespace."""
    meta = {"name": "web", "namespace": engine.namespace, **SKIP, **properties.get("metadata", {})}
    return {**properties, "metadata": meta}


@dataclass(frozen=True)
class Malformed:
    type_: str
    wrong: Properties
    right: Properties
    says: str


def spec(**changes: Any) -> Properties:
    return {"spec": {**deployment()["spec"], **changes}}


PORTS = {"spec": {"ports": [{"port": 80}]}}
MALFORMED = {
    "an unknown field": Malformed(
        SERVICE, {"spec": {"prots": []}}, PORTS, "spec.prots: field not declared in schema"
    ),
    "a field in the wrong place": Malformed(
        DEPLOYMENT, spec(image="i"), spec(), "spec.image: field not declared in schema"
    ),
    "text for a number": Malformed(
        DEPLOYMENT, spec(replicas="three"), spec(), "spec.replicas: expected numeric (int or float), got string"
    ),
    "a number for text": Malformed(
        CONFIG_MAP, {"data": {"a": 1}}, {"data": {"a": "1"}}, "data.a: expected string, got 1"
    ),
    "a list for an object": Malformed(
        CONFIG_MAP, {"data": ["a"]}, {"data": {"a": "1"}}, "data: expected map, got a list"
    ),
    "an object for a list": Malformed(
        SERVICE, {"spec": {"ports": {"port": 80}}}, PORTS, "spec.ports: expected list, got an object"
    ),
    "a value that isn't allowed": Malformed(
        SERVICE, {"spec": {"ports": [{"port": 0}]}}, PORTS, "spec.ports[0].port: Invalid value: 0"
    ),
    "what is required": Malformed(DEPLOYMENT, {"spec": {}}, spec(), "spec.selector: Required value"),
    "several mistakes": Malformed(
        DEPLOYMENT, spec(replicas=-1, strategy={"type": "No"}), spec(), 'supported values: "Recreate", "RollingUpdate"'
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", MALFORMED.values(), ids=MALFORMED)
async def test_malformed_manifests(remote: Engine, case: Malformed) -> None:
    said = await refused(remote, case.type_, at(remote, case.wrong))
    kind = case.type_.rpartition(":")[2]
    assert said.startswith(f"{kind} {remote.namespace}/web: ")
    assert case.says in said
    with pytest.raises(Refusal) as previewed:
        await remote.preview(case.type_, "x", at(remote, case.wrong))
    assert str(previewed.value) == said
    assert await remote.up(case.type_, "x", at(remote, case.right)) == "created"
    # And the other way round: what exists stays as it is, and the state with it.
    state = remote.states["x"]
    if case.type_ != CONFIG_MAP:
        with pytest.raises(Refusal, match=kind):
            await remote.up(case.type_, "x", at(remote, {**case.right, "metadata": {"labels": {"a": True}}}))
        assert remote.states["x"] == state
        assert await remote.up(case.type_, "x", at(remote, case.right)) == "same"


@pytest.mark.parametrize(
    ("metadata", "path", "why"),
    [
        ({"name": 5}, "metadata.name", "must be a string (it is 5)"),
        ({"name": "a/status"}, "metadata.name", "'a/status' can't be a name: it has '/' in it"),
        ({"name": ".."}, "metadata.name", "'..' can't be a name"),
        ({"name": "a", "namespace": "b?c"}, "metadata.namespace", "'b?c' can't be a name: it has '?' in it"),
        ({"generateName": "a-"}, "metadata.generateName", "server-side apply needs a name"),
        ("a", "metadata", "must be an object"),
    ],
)
async def test_names_that_are_no_names(remote: Engine, metadata: Any, path: str, why: str) -> None:
    from infra.plugin.check import Naming

    _, failures = await remote.resources.check(CONFIG_MAP, {"metadata": metadata}, None, Naming("x", b"seed"))
    assert [(failure.path, failure.reason.partition(":")[0]) for failure in failures] == [
        (path, why.partition(":")[0])
    ]
    assert failures[0].reason.startswith(why)


async def test_an_immutable_field_that_no_rule_knows(remote: Engine) -> None:
    group = f"{remote.namespace}.switchboard.dev"
    names = {"kind": "Lamp", "plural": "lamps", "singular": "lamp", "listKind": "LampList"}
    version = {
        "name": "v1",
        "served": True,
        "storage": True,
        "schema": {"openAPIV3Schema": {"type": "object"}},
    }

    def definition(scope: str) -> Properties:
        return {
            "metadata": {"name": f"lamps.{group}"},
            "spec": {"group": group, "scope": scope, "names": names, "versions": [version]},
        }

    await remote.up(DEFINITION, "lamps", definition("Namespaced"))
    try:
        with pytest.raises(Refusal) as caught:
            await remote.up(DEFINITION, "lamps", definition("Cluster"))
        assert str(caught.value) == (
            f'CustomResourceDefinition lamps.{group}: spec.scope: Invalid value: "Cluster": field is immutable'
        )
        assert await remote.up(DEFINITION, "lamps", definition("Namespaced")) == "same"
    finally:
        await remote.destroy(DEFINITION, "lamps")


async def test_a_stateful_set_s_immutable_field_replaces_it(remote: Engine) -> None:
    """The way out that the server's refusal leaves is the official plugin's: delete and create."""
    base = {"replicas": 0, **{k: v for k, v in deployment()["spec"].items() if k != "replicas"}}
    await remote.up(STATEFUL_SET, "x", at(remote, {"spec": {**base, "serviceName": "a"}}))
    inputs = at(remote, {"spec": {**base, "serviceName": "b"}})
    # A preview of a replacement under the same name is no error.
    checked = await remote.check(STATEFUL_SET, "x", inputs, None)
    await remote.resources.create(remote.urn(STATEFUL_SET, "x"), STATEFUL_SET, checked, 0, True)
    assert await remote.up(STATEFUL_SET, "x", inputs) == "replaced (deleted first)"


async def quota(engine: Engine, **hard: str) -> None:
    """A quota that is in force."""
    meta = {"name": "tight", "namespace": engine.namespace}
    await engine.kube.create(RESOURCE_QUOTAS, {"metadata": meta, "spec": {"hard": hard}})
    async with asyncio.timeout(60):
        while set((await _quota(engine)).get("status", {}).get("used", {})) != set(hard):
            await asyncio.sleep(0.05)


async def _quota(engine: Engine) -> Any:
    return await engine.kube.get(RESOURCE_QUOTAS, "tight", engine.namespace)


async def test_an_object_over_a_quota(remote: Engine) -> None:
    await quota(remote, **{"count/services": "0"})
    said = await refused(remote, SERVICE, at(remote, PORTS))
    assert said.startswith(f"Service {remote.namespace}/web: ")
    assert "exceeded quota: tight, requested: count/services=1, used: count/services=0" in said
    await remote.kube.delete(RESOURCE_QUOTAS, "tight", remote.namespace)
    assert await remote.up(SERVICE, "x", at(remote, PORTS)) == "created"


OVER = "exceeded quota: tight, requested: pods=1, used: pods=0, limited: pods=0"


async def test_pods_over_a_quota_are_what_a_wait_names(remote: Engine) -> None:
    await quota(remote, pods="0")
    base = deployment()["spec"]
    template = {"spec": {**base["template"]["spec"], "restartPolicy": "Never"}}
    workloads = {
        DEPLOYMENT: {"spec": base},
        STATEFUL_SET: {"spec": {**base, "serviceName": "s"}},
        JOB: {"spec": {"template": template}},
    }

    async def failure(type_: str, properties: Properties) -> str:
        news = at(remote, {**properties, "metadata": {"name": "web", "annotations": {}}})
        with pytest.raises(InitFailed) as caught:
            await remote.up(type_, type_, news, timeout_s=3)
        assert remote.ids[type_] == f"{remote.namespace}/web"
        assert remote.states[type_]["metadata"]["uid"]
        said = "; ".join(caught.value.reasons)
        assert said.startswith(f"{type_.rpartition(':')[2]} {remote.namespace}/web: not ready after 3 s: ")
        while OVER not in said:  # its controller may not have come to it yet
            await asyncio.sleep(0.1)
            with pytest.raises(InitFailed) as caught:
                await remote.refresh(type_, type_)
            said = "; ".join(caught.value.reasons)
        return said

    async with asyncio.timeout(120):
        await asyncio.gather(*(failure(*item) for item in workloads.items()))


def kubeconfig(control_plane: ControlPlane, **changes: Callable[[dict[str, Any]], None]) -> str:
    """The control plane's kubeconfig with its `cluster` or `user` changed."""
    document = yaml.safe_load(control_plane.kubeconfig.read_text())
    for section, change in changes.items():
        change(document[f"{section}s"][0][section])
    return json.dumps(document)


def clear(user: dict[str, Any], **new: str) -> None:
    user.clear()
    user.update(new)


EXPIRED_TOKEN = "e30.eyJleHAiOjE3MDAwMDAwMDB9.x"


@pytest.mark.parametrize(
    ("source", "why"),
    [
        (lambda it: kubeconfig(it, user=lambda u: clear(u, token="guessed")), "it is expired, revoked or another"),
        (lambda it: kubeconfig(it, user=lambda u: clear(u, token=EXPIRED_TOKEN)), "expired at 2023-11-14 22:13 UTC"),
        (lambda it: kubeconfig(it, user=clear), "it has neither token nor certificate"),
        (
            lambda it: pki.ensure(it.layout).bootstrap_kubeconfig(datetime.now(UTC) - timedelta(days=1)),
            "its certificate expired at ",
        ),
    ],
    ids=["a wrong token", "an expired token", "none", "an expired certificate"],
)  # fmt: skip
async def test_a_credential_that_is_refused(
    over_grpc: Served, control_plane: ControlPlane, source: Callable[[ControlPlane], str], why: str
) -> None:
    engine = await over_grpc(kubeconfig=source(control_plane))
    said = await refused(engine, CONFIG_MAP, {"data": {"a": "1"}})
    assert f"{control_plane.layout.api_server} refused the credential of context 'public'" in said
    assert why in said
    assert "Renew it" in said
    mended = await over_grpc()
    assert await mended.up(CONFIG_MAP, "x", {"data": {"a": "1"}}) == "created"


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda c: c.update(server="https://127.0.0.1:1"), "https://127.0.0.1:1: connection refused"),
        (lambda c: c.update(server="https://nowhere.invalid"), "https://nowhere.invalid: "),
        (lambda c: c.pop("certificate-authority-data"), "its certificate isn't trusted: unable to get local issuer"),
    ],
    ids=["nobody there", "no such name", "somebody else's certificate"],
)  # fmt: skip
async def test_a_cluster_that_can_t_be_reached(
    over_grpc: Served, control_plane: ControlPlane, change: Callable[[dict[str, Any]], None], why: str
) -> None:
    engine = await over_grpc(kubeconfig=kubeconfig(control_plane, cluster=change))
    said = await refused(engine, CONFIG_MAP, {"data": {"a": "1"}})
    assert said.startswith(
        "the Kubernetes API server of context 'public' (the given kubeconfig) can't be reached: "
    )
    assert why in said


async def test_conflicts_and_who_may_overrule_them(over_grpc: Served) -> None:
    engine, forcing = await over_grpc(), await over_grpc(enablePatchForce=True)
    inputs = at(engine, spec(replicas=2))
    await engine.up(DEPLOYMENT, "x", inputs)
    kind = Kind("apps/v1", "deployments", "Deployment")
    theirs = {"metadata": {"name": "web", "namespace": engine.namespace}, "spec": {"replicas": 5}}
    await engine.kube.apply(kind, theirs, field_manager="an-autoscaler")
    state = engine.states["x"]
    wanted = at(engine, spec(replicas=3))
    for attempt in (engine.preview, engine.up):
        with pytest.raises(Refusal) as caught:
            await attempt(DEPLOYMENT, "x", wanted)
        assert str(caught.value).startswith(
            f"Deployment {engine.namespace}/web conflicts with another field manager: "
            '"an-autoscaler" manages spec.replicas. '
        )
    assert engine.states["x"] == state
    for name in ("ids", "states", "inputs"):
        setattr(forcing, name, getattr(engine, name))
    assert await forcing.up(DEPLOYMENT, "x", wanted) == "updated"
    assert (await engine.kube.get(kind, "web", engine.namespace))["spec"]["replicas"] == 3


@pytest.mark.parametrize(
    ("type_", "why"),
    [
        ("kubernetes:helm.sh/v3:Release", "needs the official Kubernetes plugin"),
        ("kubernetes:helm.sh/v4:Chart", "needs the official Kubernetes plugin"),
        ("kubernetes:kustomize/v2:Directory", "needs the official Kubernetes plugin"),
        ("kubernetes:yaml/v2:ConfigGroup", "needs the official Kubernetes plugin"),
        ("kubernetes:core/v1:ConfigMapList", "declare its items as resources of their own"),
        ("kubernetes:core/v1:Nope", "the cluster has no kind Nope in v1"),
    ],
)
async def test_what_it_doesn_t_do(remote: Engine, type_: str, why: str) -> None:
    assert why in await refused(remote, type_, {})


async def test_who_may_not_see_what_is_waited_for(over_grpc: Served, control_plane: ControlPlane) -> None:
    """A deployer with few rights: what it may not see is said, instead of a wait without an end or a reason."""
    user = f"deployer-{uuid.uuid4().hex[:8]}"
    keys = pki.ensure(control_plane.layout)
    cert, key = keys.ca.issue(pki.Subject(user), datetime.now(UTC))
    source = pki.kubeconfig_text(control_plane.layout, keys.ca.pem, cert, key, user)
    admin, engine = await over_grpc(), await over_grpc(kubeconfig=source)

    async def allow(*verbs: str) -> None:
        await admin.up(
            "kubernetes:rbac.authorization.k8s.io/v1:Role",
            "role",
            {"rules": [{"apiGroups": ["apps"], "resources": ["deployments"], "verbs": list(verbs)}]},
        )

    await allow("get", "create", "patch")
    subject = {"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": user}
    role = {**subject, "kind": "Role", "name": admin.name_of("role")}
    binding = {"roleRef": role, "subjects": [subject]}
    await admin.up("kubernetes:rbac.authorization.k8s.io/v1:RoleBinding", "binding", binding)
    inputs = at(engine, {"metadata": {"annotations": {}}, **spec(replicas=1)})
    async with asyncio.timeout(60):  # the server reads its rules anew a moment later
        while True:
            try:
                await engine.up(DEPLOYMENT, "x", inputs, timeout_s=60)
            except Refusal as refusal:
                assert "cannot" in str(refusal)
                await asyncio.sleep(0.05)
            except InitFailed as failure:
                assert "applied, but can't be waited for: deployments.apps" in str(failure)
                assert "cannot list resource" in str(failure)
                break
    assert engine.states["x"]["metadata"]["uid"]

    # It may see Deployments, but not their pods.
    await allow("get", "create", "patch", "list", "watch")
    async with asyncio.timeout(60):
        while True:
            with pytest.raises(InitFailed) as caught:
                await engine.up(DEPLOYMENT, "x", inputs, timeout_s=1)
            if "can't be waited for" not in str(caught.value):
                break
    assert "0 of 1 replicas available (its pods can't be seen: pods is forbidden" in str(caught.value)
    assert "cannot list resource" in str(caught.value)
    with pytest.raises(InitFailed, match="its pods can't be seen"):
        await engine.refresh(DEPLOYMENT, "x")
