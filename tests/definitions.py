"""The definitions of ModelServers and ModelReleases in a real API server.

Of a module at the longest: tests of a cluster that knows no ModelServers yet take them out of the one they share.
"""

from __future__ import annotations

from switchboard.api import model_release, model_server
from switchboard.kinds import CUSTOM_RESOURCE_DEFINITIONS, MODEL_RELEASES, MODEL_SERVERS, Kind
from switchboard.kube import ApiError, Kube, Object
from tests.pods import until


async def define_model_servers(kube: Kube) -> Object:
    """Put it in force; the definition with its conditions."""
    return await _define(kube, model_server.crd(), MODEL_SERVERS)


async def define_model_releases(kube: Kube) -> Object:
    """Put it in force; the definition with its conditions."""
    return await _define(kube, model_release.crd(), MODEL_RELEASES)


async def _define(kube: Kube, definition: Object, kind: Kind) -> Object:
    name = definition["metadata"]["name"]

    async def not_on_its_way_out() -> bool:
        found = await kube.get_or_none(CUSTOM_RESOURCE_DEFINITIONS, name)
        return found is None or "deletionTimestamp" not in found["metadata"]

    await until(not_on_its_way_out, what=f"the {name} of tests before is gone")
    await kube.apply(CUSTOM_RESOURCE_DEFINITIONS, definition, field_manager="test")

    async def in_force() -> Object | None:
        found = await kube.get(CUSTOM_RESOURCE_DEFINITIONS, name)
        conditions = (found.get("status") or {}).get("conditions") or ()
        if not any(one["type"] == "Established" and one["status"] == "True" for one in conditions):
            return None
        try:  # what is established is not served at once
            await kube.list(kind, "default")
        except ApiError as error:
            if error.status not in {404, 429}:
                raise
            return None
        return found

    found: Object = await until(in_force, what=f"{name} is in force")
    return found
