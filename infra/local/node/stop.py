"""Stopping all pods of a node whose agent is not running: what `make down` does before the site goes.

Every pod gets its graceful end (preStop, SIGTERM, SIGKILL), all at once and bounded; then nothing of them is left on
the machine but their folders. The next start of the agent starts them again, with the same addresses and volumes.
"""

from __future__ import annotations

import asyncio
import logging
from datetime import UTC, datetime

from infra.local.layout import NodeLayout
from infra.local.node import podspec
from infra.local.node.agent import runtime_dir
from infra.local.node.checkpoint import Checkpoint
from infra.local.node.container_spec import parse_run_id
from infra.local.node.ending import end_container
from infra.local.node.pod_volumes import unmount_memory
from infra.local.node.records import Ended, PodRecord
from infra.local.runtime import ContainerState, NoSuchContainer, Runtime, cleanup
from switchboard.kube import Object

log = logging.getLogger(__name__)

BOUND_S = 10.0


async def stop_pods(node: NodeLayout, bound_s: float = BOUND_S) -> None:
    """Stop what runs, and take away mounts and control groups."""
    checkpoint = Checkpoint(node.pods_dir)
    checkpoint.make()
    loaded = checkpoint.load()
    known = {podspec.uid(pod): (pod, record) for pod, record in loaded.pods}
    for uid, error in loaded.unread.items():
        log.error("pod %s can't be read: it is ended without the time that it would have: %s", uid, error)
    runtime = Runtime(runtime_dir(node))
    try:
        states = await runtime.adopt()
        await asyncio.gather(
            *(_stop(runtime, pod, record, states, bound_s) for pod, record in known.values())
        )
    finally:
        await runtime.close()
    await cleanup(runtime_dir(node))
    for uid, (_, record) in known.items():
        record.forget_sandbox()
        checkpoint.pod(uid).save_record(record)
        unmount_memory(checkpoint.pod(uid))
    for uid in loaded.unread:
        unmount_memory(checkpoint.pod(uid))


async def _stop(
    runtime: Runtime, pod: Object, record: PodRecord, states: list[ContainerState], bound_s: float
) -> None:
    """Main containers first, sidecars after them, as at a pod's end."""
    deadline = asyncio.get_running_loop().time() + min(bound_s, podspec.grace_s(pod))
    own = [state for state in states if parse_run_id(state.id)[0] == podspec.uid(pod)]
    mains = [s for s in own if record.containers[parse_run_id(s.id)[1]].kind != "sidecar"]
    for group in (mains, [s for s in own if s not in mains]):
        await asyncio.gather(*(_stop_one(runtime, pod, record, state, deadline) for state in group))


async def _stop_one(
    runtime: Runtime, pod: Object, record: PodRecord, state: ContainerState, deadline: float
) -> None:
    name, attempt = parse_run_id(state.id)[1:]
    container, one = record.containers[name], podspec.container(pod, name)
    if one is None or (container.phase == "exited" and container.run_id == state.id):
        return
    ended = asyncio.ensure_future(runtime.wait(state.id))
    try:
        if state.exit is None:
            await end_container(
                runtime,
                state.id,
                one,
                record.ip or "",
                ended,
                lambda: deadline,
                lambda text: log.warning("pod %s: preStop of %s: %s", podspec.label(pod), name, text),
            )
        exited = await ended
    except NoSuchContainer:
        await asyncio.gather(ended, return_exceptions=True)
        return  # its removal was under way when the agent ended: the next one makes it anew
    container.attempt, container.run_id = attempt, state.id
    container.phase, container.problem, container.delay_s = "exited", None, 0.0
    container.started = container.ready = False
    container.ended = Ended.of(state.id, exited)
    log.info("pod %s: container %s stopped at %s", podspec.label(pod), name, datetime.now(UTC))
