"""postStart hooks that last: whom they hold up, and whom they don't."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from infra.local.node import ending
from infra.local.node.ending import HookFailed, run_hook
from infra.local.runtime import Runtime
from switchboard.kube import PODS, Object
from tests.infra.local.node.conftest import SETTINGS, WAIT_S, RunningNode, Space, is_ready, main
from tests.infra.local.node.pods import container

FOREVER = ("sh", "-c", "trap 'exit 0' TERM; while :; do sleep 0.1; done")
AN_HOUR: Object = {"sleep": {"seconds": 3600}}
COMMAND: Object = {"exec": {"command": ["sleep", "3600"]}}
GRACE_S = 3601
"""The API server takes no longer sleep than that."""


@pytest.fixture
async def silent() -> AsyncIterator[int]:
    """The port of a server that takes every connection and never says a word."""
    closing = asyncio.Event()

    async def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await closing.wait()
        writer.close()

    async with await asyncio.start_server(take, "127.0.0.1", 0) as server:
        yield server.sockets[0].getsockname()[1]
        closing.set()


def http(port: int) -> Object:
    return {"httpGet": {"host": "127.0.0.1", "port": port, "path": "/"}}


async def test_hooks_that_last_hold_up_no_other_pod_s_start(space: Space, silent: int) -> None:
    """More of them than containers may be started at a time."""
    hooks = [AN_HOUR, COMMAND, http(silent)] * 2
    spec = {"terminationGracePeriodSeconds": GRACE_S}
    assert len(hooks) > SETTINGS.concurrent_starts
    for number, hook in enumerate(hooks):
        await space.run(f"hook-{number}", *FOREVER, lifecycle={"postStart": hook}, pod=spec)
    for number in range(len(hooks)):
        began = await space.until(f"hook-{number}", lambda p: main(p)["state"]["running"])
        assert not main(began)["ready"], "it is ready after its hook"
    await space.run("ordinary", *FOREVER)
    await space.until("ordinary", is_ready)
    for number in range(len(hooks)):
        assert not is_ready(await space.get(f"hook-{number}"))
        await space.kube.delete(PODS, f"hook-{number}", space.name)
    for number in range(len(hooks)):
        await space.gone(f"hook-{number}")


@pytest.mark.parametrize("kind", ["sleep", "httpGet", "exec"])
@pytest.mark.parametrize("policy", ["Never", "OnFailure"])
async def test_a_container_that_ends_in_its_hook_is_seen_to_end(
    space: Space, silent: int, kind: str, policy: str
) -> None:
    """And its next run, which may start, has its hook again."""
    hook = {"sleep": AN_HOUR, "httpGet": http(silent), "exec": COMMAND}[kind]
    script = "sleep 0.5; test -e /state/again && exec sleep inf; touch /state/again; exit 3"
    await space.run(
        "ends",
        *("sh", "-c", script),
        pod={
            "restartPolicy": policy,
            "terminationGracePeriodSeconds": GRACE_S,
            "volumes": [{"name": "state", "emptyDir": {}}],
        },
        volumeMounts=[{"name": "state", "mountPath": "/state"}],
        lifecycle={"postStart": hook},
    )
    if policy == "Never":
        ended = await space.until("ends", lambda p: p["status"]["phase"] == "Failed")
        assert main(ended)["state"]["terminated"]["exitCode"] == 3
    else:
        again = await space.until(
            "ends", lambda p: main(p)["restartCount"] == 1 and main(p)["state"]["running"]
        )
        assert main(again)["lastState"]["terminated"]["exitCode"] == 3
        assert not main(again)["ready"]
    await space.kube.delete(PODS, "ends", space.name, grace_period_s=1)
    await space.gone("ends")


async def test_an_answer_that_never_comes(
    node: RunningNode, silent: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ending, "HTTP_HOOK_S", 0.2)
    runtime: Runtime = node.agent.context.runtime
    async with asyncio.timeout(WAIT_S):
        with pytest.raises(HookFailed, match=r"not done within 0\.2 s"):
            await run_hook(runtime, "u_c_0", container(), http(silent), "127.0.0.1", None)
