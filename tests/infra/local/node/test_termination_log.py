"""Termination messages, at the default place and elsewhere, by the real API server."""

from __future__ import annotations

import pytest

from tests.infra.local.node.conftest import Space, main

NEVER = {"restartPolicy": "Never"}
LONG = "head -c 5000 /dev/zero | tr '\\0' a > /dev/termination-log; printf end >> /dev/termination-log"


@pytest.mark.parametrize(
    ("script", "more", "message"),
    [
        ("printf why > /dev/termination-log; exit 1", {}, "why"),
        ("printf fine > /dev/termination-log", {}, "fine"),
        ("printf there > /tmp/message; exit 1", {"terminationMessagePath": "/tmp/message"}, "there"),
        (LONG, {}, "a" * 4093 + "end"),
        (
            "echo logged; printf written > /dev/termination-log; exit 1",
            {"terminationMessagePolicy": "FallbackToLogsOnError"},
            "written",
        ),
        ("echo logged; exit 1", {"terminationMessagePolicy": "FallbackToLogsOnError"}, "logged\n"),
        ("echo logged", {"terminationMessagePolicy": "FallbackToLogsOnError"}, None),
        ("echo logged; exit 1", {}, None),
    ],
    ids=[
        "default",
        "success",
        "own path",
        "the end of a long one",
        "before the log",
        "the log",
        "no failure",
        "none",
    ],
)
async def test_messages(space: Space, script: str, more: dict[str, str], message: str | None) -> None:
    user = {"securityContext": {"runAsUser": 4321, "readOnlyRootFilesystem": True}}
    await space.run("p", "sh", "-c", script, pod=NEVER, **user, **more)
    ended = await space.until("p", lambda pod: main(pod)["state"]["terminated"])
    assert main(ended)["state"]["terminated"].get("message") == message


async def test_a_second_run_begins_with_an_empty_one(space: Space) -> None:
    script = "test -s /dev/termination-log && exit 9; printf x > /dev/termination-log; exit 1"
    await space.run("p", "sh", "-c", script)
    pod = await space.until("p", lambda pod: main(pod)["restartCount"] >= 1)
    assert main(pod)["lastState"]["terminated"]["exitCode"] == 1
