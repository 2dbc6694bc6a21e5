"""`python -m infra.local.proxy --stack STACK --site SITE`: the Service proxy of one embedded site."""

from __future__ import annotations

import argparse
import asyncio
import logging
import sys

from infra import config
from infra.local.layout import SiteLayout
from infra.local.proxy.daemon import Proxy, on_signals
from infra.local.toolchain import locate
from switchboard import paths
from switchboard.errors import SwitchboardError


async def _run(stack: str, site: str) -> None:
    layout = SiteLayout(config.load(stack).site(site), paths.state_dir(stack))
    stop = asyncio.Event()
    on_signals(stop.set)
    await Proxy(layout, locate(["envoy"]).path("envoy")).run(stop)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m infra.local.proxy", description=__doc__)
    parser.add_argument("--stack", required=True)
    parser.add_argument("--site", required=True)
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    try:
        asyncio.run(_run(arguments.stack, arguments.site))
    except SwitchboardError as error:
        logging.getLogger("infra.local.proxy").error("%s", error)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
