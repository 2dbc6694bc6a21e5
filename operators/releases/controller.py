"""Carries releases out: each second, for each release, what is known, what comes next, and what that asks for.

Only the leader does. All that has to last is in the release's status: the comparison is asked for again by who takes
over, and the registry is asked what it was told.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from pydantic import ValidationError

from operators.lease import Leader
from operators.releases import arms, known, machine
from operators.releases.comparing import Ask, Comparing
from operators.releases.mirrored import Mirrored
from operators.releases.records import Records, Unrecorded
from operators.releases.values import Checked, Facts, Told, Wanted
from operators.servers.registry import Registry
from operators.servers.server import Server
from operators.servers.workloads import digest
from operators.signals.values import Key
from operators.view import View
from switchboard import labels, workload
from switchboard.api.conditions import Flag, put
from switchboard.api.model_release import FINALIZER, MODEL_RELEASES, MetricName, Phase, Spec, Status, arm_of
from switchboard.api.model_server import MODEL_SERVERS, Arm, fleet_of
from switchboard.events import Events
from switchboard.informer import Informer
from switchboard.kube import ApiError, Kube, Object, Unreachable
from switchboard.releases import ReleasePolicy

log = logging.getLogger(__name__)

MANAGER = "switchboard-release"
TICK_S = 1.0
SETTLED_S = 20.0
"""A replica counts from so long after it was first ready: its caches are filled by then."""
RETRY_S = 5.0
CHECK_S = 60.0
"""What the registry said of a candidate holds for so long, while a release waits for its turn."""


@dataclass(slots=True)
class Run:
    """What this process remembers of a release; all of it can be found out anew."""

    comparing: Comparing
    mirrored: Mirrored | None = None
    checked: Checked | None = None
    told: Told | None = None
    reported: bool = False
    """Its end was told, too: the report has all of it."""
    asked_at: float = -1e9
    asking: asyncio.Task[None] | None = None
    comparing_now: asyncio.Task[None] | None = None
    first_ready: dict[str, float] = field(default_factory=dict)
    applied: dict[str, str] = field(default_factory=dict)
    failing_since: float | None = None
    """Since when the candidate doesn't serve, while the champion does."""
    trouble: str | None = None
    """What hinders the comparison."""
    untold: str | None = None
    """Why the registry isn't told yet."""
    status: Status | None = None


class Controller:
    """The releases of a namespace."""

    def __init__(
        self,
        kube: Kube,
        namespace: str,
        registry: Registry,
        view: View,
        leader: Leader,
        ask: Ask | None,
        records: Records,
        events: Events,
        *,
        policy: ReleasePolicy,
        on_write: Callable[[], None] = lambda: None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._kube, self._namespace = kube, namespace
        self._registry, self._servers = registry, registry.servers
        self._view, self._leader = view, leader
        self._ask, self._records, self._events = ask, records, events
        self._policy, self._on_write, self._clock = policy, on_write, clock
        self._releases = Informer(kube, MODEL_RELEASES, namespace=namespace, on_change=self._weigh)
        self._runs: dict[str, Run] = {}
        self._weighted: dict[str, tuple[str, Key]] = {}
        """By server: the release that has requests of it, and whose they are then."""
        self._term: int | None = None

    def work(self) -> tuple[Coroutine[Any, Any, None], ...]:
        return self._releases.run(), self._run()

    def beside(self, server: Server) -> tuple[Key, ...]:
        """Whose traffic a server is sized for as well: the one that is released to could get all of it back at once."""
        found = self._weighted.get(server.name)
        return (found[1],) if found is not None else ()

    def _weigh(self, key: tuple[str, str], _: Object | None, new: Object | None) -> None:
        """Told of each change of a release, since all servers ask at each of their ticks."""
        name = key[1]
        for server in [server for server, (whose, _) in self._weighted.items() if whose == name]:
            del self._weighted[server]
        status = (new or {}).get("status") or {}
        if new is not None and status.get("weight", 0) > 0:
            fleet = fleet_of(status.get("service", ""), Arm.CANDIDATE)
            self._weighted[new["spec"]["server"]] = (name, Key(fleet))

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            due = loop.time() + TICK_S
            all_known = self._releases.synced.is_set() and self._view.synced and self._registry.synced
            if self._leader.leads and all_known:
                await self._tick()
            await asyncio.sleep(max(0.0, due - loop.time()))

    async def _tick(self) -> None:
        if self._term != self._leader.term:
            self._term = self._leader.term
            self._runs.clear()  # another may have led meanwhile: what it did is in the objects
        # What one that is done wanted may be another one's to say by now.
        there = {one["metadata"]["uid"]: one for one in self._releases.items.values() if not known.done(one)}
        for uid in [uid for uid in self._runs if uid not in there]:
            self._forget(self._runs.pop(uid))
        await asyncio.gather(*(self._guarded(one) for one in there.values()))

    @staticmethod
    def _forget(run: Run) -> None:
        for task in (run.asking, run.comparing_now):
            if task is not None:
                task.cancel()

    async def _guarded(self, release: Object) -> None:
        name = release["metadata"]["name"]
        try:
            await self._go_on(release)
        except (ApiError, Unreachable) as error:
            log.warning("release %s: %s", name, error)
        except Exception:  # of one release; the others go on all the same
            log.exception("release %s can't go on", name)

    async def _go_on(self, release: Object) -> None:
        meta = release["metadata"]
        try:
            spec = Spec.model_validate(release["spec"])
            status = Status.model_validate(release.get("status") or {})
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(str(part) for part in first["loc"])
            self._events.emit(_reference(release), "Warning", "InvalidSpec", f"{place}: {first['msg']}")
            return
        run = self._runs.get(meta["uid"])
        if run is None:
            run = self._runs[meta["uid"]] = Run(Comparing(spec))
            run.comparing.resume(status)
        if run.status is not None and run.status.turns[: len(status.turns)] == status.turns:
            status = run.status  # the watch may be behind what was written
        now = self._clock()
        if not status.phase.over and "deletionTimestamp" not in meta and not await self._held(release):
            return
        facts = known.facts(
            release,
            spec,
            status,
            self._servers,
            self._view,
            others=self._releases.items.values(),
            checked=run.checked,
            told=run.told,
            unseen=run.comparing.unseen if self._ask is not None else tuple(MetricName),
            judgement=run.comparing.judgement,
            policy=self._policy,
            now=now,
        )
        facts = replace(facts, failing_s=self._failing_s(run, facts, now))
        before, status = status, machine.advance(spec, status, facts, now)
        status = self._conditions(release, spec, status, run, now)
        if status != before or run.status is None:
            await self._write(release, status)
            for turn in status.turns[len(before.turns) :]:
                bad = turn.phase.over and turn.phase is not Phase.PROMOTED
                self._events.emit(
                    _reference(release), "Warning" if bad else "Normal", turn.phase.value, turn.sentence
                )
                log.info("release %s: %s: %s", meta["name"], turn.phase, turn.sentence)
        run.status = status
        want = machine.wanted(spec, status, facts, now)
        await self._arms(release, spec, run, want)
        await self._pin(spec, status, want)
        self._compare(spec, status, run, now)
        self._talk(release, spec, status, run, want, now)
        if status.phase.over:
            await self._let_go(release, run, want)

    @staticmethod
    def _failing_s(run: Run, facts: Facts, now: float) -> float:
        if facts.candidate is None or not known.fails(facts.candidate, facts.champion):
            run.failing_since = None
            return 0.0
        if run.failing_since is None or run.failing_since > now:
            run.failing_since = now
        return now - run.failing_since

    # What is done

    async def _held(self, release: Object) -> bool:
        """Whether its deletion waits for us; False where that was asked for just now."""
        held = list(release["metadata"].get("finalizers") or ())
        if FINALIZER in held:
            return True
        await self._hold(release, [*held, FINALIZER])
        return False

    async def _hold(self, release: Object, finalizers: list[str]) -> None:
        meta = release["metadata"]
        self._begin()
        await self._kube.patch(
            MODEL_RELEASES,
            meta["name"],
            {"metadata": {"uid": meta["uid"], "finalizers": finalizers}},
            meta["namespace"],
        )

    async def _let_go(self, release: Object, run: Run, want: Wanted) -> None:
        """Once nothing of it is left to be done."""
        held = list(release["metadata"].get("finalizers") or ())
        told = want.tell is Told.NOTHING or (run.told is want.tell and run.reported)
        if FINALIZER not in held or want.candidate is not None or not told:
            return
        if known.arms_of(release, self._servers.values()):
            return
        await self._hold(release, [one for one in held if one != FINALIZER])

    async def _write(self, release: Object, status: Status) -> None:
        meta = release["metadata"]
        body = {
            "metadata": {"name": meta["name"], "namespace": meta["namespace"]},
            "status": status.model_dump(mode="json", by_alias=True, exclude_none=True),
        }
        self._begin()
        await self._kube.apply(MODEL_RELEASES, body, field_manager=MANAGER, subresource="status")

    async def _arms(self, release: Object, spec: Spec, run: Run, want: Wanted) -> None:
        server = self._servers.get(spec.server)
        own = known.arms_of(release, self._servers.values())
        for which, least, version in (
            (Arm.CANDIDATE, want.candidate, spec.version),
            (Arm.BASELINE, want.baseline, want.pin or 0),
        ):
            name = arm_of(spec.server, which)
            if least is None:
                if name in own:
                    self._begin()
                    await self._kube.delete(MODEL_SERVERS, name, self._namespace)
                run.applied.pop(name, None)
            elif server is not None and server.spec is not None:
                body = arms.arm(release, server.object, server.spec, which, version, least)
                if run.applied.get(name) != (mark := digest(body)) or name not in self._servers:
                    self._begin()
                    await self._kube.apply(MODEL_SERVERS, body, field_manager=MANAGER)
                    run.applied[name] = mark

    async def _pin(self, spec: Spec, status: Status, want: Wanted) -> None:
        """The version that the service's own replicas load, in the core and at edges."""
        if want.pin is None:
            return
        for one in known.of_service(status.service, list(self._servers.values())):
            if (
                one.spec is None
                or one.spec.model.name != status.model
                or workload.pinned(one.object) == want.pin
            ):
                continue
            meta = one.object["metadata"]
            notes = {labels.MODEL_VERSION: str(want.pin)}
            self._begin()
            await self._kube.patch(
                MODEL_SERVERS,
                one.name,
                {"metadata": {"uid": meta["uid"], "annotations": notes}},
                meta["namespace"],
            )

    def _begin(self) -> None:
        if not self._leader.leads:
            raise Unreachable("another one may lead by now")
        self._on_write()

    # What is asked beside the ticks

    def _compare(self, spec: Spec, status: Status, run: Run, now: float) -> None:
        """Begin the next look at both arms, if there may be something new in it."""
        if status.phase.over or self._ask is None:
            run.trouble = "there is no Prometheus" if self._ask is None else None
            return
        self._note_ready(spec, run)
        if status.phase is Phase.SHADOW and run.mirrored is None:
            run.mirrored = Mirrored(status.service)
        if run.comparing_now is None or run.comparing_now.done():
            run.comparing_now = asyncio.create_task(self._look(self._ask, spec, status, run, now))

    def _note_ready(self, spec: Spec, run: Run) -> None:
        """When each of its pods was first ready; that is kept, whatever becomes of it."""
        for name in (spec.server, *(arm_of(spec.server, one) for one in Arm)):
            for pod in self._view.pods.get(name, {}).values():
                if pod.ready_at is not None:
                    run.first_ready.setdefault(pod.name, pod.created if pod.restarts else pod.ready_at)

    async def _look(self, ask: Ask, spec: Spec, status: Status, run: Run, now: float) -> None:
        if status.started_at is None:
            server = self._servers.get(spec.server)
            if server is not None and server.spec is not None:
                run.trouble = await run.comparing.see(ask, server.spec.service_of(spec.server), now)
            return
        # Not later: what would come to be open then stays so, as nothing is mirrored any more.
        if run.mirrored is not None and status.phase is Phase.SHADOW:
            fleets = known.addresses(status.service, self._servers.values(), self._view)
            run.comparing.add_answers(*await run.mirrored.look(fleets), now)
        warm = {pod: at + SETTLED_S for pod, at in run.first_ready.items()}
        run.trouble = await run.comparing.go_on(ask, status, warm, now)

    def _talk(self, release: Object, spec: Spec, status: Status, run: Run, want: Wanted, now: float) -> None:
        """Ask the registry, or tell it, if that is due; in a thread, since it may be away for minutes."""
        if (run.asking is not None and not run.asking.done()) or now - run.asked_at < RETRY_S:
            return
        server = self._servers.get(spec.server)
        own = server.spec if server is not None else None
        if status.phase is Phase.PENDING and own is not None:
            if run.checked is None or now - run.asked_at > CHECK_S:
                run.asked_at = now
                run.asking = asyncio.create_task(self._check(run, own.model.name, own.model.registry, spec))
        elif want.tell is not Told.NOTHING and not (
            run.told is want.tell and run.reported is status.phase.over
        ):
            if status.champion_version is None:
                run.told, run.reported = want.tell, True  # it never began: there is nothing to tell
                return
            run.asked_at = now
            where = own.model.registry if own is not None else None
            run.asking = asyncio.create_task(self._tell(run, want.tell, release, spec, status, where))

    async def _check(self, run: Run, model: str, registry: str | None, spec: Spec) -> None:
        try:
            run.checked = await asyncio.to_thread(
                self._records.check, model, registry, spec.version, needs_gate=self._policy.gate
            )
            run.untold = None
        except Unrecorded as error:
            run.untold = str(error)

    async def _tell(
        self, run: Run, told: Told, release: Object, spec: Spec, status: Status, registry: str | None
    ) -> None:
        try:
            await asyncio.to_thread(self._records.tell, told, release, spec, status, registry)
            run.told, run.reported, run.untold = told, status.phase.over, None
        except Unrecorded as error:
            run.untold = str(error)

    def _conditions(self, release: Object, spec: Spec, status: Status, run: Run, now: float) -> Status:
        generation = int(release["metadata"].get("generation", 0))
        when = datetime.fromtimestamp(int(now), UTC)
        conditions = status.conditions
        for kind, problem, well, ill in (
            ("Compared", run.trouble, "Comparing", "NoData"),
            ("RegistryAnswers", run.untold, "Answered", "NoAnswer"),
        ):
            flag: Flag = "True" if problem is None else "False"
            reason, said = (well, "") if problem is None else (ill, problem[:1000])
            conditions = put(conditions, kind, flag, reason, said, generation=generation, now=when)
        if conditions is status.conditions and status.observed_generation == generation:
            return status
        return status.model_copy(update={"conditions": conditions, "observed_generation": generation})


def _reference(release: Object) -> Object:
    return {
        "apiVersion": MODEL_RELEASES.api_version,
        "kind": MODEL_RELEASES.kind,
        "metadata": release["metadata"],
    }
