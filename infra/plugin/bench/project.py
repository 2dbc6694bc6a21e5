"""A Pulumi project of the benchmark's own, with its own home, backend and plugin."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import time
from pathlib import Path

from infra.local import toolchain
from infra.plugin.install import install_in_home
from infra.plugin.servicer import VERSION
from switchboard.errors import SwitchboardError
from switchboard.kube import Object
from switchboard.paths import ROOT

PROGRAM = Path(__file__).with_name("program.py")


class Project:
    """A project in `folder` (made); `echo`: with the plugin that does nothing.

    Without `checkpoints` Pulumi writes its state file once, at the end: no way to work, since a run that is killed
    forgets what it made, but it shows how much of the time is the state file's.
    """

    def __init__(self, folder: Path, *, echo: bool, checkpoints: bool = True) -> None:
        tools = toolchain.locate(["pulumi", "pulumi-language-python"])
        self.folder = folder
        backend, home = folder / "backend", folder / "home"
        backend.mkdir(parents=True)
        (folder / "__main__.py").write_text(PROGRAM.read_text())
        runtime = {"name": "python", "options": {"virtualenv": sys.prefix}}
        (folder / "Pulumi.yaml").write_text(json.dumps({"name": "bench", "runtime": runtime}))
        launcher = install_in_home(home, VERSION)
        if echo:
            launcher.write_text(_echo_launcher())
        self._pulumi = str(tools.path("pulumi"))
        self._environ = {
            **os.environ,
            "PATH": os.pathsep.join([*map(str, tools.bin_dirs), os.environ["PATH"]]),
            "PULUMI_HOME": str(home),
            "PULUMI_BACKEND_URL": backend.as_uri(),
            "PULUMI_CONFIG_PASSPHRASE": "bench",
            "PULUMI_SKIP_UPDATE_CHECK": "true",
            "PULUMI_DISABLE_AUTOMATIC_PLUGIN_ACQUISITION": "true",
            "TMPDIR": str(folder),
        }
        if not checkpoints:
            self._environ |= {"PULUMI_EXPERIMENTAL": "true", "PULUMI_SKIP_CHECKPOINTS": "true"}
        self.run("stack", "init", "b")

    def want(self, kubeconfig: Path, objects: list[Object]) -> None:
        text = json.dumps({"kubeconfig": str(kubeconfig), "objects": objects})
        (self.folder / "objects.json").write_text(text)

    def up(self, *options: str) -> float:
        """`pulumi up`; the wall time in seconds."""
        started_s = time.monotonic()
        self.run("up", "--yes", "--skip-preview", "--suppress-outputs", "--stack", "b", *options)
        return time.monotonic() - started_s

    def run(self, *arguments: str) -> str:
        done = subprocess.run(
            [self._pulumi, *arguments, "--non-interactive", "--color", "never"],
            cwd=self.folder,
            env=self._environ,
            capture_output=True,
            text=True,
        )
        if done.returncode != 0:
            raise SwitchboardError(f"`pulumi {arguments[0]}` failed: {(done.stdout + done.stderr)[-1500:]}")
        return done.stdout


def _echo_launcher() -> str:
    root, python = shlex.quote(str(ROOT)), shlex.quote(sys.executable)
    return f'#!/bin/sh\nPYTHONPATH={root} PYTHONSAFEPATH=1 exec {python} -m infra.plugin.bench.echo "$@"\n'
