"""Resources against the real API server: created, compared, updated, replaced, refreshed, deleted, previewed."""

from __future__ import annotations

import asyncio
import uuid
from typing import Any

import pytest

from infra.plugin.kinds import CRD
from infra.plugin.refusals import Refused
from infra.plugin.wire import UNKNOWN, Properties, Secret
from infra.plugin.writer import InitFailed
from switchboard.kube import CONFIG_MAPS, DEPLOYMENTS, NAMESPACES, SECRETS, ApiError, Kind, Unreachable
from tests.infra.plugin.conftest import (
    CONFIG_MAP,
    DEPLOYMENT,
    Engine,
    Provider,
    deployment,
    in_namespace,
)

SECRET = "kubernetes:core/v1:Secret"
SERVICE = "kubernetes:core/v1:Service"
NAMESPACE = "kubernetes:core/v1:Namespace"
JOB = "kubernetes:batch/v1:Job"
CLAIM = "kubernetes:core/v1:PersistentVolumeClaim"
ROLE_BINDING = "kubernetes:rbac.authorization.k8s.io/v1:RoleBinding"
STATEFUL_SET = "kubernetes:apps/v1:StatefulSet"
SKIP = {"pulumi.com/skipAwait": "true"}


def named(engine: Engine, name: str = "x", **annotations: str) -> Properties:
    return {"name": name, "namespace": engine.namespace, "annotations": annotations}


async def data_of(engine: Engine, name: str) -> Any:
    return (await engine.kube.get(CONFIG_MAPS, name, engine.namespace)).get("data")


async def test_a_life(engine: Engine) -> None:
    assert await engine.up(CONFIG_MAP, "settings", {"data": {"a": "1"}}) == "created"
    name = engine.name_of("settings")
    assert name.startswith("settings-")
    assert engine.ids["settings"] == f"{engine.namespace}/{name}"
    assert await data_of(engine, name) == {"a": "1"}
    assert await engine.up(CONFIG_MAP, "settings", {"data": {"a": "1"}}) == "same"
    assert await engine.up(CONFIG_MAP, "settings", {"data": {"a": "2"}}) == "replaced"
    assert engine.name_of("settings") != name
    assert await data_of(engine, engine.name_of("settings")) == {"a": "2"}
    last = engine.name_of("settings")
    await engine.destroy(CONFIG_MAP, "settings")
    for gone in (name, last):
        assert await engine.kube.get_or_none(CONFIG_MAPS, gone, engine.namespace) is None


async def test_fields_that_are_left_out_go_and_others_fields_stay(provider: Provider) -> None:
    engine = provider(upsert=False, options=_mutable())
    await engine.up(CONFIG_MAP, "c", {"data": {"a": "1", "b": "1"}})
    name = engine.name_of("c")
    await engine.kube.patch(CONFIG_MAPS, name, {"data": {"other": "1"}}, engine.namespace)
    assert await engine.up(CONFIG_MAP, "c", {"data": {"a": "2"}}) == "updated"
    assert await data_of(engine, name) == {"a": "2", "other": "1"}
    live = await engine.kube.get(CONFIG_MAPS, name, engine.namespace)
    managers = {item["manager"]: item["operation"] for item in live["metadata"]["managedFields"]}
    assert managers[engine.states["c"]["__fieldManager"]] == "Apply"
    assert engine.states["c"]["__fieldManager"].startswith("pulumi-kubernetes-")


def _mutable() -> Any:
    from infra.plugin.diff import Options

    return Options(mutable_config_maps=True, mutable_secrets=True)


def workload(**spec: Any) -> Properties:
    template = {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}
    return {"selector": {"matchLabels": {"a": "b"}}, "template": template, **spec}


REPLACEMENTS: list[tuple[str, str, Properties, Properties]] = [
    (
        "a deployment's selector",
        DEPLOYMENT,
        {"spec": workload()},
        {
            "spec": {
                "selector": {"matchLabels": {"a": "c"}},
                "template": {**workload()["template"], "metadata": {"labels": {"a": "c"}}},
            }
        },
    ),
    (
        "a stateful set's service",
        STATEFUL_SET,
        {"spec": workload(serviceName="s")},
        {"spec": workload(serviceName="t")},
    ),
    (
        "a job's template",
        JOB,
        {
            "spec": {
                "template": {"spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "i"}]}}
            }
        },
        {
            "spec": {
                "template": {"spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "j"}]}}
            }
        },
    ),
    (
        "a claim's class",
        CLAIM,
        {
            "spec": {
                "storageClassName": "a",
                "accessModes": ["ReadWriteOnce"],
                "resources": {"requests": {"storage": "1"}},
            }
        },
        {
            "spec": {
                "storageClassName": "b",
                "accessModes": ["ReadWriteOnce"],
                "resources": {"requests": {"storage": "1"}},
            }
        },
    ),
    (
        "a binding's role",
        ROLE_BINDING,
        {"roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "a"}},
        {"roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "b"}},
    ),
    (
        "a service's address",
        SERVICE,
        {"spec": {"ports": [{"port": 80}], "clusterIP": "None"}},
        {"spec": {"ports": [{"port": 80}], "clusterIP": ""}},
    ),
    ("a secret's data", SECRET, {"stringData": Secret({"a": "1"})}, {"stringData": Secret({"a": "2"})}),
]


@pytest.mark.parametrize(
    ("type_", "old", "new"), [case[1:] for case in REPLACEMENTS], ids=[case[0] for case in REPLACEMENTS]
)
async def test_replaced_where_the_server_would_refuse(
    engine: Engine, type_: str, old: Properties, new: Properties
) -> None:
    metadata = named(engine, **SKIP)
    await engine.up(type_, "x", {"metadata": metadata, **old})
    before = engine.states["x"]["metadata"]["uid"]
    assert await engine.up(type_, "x", {"metadata": metadata, **old}) == "same"
    assert await engine.up(type_, "x", {"metadata": metadata, **new}) == "replaced (deleted first)"
    assert engine.states["x"]["metadata"]["uid"] != before
    assert engine.ids["x"] == f"{engine.namespace}/x"


async def test_drift_is_shown_and_repaired(engine: Engine) -> None:
    inputs = in_namespace(engine, deployment(skipAwait="true"))
    await engine.up(DEPLOYMENT, "web", inputs)
    assert await engine.refresh(DEPLOYMENT, "web")
    # The server made `1` of `1000m`, and added defaults: no drift.
    assert await engine.up(DEPLOYMENT, "web", inputs) == "same"
    patch = [{"op": "remove", "path": "/spec/template/spec/containers/0/resources/limits"}]
    await engine.kube.patch(DEPLOYMENTS, "web", patch, engine.namespace, patch_type="json")
    await engine.refresh(DEPLOYMENT, "web")
    checked = await engine.check(DEPLOYMENT, "web", inputs, engine.inputs["web"])
    found = await engine.resources.diff(DEPLOYMENT, engine.states["web"], engine.inputs["web"], checked, [])
    assert list(found.changes) == ["spec.template.spec.containers[0].resources.limits"]
    assert await engine.up(DEPLOYMENT, "web", inputs) == "updated"
    live = await engine.kube.get(DEPLOYMENTS, "web", engine.namespace)
    assert live["spec"]["template"]["spec"]["containers"][0]["resources"]["limits"] == {"cpu": "1"}


async def test_what_others_deleted_is_made_again(engine: Engine) -> None:
    await engine.up(CONFIG_MAP, "c", {"data": {"a": "1"}})
    await engine.kube.delete(CONFIG_MAPS, engine.name_of("c"), engine.namespace)
    assert not await engine.refresh(CONFIG_MAP, "c")
    assert await engine.up(CONFIG_MAP, "c", {"data": {"a": "1"}}) == "created"
    await engine.kube.delete(CONFIG_MAPS, engine.name_of("c"), engine.namespace)
    await engine.destroy(CONFIG_MAP, "c")


async def test_another_manager_s_field_is_a_conflict_that_names_it(provider: Provider) -> None:
    engine = provider(options=_mutable())
    metadata = named(engine)
    await engine.up(CONFIG_MAP, "c", {"metadata": metadata, "data": {"a": "1", "b": "1"}})
    body = {"metadata": {"name": "x", "namespace": engine.namespace}, "data": {"a": "theirs"}}
    await engine.kube.apply(CONFIG_MAPS, body, field_manager="some-tool", force=True)
    with pytest.raises(Refused, match=r'"some-tool" manages data\.a.*patchForce'):
        await engine.up(CONFIG_MAP, "c", {"metadata": metadata, "data": {"a": "2", "b": "1"}})
    assert await data_of(engine, "x") == {"a": "theirs", "b": "1"}
    forced = named(engine, **{"pulumi.com/patchForce": "true"})
    assert await engine.up(CONFIG_MAP, "c", {"metadata": forced, "data": {"a": "2", "b": "1"}}) == "updated"
    assert await data_of(engine, "x") == {"a": "2", "b": "1"}


async def test_an_ignored_field_is_left_to_whoever_changes_it(engine: Engine) -> None:
    inputs = in_namespace(engine, deployment(skipAwait="true"))
    ignore = ("spec.replicas",)
    await engine.up(DEPLOYMENT, "web", inputs, ignore=ignore)
    await engine.kube.patch(DEPLOYMENTS, "web", {"spec": {"replicas": 5}}, engine.namespace)
    assert await engine.up(DEPLOYMENT, "web", inputs, ignore=ignore) == "same"
    inputs = in_namespace(engine, deployment(skipAwait="true", image="busybox:2"))
    assert await engine.up(DEPLOYMENT, "web", inputs, ignore=ignore) == "updated"
    live = await engine.kube.get(DEPLOYMENTS, "web", engine.namespace)
    assert live["spec"]["replicas"] == 5
    assert live["spec"]["template"]["spec"]["containers"][0]["image"] == "busybox:2"


async def test_what_already_exists_is_not_taken_over_unasked(provider: Provider) -> None:
    engine, upsert = provider(), provider(upsert=True)
    await engine.kube.create(
        CONFIG_MAPS, {"metadata": {"name": "x", "namespace": engine.namespace}, "data": {"own": "1"}}
    )
    inputs = {"metadata": named(engine), "data": {"a": "1"}}
    with pytest.raises(ValueError, match="already exists"):
        await engine.up(CONFIG_MAP, "c", inputs)
    assert await upsert.up(CONFIG_MAP, "c", inputs) == "created"
    assert await data_of(engine, "x") == {"own": "1", "a": "1"}


async def test_secrets_are_secret_in_the_state_and_plain_on_the_server(engine: Engine) -> None:
    await engine.up(SECRET, "s", {"stringData": {"k": "hunter2"}})
    state = engine.states["s"]
    assert state["data"] == Secret({"k": "aHVudGVyMg=="})
    assert state["__inputs"]["stringData"] == Secret({"k": "hunter2"})
    assert "hunter2" not in repr(
        {k: v for k, v in state.items() if not isinstance(v, Secret)} | {"__inputs": 0}
    )
    live = await engine.kube.get(SECRETS, engine.name_of("s"), engine.namespace)
    assert live["data"] == {"k": "aHVudGVyMg=="}
    await engine.refresh(SECRET, "s")
    assert await engine.up(SECRET, "s", {"stringData": {"k": "hunter2"}}) == "same"
    # A secret value in another object is hidden where it lands.
    await engine.up(CONFIG_MAP, "c", {"data": {"k": Secret("hunter2"), "l": "open"}})
    assert engine.states["c"]["data"] == {"k": Secret("hunter2"), "l": "open"}


async def test_an_import_reads_inputs_and_state(engine: Engine) -> None:
    body = {
        "metadata": {"name": "x", "namespace": engine.namespace, "labels": {"l": "1"}},
        "data": {"a": "1"},
    }
    await engine.kube.create(CONFIG_MAPS, body)
    found = await engine.resources.read(CONFIG_MAP, f"{engine.namespace}/x", {}, {})
    assert found.inputs == {"apiVersion": "v1", "kind": "ConfigMap", **body}
    checked = await engine.check(CONFIG_MAP, "c", body, found.inputs)
    difference = await engine.resources.diff(CONFIG_MAP, found.properties, found.inputs, checked, [])
    assert difference.changes == {}
    assert (await engine.resources.read(CONFIG_MAP, f"{engine.namespace}/y", {}, {})).id == ""


class TestPreview:
    """Nothing is changed, and what can be told is."""

    async def test_a_create_shows_what_the_server_makes_of_it(self, engine: Engine) -> None:
        outputs = await engine.preview(DEPLOYMENT, "web", in_namespace(engine, deployment()))
        assert outputs["spec"]["strategy"]["type"] == "RollingUpdate"
        assert "status" not in outputs
        assert await engine.kube.get_or_none(DEPLOYMENTS, "web", engine.namespace) is None

    async def test_an_update_too(self, engine: Engine) -> None:
        await engine.up(DEPLOYMENT, "web", in_namespace(engine, deployment(skipAwait="true")))
        outputs = await engine.preview(
            DEPLOYMENT, "web", in_namespace(engine, deployment(replicas=7, skipAwait="true"))
        )
        assert outputs["spec"]["replicas"] == 7
        live = await engine.kube.get(DEPLOYMENTS, "web", engine.namespace)
        assert live["spec"]["replicas"] == 1

    @pytest.mark.parametrize(
        ("type_", "news"),
        [
            pytest.param(CONFIG_MAP, {"data": {"a": UNKNOWN}}, id="unknown value"),
            pytest.param(CONFIG_MAP, {"data": Secret({"a": UNKNOWN})}, id="unknown secret"),
            pytest.param(
                CONFIG_MAP, {"metadata": {"name": "x", "namespace": "not-there-yet"}}, id="unknown namespace"
            ),
            pytest.param("kubernetes:not.there/v1:Yet", {"spec": {"a": 1}}, id="unknown kind"),
            pytest.param(
                f"{CONFIG_MAP}Patch", {"kind": "ConfigMap", "metadata": {"name": "not-there"}}, id="patch"
            ),
        ],
    )
    async def test_what_can_t_exist_yet_is_echoed(self, engine: Engine, type_: str, news: Properties) -> None:
        outputs = await engine.preview(type_, "x", news)
        assert {key: outputs[key] for key in news if key != "metadata"} == {
            key: value for key, value in news.items() if key != "metadata"
        }

    async def test_a_replacement_under_the_same_name_is_no_error(self, engine: Engine) -> None:
        old, new = REPLACEMENTS[0][2:]
        metadata = named(engine, **SKIP)
        await engine.up(DEPLOYMENT, "x", {"metadata": metadata, **old})
        inputs = await engine.check(DEPLOYMENT, "x", {"metadata": metadata, **new}, None)
        _, outputs = await engine.resources.create("u::t::x", DEPLOYMENT, inputs, 0, True)
        assert outputs == inputs

    async def test_a_mistake_is_found(self, engine: Engine) -> None:
        with pytest.raises(Refused, match=r"spec\.ports\[0\]\.port"):
            await engine.preview(SERVICE, "s", {"spec": {"ports": [{"port": 0}]}})
        with pytest.raises(Refused, match="field not declared in schema"):
            await engine.preview(SERVICE, "s", {"spec": {"prots": []}})


async def test_custom_kinds_come_with_their_definition(engine: Engine) -> None:
    group = f"{uuid.uuid4().hex[:8]}.switchboard.dev"
    schema = {"type": "object", "x_kubernetes_preserve_unknown_fields": True}
    crd = {
        "metadata": {"name": f"lamps.{group}"},
        "spec": {
            "group": group,
            "scope": "Cluster",
            "names": {"kind": "Lamp", "plural": "lamps", "singular": "lamp", "listKind": "LampList"},
            "versions": [
                {"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": schema}}
            ],
        },
    }
    type_ = "kubernetes:apiextensions.k8s.io/v1:CustomResourceDefinition"
    lamp = {"spec": {"on": True}}
    preview = await engine.preview(f"kubernetes:{group}/v1:Lamp", "desk", lamp)
    assert preview["spec"] == {"on": True}
    await engine.up(type_, "lamps", crd)
    try:
        # It was checked as a namespaced kind, as nobody knew better.
        assert await engine.up(f"kubernetes:{group}/v1:Lamp", "desk", lamp) == "created"
        assert "/" not in engine.ids["desk"]
        assert await engine.up(f"kubernetes:{group}/v1:Lamp", "desk", lamp) == "same"
        assert await engine.up(f"kubernetes:{group}/v1:Lamp", "desk", {"spec": {"on": False}}) == "updated"
        live = await engine.kube.get(Kind(f"{group}/v1", "lamps", "Lamp", False), engine.ids["desk"])
        assert live["spec"] == {"on": False}
    finally:
        await engine.destroy(type_, "lamps")
    assert await engine.kube.get_or_none(CRD, f"lamps.{group}") is None
    # With its definition the object is gone too.
    await engine.destroy(f"kubernetes:{group}/v1:Lamp", "desk")


async def test_a_patch_adds_its_fields_and_takes_them_back(engine: Engine) -> None:
    meta = {"name": "x", "namespace": engine.namespace}
    type_, patch = f"{CONFIG_MAP}Patch", {"kind": "ConfigMap", "metadata": meta, "data": {"b": "2"}}
    with pytest.raises(ValueError, match="nothing to patch"):
        await engine.up(type_, "p", patch)
    await engine.kube.create(CONFIG_MAPS, {"metadata": meta, "data": {"a": "1"}})
    await engine.up(type_, "p", patch)
    assert await data_of(engine, "x") == {"a": "1", "b": "2"}
    assert await engine.up(type_, "p", {**patch, "data": {"c": "3"}}) == "updated"
    assert await data_of(engine, "x") == {"a": "1", "c": "3"}
    await engine.destroy(type_, "p")
    assert await data_of(engine, "x") == {"a": "1"}


async def test_a_namespace_goes_with_what_is_in_it(engine: Engine) -> None:
    await engine.up(NAMESPACE, "area", {"metadata": {}})
    name = engine.ids["area"]
    assert engine.states["area"]["status"]["phase"] == "Active"
    await engine.up(CONFIG_MAP, "inside", {"metadata": {"namespace": name}})
    await engine.destroy(NAMESPACE, "area")
    assert await engine.kube.get_or_none(NAMESPACES, name) is None


async def test_what_the_server_refuses_is_said_in_its_words(engine: Engine) -> None:
    with pytest.raises(Refused, match="its namespace nowhere doesn't exist"):
        await engine.up(CONFIG_MAP, "c", {"metadata": {"name": "x", "namespace": "nowhere"}})
    with pytest.raises(Refused, match=r"ConfigMap .*/Not_a_name: .*Invalid value"):
        await engine.up(CONFIG_MAP, "c", {"metadata": named(engine, "Not_a_name")})
    await engine.kube.create(
        Kind("v1", "resourcequotas", "ResourceQuota"),
        {"metadata": {"name": "q", "namespace": engine.namespace}, "spec": {"hard": {"configmaps": "0"}}},
    )
    async with asyncio.timeout(60):
        with pytest.raises(Refused, match=r"exceeded quota|status unknown for quota"):
            while True:
                await engine.up(CONFIG_MAP, f"c-{uuid.uuid4()}", {"data": {}})


async def test_a_cluster_that_isn_t_there_is_a_clear_error_at_the_first_object(provider: Provider) -> None:
    config = (
        '{"current-context":"a","contexts":[{"name":"a","context":{"cluster":"a","user":"a"}}],'
        '"clusters":[{"name":"a","cluster":{"server":"http://127.36.9.9:1"}}],"users":[{"name":"a","user":{}}]}'
    )
    engine = provider(kubeconfig=config)
    for attempt in (engine.preview, engine.up):
        with pytest.raises(Unreachable, match=r"http://127\.36\.9\.9:1"):
            await attempt(CONFIG_MAP, "c", {"data": {"a": "1"}})
    forgetful = provider(kubeconfig=config, delete_unreachable=True)
    forgetful.ids["c"], forgetful.states["c"], forgetful.inputs["c"] = "n/x", {"kind": "ConfigMap"}, {}
    await forgetful.destroy(CONFIG_MAP, "c")


async def test_nobody_is_asked_about_what_didn_t_change(engine: Engine) -> None:
    inputs = in_namespace(engine, deployment(skipAwait="true"))
    await engine.up(DEPLOYMENT, "web", inputs)
    offline = Engine(_offline(), engine.kube, engine.namespace, engine.host)
    offline.states, offline.inputs, offline.ids = engine.states, engine.inputs, engine.ids
    assert await offline.up(DEPLOYMENT, "web", inputs) == "same"


def _offline() -> Any:
    from infra.plugin.config import Config
    from infra.plugin.resources import Resources
    from tests.infra.plugin.conftest import SpyHost

    return Resources(Config(kubeconfig="/nowhere/kubeconfig"), SpyHost())


async def test_the_state_survives_a_server_that_goes_away_in_mid_create(
    provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = provider(retry_s=0.0)
    kube = await engine.resources.cluster.kube()
    request = kube.request

    async def applied_but_no_answer(method: str, *args: Any, **kwargs: Any) -> Any:
        answer = await request(method, *args, **kwargs)
        if method == "PATCH":
            raise Unreachable("connection reset")
        return answer

    monkeypatch.setattr(kube, "request", applied_but_no_answer)
    with pytest.raises(InitFailed, match="the API server went away while it was created"):
        await engine.up(CONFIG_MAP, "c", {"data": {"a": "1"}})
    monkeypatch.undo()
    assert await data_of(engine, engine.name_of("c")) == {"a": "1"}
    assert await engine.up(CONFIG_MAP, "c", {"data": {"a": "1"}}) == "updated"
    assert await engine.up(CONFIG_MAP, "c", {"data": {"a": "1"}}) == "same"
    await engine.destroy(CONFIG_MAP, "c")


async def test_a_restarting_server_is_waited_for(provider: Provider, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = provider(retry_s=5.0)
    kube = await engine.resources.cluster.kube()
    request, failures = kube.request, iter([Unreachable("refused"), ApiError(503, "", "starting")])

    async def flaky(method: str, *args: Any, **kwargs: Any) -> Any:
        if method == "PATCH" and (error := next(failures, None)) is not None:
            raise error
        return await request(method, *args, **kwargs)

    monkeypatch.setattr(kube, "request", flaky)
    assert await engine.up(CONFIG_MAP, "c", {"data": {"a": "1"}}) == "created"
