"""The runs of one pod's containers: starting, watching, probing, stopping. The effects behind `lifecycle`'s steps.

Every change of a container's record goes through here, is saved, and wakes the pod's worker.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from infra.local.node import container_probes, container_spec, crilogs, environment, podspec
from infra.local.node.container_probes import ContainerProbes
from infra.local.node.container_spec import Place, parse_run_id, run_id
from infra.local.node.ending import HookFailed, end_container, run_hook
from infra.local.node.podspec import ConfigError
from infra.local.node.records import Container, Ended, Problem
from infra.local.runtime import ContainerState, Image, NoSuchContainer, StartError, UnknownImage
from switchboard.kube import Object

if TYPE_CHECKING:
    from infra.local.node.pod_worker import PodWorker

log = logging.getLogger(__name__)

_MESSAGE_LIMIT_BYTES = 4096
_FALLBACK_LINES = 80
_FALLBACK_BYTES = 2048
_CANNOT_START = 128
_CHANGED = "ContainerChanged"
_HOOK_LOOK_S = 0.25


class ContainerRuns:
    """The running containers of one pod; `pids` are their first processes."""

    def __init__(self, worker: PodWorker) -> None:
        self._worker = worker
        self._watchers: dict[str, asyncio.Task[None]] = {}
        self._probes = ContainerProbes(worker)
        self._fetching: set[asyncio.Future[Image]] = set()
        self.pids: dict[str, int] = {}

    def _one(self, name: str) -> Object:
        found = podspec.container(self._worker.pod, name)
        if found is None:
            raise KeyError(name)
        return found

    # Adoption

    def adopt(self, states: dict[str, ContainerState]) -> None:
        for container in self._worker.record.containers.values():
            newest = self._newest(container, states)
            if newest is not None and self._unknown(container, newest):
                # The agent was killed between a start and its note of it.
                if container.phase == "exited":
                    container.previous = container.ended
                container.attempt, container.run_id = parse_run_id(newest)[2], newest
                container.phase, container.ended = "running", None
                container.started_at = states[newest].started_at
            if newest is not None and (state := states[newest]).exit is None and state.pid is not None:
                container.attempt, container.run_id = parse_run_id(newest)[2], newest
                container.phase, container.ended = "running", None
                container.started_at = state.started_at
                self._watch_run(container, state)
                self._probes.begin(container, self._one(container.name))
            elif container.phase == "running":
                self._lost_or_ended(container, states.get(container.run_id or ""))
        self._worker.save()

    def _unknown(self, container: Container, id: str) -> bool:
        """Is that a run that the record doesn't tell of?"""
        attempt = parse_run_id(id)[2]
        return attempt > container.attempt or (attempt == container.attempt and container.phase == "waiting")

    def _newest(self, container: Container, states: dict[str, ContainerState]) -> str | None:
        own = [id for id in states if parse_run_id(id)[:2] == (self._worker.uid, container.name)]
        return max(own, key=lambda id: parse_run_id(id)[2], default=None)

    def _lost_or_ended(self, container: Container, state: ContainerState | None) -> None:
        if state is not None and state.exit is not None:
            self._set_ended(container, Ended.of(container.run_id or "", state.exit, self._message(container)))
            return
        ended = Ended(
            run_id=container.run_id or "",
            exit_code=137,
            reason="ContainerStatusUnknown",
            message="the container was not there any more when the node came back",
            started_at=container.started_at,
            finished_at=datetime.now(UTC),
        )
        self._set_ended(container, ended)

    # Starting

    async def start(self, name: str) -> None:
        container = self._worker.record.containers[name]
        try:
            # Before the turn to start: an image of Debian packages may have to be fetched first.
            image = await self._image(self._one(name)["image"])
            began = False
            async with self._worker.context.starts:
                if image is not None and not self._worker.ending:
                    await self._start(container, image)
                    began = True
            if began:  # its turn is over: a hook may take as long as it likes, and others want to start
                await self._post_start(container)
        except UnknownImage as error:
            again = container.problem is not None and container.problem.reason.endswith(
                ("Pull", "PullBackOff")
            )
            reason = "ImagePullBackOff" if again else "ErrImagePull"
            self._postpone(container, Problem(reason=reason, message=str(error)))
        except ConfigError as error:
            self._postpone(container, Problem(reason=error.reason, message=error.message))
        except StartError as error:
            if error.reason.startswith("CreateContainer"):
                self._postpone(container, Problem(reason=error.reason, message=error.message))
            else:
                self._failed_to_run(container, error.message)
        except OSError as error:  # a full disk, say
            self._postpone(container, Problem(reason="CreateContainerError", message=str(error)))
        finally:
            container.busy = False

    async def _image(self, ref: str) -> Image | None:
        """The image, however long it takes; None if the pod has to end before (`leave_fetches`)."""
        waiting = asyncio.ensure_future(self._worker.context.fetches.image(ref))
        self._fetching.add(waiting)
        try:
            await asyncio.wait({waiting})
        finally:
            self._fetching.discard(waiting)
            waiting.cancel()
        return None if waiting.cancelled() else waiting.result()

    def leave_fetches(self) -> None:
        """The pod has to end: what waits for an image waits no longer. The fetch goes on, for others."""
        for waiting in self._fetching:
            waiting.cancel()

    async def _start(self, container: Container, image: Image) -> None:
        worker, one = self._worker, self._one(container.name)
        attempt = container.attempt + (1 if container.phase == "exited" else 0)
        wanted = environment.references(worker.pod)
        sources = await worker.volumes.sources(worker.pod, worker.record.ip or "", wanted)
        place = self._place(container.name, attempt)
        worker.directory.drop_old_logs(container.name, attempt)
        spec = container_spec.build(
            worker.pod, one, image, sources, worker.volumes.folders, worker.volumes.read_only, place
        )
        if (before := self._watchers.get(container.name)) is not None:
            await asyncio.wait({before})
        if container.run_id is not None:  # of the run before; its end is in the record
            await worker.context.runtime.remove(container.run_id)
        state = await worker.context.runtime.start(spec)
        if container.phase == "exited":
            container.previous = container.ended
        container.attempt, container.run_id = attempt, place.run_id
        container.phase, container.ended, container.problem = "running", None, None
        container.stop_because, container.image = None, image.reference
        container.started_at = state.started_at or datetime.now(UTC)
        container.started = container.ready = False
        worker.save()
        log.info("pod %s: container %s runs (pid %s)", podspec.label(worker.pod), container.name, state.pid)
        present = f'Container image "{one["image"]}" already present on machine'
        worker.event("Normal", "Pulled", present, container.name)
        worker.event("Normal", "Created", f"Container created: {container.name}", container.name)
        worker.event("Normal", "Started", f"Container started: {container.name}", container.name)
        self._watch_run(container, state)
        worker.wake()

    def _place(self, name: str, attempt: int) -> Place:
        worker = self._worker
        message = worker.directory.message(name)
        message.parent.mkdir(parents=True, exist_ok=True)
        message.write_bytes(b"")
        message.chmod(0o666)
        return Place(
            run_id=run_id(worker.uid, name, attempt),
            log=worker.directory.log(name, attempt),
            cgroup=worker.context.cgroup(worker.uid, name),
            hosts=worker.directory.hosts,
            message=message,
        )

    async def _post_start(self, container: Container) -> None:
        """Its hook, then its probes. A hook is left alone when its container ends, or has to."""
        worker, one = self._worker, self._one(container.name)
        run, ended = container.run_id or "", self._watchers[container.name]
        if hook := (one.get("lifecycle") or {}).get("postStart"):
            hooked = asyncio.ensure_future(
                run_hook(worker.context.runtime, run, one, hook, worker.record.ip or "", None)
            )
            try:
                while not (hooked.done() or ended.done() or worker.ending or container.stop_because):
                    await asyncio.wait({hooked, ended}, timeout=_HOOK_LOOK_S, return_when="FIRST_COMPLETED")
            finally:
                hooked.cancel()
            await asyncio.wait({hooked})
            if not hooked.cancelled() and (error := hooked.exception()) is not None:
                if not isinstance(error, HookFailed):
                    raise error
                worker.event(
                    "Warning", "FailedPostStartHook", f"PostStartHook failed: {error}", container.name
                )
                container.stop_because = Problem(reason="FailedPostStartHook", message=str(error))
        if container.phase == "running" and not container.stop_because and not worker.ending:
            self._probes.begin(container, one)
            worker.save()

    def _postpone(self, container: Container, problem: Problem) -> None:
        """It can't be made now: said, and tried again after the back-off."""
        worker = self._worker
        if container.problem is None or container.problem.message != problem.message:
            log.warning(
                "pod %s: container %s: %s", podspec.label(worker.pod), container.name, problem.message
            )
        worker.event("Warning", "Failed", f"Error: {problem.reason}: {problem.message}", container.name)
        container.problem = problem
        container.delay_s = worker.context.settings.back_off.next(container.delay_s, 0.0)[1]
        container.retry_at = asyncio.get_running_loop().time() + container.delay_s

    def _failed_to_run(self, container: Container, message: str) -> None:
        """The program could not be executed: that counts as a run, which ended at once."""
        worker = self._worker
        worker.event("Warning", "Failed", f"Error: RunContainerError: {message}", container.name)
        if container.phase == "exited":
            container.previous = container.ended
            container.attempt += 1
        container.run_id = run_id(worker.uid, container.name, container.attempt)
        now = datetime.now(UTC)
        ended = Ended(
            run_id=container.run_id,
            exit_code=_CANNOT_START,
            reason="StartError",
            message=message,
            started_at=now,
            finished_at=now,
        )
        self._set_ended(container, ended)

    # Running

    def _watch_run(self, container: Container, state: ContainerState) -> None:
        """See the end of a run that has begun."""
        if state.pid is not None:
            self.pids[container.name] = state.pid
        self._watchers[container.name] = asyncio.create_task(self._watch(container, state.id))

    async def _watch(self, container: Container, id: str) -> None:
        exit = await self._worker.context.runtime.wait(id)
        self._probes.stop(container.name)
        self.pids.pop(container.name, None)
        message = await asyncio.to_thread(self._message, container, failed=exit.exit_code != 0)
        self._set_ended(container, Ended.of(id, exit, message))
        log.info(
            "pod %s: container %s ended: %s",
            podspec.label(self._worker.pod),
            container.name,
            f"signal {exit.signal}" if exit.signal else f"exit code {exit.exit_code}",
        )
        with contextlib.suppress(NoSuchContainer):
            await self._worker.context.runtime.remove(id)

    def _set_ended(self, container: Container, ended: Ended) -> None:
        worker = self._worker
        container.phase, container.ended = "exited", ended
        container.started = container.ready = False
        container.problem = None
        changed = container.stop_because is not None and container.stop_because.reason == _CHANGED
        again = not worker.ending and podspec.should_restart(
            podspec.restart_policy(worker.pod), container.kind, ended.exit_code
        )
        if again and not changed:
            ran_s = (ended.finished_at - ended.started_at).total_seconds() if ended.started_at else 0.0
            wait_s, container.delay_s = worker.context.settings.back_off.next(container.delay_s, ran_s)
            container.retry_at = asyncio.get_running_loop().time() + wait_s
            if wait_s > 0:
                text = (
                    f"back-off {wait_s:g}s restarting failed container={container.name} "
                    f"pod={podspec.name(worker.pod)}_{podspec.namespace(worker.pod)}({worker.uid})"
                )
                container.problem = Problem(reason="CrashLoopBackOff", message=text)
                worker.event(
                    "Warning",
                    "BackOff",
                    f"Back-off restarting failed container {container.name} in pod {podspec.name(worker.pod)}",
                    container.name,
                )
        worker.save()
        worker.wake()

    def _message(self, container: Container, failed: bool = True) -> str:
        """What the container left in its termination message file, or at the end of its log where it asks so."""
        worker, one = self._worker, self._one(container.name)
        path: Path = worker.directory.message(container.name)
        try:
            with path.open("rb") as file:  # its end, as a kubelet does
                file.seek(max(0, path.stat().st_size - _MESSAGE_LIMIT_BYTES))
                text = file.read(_MESSAGE_LIMIT_BYTES).decode(errors="replace")
        except OSError:
            text = ""
        if not text and failed and one.get("terminationMessagePolicy") == "FallbackToLogsOnError":
            log_path = worker.directory.log(container.name, container.attempt)
            text = crilogs.last_text(log_path, _FALLBACK_LINES, _FALLBACK_BYTES)
        return text

    # Stopping

    async def stop(self, name: str, because: Problem) -> None:
        worker, container = self._worker, self._worker.record.containers[name]
        watcher, one = self._watchers.get(name), self._one(name)
        try:
            if watcher is None or container.phase != "running":
                return
            text = because.message if container.stop_because else f"Stopping container {name}"
            worker.event("Normal", "Killing", text, name)
            own = asyncio.get_running_loop().time() + container_probes.grace_s(worker.pod, one, because)
            self._probes.stop(name)
            await end_container(
                worker.context.runtime,
                container.run_id or "",
                one,
                worker.record.ip or "",
                watcher,
                lambda: worker.deadline if worker.ending else own,
                lambda text: worker.event(
                    "Warning", "FailedPreStopHook", f"PreStopHook failed: {text}", name
                ),
            )
        finally:
            container.busy = False

    def renew(self) -> None:
        """Have containers started anew whose image was changed.

        As far as they would be started again at all: the API server takes no other status of a container that ended.
        """
        always = podspec.restart_policy(self._worker.pod) == "Always"
        for container in self._worker.record.containers.values():
            image = self._one(container.name)["image"]
            again = container.kind == "sidecar" or (container.kind == "main" and always)
            if not again or container.phase != "running" or container.image in (None, image):
                continue
            why = f"Container {container.name} definition changed, will be restarted"
            container.stop_because = Problem(reason=_CHANGED, message=why)

    def refuse_resize(self, names: list[str]) -> None:
        """The API server takes it until a main container runs: what starts later has it, a running sidecar hasn't."""
        for name in names:
            if self._worker.record.containers[name].phase == "running":
                why = (
                    f"container {name}: other resources while it runs are not supported by the embedded cloud"
                )
                self._worker.event("Warning", "Refused", why, name)

    def let_go(self) -> None:
        """Stop watching and probing; what runs goes on."""
        self._probes.stop_all()
        for watcher in self._watchers.values():
            if not watcher.done():
                watcher.cancel()
        self._watchers.clear()

    async def forget(self) -> None:
        """Remove what the runtime still has of the pod."""
        if ending := [watcher for watcher in self._watchers.values() if not watcher.done()]:
            await asyncio.wait(ending)
        for container in self._worker.record.containers.values():
            if container.run_id is not None:
                await self._worker.context.runtime.remove(container.run_id)
