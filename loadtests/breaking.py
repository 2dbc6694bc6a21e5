"""Causes a run's faults one after the other, beside it: each when the one before it has had its turn.

The embedded cloud's are caused in its real processes, by `switchboard infra fault`; on other stacks those that the
Kubernetes API can cause are. What is done is undone, whatever happens.
"""

from __future__ import annotations

import asyncio
import json
import signal
import sys
import threading
import time
from asyncio.subprocess import DEVNULL, PIPE
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any, Final

from loadtests.faults import FAULTS, LEAD_S, Fault, Name
from loadtests.outcomes import Happened
from switchboard.errors import SwitchboardError
from switchboard.kinds import DEPLOYMENTS, MODEL_SERVERS, PODS
from switchboard.kube import ApiError, Credentials, Kube, Object, Unreachable
from switchboard.labels import MODEL_SERVER, NAME, TIER
from switchboard.pods import serves

CORE_NAMESPACE: Final = "switchboard-core"
LOOK_S: Final = 1.0
NO_SUCH_VERSION: Final = 999_999_999
NONSENSE: Final = '{"resources": [{"no": "cluster"}'
END_S: Final = 20.0


@dataclass(frozen=True)
class Place:
    """Where the faults are: the contexts of a serving and of a core site, a ModelServer and its namespace."""

    serving: Credentials
    core: Credentials | None
    context: str | None
    core_context: str
    namespace: str
    server: str


class Breaker:
    """Breaks while it is entered, from `begin` on; `happened` is what it did so far."""

    def __init__(self, place: Place, names: Sequence[Name], *, embedded: bool, stack: str) -> None:
        self._place, self._names, self._embedded, self._stack = place, names, embedded, stack
        self._loop = asyncio.new_event_loop()
        self._task: asyncio.Task[None] | None = None
        self._begun = threading.Event()
        self._ended = threading.Event()
        self.happened: list[Happened] = []
        self.now: str = ""
        self._thread = threading.Thread(target=self._main, name="faults", daemon=True)

    def __enter__(self) -> Breaker:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._begun.set()
        with suppress(RuntimeError):  # all had their turn: the loop has ended
            self._loop.call_soon_threadsafe(self._cancel)
        self._thread.join(4 * END_S)

    def begin(self) -> None:
        """Customers ask from now on."""
        self._begun.set()

    def _cancel(self) -> None:
        if self._task is not None:
            self._task.cancel()

    def _main(self) -> None:
        async def run() -> None:
            self._task = asyncio.current_task()
            if not self._ended.is_set():
                await self._run()

        try:
            self._begun.wait()
            self._loop.run_until_complete(run())
        except asyncio.CancelledError:
            pass
        finally:
            problem = "the run ended before its turn"
            left = self._names[len(self.happened) :]
            self.happened += [Happened(name=one, problem=problem) for one in left]
            self._loop.close()

    async def _run(self) -> None:
        due = time.monotonic() + LEAD_S
        async with AsyncExitStack() as stack:
            serving = await stack.enter_async_context(Kube(self._place.serving, timeout_s=5.0))
            core = None
            if self._place.core is not None:
                core = await stack.enter_async_context(Kube(self._place.core, timeout_s=5.0))
            cloud = Cloud(self._place, serving, core, embedded=self._embedded, stack=self._stack)
            for name in self._names:
                await asyncio.sleep(max(0.0, due - time.monotonic()))
                await cloud.whole()
                due = time.monotonic() + FAULTS[name].turn_s
                self.now = name
                await self._cause(cloud, FAULTS[name])
                self.now = ""
            await asyncio.sleep(max(0.0, due - time.monotonic()))

    async def _cause(self, cloud: Cloud, fault: Fault) -> None:
        place = len(self.happened)
        found = Happened(name=fault.name)

        def tell(**changes: Any) -> None:
            nonlocal found
            found = found.model_copy(update=changes)
            self.happened[place:] = [found]

        try:
            async with cloud.fault(fault) as (target, begun_s):
                tell(target=target, begun_s=begun_s)
                await asyncio.sleep(fault.lasts_s)
            tell(ended_s=time.time())
        except (SwitchboardError, ApiError, Unreachable, OSError) as error:
            tell(
                problem=f"it couldn't be caused: {' '.join(str(error).split())[:300] or type(error).__name__}"
            )
        except asyncio.CancelledError:
            if found.begun_s is not None:
                tell(ended_s=time.time())
            raise


class Cloud:
    """What is there to be broken, and how."""

    def __init__(self, place: Place, serving: Kube, core: Kube | None, *, embedded: bool, stack: str) -> None:
        self._place, self._serving, self._core = place, serving, core
        self._embedded, self._stack = embedded, stack

    async def whole(self) -> None:
        """Until all that serves is ready: a fault is one alone."""
        while True:
            try:
                found = await self._serving.list(DEPLOYMENTS, self._place.namespace)
                if all(_complete(one) for one in found):
                    return
            except (ApiError, Unreachable):
                pass
            await asyncio.sleep(LOOK_S)

    @asynccontextmanager
    async def fault(self, fault: Fault) -> AsyncIterator[tuple[str, float]]:
        """While it is entered: what it is done to, and since when."""
        causes: dict[Name, Callable[[Fault], Any]] = {
            Name.ROLL_OUT: self._roll_out,
            Name.ROLL_OUT_BROKEN: self._roll_out_broken,
            Name.BAD_GATEWAY_CONFIG: self._bad_gateway_config,
        }
        cause = causes.get(fault.name, self._in_processes if self._embedded else self._by_api)
        async with cause(fault) as found:
            yield found

    @asynccontextmanager
    async def _in_processes(self, fault: Fault) -> AsyncIterator[tuple[str, float]]:
        verb, more = _VERBS[fault.name]
        target, core = await self._target(fault.name)
        site = self._place.core_context if core else self._place.context  # sites' names are contexts'
        arguments = [verb, target, *more, "--stack", self._stack, "--output", "json"]
        if target.startswith("pod/"):
            arguments += ["--namespace", CORE_NAMESPACE if core else self._place.namespace]
        if site is not None:
            arguments += ["--site", site]
        if fault.lasts_s:
            arguments += ["--for", "3600"]  # it is told when to end
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "switchboard.cli", "infra", "fault", *arguments),
            stdin=DEVNULL,
            stdout=PIPE,
            stderr=PIPE,
            start_new_session=True,
        )
        try:
            assert process.stdout is not None and process.stderr is not None  # noqa: S101
            line = await process.stdout.readline()
            if not line:
                raise SwitchboardError((await process.stderr.read()).decode(errors="replace").strip())
            yield target, float(json.loads(line)["at"])
        finally:
            if process.returncode is None and fault.lasts_s:
                process.send_signal(signal.SIGTERM)
            await process.wait()

    @asynccontextmanager
    async def _by_api(self, fault: Fault) -> AsyncIterator[tuple[str, float]]:
        if _VERBS[fault.name][0] != "kill":
            raise SwitchboardError("the Kubernetes API has no means for it")
        target, core = await self._target(fault.name)
        kube, namespace = self._serving, self._place.namespace
        if core and self._core is not None:
            kube, namespace = self._core, CORE_NAMESPACE
        kind, _, name = target.partition("/")
        if kind == "process":
            raise SwitchboardError("the Kubernetes API has no means for it")
        begun = time.time()
        if kind == "node":
            for pod in await kube.list(PODS, namespace):
                if pod["spec"].get("nodeName") == name:
                    await kube.delete(PODS, pod["metadata"]["name"], namespace, grace_period_s=0)
        else:
            await kube.delete(PODS, name, namespace, grace_period_s=0)
        yield target, begun

    async def _target(self, name: Name) -> tuple[str, bool]:
        """`kind/name`, and whether it is in the core site."""
        place = self._place
        if name is Name.RESTART_API_SERVER:
            return "process/kube-apiserver", False
        if name is Name.RESTART_MLFLOW:
            if self._core is None:
                raise SwitchboardError("no context of the core site is given", "--core-context")
            return f"pod/{_one(await self._pods('mlflow', self._core, CORE_NAMESPACE))}", True
        component = {
            Name.KILL_GATEWAY: "gateway",
            Name.BAD_GATEWAY_CONFIG: "gateway",
            Name.RESTART_OPERATOR: "operator",
            Name.RESTART_PROMETHEUS: "prometheus",
        }.get(name)
        if component is not None:
            return f"pod/{_one(await self._pods(component))}", False
        tier = "edge" if name in (Name.LOSE_EDGE_NODE, Name.CUT_EDGE) else "core"
        pods = await self._serving.list(PODS, place.namespace, label_selector=f"{MODEL_SERVER},{TIER}={tier}")
        pods = [
            one
            for one in pods
            if serves(one) and (tier == "edge" or one["metadata"]["labels"][MODEL_SERVER] == place.server)
        ]
        if name in (Name.KILL_NODE_PODS, Name.LOSE_NODE, Name.LOSE_EDGE_NODE, Name.CUT_EDGE):
            return f"node/{_first(pods)['spec']['nodeName']}", False
        return f"pod/{_one(pods)}", False

    async def _pods(self, app: str, kube: Kube | None = None, namespace: str | None = None) -> list[Object]:
        found = await (kube or self._serving).list(
            PODS, namespace or self._place.namespace, label_selector=f"{NAME}={app}"
        )
        return [one for one in found if serves(one)]

    @asynccontextmanager
    async def _roll_out(self, fault: Fault) -> AsyncIterator[tuple[str, float]]:
        """Another request for memory, by a MiB: a new revision, as a new image would make one."""
        del fault
        spec = await self._spec()
        before = spec.get("resources", {}).get("memory")
        changed, back = {"resources": {"memory": _more(before)}}, {"resources": {"memory": before}}
        async with self._patched(changed, back) as found:
            yield found

    @asynccontextmanager
    async def _roll_out_broken(self, fault: Fault) -> AsyncIterator[tuple[str, float]]:
        del fault
        model = (await self._spec())["model"]
        changed = {"model": {"alias": None, "version": NO_SUCH_VERSION}}
        back = {"model": {key: model.get(key) for key in ("alias", "version")}}
        async with self._patched(changed, back) as found:
            yield found

    async def _spec(self) -> Object:
        found = await self._serving.get(MODEL_SERVERS, self._place.server, self._place.namespace)
        return dict(found["spec"])

    @asynccontextmanager
    async def _patched(self, changed: Object, back: Object) -> AsyncIterator[tuple[str, float]]:
        place = self._place

        async def patch(spec: Object) -> None:
            await self._serving.patch(MODEL_SERVERS, place.server, {"spec": spec}, place.namespace)

        begun = time.time()
        try:
            await patch(changed)
            yield f"modelserver/{place.server}", begun
        finally:
            await _insist(lambda: patch(back))

    @asynccontextmanager
    async def _bad_gateway_config(self, fault: Fault) -> AsyncIterator[tuple[str, float]]:
        target, _ = await self._target(fault.name)
        name = target.partition("/")[2]
        program = (
            "import os, sys; file = '/etc/envoy/clusters.json'; "
            "open(file + '.new', 'w').write(sys.argv[1]); os.rename(file + '.new', file)"
        )
        context = ["--context", self._place.context] if self._place.context is not None else []
        command = ["kubectl", *context, "exec", "-n", self._place.namespace, name, "-c", "agent", "--"]
        begun = time.time()
        process = await asyncio.create_subprocess_exec(
            *command, "python", "-c", program, NONSENSE, stdin=DEVNULL, stdout=PIPE, stderr=PIPE
        )
        async with asyncio.timeout(END_S):
            _, said = await process.communicate()
        if process.returncode != 0:
            raise SwitchboardError(said.decode(errors="replace").strip()[-300:])
        yield target, begun


_VERBS: Final[dict[Name, tuple[str, tuple[str, ...]]]] = {
    Name.KILL_POD: ("kill", ()),
    Name.KILL_NODE_PODS: ("kill", ()),
    Name.FREEZE_POD: ("freeze", ()),
    Name.SLOW_POD: ("slow", ("--cpu", "20")),
    Name.FILL_MEMORY: ("fill", ()),
    Name.LOSE_NODE: ("freeze", ()),
    Name.LOSE_EDGE_NODE: ("freeze", ()),
    Name.CUT_EDGE: ("cut", ()),
    Name.KILL_GATEWAY: ("kill", ()),
    Name.RESTART_OPERATOR: ("kill", ()),
    Name.RESTART_PROMETHEUS: ("kill", ()),
    Name.RESTART_API_SERVER: ("kill", ()),
    Name.RESTART_MLFLOW: ("kill", ()),
}


def _complete(deployment: Object) -> bool:
    wanted, status = deployment["spec"].get("replicas", 1), deployment.get("status") or {}
    return (
        int(status.get("observedGeneration", 0)) >= int(deployment["metadata"].get("generation", 0))
        and status.get("updatedReplicas", 0) >= wanted
        and status.get("readyReplicas", 0) >= wanted
    )


async def _insist(undo: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """What was done is undone, if the API server is away for a moment, too."""
    deadline = time.monotonic() + END_S
    while True:
        try:
            return await undo()
        except (ApiError, Unreachable) as error:
            if (isinstance(error, ApiError) and error.not_found) or time.monotonic() > deadline:
                raise
        await asyncio.sleep(LOOK_S)


def _first(pods: Sequence[Object]) -> Object:
    if not pods:
        raise SwitchboardError("none is ready that could be broken")
    return min(pods, key=lambda one: str(one["metadata"]["name"]))


def _one(pods: Sequence[Object]) -> str:
    return str(_first(pods)["metadata"]["name"])


def _more(quantity: str | None) -> str:
    """A MiB more than that many."""
    if quantity is None or not quantity.endswith("Mi") or not quantity[:-2].isdigit():
        return "513Mi"
    return f"{int(quantity[:-2]) + 1}Mi"
