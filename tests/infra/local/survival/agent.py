"""`python -m tests.infra.local.survival.agent …`: a node agent as a process of its own, with short periods.

As `python -m infra.local.node`, and the address under which it reaches its API server (`--server`, a line that a test
can cut) beside it.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import sys
from urllib.parse import urlsplit

from infra import config
from infra.local.layout import SiteLayout
from infra.local.node.__main__ import only_one, serve
from infra.local.node.agent import Agent
from infra.local.node.context import Settings
from infra.local.node.lifecycle import BackOff
from switchboard import paths

SETTINGS = Settings(
    back_off=BackOff(first_s=0.3, most_s=3.0),
    refresh_s=1.0,
    lease_period_s=1.0,
    disk_check_s=0.5,
    sync_wait_s=2.0,
)


async def run(stack: str, site: SiteLayout, name: str, server: str) -> None:
    agent = Agent(stack, site, site.node(name), SETTINGS)
    credentials = agent.context.kube.credentials
    credentials.server = urlsplit(credentials.server)._replace(netloc=server).geturl()
    await serve(agent, site.run / f"node-{name}.ready")


def main() -> None:
    parser = argparse.ArgumentParser()
    for flag in ("--stack", "--site", "--node", "--server"):
        parser.add_argument(flag, required=True)
    given = parser.parse_args()
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(name)s: %(message)s")
    site = SiteLayout(config.load(given.stack).site(given.site), paths.state_dir(given.stack))
    with only_one(site.node(given.node)):
        (site.run / f"node-{given.node}.ready").unlink(missing_ok=True)
        asyncio.run(run(given.stack, site, given.node, given.server))


if __name__ == "__main__":
    main()
