"""Real chat replicas as both arms of a release: what the gateway sends them, and what they say of it fits together."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from switchboard import labels
from tests import pods
from tests.pods import until
from tests.serving.chat.replicas import ReplicaProcess, replica
from tests.serving.conftest import Champion
from tests.serving.gateway.test_canary import healthy
from tests.serving.gateway.world import World

ARMS = ("chat", "chat_candidate")


@pytest.fixture
def replicas(champion: Champion, tmp_path: Path) -> Iterator[dict[str, ReplicaProcess]]:
    with ExitStack() as stack:
        yield {
            name: stack.enter_context(
                replica(tmp_path / f"volume-{name}", MAX_CONCURRENCY="64", **champion.env)
            )
            for name in ARMS
        }


async def test_answers_of_both_arms_join_by_their_requests(
    gateway: World, replicas: dict[str, ReplicaProcess]
) -> None:
    await asyncio.gather(*(asyncio.to_thread(one.wait_ready) for one in replicas.values()))
    for name, one in replicas.items():
        marks = {labels.MODEL_SERVER: name, labels.TIER: "core"}
        pod = name.replace("_", "-")
        await pods.pod(gateway.kube, gateway.space, pod, ip=one.host, labels=marks, ports={"http": 8080})
    await healthy(gateway, "chat", 1)
    await healthy(gateway, "chat_candidate@core", 1)
    await gateway.release(mirror=100)
    await gateway.routed(lambda table: "request_mirror_policies" in table)
    key = {"Idempotency-Key": "turn-1"}
    questions = ["I lost my card yesterday", "where is my transfer", "我的银行卡丢了", "hello"] * 5

    async def ask(number: int, text: str, request_id: str = "r") -> tuple[str, str]:
        headers = {"X-Request-Id": f"{request_id}-{number}", **key}
        status, _, said = await gateway.ask(f"s-{number}", json={"text": text}, headers=headers)
        assert status == 200
        return f"{request_id}-{number}", said["x-answer-digest"]

    given = dict(await asyncio.gather(*(ask(number, text) for number, text in enumerate(questions))))

    async def told(one: ReplicaProcess, shadow: bool) -> dict[str, str]:
        found: dict[str, Any] = (await asyncio.to_thread(one.call, "/answers")).json()
        assert all(row[6] == shadow for row in found["answers"])
        return {row[2]: row[3] for row in found["answers"]}

    assert await told(replicas["chat"], False) == given

    async def all_mirrored() -> bool:
        return await told(replicas["chat_candidate"], True) == given

    await until(all_mirrored, what="the same answers from the candidate")
    lost = 'switchboard_requests_total{{code="200",intent="card_lost",traffic="{}"}}'
    counts = {
        (name, traffic): await asyncio.to_thread(one.metric, lost.format(traffic))
        for name, one in replicas.items()
        for traffic in ("customer", "shadow")
    }
    assert counts["chat", "customer"] == counts["chat_candidate", "shadow"] >= 10
    assert counts["chat", "shadow"] == counts["chat_candidate", "customer"] == 0

    # The same turns by customers at the candidate: none of them is a shadow's.
    await gateway.release(weight=100)
    again = dict(await asyncio.gather(*(ask(number, text, "a") for number, text in enumerate(questions))))
    assert list(again.values()) == list(given.values())
    assert await asyncio.to_thread(replicas["chat_candidate"].metric, "switchboard_replays_total") == 0
