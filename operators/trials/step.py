"""`python -m operators.trials.step`: a 5x step of real customers on a running stack, up and down, many times over.

Locust asks the gateway at the base rate throughout and at four times as much beside it for the length of the step.
What the ModelServer's number and its replicas do meanwhile is noted as the API server tells it, and written as a table,
as JSON and as a plot. With `--rule hpa` the operator only watches (`mode: shadow`), and a rule as the Horizontal Pod
Autoscaler's sets the number: every 15 s, on the rate that the operator sees and the capacity that it has measured.

    eval "$(switchboard env)"; python -m operators.trials.step --runs 10 --out /tmp/step

The ModelServer is given a small CPU limit for the trial, so that one machine holds several replicas, and no headroom,
since after the first step its history would hold replicas ready for the next; at the end its spec is as it was, also
where that end is Ctrl-C or a TERM.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import sys
import time
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import aiohttp

from operators.facts import seconds
from operators.simulator.rivals.base import Bounds
from operators.simulator.rivals.hpa import Behaviour, external_metric
from operators.trials import step_plot
from operators.trials.step_figures import Run, read_seconds, reversals, summary
from switchboard.api.model_server import MODEL_SERVERS
from switchboard.errors import SwitchboardError
from switchboard.gateways import GATEWAY_VARIABLE
from switchboard.informer import Informer, Key
from switchboard.kube import PODS, Credentials, Kube, Object
from switchboard.pods import address_of, serves

REST_S = 20.0
"""Beyond the stabilisation: a smaller number would have been decided and drained by then."""
PATIENCE_S = 420.0
BACK_S = 150.0
HPA_TARGET = 0.7
HPA_PERIOD_S = 15
MANAGER = "switchboard-trials"


@dataclass
class Timeline:
    """What was seen, with its time in seconds since the epoch: the number that is wanted, the replicas that serve."""

    desired: list[tuple[float, int]] = field(default_factory=list)
    ready: list[tuple[float, int]] = field(default_factory=list)
    starts: list[float] = field(default_factory=list)
    """Start times (s) of replicas, from their creation until they serve."""


class Watch:
    """Keeps the timeline of a ModelServer."""

    def __init__(self, kube: Kube, namespace: str, name: str) -> None:
        self.timeline = Timeline()
        self._started: set[str] = set()
        self.pods = Informer(
            kube,
            PODS,
            namespace=namespace,
            label_selector=f"app.kubernetes.io/name={name}",
            on_change=self._pod,
        )
        self.servers = Informer(
            kube,
            MODEL_SERVERS,
            namespace=namespace,
            field_selector=f"metadata.name={name}",
            on_change=self._server,
        )

    def _pod(self, _: Key, old: Object | None, new: Object | None) -> None:
        now = time.time()
        if new is not None and serves(new) and new["metadata"]["uid"] not in self._started:
            self._started.add(new["metadata"]["uid"])
            created = seconds(new["metadata"]["creationTimestamp"])
            if old is not None and created is not None:  # not those that there were before
                self.timeline.starts.append(now - created)
        self._note(self.timeline.ready, now, sum(serves(one) for one in self.pods.items.values()))

    def _server(self, _: Key, old: Object | None, new: Object | None) -> None:
        desired = ((new or {}).get("status") or {}).get("desiredReplicas")
        if desired is not None:
            self._note(self.timeline.desired, time.time(), desired)

    @staticmethod
    def _note(into: list[tuple[float, int]], now: float, value: int) -> None:
        if not into or into[-1][1] != value:
            into.append((now, value))

    @property
    def desired(self) -> int:
        return self.timeline.desired[-1][1] if self.timeline.desired else -1

    @property
    def ready(self) -> int:
        return self.timeline.ready[-1][1] if self.timeline.ready else -1


@dataclass
class Trial:
    """The parts that a run needs."""

    kube: Kube
    watch: Watch
    arguments: argparse.Namespace

    async def until_at_rest(self, most: int | None = None) -> None:
        """Until number and replicas agree and haven't changed for a while from now on; with `most`, no more than those.

        Where it doesn't fall to `most` in its time, that is how it is.
        """
        begun = time.time()
        if most is not None:
            deadline = time.monotonic() + BACK_S
            while time.monotonic() < deadline and self.watch.desired > most:  # noqa: ASYNC110 - with a deadline
                await asyncio.sleep(0.5)
        deadline = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline:
            timeline = self.watch.timeline
            if timeline.desired and timeline.ready and self.watch.desired == self.watch.ready:
                latest = max(timeline.desired[-1][0], timeline.ready[-1][0], begun)
                if time.time() - latest >= self.arguments.stabilization + REST_S:
                    return
            await asyncio.sleep(0.5)
        raise SwitchboardError(
            f"{self.arguments.name} didn't come to rest in {PATIENCE_S:.0f} s: {self.watch.desired} replicas are "
            f"wanted, {self.watch.ready} serve",
            f"`kubectl describe ms {self.arguments.name}` says why",
        )

    @asynccontextmanager
    async def load(
        self, rate: float, length_s: float, seconds_file: Path, stdout: int
    ) -> AsyncIterator[Process]:
        """Customers, who are gone at its end."""
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "switchboard.cli", "loadtests", "chat"),
            *("--url", self.arguments.url, "--rate", f"{rate:g}", "--duration", f"{length_s:g}s"),
            *("--seconds", str(seconds_file), "--output", "json", "--max-failed", "1000000"),
            stdout=stdout,
            stderr=DEVNULL,
        )
        try:
            yield process
        finally:
            if process.returncode is None:
                process.terminate()
                await process.wait()


async def one_run(trial: Trial, number: int) -> Run:
    """A step up and down; the base load is there already."""
    arguments, watch = trial.arguments, trial.watch
    await trial.until_at_rest()
    before = watch.desired
    watch.timeline.starts.clear()
    file = arguments.out / f"step-{arguments.rule}-{number}.csv"
    async with trial.load(arguments.base * (arguments.factor - 1), arguments.hold, file, PIPE) as load:
        said, _ = await load.communicate()
    figures: dict[str, Any] = json.loads(said)
    first, ended = figures["first_s"], figures["first_s"] + arguments.hold
    steps = [one for one in watch.timeline.desired if first <= one[0] <= ended]
    ups = [one for one, last in zip(steps, [(first, before), *steps], strict=False) if one[1] > last[1]]
    settled = ups[-1] if ups else None
    capacity = next(
        (at for at, count in watch.timeline.ready if settled and at >= settled[0] and count >= settled[1]),
        None,
    )
    starts = list(watch.timeline.starts)
    await trial.until_at_rest(before)
    back = next(
        (at for at, count in reversed(watch.timeline.desired) if count < (settled or (0, 0))[1]), None
    )
    rows = read_seconds(file)
    return Run(
        number=number,
        rule=arguments.rule,
        before=before,
        settled=settled[1] if settled else before,
        first_s=first,
        ended_s=ended,
        settled_s=round(settled[0] - first, 2) if settled else None,
        capacity_s=round(capacity - first, 2) if capacity else None,
        start_s=round(max(starts), 2) if starts else None,
        reversals=reversals([count for _, count in [(first, before), *steps]]),
        out_of_level_s=sum(good < 0.99 * due for _, due, good, _ in rows),
        failed=figures["failed"],
        asked=figures["total"],
        back_s=round(back - ended, 2) if back and back > ended else None,
    )


async def hpa(trial: Trial, most: int) -> None:
    """The rule: sets `spec.replicas` of a ModelServer whose operator only watches."""
    arguments = trial.arguments
    behaviour = Behaviour(Bounds(1, most))
    begun = time.monotonic()
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=2)) as session:
        while True:
            found = await _decision(trial.kube, session, arguments)
            rate, rps = (found.get("seen") or {}).get("rate"), (found.get("capacity") or {}).get("rps")
            if rate is not None and rps:
                current = max(1, trial.watch.desired)
                recommended = external_metric(rate, HPA_TARGET * rps, current)
                wanted = behaviour.limit(int(time.monotonic() - begun), current, recommended)
                await _spec(trial.kube, arguments, {"replicas": wanted})
            await asyncio.sleep(HPA_PERIOD_S)


async def _decision(kube: Kube, session: aiohttp.ClientSession, arguments: argparse.Namespace) -> Object:
    """What the leading operator saw last."""
    pods = await kube.list(PODS, arguments.namespace, label_selector="app.kubernetes.io/name=operator")
    for pod in pods:
        if not serves(pod):
            continue
        url = f"http://{address_of(pod)}:8080"
        try:
            async with session.get(f"{url}/readyz") as response:
                if await response.text() != "leads\n":
                    continue
            async with session.get(f"{url}/decisions", params={"name": arguments.name}) as response:
                found: Object = (await response.json())["decisions"][0]
                return found
        except (aiohttp.ClientError, TimeoutError):
            continue
    return {}


async def _spec(kube: Kube, arguments: argparse.Namespace, changes: Object) -> None:
    await kube.patch(MODEL_SERVERS, arguments.name, {"spec": changes}, arguments.namespace)


def _credentials(kubeconfig: str, context: str) -> Credentials:
    """Those of the first of several files, as KUBECONFIG lists them, that has the context."""
    *others, last = kubeconfig.split(os.pathsep)
    for path in others:
        with suppress(SwitchboardError):
            return Credentials.from_kubeconfig(Path(path), context)
    return Credentials.from_kubeconfig(Path(last), context)


def undoing(changes: Object, before: Object) -> Object:
    """The merge patch after which all that the merge patch `changes` names is as in `before`.

    What is in neither stays as it is by then; what wasn't there is taken out by name.
    """
    return {
        key: undoing(change, was)
        if isinstance(change, dict) and isinstance(was := before.get(key), dict)
        else before.get(key)
        for key, change in changes.items()
    }


@asynccontextmanager
async def trial_of(arguments: argparse.Namespace) -> AsyncIterator[Trial]:
    """The ModelServer with a small limit, and its own spec again afterwards."""
    async with Kube(_credentials(arguments.kubeconfig, arguments.context)) as kube:
        before = (await kube.get(MODEL_SERVERS, arguments.name, arguments.namespace))["spec"]
        watch = Watch(kube, arguments.namespace, arguments.name)
        scaling = {
            "mode": "active" if arguments.rule == "switchboard" else "shadow",
            "minReplicas": 1,
            "maxReplicas": arguments.most,
            "stabilizationSeconds": arguments.stabilization,
            "headroom": {"price": 0},
        }
        changes: Object = {"resources": {"cpu": "50m", "cpuLimit": arguments.cpu_limit}, "scaling": scaling}
        tasks: list[asyncio.Task[None]] = []
        try:
            # In here already: an end while the answer is awaited comes when the change may be made.
            await _spec(kube, arguments, changes)
            tasks += [asyncio.create_task(watch.servers.run()), asyncio.create_task(watch.pods.run())]
            made = Trial(kube, watch, arguments)
            if arguments.rule == "hpa":
                tasks.append(asyncio.create_task(hpa(made, arguments.most)))
            yield made
        finally:
            for task in tasks:
                task.cancel()
            if tasks:
                await asyncio.wait(tasks)  # the rule sets nothing after this
            await _spec(kube, arguments, undoing({"replicas": None, **changes}, before))


async def run(arguments: argparse.Namespace) -> list[Run]:
    """All runs, with the base load beside them; writes what was found."""
    _cancel_at_term()
    found: list[Run] = []
    async with trial_of(arguments) as trial:
        base = arguments.out / f"base-{arguments.rule}.csv"
        most_s = arguments.warm_up + arguments.runs * (arguments.hold + PATIENCE_S)
        async with trial.load(arguments.base, most_s, base, DEVNULL):
            await asyncio.sleep(arguments.warm_up)  # the capacity is measured while something is asked
            for number in range(arguments.runs):
                one = await one_run(trial, number)
                found.append(one)
                print(json.dumps(asdict(one)), flush=True)
                document = {
                    "runs": [asdict(each) for each in found],
                    "timeline": asdict(trial.watch.timeline),
                }
                (arguments.out / f"{arguments.rule}.json").write_text(json.dumps(document))
    step_plot.write(arguments.out, arguments.rule, arguments.base)
    return found


def _cancel_at_term() -> None:
    """A TERM ends this task as Ctrl-C does: between two steps of the loop, not in the midst of a process' start.

    More of them don't: they would end what puts the spec back.
    """
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    assert task is not None  # noqa: S101

    def cancel() -> None:
        loop.add_signal_handler(signal.SIGTERM, lambda: None)
        task.cancel()

    loop.add_signal_handler(signal.SIGTERM, cancel)


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m operators.trials.step", description=__doc__.partition("\n")[0]
    )
    parser.add_argument("--url", default=os.environ.get(GATEWAY_VARIABLE), help="the site's gateway")
    parser.add_argument("--kubeconfig", default=os.environ.get("KUBECONFIG"))
    parser.add_argument("--context", default="public")
    parser.add_argument("--namespace", default="switchboard-serving")
    parser.add_argument("--name", default="chat")
    parser.add_argument("--rule", choices=("switchboard", "hpa"), default="switchboard")
    parser.add_argument("--runs", type=int, default=10)
    parser.add_argument("--base", type=float, default=20.0, help="requests/s before and after")
    parser.add_argument("--factor", type=float, default=5.0)
    parser.add_argument("--hold", type=float, default=60.0, help="seconds that the step lasts")
    parser.add_argument("--warm-up", type=float, default=60.0, dest="warm_up")
    parser.add_argument("--cpu-limit", default="200m", dest="cpu_limit")
    parser.add_argument("--most", type=int, default=8, help="maxReplicas")
    parser.add_argument("--stabilization", type=int, default=20, help="stabilizationSeconds, for steps down")
    parser.add_argument("--out", type=Path, required=True, help="folder for tables and plots")
    arguments = parser.parse_args()
    if not arguments.url or not arguments.kubeconfig:
        parser.error(
            'which stack? `eval "$(switchboard env)"` sets the addresses, or give --url and --kubeconfig'
        )
    arguments.out.mkdir(parents=True, exist_ok=True)
    try:
        print(summary(asyncio.run(run(arguments))))
    except asyncio.CancelledError:
        return 128 + signal.SIGTERM
    except SwitchboardError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
