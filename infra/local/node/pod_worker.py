"""One pod: a task that brings what runs to what its manifest says, and tells the API server how it stands.

Each round asks `lifecycle.decide` for the next steps and starts them as tasks beside the loop (preparing, starting,
stopping, reporting), each of which wakes the loop when it is done. So nothing waits for anything else: a slow
container doesn't hold up a report, an API server that is away doesn't hold up a restart.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any

from infra.local.node import hosts, podspec, status, usage
from infra.local.node.container_runs import ContainerRuns
from infra.local.node.context import Context
from infra.local.node.lifecycle import Action, Finish, Prepare, Situation, Start, Stop, decide
from infra.local.node.pod_volumes import PodVolumes, wanted_objects
from infra.local.node.podspec import ConfigError
from infra.local.node.records import PodRecord, Problem
from infra.local.runtime.spec import ContainerState
from switchboard.errors import SwitchboardError
from switchboard.kube import PODS, ApiError, Object, Unreachable

log = logging.getLogger(__name__)

_FIRST_RETRY_S = 0.5
_LAST_RETRY_S = 10.0
_UNSEEN_DELETION_GRACE_S = 10.0
_EVICTION_GRACE_S = 1.0
_SAVE_AGAIN_S = 5.0
DEADLINE = "DeadlineExceeded"


class PodWorker:
    """The life of one pod (one uid) on this node."""

    def __init__(self, context: Context, pod: Object, record: PodRecord | None = None) -> None:
        self.context = context
        self.pod = pod
        self.uid = podspec.uid(pod)
        self.record = record or PodRecord.new(pod, context.now())
        self.known = record is not None
        self.directory = context.checkpoint.pod(self.uid)
        self.volumes = PodVolumes(context, self.directory)
        self.runs = ContainerRuns(self)
        self.gone = False
        """The API server doesn't have it any more."""
        self._prepared = False
        self._prepare_at = 0.0
        self._prepare_retry_s = 0.0
        self._report_at = 0.0
        self._report_retry_s = 0.0
        self._sent: tuple[Object, int] | None = None
        self._refused_said = False
        self._unsaved: set[str] = set()
        self._save_at = 0.0
        self._grace_until: float | None = None
        self._ended = False
        self._wake = asyncio.Event()
        self._effects: dict[str, asyncio.Task[None]] = {}
        if record is not None and record.sandbox not in (None, context.boot):
            record.forget_sandbox()
        self._active_s()  # from here on by a clock that nobody puts right, whether it has a deadline yet or not

    # What others tell it

    def update(self, pod: Object) -> None:
        """A newer manifest of the same pod."""
        if podspec.version(pod) < podspec.version(self.pod):
            return
        changed, resized = _lasting(pod) != _lasting(self.pod), podspec.resized(self.pod, pod)
        self.pod = pod
        if changed:
            self._save_pod()
            self.runs.renew()
            self.runs.refuse_resize(resized)
            if ignored := podspec.ignored(pod):
                self.event("Warning", "Refused", ignored)
            if self._grace_until is not None and podspec.deleting(pod):
                self._grace_until = min(self._grace_until, self._time() + podspec.grace_s(pod))
        self.wake()

    def remove(self) -> None:
        """The API server has no such pod any more (deleted by force, or while this agent was away)."""
        self.gone = True
        self.wake()

    def wake(self) -> None:
        self._wake.set()

    def adopt(self, states: dict[str, ContainerState]) -> None:
        """What runs already, after a restart of the agent; `states` by run id. Called once, before `run`."""
        self.runs.adopt(states)
        if self.record.ip is not None and self.record.outcome is None:
            self.context.addresses.hold(self.uid, self.record.ip)

    # What it knows

    @property
    def ending(self) -> bool:
        return self.gone or podspec.deleting(self.pod) or self.record.failure is not None

    @property
    def deadline(self) -> float:
        """When a container that is being stopped is killed."""
        if self.gone and self._grace_until is None:
            grace = min(podspec.grace_s(self.pod), _UNSEEN_DELETION_GRACE_S)
            self._grace_until = self._time() + grace
        elif self.ending and self._grace_until is None:
            self._grace_until = self._time() + podspec.grace_s(self.pod)
        return (
            self._grace_until if self._grace_until is not None else self._time() + podspec.grace_s(self.pod)
        )

    def event(self, kind: Any, reason: str, message: str, container: str | None = None) -> None:
        record = self.record.containers.get(container) if container else None
        init = record is not None and record.kind != "main"
        self.context.events.emit(self.pod, kind, reason, message, container=container, init=init)

    def save(self) -> None:
        """Bring the record on disk up to date."""
        self._write("record", lambda: self.directory.save_record(self.record))

    def _save_pod(self) -> None:
        self._write("manifest", lambda: self.directory.save_pod(self.pod))

    def _write(self, what: str, write: Callable[[], None]) -> None:
        """A full disk must not stop the pod's care: it is said once, and tried again until there is room."""
        try:
            write()
        except OSError as error:
            if not self._unsaved:
                log.error("pod %s: its checkpoint can't be written: %s", podspec.label(self.pod), error)
            self._unsaved.add(what)
            self._save_at = self._time() + _SAVE_AGAIN_S
        else:
            self._unsaved.discard(what)

    def _save_again(self) -> list[float]:
        if self._unsaved and self._time() >= self._save_at:
            self._save_pod()
            self.save()
            if not self._unsaved:
                log.info("pod %s: its checkpoint is written", podspec.label(self.pod))
        return [self._save_at] if self._unsaved else []

    @staticmethod
    def _time() -> float:
        return asyncio.get_running_loop().time()

    # The loop

    async def run(self) -> None:
        """Until the pod is gone and nothing of it is left (or cancelled: then its containers go on)."""
        if not self.known:
            self._save_pod()
            self.save()
        beside = [asyncio.create_task(self._refresh())]
        if usage.limited(self.pod):
            beside.append(asyncio.create_task(self._watch_usage()))
        try:
            while not self._ended:
                self._wake.clear()
                try:
                    wake_at = self._round()
                except Exception:  # a fault of ours must not leave the pod without care
                    log.exception("pod %s: a round failed", podspec.label(self.pod))
                    wake_at = self._time() + 1.0
                timeout = None if wake_at is None else max(0.0, wake_at - self._time())
                try:
                    async with asyncio.timeout(timeout):
                        await self._wake.wait()
                except TimeoutError:
                    pass
        finally:
            for task in beside:
                task.cancel()
            self.runs.let_go()
            for task in self._effects.values():
                task.cancel()

    def _round(self) -> float | None:
        wakes: list[float] = self._save_again()
        if self.record.outcome is None:
            wakes += self._check_deadline()
            if self.ending:
                self.runs.leave_fetches()
            decision = decide(self._time(), self._situation())
            if decision.initialized != self.record.initialized:
                self.record.initialized = decision.initialized
                self.save()
            for action in decision.actions:
                self._act(action)
            if decision.wake_at is not None:
                wakes.append(decision.wake_at)
        if self.gone:
            if self.record.outcome is not None:
                self._effect("clean up", self._clean_up)
        else:
            wakes += self._report()
        return min(wakes, default=None)

    def _situation(self) -> Situation:
        refusal = podspec.refused(self.pod)
        if refusal is not None and not self._refused_said:
            self._refused_said = True
            self.event("Warning", "Refused", refusal)
            for container in self.record.containers.values():
                container.problem = Problem(reason="CreateContainerConfigError", message=refusal)
        return Situation(
            policy=podspec.restart_policy(self.pod),
            containers=list(self.record.containers.values()),
            prepared=self._prepared,
            initialized=self.record.initialized,
            prepare_at=self._prepare_at,
            refused=refusal is not None,
            ending=self.ending,
        )

    def _check_deadline(self) -> list[float]:
        seconds = self.pod["spec"].get("activeDeadlineSeconds")
        if seconds is None or self.ending:
            return []
        if (left_s := seconds - self._active_s()) > 0:
            return [self._time() + left_s]
        message = "Pod was active on the node longer than the specified deadline"
        self.record.failure = Problem(reason=DEADLINE, message=message)
        self.event("Normal", DEADLINE, message)
        self.save()
        return []

    def _active_s(self) -> float:
        return self.record.active_s(self.context.clock(), self.context.now())

    def _act(self, action: Action) -> None:
        match action:
            case Prepare():
                self._effect("prepare", self._prepare)
            case Start(name):
                self.record.containers[name].busy = True
                self._effect(f"start {name}", lambda: self.runs.start(name))
            case Stop(name, because):
                self.record.containers[name].busy = True
                self._effect(f"stop {name}", lambda: self.runs.stop(name, because))
            case Finish(failed):
                self._finish(failed or self.record.failure is not None)

    def _effect(self, key: str, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Start one step beside the loop, unless it is under way."""
        if key not in self._effects:
            self._effects[key] = asyncio.create_task(self._carry_out(key, work))

    async def _carry_out(self, key: str, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        try:
            await work()
        except Exception:
            log.exception("pod %s: %s failed", podspec.label(self.pod), key)
            await asyncio.sleep(1.0)  # a fault of ours must not become a busy loop
        finally:
            self._effects.pop(key, None)
            self.wake()

    # Its steps

    async def _prepare(self) -> None:
        fresh = self.record.sandbox is None
        try:
            self.record.ip = self.context.addresses.take(self.uid)
            await self.volumes.prepare(self.pod, self.record.ip, anew=fresh)
        except (ConfigError, SwitchboardError, OSError) as error:
            text = error.message if isinstance(error, ConfigError) else str(error)
            self._prepare_retry_s = min(_LAST_RETRY_S, max(_FIRST_RETRY_S, 2 * self._prepare_retry_s))
            self._prepare_at = self._time() + self._prepare_retry_s
            log.warning("pod %s can't be prepared: %s", podspec.label(self.pod), text)
            self.event("Warning", "FailedMount", f"MountVolume.SetUp failed: {text}")
            return
        self.write_hosts()
        self._prepared = True
        self.record.sandbox = self.context.boot
        self.save()
        if fresh:
            log.info("pod %s prepared, address %s", podspec.label(self.pod), self.record.ip)

    def write_hosts(self) -> None:
        """Bring the pod's /etc/hosts up to date."""
        if self.record.ip is not None and self.record.outcome is None and self.directory.path.exists():
            text = hosts.render(self.pod, self.record.ip, self.context.names())
            hosts.rewrite(self.directory.hosts, text)

    def _finish(self, failed: bool) -> None:
        self.record.outcome = "Failed" if failed else "Succeeded"
        self.context.addresses.release(self.uid)
        self.save()
        self._effect("drop volumes", lambda: asyncio.to_thread(self.volumes.remove))
        log.info("pod %s is over: %s", podspec.label(self.pod), self.record.outcome)
        self.wake()

    def _report(self) -> list[float]:
        """Report the status if it changed; a pod that is deleted and over is taken from the API server."""
        if "report" in self._effects:
            return []
        known = self.record.conditions
        wanted = status.pod_status(
            self.pod, self.record, host_ip=self.context.host_ip, ending=self.ending, now=self.context.now()
        )
        if self.record.conditions != known:
            self.save()
        current = status.same(wanted, self.pod.get("status") or {})
        if current and not (podspec.deleting(self.pod) and self.record.outcome is not None):
            return []
        if not current and self._sent == (wanted, podspec.version(self.pod)):
            return []  # sent, and the API server keeps something else
        if self._time() < self._report_at:
            return [self._report_at]
        self._effect("report", lambda: self._send(None if current else wanted))
        return []

    async def _send(self, wanted: Object | None) -> None:
        name, namespace = podspec.name(self.pod), podspec.namespace(self.pod)
        try:
            if wanted is None:
                await self.context.kube.delete(PODS, name, namespace, grace_period_s=0, uid=self.uid)
                self.gone = True
            else:
                body = {"metadata": {"uid": self.uid}, "status": wanted}
                answer = await self.context.kube.patch(
                    PODS, name, body, namespace, patch_type="strategic", subresource="status"
                )
                self.update(answer)
                self._sent = (wanted, podspec.version(answer))
            self._report_retry_s = 0.0
        except (ApiError, Unreachable) as error:
            if isinstance(error, ApiError) and (error.not_found or error.conflict):
                # Deleted, or replaced under its name: the watch tells; until then there is nothing to report to.
                log.info("pod %s: no such pod at the API server", podspec.label(self.pod))
                self._report_retry_s = max(2.0, self._report_retry_s)
            elif self._report_retry_s == 0.0:
                log.warning("pod %s: its status can't be reported: %s", podspec.label(self.pod), error)
            self._report_retry_s = min(_LAST_RETRY_S, max(_FIRST_RETRY_S, 2 * self._report_retry_s))
            self._report_at = self._time() + self._report_retry_s

    def reconnected(self) -> None:
        """The API server answers again: report now rather than at the end of the back-off."""
        self._report_at = 0.0
        self.wake()

    async def _clean_up(self) -> None:
        if (preparing := self._effects.get("prepare")) is not None:
            preparing.cancel()
            await asyncio.wait({preparing})
        self.context.addresses.release(self.uid)
        await self.runs.forget()
        await asyncio.to_thread(self.volumes.remove)
        await asyncio.to_thread(self.directory.remove)
        self._ended = True
        log.info("pod %s removed", podspec.label(self.pod))

    async def _refresh(self) -> None:
        """Keep mounted config maps, secrets and tokens current."""
        period_s = self.context.settings.refresh_s
        await asyncio.sleep(period_s * (0.5 + (hash(self.uid) % 100) / 100))  # not all pods at once
        while True:
            if self._prepared and self.record.ip and not self.ending and self.record.outcome is None:
                try:
                    await self.volumes.refresh(self.pod, self.record.ip)
                except Exception:
                    log.exception("pod %s: refreshing its volumes failed", podspec.label(self.pod))
            await asyncio.sleep(period_s)

    async def _watch_usage(self) -> None:
        """Evict the pod when it keeps more on disk than its manifest allows."""
        period_s = self.context.settings.disk_check_s
        while not self.ending and self.record.outcome is None:
            began = self._time()
            try:
                self._check_usage(await asyncio.to_thread(usage.measure, self.pod, self.directory.path))
            except Exception:
                log.exception("pod %s: what it keeps on disk can't be looked at", podspec.label(self.pod))
            # ≤ 5 % of a core for a large folder
            await asyncio.sleep(max(period_s, 20 * (self._time() - began)))

    def _check_usage(self, used_bytes: dict[str, int]) -> None:
        problem = usage.excess(self.pod, used_bytes)
        if problem is not None and not self.ending and self.record.outcome is None:
            self.record.failure = problem
            self._grace_until = self._time() + _EVICTION_GRACE_S
            self.event("Warning", problem.reason, problem.message)
            self.save()
            self.wake()

    def objects(self) -> set[tuple[str, str, str]]:
        """(Kind, namespace, name) of what the pod needs from the API server."""
        return {(kind, podspec.namespace(self.pod), name) for kind, name in wanted_objects(self.pod)}


def _lasting(pod: Object) -> list[Any]:
    """What of a pod is worth a new checkpoint: all but its status and bookkeeping."""
    meta = pod["metadata"]
    keys = ("labels", "annotations", "deletionTimestamp", "deletionGracePeriodSeconds", "generation")
    return [pod["spec"], *(meta.get(key) for key in keys)]
