"""The operator's loop: every two seconds one look at all traffic, one decision for each ModelServer, and what follows.

The tick itself only reads, decides and starts work; what is written (a number, a drain, a status) is written beside it,
for one ModelServer one thing at a time, so that a slow API server delays no look. Only the leader ticks.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine, Iterable
from datetime import UTC, datetime
from typing import Any

from operators.garbage import Garbage
from operators.lease import Leader
from operators.memory import Memory
from operators.metrics import Metrics
from operators.servers import sharing
from operators.servers import status as said
from operators.servers.registry import Registry
from operators.servers.server import Server, Step, step
from operators.servers.workloads import Gone, Superseded, Workloads
from operators.settings import TICK_S
from operators.signals.gateways import Gateways
from operators.signals.prometheus import Prometheus
from operators.signals.values import NOTHING, Key, Seen
from operators.view import View
from switchboard.api.model_server import LastDecision, Status
from switchboard.api.scaling import Mode
from switchboard.events import Events
from switchboard.kube import ApiError, Unreachable

log = logging.getLogger(__name__)

WRITERS = 16
"""ModelServers that are written for at once."""
STATUS_TICKS = 3
"""What is said of a ModelServer is looked at anew at each so many, where nothing of it has changed: what is asked of it
may say something else, and the time that has passed."""
AT_ONCE = 200
"""Decisions between which other tasks get their turn."""
COUNTS_PAUSE_S = 5.0
"""Between two writes of a status in which only the counts of replicas are new."""
REFUSED_PAUSE_S = 10.0
"""An object that was refused is tried again after so long; a number of replicas, at the next tick."""

PASSED_OVER = (
    "spec.replicas {0.passed_over} isn't followed in the mode active, where the traffic decides: {0.target} stay; "
    "to set it by hand, set spec.scaling.mode to paused first"
)


class Loop:
    """Ticks while its `leader` leads, for the servers of `registry`."""

    def __init__(
        self,
        registry: Registry,
        view: View,
        workloads: Workloads,
        leader: Leader,
        prometheus: Prometheus | None,
        gateways: Gateways,
        events: Events,
        metrics: Metrics,
        *,
        beside: Callable[[Server], Iterable[Key]] = lambda _: (),
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`beside`: whose traffic a server is sized for as well as for its own."""
        self._registry, self._view, self._workloads, self._leader = registry, view, workloads, leader
        self._prometheus, self._gateways, self._events, self._metrics = prometheus, gateways, events, metrics
        self._clock, self._beside = clock, beside
        self._memory = Memory(prometheus)
        self._writers = asyncio.Semaphore(WRITERS)
        self._writing: set[asyncio.Task[None]] = set()
        self._led = self._unreachable = False
        self._term: int | None = None
        self._told_problem: str | None = None
        self._ticks = 0
        self.ticked_at: float | None = None
        """When the last tick of the leader ended, by the event loop's clock."""

    async def run(self) -> None:
        """Until cancelled."""
        with Garbage() as garbage:
            await self._run(garbage)

    async def _run(self, garbage: Garbage) -> None:
        loop = asyncio.get_running_loop()
        due = loop.time()
        while True:
            due = max(due + TICK_S, loop.time())
            if self._leader.leads and self._view.synced:
                if not self._led:
                    self._begin()
                try:
                    await self._tick()
                except Exception:
                    log.exception("a tick failed")
                    self._metrics.failed_ticks.inc()
                self.ticked_at = loop.time()
            else:
                self._led, self.ticked_at = False, None
                self._metrics.stands_by()
            garbage.collect()
            await asyncio.sleep(max(0.0, due - loop.time()))

    async def settle(self) -> None:
        """Until nothing is being written any more: nothing may be after the lease is given up."""
        if self._writing:
            await asyncio.wait(self._writing)

    async def give_up(self) -> None:
        """What is still being written then."""
        for task in list(self._writing):
            task.cancel()
        await self.settle()

    def _begin(self) -> None:
        """From what there is, if another has led meanwhile: it may have changed anything."""
        self._led = True
        self._metrics.leads.set(1)
        self.ticked_at = asyncio.get_running_loop().time()  # of this term: a first tick may be stuck, too
        if self._term == self._leader.term:
            return
        self._term = self._leader.term
        for server in self._registry.servers.values():
            server.forget()

    async def _tick(self) -> None:
        started, now = time.perf_counter(), self._clock()
        servers = [one for one in self._registry.servers.values() if one.spec is not None]
        seen = await self._look(servers, now)
        looked = time.perf_counter()
        there = self._view.gateways_at(now)
        shares = sharing.shares(servers, self._ready)
        changed = self._view.changed()
        self._ticks += 1
        for number, server in enumerate(list(self._registry.servers.values())):
            if number % AT_ONCE == AT_ONCE - 1:
                await asyncio.sleep(0)
            try:
                whole = seen.whole(server.key, there) if server.spec is not None else False
                turn = (number + self._ticks) % STATUS_TICKS == 0
                self._decide(
                    server,
                    seen,
                    shares.get(server.name, 1.0),
                    whole,
                    now,
                    tell=turn or server.name in changed,
                )
            except Exception:  # of one server; the others are decided all the same
                log.exception("%s: no decision", server.name)
                self._metrics.failed_ticks.inc()
        self._memory.poll(now)
        self._metrics.ticked(seen, looked - started, time.perf_counter() - looked)

    async def _look(self, servers: list[Server], now: float) -> Seen:
        """From Prometheus; where that doesn't answer or doesn't see all gateways, from these; else nothing."""
        windows = sorted({one.spec.scaling.up_window_seconds for one in servers if one.spec is not None})
        pods = [pod for one in servers if one.choosing for pod in self._view.pods[one.name]]
        there = self._view.gateways_at(now)
        problem, found = "there is no Prometheus", None
        if self._prometheus is not None:
            found = await self._prometheus.look(windows or [6], pods, now)
            if isinstance(found, Seen) and not found.lacks(there):
                self._told_problem = None
                return found
            problem = found if isinstance(found, str) else "Prometheus doesn't see all gateways"
            self._metrics.problems.inc()
            if self._told_problem is None:  # once for each time that it is away
                self._told_problem = problem
                log.warning("%s; the gateways are asked", problem)
        # It is later by now, by as much as Prometheus was waited for: rates are differences over the time in between.
        now = self._clock()
        own = await self._gateways.look(list(self._view.gateways.values()), windows or [6], now, problem)
        return found.completed(own, there) if isinstance(found, Seen) else own

    def _ready(self, server: Server) -> int:
        return sum(one.is_sent_requests for one in self._view.pods[server.name].values())

    def _decide(
        self, server: Server, seen: Seen, share: float, whole: bool, now: float, *, tell: bool
    ) -> None:
        """The step of one server; what it asks for is begun, unless something is being written for it. `tell`: and so
        is what is to be said of it, though nothing was decided."""
        deployment = self._view.deployments.get(server.name)
        pods = list(self._view.pods[server.name].values())
        traffic, made = NOTHING, None
        server.share = share
        if server.view_from is None:
            self._memory.want(server, now)
        if server.spec is not None and deployment is not None:
            window = server.spec.scaling.up_window_seconds
            traffic = seen.traffic.get((server.key, window), NOTHING)
            for key in self._beside(server):
                traffic = traffic.beside(seen.traffic.get((key, window), NOTHING))
            if share < 1:
                traffic = traffic.part(share)
            made = step(server, traffic, deployment, pods, seen.in_flight, now, whole=whole)
            self._record(server, made, now)
        server.seen = (seen, traffic, whole, made)
        if server.busy:
            return
        outdated = self._workloads.outdated(server) and time.monotonic() >= server.retry_at
        acts = made is not None and made.acts and server.spec is not None
        known = server.status
        tell = (
            tell
            or known is None
            or (known.observed_generation, known.desired_replicas)
            != (
                server.generation,
                server.target,
            )
        )
        if outdated or acts or (tell and _worth_a_write(server, self._status(server, now))):
            self._start(server, acts=acts, outdated=outdated)

    def _record(self, server: Server, made: Step, now: float) -> None:
        """Changes of scale are kept, and told once: what was decided, though the number itself follows the drains."""
        decision = made.decision
        self._metrics.decided(decision)
        if server.spec is None or made.held is not None:
            return
        if made.passed_over is not None:
            self._events.emit(server.reference(), "Warning", "ReplicasPassedOver", PASSED_OVER.format(made))
        mode = server.spec.scaling.mode
        if mode is not Mode.ACTIVE and made.target != made.before:
            sentence = f"from {made.before} to {made.target}: spec.replicas says so, in the mode {mode}"
            self._tell(server, "Scaled", made.before, made.target, sentence, now)
        if not decision.changes or mode is Mode.PAUSED:
            return
        verb = "WouldScale" if server.spec.scaling.mode is Mode.SHADOW else "Scaled"
        self._tell(server, verb, decision.current, decision.wanted, decision.sentence(), now)

    def _tell(self, server: Server, verb: str, before: int, wanted: int, sentence: str, now: float) -> None:
        when = datetime.fromtimestamp(int(now), UTC)
        server.changes.appendleft(
            LastDecision(at=when, before=before, wanted=wanted, sentence=sentence[:1024])
        )
        self._events.emit(
            server.reference(), "Normal", f"{verb}{'Up' if wanted > before else 'Down'}", sentence
        )
        log.info("%s: %s", server.name, sentence)

    def _start(self, server: Server, *, acts: bool, outdated: bool) -> None:
        server.busy = True
        task = asyncio.create_task(self._write(server, acts=acts, outdated=outdated))
        self._writing.add(task)
        task.add_done_callback(self._writing.discard)

    async def _write(self, server: Server, *, acts: bool, outdated: bool) -> None:
        """The number first, which customers wait for; what a template's refusal says hinders no change of scale.

        It may have waited for its turn: what is carried out is what the last tick said, not the one that began it.
        """
        try:
            async with self._writers:
                made = server.seen[3] if acts and server.seen is not None else None
                if made is not None and made.acts and self._leader.leads:
                    done = await self._insist(server, self._workloads.carry_out(server, made, self._clock()))
                    if done and not server.retry_at:
                        server.refused = None
                if outdated and self._leader.leads:
                    server.retry_at = time.monotonic() + REFUSED_PAUSE_S
                    if await self._insist(server, self._workloads.ensure(server)):
                        server.retry_at = 0.0
                        server.refused = None
                await self._insist(server, self._say(server, self._clock()), refusable=False)
        except Gone:
            self._registry.drop(server)
        finally:
            server.busy = False

    async def _insist(
        self, server: Server, work: Coroutine[Any, Any, None], *, refusable: bool = True
    ) -> bool:
        """Whether it was done; a refusal is told, and what isn't done is tried again at a later tick.

        Not `refusable` is what may be refused for the moment only, and says nothing of the ModelServer.
        """
        try:
            await work
        except ApiError as error:
            if not refusable:
                log.info("%s: %s", server.name, error)
                return False
            said_before, server.refused = server.refused, error.message[:300]
            if server.refused != said_before and not error.conflict:
                log.warning("%s: refused: %s", server.name, error)
                self._events.emit(server.reference(), "Warning", "Refused", error.message[:500])
            return False
        except Superseded as error:
            log.info("%s: %s", server.name, error)
            return False
        except Unreachable as error:
            if not self._unreachable:
                log.warning("the API server doesn't answer: %s", error)
            self._unreachable = True
            return False
        self._unreachable = False
        return True

    async def _say(self, server: Server, now: float) -> None:
        """Write the status as it is by now, if it is another one."""
        if not self._leader.leads:
            return
        if (status := self._status(server, now)) != server.status and status is not None:
            server.said_at = time.monotonic()
            await self._workloads.write_status(server, status)

    def _status(self, server: Server, now: float) -> Status | None:
        """What is to be said of it by now; None before the first look."""
        if server.seen is None:
            return None
        seen, traffic, whole, made = server.seen
        deployment, pods = self._view.deployments.get(server.name), self._view.pods[server.name]
        return said.status(server, made, deployment, list(pods.values()), seen, traffic, now, whole=whole)


def _worth_a_write(server: Server, status: Status | None) -> bool:
    """Not each replica that starts: while many do, counts alone wait for the next COUNTS_PAUSE_S."""
    if status is None or status is server.status or status == server.status:
        return False
    return time.monotonic() - server.said_at >= COUNTS_PAUSE_S or not said.counts_only(server.status, status)
