"""Objects that pods need: asked for once where an answer that is a little old will do."""

from __future__ import annotations

from pathlib import Path

from infra.local.node.checkpoint import ObjectCache
from infra.local.node.objects import Objects
from switchboard.kube import CONFIG_MAPS
from tests.infra.local.node.conftest import Space

KEY = ("ConfigMap", "settings")


async def test_an_old_answer_does_only_where_it_may(space: Space, tmp_path: Path) -> None:
    await space.create(CONFIG_MAPS, {"metadata": {"name": "settings"}, "data": {"level": "1"}})
    objects = Objects(space.kube, ObjectCache(tmp_path))

    async def level(max_age_s: float) -> str | None:
        found = (await objects.get_all(space.name, [KEY], max_age_s=max_age_s))[KEY]
        return None if found is None else found["data"]["level"]

    assert await level(0) == "1"
    await space.kube.patch(CONFIG_MAPS, "settings", {"data": {"level": "2"}}, space.name)
    assert await level(600) == "1"
    assert await level(0) == "2"
    assert await level(600) == "2"
    await space.kube.delete(CONFIG_MAPS, "settings", space.name)
    assert await level(600) == "2"
    objects.forget(space.name, [KEY])
    assert await level(600) is None
    assert await level(600) is None
