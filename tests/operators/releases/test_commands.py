"""`switchboard canary start`, `status`, `watch` and the rest, as their users run them, at a real API server.

Nobody carries the releases out here: what the operator would say is written by the test.
"""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
from typer.testing import CliRunner, Result

from operators.canary_cli import app
from operators.releases.access import SHADOW_S
from switchboard import labels
from switchboard.api.model_release import MODEL_RELEASES, Shadow
from switchboard.groups import ERROR
from switchboard.kube import NAMESPACES, Credentials, Kube, Object
from tests.conftest import ControlPlane
from tests.definitions import define_model_releases

pytestmark = pytest.mark.asyncio(loop_scope="session")

ME = "switchboard-admin"
"""As whom the API server knows the user."""


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def kube(control_plane: ControlPlane) -> AsyncIterator[Kube]:
    async with Kube(Credentials.from_kubeconfig(control_plane.kubeconfig)) as found:
        await define_model_releases(found)
        yield found


class User:
    """Somebody at a terminal, in a namespace of their own."""

    def __init__(self, kube: Kube, namespace: str, kubeconfig: str) -> None:
        self.kube, self.namespace, self._kubeconfig = kube, namespace, kubeconfig

    def _ran(self, *words: str) -> Result:
        return CliRunner().invoke(
            app, [*words, "-n", self.namespace], env={"KUBECONFIG": self._kubeconfig}, catch_exceptions=True
        )

    async def ran(self, *words: str) -> Result:
        return await asyncio.to_thread(self._ran, *words)

    async def started(self, *words: str) -> str:
        """A release's name."""
        done = await self.ran("start", *words, "--no-watch", "-o", "json")
        assert done.exit_code == 0, done.output
        return str(json.loads(done.stdout)["name"])

    async def release(self, name: str) -> Object:
        return await self.kube.get(MODEL_RELEASES, name, self.namespace)

    async def says(self, name: str, **status: Any) -> None:
        await self.kube.patch(MODEL_RELEASES, name, {"status": status}, self.namespace, subresource="status")


@pytest_asyncio.fixture(loop_scope="session")
async def user(kube: Kube, control_plane: ControlPlane) -> AsyncIterator[User]:
    name = f"mr-{uuid.uuid4().hex[:8]}"
    await kube.create(NAMESPACES, {"metadata": {"name": name}})
    yield User(kube, name, str(control_plane.kubeconfig))
    await kube.delete(NAMESPACES, name)


async def test_the_usual_shadow_is_that_of_a_release_that_names_none() -> None:
    assert Shadow().seconds == SHADOW_S


async def test_what_was_asked_for_is_what_is_made(user: User) -> None:
    name = await user.started(
        "8", "--step", "5:120", "--step", "50%:300", "--within-minutes", "90", "--reason", "new intents"
    )
    assert name.startswith("chat-8-")
    made = await user.release(name)
    assert made["spec"] == {
        "server": "chat",
        "version": 8,
        "steps": [{"weight": 5, "holdSeconds": 120}, {"weight": 50, "holdSeconds": 300}],
        "shadow": {"percent": 20, "seconds": 30},
        "withinSeconds": 5400,
        "keepWarmSeconds": 600,
        "errorBudgetPercent": 5,
        "metrics": [],
        "paused": False,
        "reason": "new intents",
    }
    assert made["metadata"]["annotations"][labels.REQUESTED_BY] == ME


async def test_one_that_is_to_wait_for_no_verdict(user: User) -> None:
    made = await user.release(await user.started("8", "--promote", "--reason", "a new site"))
    assert (made["spec"]["order"], made["spec"]["reason"]) == ("Promote", "a new site")


BAD: list[tuple[list[str], str]] = [
    (["8", "--step", "50", "--step", "5"], "weights of steps are to rise"),
    (["8", "--step", "5", "--step", "5"], "weights of steps are to rise"),
    (["8", "--step", "101"], "1 to 100 percent"),
    (["8", "--step", "-5"], "1 to 100 percent"),
    (["8", "--step", "ten"], "say it as 10:60"),
    (["0"], "greater than or equal to 1"),
    (["8", "--server", "No_Such"], "spec.server"),
    (["8", "--context", "nowhere"], "no context 'nowhere'"),
]


@pytest.mark.parametrize(("words", "says"), BAD, ids=[" ".join(words) for words, _ in BAD])
async def test_bad_input_is_refused_with_a_sentence(user: User, words: list[str], says: str) -> None:
    done = await user.ran("start", *words, "--no-watch")
    assert says in " ".join((done.output + str(done.exception)).split())
    code = getattr(done.exception, "exit_code", done.exit_code)
    assert code == ERROR
    assert await user.kube.list(MODEL_RELEASES, user.namespace) == []


COMPARED = {
    "name": "failed",
    "standing": "Harmful",
    "candidateEvents": 40,
    "candidateOf": 500,
    "championEvents": 3,
    "championOf": 4500,
}
ENDS: list[tuple[str, int]] = [
    ("Warm", 0),
    ("Promoted", 0),
    ("RolledBack", 1),
    ("Inconclusive", 2),
    ("Refused", ERROR),
]


@pytest.mark.parametrize(("phase", "code"), ENDS)
async def test_the_exit_code_is_what_it_came_to(user: User, phase: str, code: int) -> None:
    name = await user.started("8")
    watching = asyncio.create_task(user.ran("watch", name))
    turn = {"at": "2026-11-28T12:00:00Z", "phase": "Canary", "weight": 10, "sentence": "step 1 of 2"}
    await user.says(name, phase="Canary", weight=10, turns=[turn])
    last = {"at": "2026-11-28T12:05:00Z", "phase": phase, "weight": 0, "sentence": "so it was decided"}
    await user.says(name, phase=phase, weight=0, sentence="so it was decided", turns=[turn, last])
    done = await watching
    assert done.exit_code == code, done.output
    assert "step 1 of 2" in done.output
    assert "so it was decided" in done.output


async def test_looking_at_releases(user: User) -> None:
    assert "begin one: switchboard canary start" in (await user.ran("status")).output
    name = await user.started("8")
    await user.says(
        name,
        phase="Canary",
        weight=10,
        step=1,
        progress="1/2",
        model="chat-intent",
        championVersion=7,
        sentence="step 1 of 2: 10 % of the requests",
        verdict="Continue",
        compared=[COMPARED],
    )
    table = (await user.ran("status")).output
    assert table.splitlines()[0].split() == [
        *("NAME", "SERVER", "CANDIDATE", "PHASE", "STEP", "WEIGHT", "VERDICT", "AGE", "REASON"),
    ]
    one = (await user.ran("status", name)).output
    for words in (
        "chat-intent 7 → 8",
        "10 % of the requests",
        "requests failed",
        "8 % (40 of 500)",
        "Harmful",
    ):
        assert words in one
    document = json.loads((await user.ran("status", name, "-o", "json")).stdout)
    assert (document["name"], document["exitCode"]) == (name, None)
    missing = await user.ran("status", "nobody")
    assert "there is no release nobody" in str(missing.exception)


async def test_orders_by_hand(user: User) -> None:
    nothing = await user.ran("pause")
    assert "none is under way" in str(nothing.exception)
    name = await user.started("8")
    for word, field, value in (
        ("pause", "paused", True),
        ("resume", "paused", False),
        ("promote", "order", "Promote"),
        ("abort", "order", "Abort"),
    ):
        done = await user.ran(word)
        assert (done.exit_code, done.output.split()[0]) == (0, f"modelrelease/{name}"), done.output
        assert (await user.release(name))["spec"][field] == value
    assert (await user.ran("approve")).exit_code == 0
    assert (await user.release(name))["metadata"]["annotations"][labels.APPROVED_BY] == ME
    await user.started("9")
    several = await user.ran("abort")
    assert "2 are under way" in str(several.exception)
    assert (await user.ran("abort", name, "--reason", "complaints")).exit_code == 0
    assert (await user.release(name))["spec"]["reason"] == "complaints"


async def test_a_release_is_of_one_thing(user: User) -> None:
    """What has been done can't have been something else: the API server holds it."""
    from switchboard.kube import ApiError

    name = await user.started("8")
    for change in (
        {"version": 9},
        {"server": "voice"},
        {"steps": [{"weight": 50}]},
        {"shadow": {"seconds": 5}},
    ):
        with pytest.raises(ApiError, match="can't be changed"):
            await user.kube.patch(MODEL_RELEASES, name, {"spec": change}, user.namespace)
