"""Stopping a node's pods, where its agent was ended in the middle of something."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from infra.local.node import stop
from infra.local.node.container_spec import run_id
from infra.local.node.records import PodRecord
from infra.local.runtime import ContainerState, Runtime
from infra.local.runtime.spec import ExitStatus

NOW = datetime(2026, 3, 3, 12, tzinfo=UTC)
POD: dict[str, Any] = {
    "metadata": {"name": "p", "namespace": "n", "uid": "86709919-af61-4d15-9f03-eb8939d39a71"},
    "spec": {"containers": [{"name": "main", "image": "busybox"}]},
}


@pytest.mark.parametrize(
    "exited", [None, ExitStatus(137, 9, False, NOW, NOW, "its shim was lost")], ids=["runs", "lost"]
)
async def test_a_container_whose_removal_was_under_way_hinders_nobody(
    tmp_path: Path, exited: ExitStatus | None
) -> None:
    record = PodRecord.new(POD, NOW)
    before = record.model_copy(deep=True)
    runtime = Runtime(tmp_path)
    id = run_id(POD["metadata"]["uid"], "main", 3)
    state = ContainerState(id, "running" if exited is None else "exited", None, None, exited)
    try:
        await stop._stop_one(runtime, POD, record, state, asyncio.get_running_loop().time() + 5)
    finally:
        await runtime.close()
    assert record == before, "the next agent makes it anew"
