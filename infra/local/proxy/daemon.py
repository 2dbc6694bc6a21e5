"""The Service proxy's process: watches Services and pods, keeps Envoy's files right and Envoy running.

Envoy is a process of its own session with a record (`infra.local.processes`), not a mere child: it survives the
death of this process with all its connections, and the next one adopts it. Files that Envoy holds stay as they are
while the API server is away. SIGTERM means that the site goes down, so it stops Envoy too.
"""

from __future__ import annotations

import asyncio
import logging
import os
import resource
import signal
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

from infra.local import processes
from infra.local.layout import API_PORT, SiteLayout
from infra.local.proxy import config, report
from infra.local.proxy.forwards import (
    Forward,
    cluster_ip,
    forwards,
    ignored_ports,
    load_balancer_status,
)
from switchboard import envoy
from switchboard.envoy import Admin, Endpoint
from switchboard.informer import Informer, Key
from switchboard.kube import PODS, SERVICES, ApiError, Credentials, Kube, Object, Unreachable

log = logging.getLogger(__name__)

DEBOUNCE_S = 0.01
APPLY_TIMEOUT_S = 5.0
RETRY_S = 5.0
"""How often an address that could not be bound is tried again."""
LIVE_TIMEOUT_S = 20.0
KUBERNETES = "default/kubernetes:443"
ENVOY_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
"""Not this process's own: that may change between two starts, and a running Envoy has to fit to be adopted."""


class EnvoyProcess:
    """Keeps one Envoy running on the files of a folder; adopts one that runs already on the same bootstrap."""

    def __init__(self, binary: Path, directory: Path, log_file: Path, record: Path) -> None:
        self._program = processes.Program(
            name="service proxy's envoy",
            argv=(str(binary), "-c", config.BOOTSTRAP, *envoy.ARGUMENTS),
            env={"PATH": ENVOY_PATH},
            cwd=directory,
            log=log_file,
            record=record,
            fingerprint=envoy.digest(envoy.Config(text=(directory / config.BOOTSTRAP).read_text())),
        )
        self._record: processes.Record | None = None

    async def ensure(self) -> bool:
        """See that it runs; True where it was started now."""
        record, started = await asyncio.to_thread(processes.ensure, self._program, grace_s=2.0)
        self._record = record
        log.info("envoy %s: pid %d", "started" if started else "adopted", record.pid)
        return started

    async def supervise(self) -> None:
        """Start it again whenever it ends: at once, and with pauses up to 5 s where it doesn't stay up."""
        pause_s = 0.0
        while True:
            record = self._record
            if record is None:
                raise RuntimeError("ensure() first")
            since = time.monotonic()
            await _ended(record.pid)
            if processes.alive(record):  # also reaps it where it is our child
                continue
            pause_s = 0.0 if time.monotonic() - since > 10 else min(5.0, pause_s * 2 or 0.1)
            log.error("envoy (pid %d) ended; starting it again in %.1f s", record.pid, pause_s)
            await asyncio.sleep(pause_s)
            try:
                await self.ensure()
            except Exception:
                log.exception("envoy can't be started")
                await asyncio.sleep(1.0)

    async def stop(self) -> None:
        await asyncio.to_thread(processes.stop, self._program.record, self._record, grace_s=2.0)


async def _ended(pid: int) -> None:
    """Wait until the process is gone (it need not be our child)."""
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_reader(handle, ended.set)
    try:
        await ended.wait()
    finally:
        loop.remove_reader(handle)
        os.close(handle)


class Proxy:
    """The proxy of one site. `binary` is Envoy's."""

    def __init__(self, layout: SiteLayout, binary: Path) -> None:
        self._layout = layout
        self._directory = layout.proxy_dir
        self._binary = binary
        self._changed = asyncio.Event()
        self._statuses: asyncio.Queue[Key] = asyncio.Queue()
        self._ready = layout.run / "proxy.ready"
        self._said: set[str] = set()

    async def run(self, stop: asyncio.Event) -> None:
        """Until `stop` is set; then Envoy is stopped."""
        for directory in (self._directory, self._layout.run, self._layout.logs):
            directory.mkdir(parents=True, exist_ok=True)
        self._ready.unlink(missing_ok=True)
        self._directory.chmod(0o700)
        _raise_file_limit()
        self._prepare_files()
        process = EnvoyProcess(
            self._binary,
            self._directory,
            self._layout.logs / "proxy-envoy.log",
            self._layout.run / "proxy-envoy.json",
        )
        await process.ensure()
        credentials = Credentials.from_kubeconfig(self._layout.proxy_kubeconfig)
        try:
            async with (
                Kube(credentials, user_agent="switchboard-service-proxy") as kube,
                Admin(self._directory / config.ADMIN) as admin,
                asyncio.TaskGroup() as tasks,
            ):
                self._services = Informer(kube, SERVICES, on_change=self._on_service)
                self._pods = Informer(kube, PODS, on_change=lambda *_: self._changed.set())
                running = [
                    tasks.create_task(work)
                    for work in (
                        process.supervise(),
                        self._services.run(),
                        self._pods.run(),
                        self._write_statuses(kube),
                        self._keep_files(admin),
                    )
                ]
                await stop.wait()
                for task in running:
                    task.cancel()
        finally:
            self._ready.unlink(missing_ok=True)
        await process.stop()  # but not after an error: then Envoy goes on, and the next proxy adopts it

    def _prepare_files(self) -> None:
        """What Envoy needs to start; endpoints as last known, or none."""
        envoy.write(self._directory / config.BOOTSTRAP, config.bootstrap(self._layout.name))
        for name, nothing in (
            (config.CLUSTERS, config.clusters(())),
            (config.LISTENERS, config.listeners(())),
        ):
            if not (self._directory / name).exists():
                envoy.write(self._directory / name, nothing)

    def _on_service(self, key: Key, _old: Object | None, new: Object | None) -> None:
        self._changed.set()
        if new is not None and load_balancer_status(new) is not None:
            self._statuses.put_nowait(key)

    async def _keep_files(self, admin: Admin) -> None:
        await self._services.synced.wait()
        await self._pods.synced.wait()
        again = False
        while True:
            self._changed.clear()
            self._warn_ignored()
            api = Endpoint(str(self._layout.control_plane_ip), API_PORT)
            now = forwards(self._services.items.values(), self._pods.items.values(), api)
            try:
                applied = await self._apply(admin, now, again=again)
            except (OSError, TimeoutError) as error:  # Envoy has just ended and is being started again
                log.warning("envoy doesn't answer: %s", error)
                applied = False
            if applied:
                if not self._ready.exists():
                    log.info("ready: %d ports of Services", len(now))
                report.write(self._ready, report.Report())
            again = not applied
            with suppress(TimeoutError):
                async with asyncio.timeout(RETRY_S if again else None):
                    await self._changed.wait()
                    await asyncio.sleep(DEBOUNCE_S)  # a rollout's events come in bursts

    async def _apply(self, admin: Admin, now: tuple[Forward, ...], *, again: bool) -> bool:
        """Write the files and wait until Envoy has taken them; False where something is left to be tried again.

        Clusters go first: a listener whose cluster isn't there yet would drop the connections it accepts.
        """
        clusters, listeners = config.clusters(now), config.listeners(now)
        envoy.write(self._directory / config.CLUSTERS, clusters)
        if not await admin.taken(
            {envoy.CDS_VERSION: clusters["version_info"]},
            timeout_s=LIVE_TIMEOUT_S if again else APPLY_TIMEOUT_S,
        ):
            log.error("envoy doesn't take the clusters; see %s", self._layout.logs / "proxy-envoy.log")
            return False
        envoy.write(self._directory / config.LISTENERS, listeners, again=again)
        version = {envoy.LDS_VERSION: listeners["version_info"]}
        if await admin.taken(version, timeout_s=0.5):
            self._said.clear()
            return True
        failed = await admin.failed_listeners()
        if not failed and await admin.taken(version, timeout_s=APPLY_TIMEOUT_S):
            return True
        for name, reason in failed.items():
            self._say_once(f"Service port {name} can't be served: {reason}{_hint(now, name)}")
        # The others work: what can't be bound is said, and does not keep the site from coming up.
        if failed:
            report.write(self._ready, _report(now, failed))
        return False

    def _warn_ignored(self) -> None:
        for port in ignored_ports(self._services.items.values()):
            self._say_once(f"Service port {port} is not served: only TCP is")

    def _say_once(self, text: str) -> None:
        if text not in self._said:
            self._said.add(text)
            log.warning("%s", text)

    async def _write_statuses(self, kube: Kube) -> None:
        """The load-balancer controller: every Service of type LoadBalancer has its ClusterIP as its address."""
        while True:
            key = await self._statuses.get()
            service = self._services.items.get(key)
            status = load_balancer_status(service) if service else None
            if service is None or status is None:
                continue
            try:
                await kube.patch(SERVICES, key[1], status, key[0], subresource="status")
                log.info("load balancer of %s/%s: %s", *key, cluster_ip(service))
            except (ApiError, Unreachable) as error:
                if isinstance(error, ApiError) and error.not_found:
                    continue
                self._say_once(f"status of {key[0]}/{key[1]} can't be written: {error}")
                asyncio.get_running_loop().call_later(1.0, self._statuses.put_nowait, key)


def _report(now: tuple[Forward, ...], failed: Mapping[str, str]) -> report.Report:
    said = {
        name: (reason.strip() or "the address can't be bound") + _hint(now, name)
        for name, reason in failed.items()
    }
    dispensable = {name for name in said if name == KUBERNETES and _hint(now, name)}
    return report.Report(
        refused={name: why for name, why in said.items() if name not in dispensable},
        dispensable={name: why for name, why in said.items() if name in dispensable},
    )


def _hint(now: tuple[Forward, ...], name: str) -> str:
    port = next((forward.port for forward in now if forward.name == name), 0)
    if port < _first_unprivileged_port() and os.geteuid() != 0:
        return f" (port {port} needs root, or sysctl net.ipv4.ip_unprivileged_port_start={port})"
    return ""


def _first_unprivileged_port() -> int:
    return int(Path("/proc/sys/net/ipv4/ip_unprivileged_port_start").read_text())


def _raise_file_limit() -> None:
    """Envoy inherits it: two descriptors for each connection."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def on_signals(stop: Callable[[], None]) -> None:
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop)
