"""`python -m operators`: the operator, in a pod of each serving site."""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import signal
import sys

from operators import app
from operators.settings import Settings
from switchboard.errors import SwitchboardError
from switchboard.kube import Credentials


async def _run(settings: Settings) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    await app.run(settings, Credentials.of_process(os.environ), stop)


def main() -> int:
    argparse.ArgumentParser(prog="python -m operators", description=__doc__).parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    logging.getLogger("kopf.objects").setLevel(logging.WARNING)  # a line for each event of a ModelServer
    try:
        asyncio.run(_run(Settings.from_environ(os.environ)))
    except SwitchboardError as error:
        logging.getLogger("operators").error("%s", error)
        return 1
    except OSError as error:
        logging.getLogger("operators").error("its address can't be listened at: %s", error)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
