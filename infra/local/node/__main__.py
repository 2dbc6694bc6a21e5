"""`python -m infra.local.node --stack STACK --site SITE --node NODE [--stop-pods]`: one node's agent.

SIGTERM and SIGINT end the agent and leave its pods running. With `--stop-pods` (when no agent of this node runs) the
pods are stopped instead. While it works, `run/node-<name>.ready` is there.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import ctypes
import fcntl
import gc
import logging
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

from infra import config
from infra.local.layout import NodeLayout, SiteLayout
from infra.local.node.agent import Agent
from infra.local.node.stop import stop_pods
from switchboard import paths
from switchboard.errors import SwitchboardError

log = logging.getLogger("infra.local.node")


@contextlib.contextmanager
def only_one(node: NodeLayout) -> Iterator[None]:
    """Hold the node's lock: two agents of one node would start everything twice.

    Raises:
        SwitchboardError: another agent of this node runs.
    """
    node.directory.mkdir(parents=True, exist_ok=True)
    with (node.directory / "agent.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise SwitchboardError(f"an agent of node {node.name} runs already") from None
        yield


def _touch(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()


async def serve(agent: Agent, ready: Path) -> None:
    """Run the agent until it is told to end."""
    task = asyncio.create_task(agent.run())
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, task.cancel)

    async def say_ready() -> None:
        await agent.ready.wait()
        await agent.registration.registered.wait()
        gc.collect()
        gc.freeze()  # what is loaded by now stays: no need to look through it again
        _touch(ready)
        log.info("node %s is ready", agent.node.name)

    saying = asyncio.create_task(say_ready())
    try:
        await task
    except asyncio.CancelledError:
        log.info("node %s: the agent ends, its pods go on", agent.node.name)
    finally:
        saying.cancel()


def _stay_small() -> None:
    """One arena for all threads: an agent has little to allocate, and there is one for each node of the cloud."""
    m_arena_max = -8
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).mallopt(m_arena_max, 1)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m infra.local.node", description="A node agent.")
    parser.add_argument("--stack", required=True)
    parser.add_argument("--site", required=True)
    parser.add_argument("--node", required=True)
    parser.add_argument("--stop-pods", action="store_true", help="stop the node's pods; no agent may run")
    given = parser.parse_args(arguments)
    logging.basicConfig(
        level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    try:
        site = SiteLayout(config.load(given.stack).site(given.site), paths.state_dir(given.stack))
        if given.node not in {node.name for node in site.nodes}:
            names = ", ".join(node.name for node in site.nodes)
            raise SwitchboardError(f"site {given.site} has no node {given.node!r}: it has {names}")
        node = site.node(given.node)
        ready = site.run / f"node-{node.name}.ready"
        with only_one(node):
            ready.unlink(missing_ok=True)
            try:
                if given.stop_pods:
                    asyncio.run(stop_pods(node))
                else:
                    _stay_small()
                    asyncio.run(serve(Agent(given.stack, site, node), ready))
            finally:
                ready.unlink(missing_ok=True)
    except SwitchboardError as error:
        print(error, file=sys.stderr)
        return 1
    except OSError as error:
        log.error("node %s: %s", given.node, error)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
