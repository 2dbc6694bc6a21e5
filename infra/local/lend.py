"""`python -m infra.local.lend COMMAND…`: a control plane of its own for a command, and for no longer than it runs.

The command finds it by KUBECONFIG, the site's Prometheus program by SWITCHBOARD_PROMETHEUS, and may put files into
SWITCHBOARD_FOLDER, which goes with it. There are no nodes: who needs some simulates them (`operators.trials`).
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import yaml

from infra import config
from infra.local import cloud, controlplane, site, teardown, toolchain
from infra.local.layout import SiteLayout
from infra.local.trials_stack import SITE, stack_document
from switchboard import paths
from switchboard.errors import SwitchboardError
from switchboard.progress import Progress

STACK = "lent"
CONTROLLERS = (
    # A simulated node that is late tells of a busy machine, not of a lost node, all of whose pods would be made anew.
    "--node-monitor-grace-period=1h",
    # Counts for budgets, which nobody here asks for: one write in ten, where there are thousands of pods.
    "--controllers=-disruption-controller",
)

STOP_S = 30.0
"""The command has so long to end what it has started."""


def _run(command: list[str], env: dict[str, str]) -> int:
    child = subprocess.Popen(command, env=env)
    try:
        return child.wait()
    finally:
        if child.poll() is None:
            child.terminate()
            try:
                child.wait(STOP_S)
            except subprocess.TimeoutExpired:
                child.kill()


def main() -> int:
    command = sys.argv[1:]
    if not command or command[0] in ("-h", "--help"):
        print(__doc__)
        return 0 if command else 2
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # as at Ctrl-C: it is taken down first
    progress = Progress(sys.stderr)
    root = Path(tempfile.mkdtemp(prefix="switchboard-lent-"))
    file = root / f"Pulumi.{STACK}.yaml"
    file.write_text(yaml.safe_dump(stack_document()))
    os.environ |= {"SWITCHBOARD_STACK_FILE": str(file), "SWITCHBOARD_STATE": str(root / "state")}
    layout = SiteLayout(config.load(STACK).site(SITE), paths.state_dir(STACK))
    try:
        embedded = site.EmbeddedSite(STACK, layout)
        programs = site.prepare(embedded, cloud.tools(), nodes=False, proxy=False)
        programs = controlplane.with_options(programs, controlplane.CONTROLLER_MANAGER, *CONTROLLERS)
        asyncio.run(site.run(embedded, programs, progress, nodes=False, proxy=False))
        folder = root / "folder"
        folder.mkdir()
        given = {
            "KUBECONFIG": str(layout.kubeconfig),
            "SWITCHBOARD_PROMETHEUS": str(toolchain.locate(["prometheus"]).path("prometheus")),
            "SWITCHBOARD_FOLDER": str(folder),
        }
        return _run(command, {**os.environ, **given})
    except SwitchboardError as error:
        print(error, file=sys.stderr)
        return 1
    finally:
        with progress.step("the control plane ends") as step:
            teardown.down(layout.directory, STACK, step)
        shutil.rmtree(root, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
