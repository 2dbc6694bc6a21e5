"""The node agents of the behaviours' cluster, in one process: `python -m tests.….behaviours.agents STACK SITE`.

Each is a whole agent with a credential, a folder and an address of its own; they share a process to spare memory,
and one that is not the tests', whose loop stands still between two tests. At the end of its input the process stops
all pods and ends, so that it never outlives the tests.
"""

from __future__ import annotations

import asyncio
import logging
import sys

from infra import config
from infra.local.layout import SiteLayout
from infra.local.node.agent import Agent
from infra.local.node.context import Settings
from infra.local.node.lifecycle import BackOff
from infra.local.node.stop import stop_pods
from switchboard import paths

SETTINGS = Settings(
    back_off=BackOff(first_s=0.3, most_s=3.0),
    refresh_s=0.5,
    bind_check_s=5.0,
)
READY = "ready"


class Agents:
    """The site's agents by the names of their nodes."""

    def __init__(self, stack: str, layout: SiteLayout) -> None:
        self._stack = stack
        self._layout = layout
        self._running: dict[str, asyncio.Task[None]] = {}

    async def up(self, name: str) -> None:
        agent = Agent(self._stack, self._layout, self._layout.node(name), SETTINGS)
        self._running[name] = asyncio.create_task(agent.run())
        await agent.ready.wait()
        await agent.registration.registered.wait()

    async def down(self, name: str, bound_s: float) -> None:
        """The agent, and then the node's pods, as `make down` does it."""
        self._running[name].cancel()
        await asyncio.gather(self._running[name], return_exceptions=True)
        await stop_pods(self._layout.node(name), bound_s)

    async def serve(self) -> None:
        """A line names a node that is to go down and come up again."""
        names = [node.name for node in self._layout.nodes]
        try:
            await asyncio.gather(*map(self.up, names))
            print(READY, flush=True)
            async for line in await _input():
                await self.down(line.decode().strip(), bound_s=10)
                await self.up(line.decode().strip())
                print(READY, flush=True)
        finally:
            await asyncio.gather(*(self.down(name, bound_s=0.5) for name in names))


async def _input() -> asyncio.StreamReader:
    reader = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    return reader


async def main(stack: str, site: str) -> None:
    await Agents(stack, SiteLayout(config.load(stack).site(site), paths.state_dir(stack))).serve()


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(name)s: %(message)s")
    asyncio.run(main(*sys.argv[1:]))
