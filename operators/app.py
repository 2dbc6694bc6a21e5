"""The operator, put together: kopf's events of ModelServers, watches of the rest, the lease, the loop, releases, pages.

kopf runs standalone, with event handlers only: it leaves no annotation and no finalizer in anybody's object. Leadership
is by a Lease of our own (`operators.lease`), since kopf's peering pauses equals. kopf's own watch ends for good at some
errors; it is begun again then, and lists anew.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import Mapping
from typing import Any

import kopf

from operators.http import Pages
from operators.lease import Leader
from operators.loop import Loop
from operators.metrics import Metrics
from operators.releases.controller import Controller
from operators.releases.evidence import Signer
from operators.releases.records import Records
from operators.servers.registry import Registry
from operators.servers.workloads import MANAGER, Workloads
from operators.settings import Settings
from operators.signals.gateways import Gateways
from operators.signals.prometheus import Prometheus
from operators.view import View
from switchboard import labels
from switchboard.api.model_server import MODEL_SERVERS, VERSION
from switchboard.events import Events
from switchboard.kube import ApiError, Credentials, Kube, Unreachable

log = logging.getLogger(__name__)

WRITE_TIMEOUT_S = 4.0
"""Less than what is between the end of a leader that can't renew and the next one's beginning."""
RESTART_S = 2.0
STOP_S = 5.0
EVENTS_KEPT = 5000
"""All of a site may be sized anew at once."""


async def run(settings: Settings, credentials: Credentials, stop: asyncio.Event) -> None:
    """Until `stop` is set.

    Raises:
        OSError: its address can't be listened at.
    """
    agent = f"{MANAGER}/{settings.pod_name}"
    prometheus = Prometheus(settings.prometheus_url) if settings.prometheus_url is not None else None
    async with (
        Kube(credentials, user_agent=agent, timeout_s=WRITE_TIMEOUT_S) as kube,
        Gateways() as gateways,
    ):
        registry, events = Registry(), Events(kube, MANAGER, settings.pod_name, kept=EVENTS_KEPT)
        metrics, leader = Metrics(registry), Leader(kube, settings.namespace, settings.pod_name)

        view = View(kube, settings.namespace)
        workloads = Workloads(kube, view, on_write=metrics.writes.inc, may_write=lambda: leader.leads)
        releases = Controller(
            kube,
            settings.namespace,
            registry,
            view,
            leader,
            prometheus.ranged if prometheus is not None else None,
            Records(Signer.from_file(settings.signing_key)),
            events,
            policy=settings.releases,
            on_write=metrics.writes.inc,
        )
        loop = Loop(
            registry,
            view,
            workloads,
            leader,
            prometheus,
            gateways,
            events,
            metrics,
            beside=releases.beside,
        )
        pages = await Pages(settings, registry, view, leader, loop, metrics).start()
        ticking, leading = asyncio.create_task(loop.run()), asyncio.create_task(leader.run())
        tasks = [ticking, leading] + [
            asyncio.create_task(one)
            for one in (
                *view.run(),
                *releases.work(),
                events.run(),
                _watch_servers(settings, credentials, kube, registry, stop),
            )
        ]
        stopping = asyncio.create_task(stop.wait())
        try:
            done, _ = await asyncio.wait([stopping, *tasks], return_when=asyncio.FIRST_COMPLETED)
            for task in done - {stopping}:
                task.result()
        finally:
            stop.set()
            ticking.cancel()
            await asyncio.wait([ticking], timeout=STOP_S)
            try:
                async with asyncio.timeout(STOP_S):
                    await loop.settle()
            except TimeoutError:
                await loop.give_up()
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks, timeout=STOP_S)
            await pages.cleanup()
            if prometheus is not None:
                prometheus.close()


async def _watch_servers(
    settings: Settings, credentials: Credentials, kube: Kube, registry: Registry, stop: asyncio.Event
) -> None:
    """kopf, again and again until `stop`. All ModelServers are known before it begins, which tells of one after the
    other: a release whose server isn't there is rolled back."""
    for attempt in itertools.count():
        try:
            there = await kube.list(MODEL_SERVERS, settings.namespace)
        except (ApiError, Unreachable) as error:
            log.warning("ModelServers can't be listed: %s", error)
            await asyncio.sleep(RESTART_S)
            continue
        registry.fill(there)
        if attempt:
            log.info("ModelServers are watched again")
        try:
            await kopf.operator(
                registry=handlers(registry, credentials),
                settings=_kopf_settings(),
                standalone=True,
                namespaces=[settings.namespace],
                stop_flag=stop,
            )
        except Exception as error:
            log.warning("the watch of ModelServers ended: %s: %s", type(error).__name__, error)
        else:
            stop.set()  # it takes the process' signals for itself
        if stop.is_set():
            return
        await asyncio.sleep(RESTART_S)


def handlers(registry: Registry, credentials: Credentials) -> kopf.OperatorRegistry:
    """kopf's registry with our two handlers: how to log in, and what a ModelServer's event means."""
    made = kopf.OperatorRegistry()

    @kopf.on.login(registry=made)
    async def login(**_: Any) -> kopf.ConnectionInfo:
        return kopf.ConnectionInfo(
            server=credentials.server,
            ca_data=credentials.ca.encode() if credentials.ca else None,
            certificate_data=credentials.client_cert.encode() if credentials.client_cert else None,
            private_key_data=credentials.client_key.encode() if credentials.client_key else None,
            token=credentials.bearer(),
        )

    @kopf.on.event(labels.DOMAIN, VERSION, MODEL_SERVERS.plural, registry=made)
    async def changed(event: Mapping[str, Any], **_: Any) -> None:
        if event["type"] == "DELETED":
            registry.remove(event["object"])
        else:
            registry.put(event["object"])

    return made


def _kopf_settings() -> kopf.OperatorSettings:
    settings = kopf.OperatorSettings()
    settings.posting.enabled = False
    settings.scanning.disabled = True  # else it watches all definitions and namespaces of the cluster
    settings.process.ultimate_exiting_timeout = None  # it would kill the process
    settings.networking.request_timeout = 10.0
    settings.networking.connect_timeout = 5.0
    settings.watching.server_timeout = 300
    settings.watching.reconnect_backoff = 0.5
    return settings
