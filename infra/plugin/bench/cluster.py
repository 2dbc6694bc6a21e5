"""A control plane of the benchmark's own, without nodes, gone when it is over."""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from infra import config
from infra.local import cloud, site, teardown
from infra.local.layout import SiteLayout
from switchboard.paths import state_dir
from switchboard.progress import Progress

_STACK = "bench"


@contextmanager
def control_plane(progress: Progress) -> Iterator[Path]:
    """The kubeconfig of a fresh one."""
    with tempfile.TemporaryDirectory(prefix="switchboard-bench-") as folder:
        os.environ["SWITCHBOARD_STATE"] = str(Path(folder) / "state")
        layout = SiteLayout(_site(), state_dir(_STACK))
        embedded = site.EmbeddedSite(_STACK, layout)
        try:
            asyncio.run(site.up(embedded, cloud.tools(), progress, nodes=False, proxy=False))
            yield layout.kubeconfig
        finally:
            with progress.step("stop the control plane") as step:
                teardown.down(layout.directory, _STACK, step)


def _site() -> config.Site:
    """A site that no stack has, on loopback networks that neither the stacks nor the tests use."""
    nodes = [{"name": "node", "zone": "a"}]
    embedded = {"network": "127.240.0.0/16", "services": "127.241.0.0/16", "nodes": nodes}
    return config.Site.model_validate(
        {"name": "bench", "role": "public", "region": "cn-shanghai", "embedded": embedded}
    )
