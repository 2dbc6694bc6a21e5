"""Releases, carried out by the operator on a real API server, with a real Prometheus and a real MLflow.

The replicas are simulated, and so is what gateways do: a service's requests go to the arms by the weight that the
release's status says.
"""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import pytest_asyncio

from models import evaluation, registry, training
from models.aliases import read
from models.ledger import Ledger
from models.registry import Logged
from models.rest_write import RegistryWriter
from operators.trials.nodes import Fate
from switchboard import labels
from switchboard.api.model_release import FINALIZER, MODEL_RELEASES
from switchboard.api.model_server import MODEL_SERVERS
from switchboard.kube import Kube, Object
from tests.definitions import define_model_releases
from tests.fixtures_mlflow import Cuttable
from tests.operators.live.conftest import Scenario, Together
from tests.operators.live.rig import LOOK_S, Rig

pytestmark = pytest.mark.asyncio(loop_scope="session")

SCENARIOS: list[Scenario] = []
MLFLOW: list[str] = []
"""Where the tests' MLflow is; a scenario gets nothing but its world."""
LONG_S = 240.0
RPS = 60.0
QUICK: list[Object] = [{"name": "restarts", "margin": 3000}, {"name": "grew", "margin": 50}]
"""Metrics that need minutes of pods, for which a test has no time."""


def scenario(function: Scenario) -> Scenario:
    SCENARIOS.append(function)
    return function


@pytest.fixture(scope="module")
def logged(mlflow_server: str) -> Logged:
    """A small model in a run; making versions of it is cheap."""
    params = training.Params(per_template=1, augment=False)
    small = training.train(training.load_corpus(params), params)
    found = evaluation.evaluate(small.classifier, {"handwritten": small.data.tests["handwritten"]})
    return registry.log_run(small, found, name="releases", tracking_uri=mlflow_server)


@pytest_asyncio.fixture(scope="module", loop_scope="session", autouse=True)
async def prepared(api: Kube, mlflow_server: str, logged: Logged) -> AsyncIterator[None]:
    """The definition of releases, and for each scenario a model of its name with two versions."""
    await define_model_releases(api)
    for one in SCENARIOS:
        name = _name(one)
        for alias in ("champion", "challenger"):
            registry.make_version(logged, name=name, tracking_uri=mlflow_server, alias=alias)
    MLFLOW[:] = [mlflow_server]
    yield
    MLFLOW.clear()


def _name(one: Scenario) -> str:
    return one.__name__.removeprefix("a_").replace("_", "-")[:24].strip("-")


class Release:
    """A service with its release, and the gateways' part: who gets how much."""

    def __init__(self, world: Rig, name: str, rps: float = RPS) -> None:
        self.world, self.server, self.name, self.rps = world, name, f"{name}-2", rps
        self.champion = world.service(name, rate=rps, fails=0.001)
        self.candidate = world.service(f"{name}_candidate", rate=0.0, fails=0.001)
        self.most = 0
        """The greatest weight that was seen."""

    async def get(self) -> Object:
        return await self.world.kube.get(MODEL_RELEASES, self.name, self.world.namespace)

    async def status(self) -> Object:
        found: Object = (await self.get()).get("status") or {}
        return found

    async def start(self, **spec: Any) -> None:
        body = {
            "server": self.server,
            "version": 2,
            "steps": [{"weight": 20, "holdSeconds": 10}, {"weight": 50, "holdSeconds": 10}],
            "shadow": {"seconds": 0},
            "metrics": QUICK,
            "keepWarmSeconds": 2,
            **spec,
        }
        await self.world.kube.create(
            MODEL_RELEASES,
            {
                "apiVersion": MODEL_RELEASES.api_version,
                "kind": MODEL_RELEASES.kind,
                "metadata": {"name": self.name, "namespace": self.world.namespace},
                "spec": body,
            },
            self.world.namespace,
            params={"fieldValidation": "Strict"},
        )

    async def change(self, **spec: Any) -> None:
        await self.world.kube.patch(MODEL_RELEASES, self.name, {"spec": spec}, self.world.namespace)

    async def until_phase(self, *phases: str) -> Object:
        async def look() -> Object | None:
            found = await self.status()
            return found if found.get("phase") in phases else None

        found: Object = await self.world.until(f"{self.name} is {' or '.join(phases)}", look, LONG_S)
        return found

    async def arms(self) -> set[str]:
        there = await self.world.kube.list(
            MODEL_SERVERS, self.world.namespace, label_selector=f"{labels.RELEASE}={self.name}"
        )
        return {str(one["metadata"]["name"]) for one in there}

    async def until_gone(self) -> None:
        """No arm, and nobody holds the release any more."""

        async def look() -> bool:
            held = (await self.get())["metadata"].get("finalizers") or ()
            return not await self.arms() and FINALIZER not in held

        await self.world.until(f"the arms of {self.name} have gone", look, LONG_S)

    async def split(self) -> None:
        while True:
            weight = (await self.status()).get("weight", 0)
            self.most = max(self.most, weight)
            self.champion.rate = self.rps * (100 - weight) / 100
            self.candidate.rate = self.rps * weight / 100
            await asyncio.sleep(LOOK_S)

    def aliases(self) -> tuple[str | None, str | None, str | None]:
        found = read(RegistryWriter(MLFLOW[0]), self.server)
        return found.champion, found.challenger, found.previous

    def check_evidence(self) -> None:
        """What the ledger names is beside the version, with the report of the whole release."""
        client = RegistryWriter(MLFLOW[0])
        (entry,) = Ledger(client, self.server).entries()
        run = client.run_record(client.version(self.server, "2").run_id)
        folder = f"releases/{self.name}"
        bundle = client.run_artifact(run, f"{folder}/evidence-{entry.evidence[:12]}.json", max_bytes=1 << 20)
        assert json.loads(bundle)["sha256"] == entry.evidence
        page = client.run_artifact(run, f"{folder}/report.html", max_bytes=1 << 20).decode()
        assert "version 2 is served to everybody" in page

    def ledger(self) -> list[tuple[str | None, str]]:
        entries = Ledger(RegistryWriter(MLFLOW[0]), self.server).entries()
        return [(one.from_version, one.to_version) for one in entries]


@asynccontextmanager
async def release(
    world: Rig, one: Scenario, rps: float = RPS, *, registry: str = "", **spec: Any
) -> AsyncIterator[Release]:
    """One that has begun, for the scenario's own service."""
    name = _name(one)
    made = Release(world, name, rps)
    await world.server(
        name,
        {"model": {"name": name, "alias": "champion", "registry": registry or MLFLOW[0]}},
        minReplicas=1,
        stabilizationSeconds=60,
    )
    await world.until_replicas(name, lambda count: count >= max(1, rps / 10))
    await world.until_all_serve(name)
    await made.start(**spec)
    splitting = asyncio.create_task(made.split())
    try:
        yield made
    finally:
        splitting.cancel()


@scenario
async def a_good_one_reaches_everybody(world: Rig) -> None:
    async with release(world, a_good_one_reaches_everybody) as one:
        await one.until_phase("Canary")
        assert await one.arms() == {f"{one.server}-candidate"}
        own = await world.kube.get(MODEL_SERVERS, one.server, world.namespace)
        assert own["metadata"]["annotations"][labels.MODEL_VERSION] == "1"
        await one.until_phase("Warm", "Settling", "Promoted")
        assert await asyncio.to_thread(one.aliases) == ("2", None, "1")
        status = await one.until_phase("Promoted")
        assert one.most == 100
        assert status["verdict"] == "Promote"
        assert "harm beyond the margin is excluded on all" in next(
            turn["sentence"] for turn in status["turns"] if turn["phase"] == "Promoting"
        )
        own = await world.kube.get(MODEL_SERVERS, one.server, world.namespace)
        assert own["metadata"]["annotations"][labels.MODEL_VERSION] == "2"
        await one.until_gone()
        assert await asyncio.to_thread(one.ledger) == [("1", "2")]
        await asyncio.to_thread(one.check_evidence)


@scenario
async def a_bad_one_is_taken_back(world: Rig) -> None:
    steps = [{"weight": 20, "holdSeconds": 120}, {"weight": 50}]
    async with release(world, a_bad_one_is_taken_back, steps=steps) as one:
        one.candidate.fails = 0.2
        status = await one.until_phase("RolledBack", "Promoted", "Inconclusive")
        assert status["phase"] == "RolledBack"
        assert status["weight"] == 0
        assert "requests failed" in status["sentence"]
        assert status["verdict"] == "Abort"
        assert one.most == 20, "it never came to a second step"
        await one.until_gone()
        assert await asyncio.to_thread(one.aliases) == ("1", None, None)
        assert await asyncio.to_thread(one.ledger) == []


@scenario
async def one_that_doesnt_start(world: Rig) -> None:
    world.fates[f"{_name(one_that_doesnt_start)}-candidate"] = Fate(start_s=None, waiting="CrashLoopBackOff")
    async with release(world, one_that_doesnt_start) as one:
        status = await one.until_phase("RolledBack", "Promoted", "Inconclusive")
        assert "version 2 doesn't start" in status["sentence"]
        assert one.most == 0
        await one.until_gone()


@scenario
async def operators_that_die_in_between(world: Rig) -> None:
    async with release(world, operators_that_die_in_between) as one:
        for phase in ("Preparing", "Canary", "Promoting"):
            await one.until_phase(phase, "Warm", "Settling", "Promoted")
            leader = await world.leader()
            await leader.stop(signal.SIGKILL)
            await world.operator(
                leader.log.stem.rpartition("-")[0]
            )  # as its pod is started anew, by its name
        status = await one.until_phase("RolledBack", "Promoted", "Inconclusive")
        assert status["phase"] == "Promoted"
        await one.until_gone()
        assert await asyncio.to_thread(one.ledger) == [("1", "2")], "told once, by whomever"


@scenario
async def what_it_asks_dies_in_between(world: Rig) -> None:
    """Prometheus in the canary; the registry when it is to be told."""
    way = Cuttable(MLFLOW[0])
    try:
        async with release(world, what_it_asks_dies_in_between, registry=way.url) as one:
            await one.until_phase("Canary")
            await world.kill_prometheus()
            way.down()
            status = await one.until_phase("Promoting", "RolledBack", "Inconclusive")
            assert (status["phase"], status["verdict"]) == ("Promoting", "Promote")

            async def untold() -> bool:
                found = (await one.status()).get("conditions", ())
                return any(one["type"] == "RegistryAnswers" and one["status"] == "False" for one in found)

            await world.until("it is said that the registry doesn't know", untold)
            assert (await one.status())["phase"] == "Promoting"
            assert one.most == 50, "nobody gets more of it before the registry knows"
            way.up()
            assert (await one.until_phase("Promoted"))["phase"] == "Promoted"
            await one.until_gone()
            assert await asyncio.to_thread(one.aliases) == ("2", None, "1")
            assert await asyncio.to_thread(one.ledger) == [("1", "2")]
    finally:
        way.close()


@scenario
async def by_hand_there_and_back(world: Rig) -> None:
    async with release(world, by_hand_there_and_back, keepWarmSeconds=600, paused=True) as one:
        await one.until_phase("Canary")
        await one.change(order="Promote", reason="agreed")
        await one.until_phase("Warm")
        assert await asyncio.to_thread(one.aliases) == ("2", None, "1")
        await one.change(order="Rollback", reason="complaints")
        status = await one.until_phase("RolledBack")
        assert status["sentence"] == "rolled back by hand: complaints"
        assert status["weight"] == 0
        await one.until_gone()
        assert (await asyncio.to_thread(one.aliases))[0] == "1"
        assert await asyncio.to_thread(one.ledger) == [("1", "2"), ("2", "1")]


@scenario
async def what_cant_be_released(world: Rig) -> None:
    async with release(world, what_cant_be_released, version=9) as one:
        status = await one.until_phase("Refused")
        assert status["sentence"] == f"{one.server} has no version 9"
        await one.until_gone()


@scenario
async def one_that_nobody_would_see(world: Rig) -> None:
    async with release(world, one_that_nobody_would_see, rps=0.2) as one:
        await world.until("it says what it waits for", lambda: _says(one, "too little may be seen"))
        status = await one.until_phase("Refused", "Preparing")
        assert status["phase"] == "Refused", status["turns"]
        assert status["sentence"].startswith("too little would be seen at 0.")
        assert status["sentence"].endswith(
            "(switchboard canary start 2 --server one-that-nobody-would-se --promote)"
        )
        await one.until_gone()
        one.name = f"{one.server}-by-hand"
        await one.start(order="Promote", reason="a new site")
        status = await one.until_phase("Refused", "Promoted")
        assert status["phase"] == "Promoted"
        assert "promoted by hand: a new site" in [turn["sentence"] for turn in status["turns"]]
        await one.until_gone()
        assert await asyncio.to_thread(one.aliases) == ("2", None, "1")
        assert await asyncio.to_thread(one.ledger) == [("1", "2")]


@scenario
async def one_after_the_other(world: Rig) -> None:
    async with release(world, one_after_the_other, paused=True) as one:
        await one.until_phase("Canary")
        other = Release(world, one.server)
        other.champion, other.candidate = one.champion, one.candidate
        other.name = f"{one.server}-again"
        await other.start()
        status = await other.until_phase("Pending")
        await world.until("it says why", lambda: _says(other, f"it waits for {one.name}"))
        assert status.get("weight", 0) == 0
        await world.kube.delete(MODEL_RELEASES, one.name, world.namespace)
        await other.until_phase("Preparing", "Canary")
        await other.change(order="Abort")
        await other.until_phase("RolledBack")
        await other.until_gone()


async def _says(one: Release, words: str) -> bool:
    return str((await one.status()).get("sentence")).startswith(words)


@pytest.mark.parametrize("one", SCENARIOS, ids=[one.__name__ for one in SCENARIOS])
async def test_releases(together: Together, one: Scenario) -> None:
    await together.result(one)
