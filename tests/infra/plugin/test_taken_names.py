"""A new object whose name is taken: what a preview says of it, and what `up` does."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from infra.plugin.wire import Properties
from switchboard.kube import CONFIG_MAPS
from tests.conftest import run_apart
from tests.infra.plugin.conftest import CONFIG_MAP, Engine, Provider
from tests.infra.plugin.project import Project, config_map, diagnostics, in_cluster, namespace

HELD = "switchboard.dev/held"


def named(engine: Engine, **annotations: str) -> Properties:
    meta = {"name": "x", "namespace": engine.namespace, "annotations": annotations}
    return {"metadata": meta, "data": {"a": "1"}}


async def by_hand(provider: Provider) -> None:
    engine = provider()
    await engine.kube.create(CONFIG_MAPS, named(engine))


async def by_another_tool(provider: Provider) -> None:
    engine = provider()
    await engine.kube.apply(CONFIG_MAPS, named(engine), field_manager="helm")


async def by_another_pulumi(provider: Provider) -> None:
    engine = provider()
    await engine.up(CONFIG_MAP, "other", named(engine))


async def by_another_pulumi_under_a_name_of_the_user_s(provider: Provider) -> None:
    engine = provider()
    await engine.up(CONFIG_MAP, "other", named(engine, **{"pulumi.com/patchFieldManager": "team"}))


async def by_hand_and_on_its_way_out(provider: Provider) -> None:
    engine = provider()
    body = named(engine)
    await engine.kube.create(CONFIG_MAPS, {**body, "metadata": {**body["metadata"], "finalizers": [HELD]}})
    await engine.kube.delete(CONFIG_MAPS, "x", engine.namespace)


@pytest.mark.parametrize("make", [by_hand, by_another_tool])
async def test_a_preview_refuses_what_up_will(
    provider: Provider, make: Callable[[Provider], Awaitable[None]]
) -> None:
    await make(provider)
    engine = provider()
    for attempt in (engine.preview, engine.up):
        with pytest.raises(ValueError, match=r"ConfigMap \S+/x already exists\. Import it"):
            await attempt(CONFIG_MAP, "c", named(engine))


@pytest.mark.parametrize(
    ("make", "settings"),
    [
        pytest.param(by_hand, {"upsert": True}, id="it is taken over"),
        pytest.param(by_hand_and_on_its_way_out, {}, id="it is on its way out"),
        # Which may be one that the same run deletes first: the engine doesn't say.
        pytest.param(by_another_pulumi, {}, id="it is a Pulumi's"),
        pytest.param(by_another_pulumi_under_a_name_of_the_user_s, {}, id="it is a Pulumi's by another name"),
    ],
)
async def test_a_preview_lets_pass_what_up_may_do(
    provider: Provider, make: Callable[[Provider], Awaitable[None]], settings: dict[str, Any]
) -> None:
    await make(provider)
    engine = provider(**settings)
    assert (await engine.preview(CONFIG_MAP, "c", named(engine)))["data"] == {"a": "1"}
    await engine.kube.patch(CONFIG_MAPS, "x", {"metadata": {"finalizers": None}}, engine.namespace)


async def test_what_the_engine_has_in_its_state_may_be_replaced(provider: Provider) -> None:
    """An object made by hand and imported, which no Pulumi has applied yet."""
    await by_hand(provider)
    engine = provider()
    id_ = f"{engine.namespace}/x"
    found = await engine.resources.read(CONFIG_MAP, id_, {}, {})
    for shown in ("by the read of an import", "by a comparison"):
        assert (await engine.preview(CONFIG_MAP, "c", named(engine)))["data"] == {"a": "1"}, shown
        engine = provider()
        inputs = await engine.check(CONFIG_MAP, "c", named(engine), None)
        await engine.resources.diff(CONFIG_MAP, found.properties, found.inputs, inputs, [])


def test_pulumi_s_own_ways_to_make_an_object_anew(objects: Project) -> None:
    """The real engine: what a preview refuses is refused by `up`, and what it lets pass is made."""

    def preview(*arguments: str) -> str:
        return objects.run("preview", "--stack", "t", *arguments)

    body = {"metadata": {"name": "x", "namespace": namespace(objects)}, "data": {"a": "1"}}
    run_apart(in_cluster(objects, lambda kube: kube.create(CONFIG_MAPS, body)))
    objects.want(objects=[config_map("x", {"a": "1"})])
    said = objects.fails("preview", "--stack", "t")
    (line,) = [line for line in diagnostics(said) if "already exists" in line]
    assert f"ConfigMap {namespace(objects)}/x already exists" in line

    # Imported, then replaced by a change, before anything was applied to it.
    identity = {"import_": f"{namespace(objects)}/x"}
    objects.want(objects=[config_map("x", {"a": "1"}, **identity)])
    objects.up()
    objects.want(objects=[config_map("x", {"a": "2"}, delete_before_replace=True)])
    assert "+-1 to replace" in preview()
    assert "+-1 replaced" in objects.up()

    # Replaced because somebody says so: the engine deletes it first where the program wants that, and else can't.
    urn = objects.state()["x"]["urn"]
    assert "+-1 to replace" in preview("--replace", urn)
    assert "+-1 replaced" in objects.run("up", "--yes", "--stack", "t", "--replace", urn)
    objects.want(objects=[config_map("x", {"a": "2"})])
    said = objects.fails("up", "--yes", "--skip-preview", "--stack", "t", "--replace", urn)
    assert "already exists" in said
    objects.run("destroy", "--yes", "--skip-preview", "--stack", "t")
