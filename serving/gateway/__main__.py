"""`python -m serving.gateway init|run`: first files for Envoy, and the agent that keeps them right."""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import signal
import sys

from serving.gateway import agent
from serving.gateway.settings import Settings
from switchboard.errors import SwitchboardError
from switchboard.kube import Credentials


async def _run(settings: Settings) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    await agent.run(settings, Credentials.of_process(os.environ), stop)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m serving.gateway", description=__doc__)
    parser.add_argument("command", choices=("init", "run"))
    command = parser.parse_args().command
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    try:
        settings = Settings.from_environ(os.environ)
        if command == "init":
            agent.init(settings)
        else:
            asyncio.run(_run(settings))
    except SwitchboardError as error:
        logging.getLogger("serving.gateway").error("%s", error)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
