"""What `ignore_changes` leaves to others: real server-side applies of two managers to one object."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest

from infra.plugin.diff import Options
from infra.plugin.kinds import parse_token
from infra.plugin.paths import parse_path
from infra.plugin.refusals import Refused
from infra.plugin.state import parse
from infra.plugin.wire import Properties
from infra.plugin.writer import Ignoring, Target
from switchboard.kube import CONFIG_MAPS, DEPLOYMENTS, Object
from tests.infra.plugin.conftest import CONFIG_MAP, DEPLOYMENT, Engine, Provider, deployment, in_namespace

OPERATOR = "operator"


def containers(*given: Properties) -> Properties:
    return {"template": {"spec": {"containers": list(given)}}}


@dataclass(frozen=True)
class Case:
    """A Deployment whose program changes while an operator has fields of it.

    `first` and `then` are what the program says in `spec` beside the usual, before and after; `theirs` is what the
    operator applies in between, by force. `left` is what has to be there at the end, and `next` what the operator then
    applies without force.
    """

    ignore: tuple[str, ...]
    left: Mapping[str, Any]
    first: Properties = field(default_factory=dict)
    then: Properties = field(default_factory=dict)
    theirs: Properties = field(default_factory=dict)
    next: Properties = field(default_factory=dict)


APP = {"name": "app", "image": "busybox:1"}
SIDECAR = {"name": "proxy", "image": "envoy:1"}

CASES: dict[str, Case] = {
    "a number that the operator owns": Case(
        ignore=("spec.replicas",),
        first={"replicas": 2},
        theirs={"replicas": 5},
        left={"spec.replicas": 5},
        next={"replicas": 7},
    ),
    "a number that both own by now": Case(
        ignore=("spec.replicas",),
        first={"replicas": 2},
        theirs={"replicas": 2},
        left={"spec.replicas": 2},
        next={"replicas": 7},
    ),
    "a number that only the program owns": Case(
        ignore=("spec.replicas",), first={"replicas": 2}, then={"replicas": 9}, left={"spec.replicas": 2}
    ),
    "a number that only the program owns, and no longer says": Case(
        ignore=("spec.replicas",), first={"replicas": 2}, then={"replicas": None}, left={"spec.replicas": 2}
    ),
    "a default, which nobody owns": Case(
        ignore=("spec.revisionHistoryLimit",),
        then={"revisionHistoryLimit": 3},
        left={"spec.revisionHistoryLimit": 10},
        next={"revisionHistoryLimit": 4},
    ),
    "a field inside what is ignored": Case(
        ignore=("spec.strategy",),
        first={"strategy": {"rollingUpdate": {"maxSurge": 2, "maxUnavailable": 0}}},
        theirs={"strategy": {"rollingUpdate": {"maxSurge": 3}}},
        then={"strategy": {"rollingUpdate": {"maxSurge": 4, "maxUnavailable": 4}}},
        left={"spec.strategy.rollingUpdate.maxSurge": 3, "spec.strategy.rollingUpdate.maxUnavailable": 0},
        next={"strategy": {"rollingUpdate": {"maxSurge": 1}}},
    ),
    "every field at a place": Case(
        ignore=("spec.strategy.rollingUpdate.*",),
        first={"strategy": {"rollingUpdate": {"maxSurge": 2, "maxUnavailable": 0}}},
        theirs={"strategy": {"rollingUpdate": {"maxSurge": 3}}},
        left={"spec.strategy.rollingUpdate.maxSurge": 3, "spec.strategy.rollingUpdate.maxUnavailable": 0},
        next={"strategy": {"rollingUpdate": {"maxSurge": 1}}},
    ),
    "an item's field, wherever the item is": Case(
        ignore=("spec.template.spec.containers[0].image",),
        first=containers(APP, SIDECAR),
        theirs=containers({**SIDECAR, "image": "envoy:2"}),
        then=containers({**SIDECAR, "image": "envoy:9"}, {**APP, "image": "busybox:2"}),
        left={
            "spec.template.spec.containers.app.image": "busybox:2",
            "spec.template.spec.containers.proxy.image": "envoy:2",
        },
        next=containers({**SIDECAR, "image": "envoy:3"}),
    ),
    "an item's image that the operator owns": Case(
        ignore=("spec.template.spec.containers[1].image",),
        first=containers(APP, SIDECAR),
        theirs=containers({**SIDECAR, "image": "envoy:2"}),
        then=containers({**APP, "image": "busybox:2"}, {**SIDECAR, "image": "envoy:9"}),
        left={
            "spec.template.spec.containers[0].image": "busybox:2",
            "spec.template.spec.containers[1].image": "envoy:2",
        },
        next=containers({**SIDECAR, "image": "envoy:3"}),
    ),
    "a whole item, of which each owns a part": Case(
        ignore=("spec.template.spec.containers[1]",),
        first=containers(APP, {**SIDECAR, "tty": True}),
        theirs=containers({**SIDECAR, "image": "envoy:2"}),
        then=containers(APP, {**SIDECAR, "image": "envoy:9", "tty": False}),
        left={
            "spec.template.spec.containers[1].image": "envoy:2",
            "spec.template.spec.containers[1].tty": True,
        },
        next=containers({**SIDECAR, "image": "envoy:3"}),
    ),
    "each item of a list": Case(
        ignore=("spec.template.spec.containers[*].image",),
        first=containers(APP, SIDECAR),
        theirs=containers({**SIDECAR, "image": "envoy:2"}),
        then=containers({**APP, "image": "busybox:9"}, {**SIDECAR, "image": "envoy:9"}),
        left={
            "spec.template.spec.containers[0].image": "busybox:1",
            "spec.template.spec.containers[1].image": "envoy:2",
        },
        next=containers({**SIDECAR, "image": "envoy:3"}),
    ),
    "a place in a list that has one owner": Case(
        ignore=("spec.template.spec.containers[0].args[1]",),
        first=containers({**APP, "args": ["a", "b"]}),
        then=containers({**APP, "args": ["c", "d"]}),
        left={"spec.template.spec.containers[0].args": ["c", "b"]},
    ),
    "ports, by a key that the program doesn't give": Case(
        ignore=("spec.template.spec.containers[0].ports[0].name",),
        first=containers({**APP, "ports": [{"containerPort": 80, "name": "web"}]}),
        theirs=containers({**APP, "ports": [{"containerPort": 80, "protocol": "TCP", "name": "http"}]}),
        left={"spec.template.spec.containers[0].ports[0].name": "http"},
        next=containers({**APP, "ports": [{"containerPort": 80, "protocol": "TCP", "name": "other"}]}),
    ),
    "an empty object that the operator has filled": Case(
        ignore=("spec.template.spec.securityContext",),
        first={"template": {"spec": {"securityContext": {}}}},
        theirs={"template": {"spec": {"securityContext": {"runAsUser": 1}}}},
        left={"spec.template.spec.securityContext": {"runAsUser": 1}},
        next={"template": {"spec": {"securityContext": {"runAsUser": 2}}}},
    ),
}


def declared(engine: Engine, given: Properties, image: str = "") -> Properties:
    """The program's Deployment; `image` marks the change that isn't ignored."""
    inputs = in_namespace(engine, deployment(skipAwait="true", note=image))
    inputs["spec"] = merged(inputs["spec"], given)
    return inputs


def merged(one: Any, other: Any) -> Any:
    if not isinstance(one, dict) or not isinstance(other, dict):
        return other
    found = {**one, **{key: merged(one.get(key), value) for key, value in other.items()}}
    return {key: value for key, value in found.items() if value is not None}


async def operator(engine: Engine, spec: Properties, *, force: bool = False) -> Object:
    body = {"metadata": {"name": "web", "namespace": engine.namespace}, "spec": spec}
    return await engine.kube.apply(DEPLOYMENTS, body, field_manager=OPERATOR, force=force)


async def live(engine: Engine) -> Object:
    return await engine.kube.get(DEPLOYMENTS, "web", engine.namespace)


def at(obj: Any, path: str) -> Any:
    """What is at `path`; of a list by an item's place or its name."""
    for step in parse_path(path):
        by_name = isinstance(obj, list) and isinstance(step, str)
        obj = next(item for item in obj if item["name"] == step) if by_name else obj[step]
    return obj


@pytest.mark.parametrize("case", CASES)
async def test_what_is_ignored_stays_its_owner_s(engine: Engine, case: str) -> None:
    one = CASES[case]
    await engine.up(DEPLOYMENT, "web", declared(engine, one.first), ignore=one.ignore)
    if one.theirs:
        await operator(engine, one.theirs, force=True)
    again = declared(engine, merged(copy.deepcopy(one.first), one.then), "changed")
    assert await engine.up(DEPLOYMENT, "web", again, ignore=one.ignore) == "updated"
    now = await live(engine)
    assert now["metadata"]["annotations"]["pulumi.com/note"] == "changed"
    assert {path: at(now, path) for path in one.left} == one.left
    if one.next:
        await operator(engine, one.next)


CONFIG_CASES: dict[str, tuple[tuple[str, ...], Properties]] = {
    "one key": (("data.a",), {"data": {"a": "theirs", "b": "2"}}),
    "all keys": (("data",), {"data": {"a": "theirs", "b": "1"}}),
    "each key": (("data.*",), {"data": {"a": "theirs", "b": "1"}}),
    "everything but what it is": (
        ("metadata", "data", "kind", "apiVersion"),
        {"data": {"a": "theirs", "b": "1"}},
    ),
}


@pytest.mark.parametrize("case", CONFIG_CASES)
async def test_what_is_ignored_of_a_config_map(provider: Provider, case: str) -> None:
    ignore, expected = CONFIG_CASES[case]
    engine = provider(options=Options(mutable_config_maps=True))
    name = {"name": "c", "namespace": engine.namespace}

    def inputs(value: str) -> Properties:
        finalizers = ["switchboard.dev/ours"] if value == "1" else []
        return {
            "metadata": {**name, "annotations": {"ours": value}, "finalizers": finalizers},
            "data": {"a": value, "b": value},
            "immutable": value != "1",
        }

    await engine.up(CONFIG_MAP, "c", inputs("1"), ignore=ignore)
    theirs = {"metadata": {**name, "annotations": {"theirs": "1"}}, "data": {"a": "theirs"}}
    await engine.kube.apply(CONFIG_MAPS, theirs, field_manager=OPERATOR)
    assert await engine.up(CONFIG_MAP, "c", inputs("2"), ignore=ignore) == "updated"
    now = await engine.kube.get(CONFIG_MAPS, "c", engine.namespace)
    kept = "1" if "metadata" in ignore else "2"
    assert now["data"] == expected["data"]
    assert now["metadata"]["annotations"] == {"ours": kept, "theirs": "1"}
    assert bool(now["metadata"].get("finalizers")) is (kept == "1")
    assert now["immutable"] is True
    await engine.kube.patch(CONFIG_MAPS, "c", {"metadata": {"finalizers": None}}, engine.namespace)


async def test_whoever_writes_by_the_scale_subresource_keeps_what_he_wrote(engine: Engine) -> None:
    ignore = ("spec.replicas",)
    await engine.up(DEPLOYMENT, "web", declared(engine, {"replicas": 2}), ignore=ignore)
    for count in (5, 7):
        scale = {"spec": {"replicas": count}}
        await engine.kube.patch(DEPLOYMENTS, "web", scale, engine.namespace, subresource="scale")
        again = declared(engine, {"replicas": 2}, f"changed {count}")
        assert await engine.up(DEPLOYMENT, "web", again, ignore=ignore) == "updated"
        now = await live(engine)
        assert now["spec"]["replicas"] == count
        owners = [
            entry["manager"]
            for entry in now["metadata"]["managedFields"]
            if "f:replicas" in entry["fieldsV1"].get("f:spec", {})
        ]
        assert len(owners) == 1 and not owners[0].startswith("pulumi")


async def test_a_field_stays_ours_when_our_manager_gets_another_name(engine: Engine) -> None:
    ignore = ("spec.replicas",)
    plain = containers(APP)  # without what the server writes otherwise than it was given
    await engine.up(DEPLOYMENT, "web", declared(engine, {"replicas": 2, **plain}), ignore=ignore)
    again = declared(engine, {"replicas": 9, **plain})
    again["metadata"]["annotations"]["pulumi.com/patchFieldManager"] = "team"
    assert await engine.up(DEPLOYMENT, "web", again, ignore=ignore) == "updated"
    assert (await live(engine))["spec"]["replicas"] == 2


async def test_an_object_that_is_gone_is_made_as_the_program_says(engine: Engine) -> None:
    ignore = ("spec.replicas", "metadata")
    await engine.up(DEPLOYMENT, "web", declared(engine, {"replicas": 2}), ignore=ignore)
    await engine.kube.delete(DEPLOYMENTS, "web", engine.namespace)
    again = declared(engine, {"replicas": 3, "paused": True}, "changed")
    assert await engine.up(DEPLOYMENT, "web", again, ignore=ignore) == "updated"
    now = await live(engine)
    assert (now["spec"]["replicas"], now["metadata"]["annotations"]["pulumi.com/note"]) == (3, "changed")


async def test_a_preview_leaves_the_same(engine: Engine) -> None:
    ignore = ["spec.replicas"]
    await engine.up(DEPLOYMENT, "web", declared(engine, {"replicas": 2}), ignore=tuple(ignore))
    await operator(engine, {"replicas": 5}, force=True)
    changed = declared(engine, {"replicas": 2}, "changed")
    inputs = await engine.check(DEPLOYMENT, "web", changed, engine.inputs["web"])
    urn, state = engine.urn(DEPLOYMENT, "web"), engine.states["web"]
    shown = await engine.resources.update(urn, DEPLOYMENT, state, inputs, ignore, 0, True)
    assert shown["spec"]["replicas"] == 5
    assert shown["metadata"]["annotations"]["pulumi.com/note"] == "changed"


async def test_a_manager_that_comes_between_look_and_apply_is_looked_at_again(engine: Engine) -> None:
    """Also by the apply itself: a conflict that a new look can't explain is told."""
    await engine.up(DEPLOYMENT, "web", declared(engine, {"replicas": 2}))
    writer = engine.resources._writer
    state = engine.states["web"]
    inputs = await engine.check(
        DEPLOYMENT, "web", declared(engine, {"replicas": 2}, "changed"), engine.inputs["web"]
    )
    target = await writer.target("urn", parse_token(DEPLOYMENT), inputs, parse(state), 0, preview=False)
    looks = 0

    async def write(given: Target) -> Object:
        nonlocal looks
        looks += 1
        if looks == 1:
            await operator(engine, {"replicas": 5}, force=True)
        return await writer.apply(given)

    now = await writer.update(target, Ignoring(["spec.replicas"], {target.manager}), write)
    assert (now["spec"]["replicas"], looks) == (5, 2)
    with pytest.raises(Refused, match=r'"operator" manages spec\.replicas'):
        await writer.update(target, Ignoring(["spec.paused"], {target.manager}), write)
    assert looks == 3
