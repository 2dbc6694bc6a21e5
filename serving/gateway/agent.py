"""The gateway's agent: watches the namespace's pods, ModelServers and ModelReleases and keeps Envoy's files right.

The files are on a volume of the pod, so they outlive a restart of either container: Envoy starts with the endpoints
that were known last, and goes on with them while the API server is away (its own health checks then tell who lives).
Nothing is written before the first complete list of pods, and only what changed is written. ModelServers and
ModelReleases aren't waited for (`last_known`): they say only whose requests may wait (`activator`), and what of them
the arms of a release get.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Coroutine, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from serving.gateway import config, routes
from serving.gateway.activator import Activator
from serving.gateway.fleets import Fleet, Split, fleets
from serving.gateway.last_known import LastKnown
from serving.gateway.listeners import RELEASED, ROUTES
from serving.gateway.model_servers import Server, servers
from serving.gateway.releases import Lingering, Release, arm_of, releases
from serving.gateway.settings import Settings
from switchboard import envoy, labels
from switchboard.envoy import Admin
from switchboard.informer import Informer
from switchboard.kinds import MODEL_RELEASES, MODEL_SERVERS, PODS
from switchboard.kube import Credentials, Kind, Kube

log = logging.getLogger(__name__)

DEBOUNCE_S = 0.01
APPLY_TIMEOUT_S = 5.0
DRAIN_S = 10.0
DRAIN_LAST_S = 2.0
"""Before the end of that, whoever still waits for a replica is told to try again."""
CHECK_S = 5.0
"""So often it is looked at whether Envoy's files are as they were left: Envoy refuses what is nonsense and goes on, but
would not start from it."""
LATE_S = 0.2
"""How long after a change of routes requests still come by the old ones: those that were on their way in."""


def init(settings: Settings) -> None:
    """Write what Envoy needs to start. What an earlier run of this pod has left is kept: it is known last."""
    settings.directory.mkdir(parents=True, exist_ok=True)
    envoy.write(settings.bootstrap, config.bootstrap(settings))
    nothing: tuple[Fleet, ...] = ()
    for path, document in (
        (settings.clusters, config.clusters(nothing, settings)),
        (settings.bounds, config.bounds(nothing)),
        (settings.routes, routes.none_yet(ROUTES)),
        (settings.released_routes, routes.none_yet(RELEASED)),
        (settings.ops_routes, routes.ops(ready=False)),
    ):
        if not path.exists():
            envoy.write(path, document)


async def run(settings: Settings, credentials: Credentials, stop: asyncio.Event) -> None:
    """Until `stop` is set; then Envoy asks its clients to leave, and this waits until they have (10 s at most)."""
    async with (
        Kube(credentials, user_agent=f"switchboard-gateway/{settings.pod_name}") as kube,
        Admin(settings.admin_socket) as admin,
        Activator(settings) as activator,
        asyncio.TaskGroup() as tasks,
    ):
        files = Files(settings, kube, admin, activator)
        running = [tasks.create_task(work) for work in files.work()]
        await stop.wait()
        activator.wait_until(asyncio.get_running_loop().time() + DRAIN_S - DRAIN_LAST_S)
        await drain(admin)
        for task in running:
            task.cancel()


class Files:
    """Keeps Envoy's files as the API server's objects say, and tells the activator who can be reached."""

    def __init__(self, settings: Settings, kube: Kube, admin: Admin, activator: Activator) -> None:
        self._settings, self._admin, self._activator = settings, admin, activator
        self._changed = asyncio.Event()
        self._late_at = 0.0
        # What the files are made of: with thousands of model servers, to make them all anew takes a second.
        self._written: dict[str, Fleet] = {}
        self._clusters: list[tuple[object, ...]] | None = None
        self._bounds: list[tuple[object, ...]] | None = None
        self._released: list[tuple[object, ...]] | None = None
        self._routes: list[tuple[object, ...]] | None = None
        self._marks: dict[Path, tuple[int, int, int]] = {}

        def informer(kind: Kind, label_selector: str | None = None) -> Informer:
            return Informer(
                kube,
                kind,
                namespace=settings.namespace,
                label_selector=label_selector,
                on_change=lambda *_: self._changed.set(),
            )

        self._pods = informer(PODS, labels.MODEL_SERVER)
        seen = informer(MODEL_SERVERS), informer(MODEL_RELEASES)
        self._informers = (self._pods, *seen)
        self._servers = LastKnown(seen[0], settings.last_known, servers, Server)
        self._releases = LastKnown(seen[1], settings.last_releases, releases, Release)
        self._arms = Lingering(filter(arm_of, settings.known_servers()), time.monotonic())

    def work(self) -> tuple[Coroutine[Any, Any, None], ...]:
        return *(one.run() for one in self._informers), self._keep()

    async def _keep(self) -> None:
        await self._pods.synced.wait()
        while True:
            self._changed.clear()
            try:
                self._look_after()
                now, until_s = self._fleets()
                late_s = await self.apply(now)
            except OSError as error:  # a full volume, say: what Envoy has stays in force
                log.error("Envoy's files can't be written: %s", error)
                await asyncio.sleep(1.0)
                continue
            again_s = min(one for one in (until_s, late_s, CHECK_S) if one is not None)
            with suppress(TimeoutError):
                async with asyncio.timeout(again_s):
                    await self._changed.wait()
                    await asyncio.sleep(DEBOUNCE_S)  # a rollout's events come in bursts

    def _fleets(self) -> tuple[tuple[Fleet, ...], float | None]:
        """All fleets, and how long it is until one that lingers goes."""
        settings = self._settings
        found = fleets(
            self._pods.items.values(),
            tier=settings.tier,
            region=settings.region,
            known=(name for name in settings.known_servers() if arm_of(name) is None),
            servers=self._servers.values(),
            releases=self._releases.values(),
        )
        arms = (fleet.name for fleet in found if fleet.arm is not None)
        lingering, until_s = self._arms.look(arms, time.monotonic())
        return (*found, *(Fleet(name) for name in sorted(lingering))), until_s

    async def apply(self, now: tuple[Fleet, ...]) -> float | None:
        """Write what changed, in the order in which no request falls between: endpoints, clusters, what waits for
        them, routes; and, some time later, the endpoints of those whose requests are held from now on. The answer is
        the time until then."""
        versions, late = dict[str, str](), list[Fleet]()
        for fleet in now:
            if self._written.get(fleet.name) == fleet:
                continue
            files = (self._settings.endpoints(name) for name in config.pools(fleet))
            if fleet.deserted and all(file.exists() for file in files):
                late.append(fleet)
            else:
                versions |= self._write_endpoints(fleet)
        self._apply_bounds(now)
        await self._apply_clusters(now)
        await self._apply_routes(now, versions)
        if self._put(self._settings.ops_routes, routes.ops(ready=True)):
            log.info("ready: %d model servers", len(now))
        self._forget({fleet.name for fleet in now})
        if late and (left_s := self._late_at - time.monotonic()) > 0:
            return left_s
        for fleet in late:
            self._write_endpoints(fleet)
        return None

    def _apply_bounds(self, now: tuple[Fleet, ...]) -> None:
        shape: list[tuple[object, ...]] = [(fleet.name, fleet.most_at_once, len(fleet.core)) for fleet in now]
        if self._bounds != shape:
            self._put(self._settings.bounds, config.bounds(now))
            self._bounds = shape

    async def _apply_clusters(self, now: tuple[Fleet, ...]) -> None:
        settings = self._settings
        shape: list[tuple[object, ...]] = [config.shape(fleet) for fleet in now]
        if self._clusters == shape:
            return
        clusters = config.clusters(now, settings)
        if self._put(settings.clusters, clusters):
            await self._taken({envoy.CDS_VERSION: clusters["version_info"], envoy.WARMING: "0"})
        self._clusters = shape

    async def _apply_routes(self, now: tuple[Fleet, ...], endpoints: Mapping[str, str]) -> None:
        """`endpoints` are the versions of those that Envoy is to have before it is sent to them."""
        settings = self._settings
        shape: list[tuple[object, ...]] = [routes.shape(routes.once_held(fleet)) for fleet in now]
        if self._released != shape:
            released = routes.released(now)
            if self._put(settings.released_routes, released):
                await self._taken(_version(released, RELEASED))
            self._released = shape
        shape = [(fleet.held, *routes.shape(fleet)) for fleet in now]
        turn = self._routes != shape
        if turn:
            await self._taken(endpoints)
        self._activator.open({fleet.name: fleet.slots for fleet in now if fleet.arm is None})
        if turn:
            table = routes.routes(now, settings)
            if self._put(settings.routes, table):
                await self._taken(_version(table, ROUTES))
                self._late_at = time.monotonic() + LATE_S
            self._routes = shape

    def _forget(self, there: set[str]) -> None:
        """Of arms that are gone: their clusters are, too."""
        for name in self._written.keys() - there:
            for cluster in config.pools(self._written.pop(name)):
                file = self._settings.endpoints(cluster)
                self._marks.pop(file, None)
                file.unlink(missing_ok=True)

    def _put(self, file: Path, document: envoy.Config) -> bool:
        wrote = envoy.write(file, document)
        self._marks[file] = _mark(file)
        return wrote

    def _look_after(self) -> None:
        """What another hand has changed or removed is made anew."""
        spoiled = {file for file, mark in self._marks.items() if _mark(file) != mark}
        if not spoiled:
            return
        log.error("not as it was left, and written anew: %s", ", ".join(sorted(one.name for one in spoiled)))
        for file in spoiled:
            del self._marks[file]
        settings = self._settings
        if settings.clusters in spoiled:
            self._clusters = None
        if settings.bounds in spoiled:
            self._bounds = None
        if settings.released_routes in spoiled:
            self._released = None
        if settings.routes in spoiled:
            self._routes = None
        for fleet in list(self._written.values()):
            if any(settings.endpoints(pool) in spoiled for pool in config.pools(fleet)):
                self._write_endpoints(fleet)

    def _write_endpoints(self, fleet: Fleet) -> dict[str, str]:
        """The statistics by which Envoy says that it has taken what changed."""
        versions = {}
        for cluster, endpoints in config.endpoints(fleet).items():
            if self._put(self._settings.endpoints(cluster), endpoints):
                log.info("%s: %s", cluster, envoy.describe(endpoints))
                versions[f"cluster.{cluster}.version_text"] = endpoints["version_info"]
        known = self._written.get(fleet.name)
        if fleet.split != (known.split if known is not None else Split()):
            log.info("%s: %s", fleet.name, _said(fleet.split))
        self._written[fleet.name] = fleet
        return versions

    async def _taken(self, wanted: Mapping[str, str]) -> None:
        """Wait until Envoy has taken a file, if it runs; what it refuses stays as it was."""
        if not wanted or not await self._admin.live():
            return
        if not await self._admin.taken(wanted, timeout_s=APPLY_TIMEOUT_S):
            log.error("envoy has not taken %s in %.0f s; see its log", ", ".join(wanted), APPLY_TIMEOUT_S)


def _mark(file: Path) -> tuple[int, int, int]:
    """Which file it is, from when, how long; zeros where there is none."""
    try:
        found = file.stat()
    except FileNotFoundError:
        return (0, 0, 0)
    return found.st_ino, found.st_mtime_ns, found.st_size


def _said(split: Split) -> str:
    mirrored = ", ".join(f"{share} % to {name} as well" for name, share in split.mirrors)
    return f"{split.weight} % to its candidate" + (f", {mirrored}" if mirrored else "")


def _version(table: envoy.Config, name: str) -> Mapping[str, str]:
    return {f"http.{name}.rds.{name}.version_text": table["version_info"]}


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
            if stats.get(f"http.{ROUTES}.downstream_cx_active", "0") == "0":
                return
            await asyncio.sleep(0.1)
