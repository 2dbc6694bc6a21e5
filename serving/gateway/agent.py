"""The gateway's agent: watches the namespace's pods and keeps Envoy's files right.

The files are on a volume of the pod, so they outlive a restart of either container: Envoy starts with the endpoints
that were known last, and goes on with them while the API server is away (its own health checks then tell who lives).
Nothing is written before the first complete list of pods, and only what changed is written.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping
from contextlib import suppress

from serving.gateway import config
from serving.gateway.fleets import Fleet, fleets
from serving.gateway.settings import Settings
from switchboard import envoy, labels
from switchboard.envoy import Admin
from switchboard.informer import Informer
from switchboard.kube import PODS, Credentials, Kube

log = logging.getLogger(__name__)

DEBOUNCE_S = 0.01
APPLY_TIMEOUT_S = 5.0
DRAIN_S = 10.0


def init(settings: Settings) -> None:
    """Write what Envoy needs to start. What an earlier run of this pod has left is kept: it is known last."""
    settings.directory.mkdir(parents=True, exist_ok=True)
    envoy.write(settings.bootstrap, config.bootstrap(settings))
    nothing: tuple[Fleet, ...] = ()
    for path, document in (
        (settings.clusters, config.clusters(nothing, settings)),
        (settings.routes, config.no_routes_yet()),
        (settings.ops_routes, config.ops_routes(ready=False)),
    ):
        if not path.exists():
            envoy.write(path, document)


async def run(settings: Settings, credentials: Credentials, stop: asyncio.Event) -> None:
    """Until `stop` is set; then Envoy asks its clients to leave, and this waits until they have (10 s at most)."""
    changed = asyncio.Event()
    async with (
        Kube(credentials, user_agent=f"switchboard-gateway/{settings.pod_name}") as kube,
        Admin(settings.admin_socket) as admin,
        asyncio.TaskGroup() as tasks,
    ):
        pods = Informer(
            kube,
            PODS,
            namespace=settings.namespace,
            label_selector=labels.MODEL_SERVER,
            on_change=lambda *_: changed.set(),
        )
        running = [
            tasks.create_task(pods.run()),
            tasks.create_task(_keep_files(settings, pods, changed, admin)),
        ]
        await stop.wait()
        await drain(admin)
        for task in running:
            task.cancel()


async def _keep_files(settings: Settings, pods: Informer, changed: asyncio.Event, admin: Admin) -> None:
    await pods.synced.wait()
    while True:
        changed.clear()
        now = fleets(
            pods.items.values(), tier=settings.tier, region=settings.region, known=settings.known_servers()
        )
        try:
            await apply(settings, now, admin)
        except OSError as error:  # a full volume, say: what Envoy has stays in force
            log.error("Envoy's files can't be written: %s", error)
            await asyncio.sleep(1.0)
            continue
        await changed.wait()
        await asyncio.sleep(DEBOUNCE_S)  # a rollout's events come in bursts


async def apply(settings: Settings, now: tuple[Fleet, ...], admin: Admin) -> None:
    """Write what changed: endpoints, then clusters, and routes once Envoy has the clusters that they lead to."""
    for fleet in now:
        for cluster, endpoints in config.endpoints(fleet).items():
            if envoy.write(settings.endpoints(cluster), endpoints):
                log.info("%s: %s", cluster, envoy.describe(endpoints))
    clusters = config.clusters(now, settings)
    routes = config.routes(now)
    if envoy.write(settings.clusters, clusters) and await admin.live():
        wanted = {envoy.CDS_VERSION: clusters["version_info"], envoy.WARMING: "0"}
        if not await admin.taken(wanted, timeout_s=APPLY_TIMEOUT_S):
            log.error("envoy has not taken the clusters in %.0f s; see its log", APPLY_TIMEOUT_S)
    if envoy.write(settings.routes, routes) and await admin.live():
        await admin.taken(_version(routes, config.ROUTES, config.ROUTES), timeout_s=APPLY_TIMEOUT_S)
    if envoy.write(settings.ops_routes, config.ops_routes(ready=True)):
        log.info("ready: %d model servers", len(now))


def _version(routes: envoy.Config, prefix: str, name: str) -> Mapping[str, str]:
    return {f"http.{prefix}.rds.{name}.version_text": routes["version_info"]}


async def drain(admin: Admin, *, timeout_s: float = DRAIN_S) -> None:
    """Not ready any more, and every answer asks its client to close; until no client is left.

    Envoy's container must outlive this (a preStop that sleeps): Envoy itself ends at once when it is told to.
    """
    log.info("draining")
    deadline = time.monotonic() + timeout_s
    with suppress(OSError, TimeoutError):
        await admin.request("/healthcheck/fail", method="POST")
        while time.monotonic() < deadline:
            stats = await admin.stats()
            if stats.get(f"http.{config.ROUTES}.downstream_cx_active", "0") == "0":
                return
            await asyncio.sleep(0.1)
