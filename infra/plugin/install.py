"""Putting the stand-in where Pulumi finds plugins: a launcher on the PATH, or among its installed plugins.

On the PATH it goes before an installed official plugin, and Pulumi warns of it at each run; among the installed
plugins (`$PULUMI_HOME/plugins`) it is as quiet as any, and the official one takes its place. The launcher names
the interpreter and this checkout, so it is made anew for each place that it runs in.
"""

from __future__ import annotations

import os
import shlex
import sys
import tempfile
from pathlib import Path

from switchboard.paths import ROOT

NAME = "pulumi-resource-kubernetes"
_MARK = "# Switchboard's stand-in for Pulumi's Kubernetes plugin"


def launcher(python: Path) -> str:
    """The launcher's text. It replaces itself by the interpreter, so that the engine's signals reach the plugin."""
    return (
        "#!/bin/sh\n"
        f"{_MARK}; made by infra/plugin/install.py.\n"
        f'PYTHONPATH={shlex.quote(str(ROOT))} PYTHONSAFEPATH=1 exec {shlex.quote(str(python))} -m infra.plugin "$@"\n'
    )


def is_stand_in(path: Path) -> bool:
    """Whether the plugin at `path` is this one."""
    try:
        return _MARK.encode() in path.read_bytes()[:300]
    except OSError:
        return False


def install_in_home(pulumi_home: Path, version: str, python: Path | None = None) -> Path:
    """Write the launcher as the installed plugin of that version, unless another one is there; returns its path."""
    folder = pulumi_home / "plugins" / f"resource-kubernetes-v{version}"
    if (folder / NAME).exists() and not is_stand_in(folder / NAME):
        return folder / NAME
    return install(folder, python)


def install(bin_dir: Path, python: Path | None = None) -> Path:
    """Write the launcher into `bin_dir` (made where missing), atomically; returns its path."""
    bin_dir.mkdir(parents=True, exist_ok=True)
    target = bin_dir / NAME
    text = launcher(python or Path(sys.executable))
    if target.exists() and target.read_text() == text and os.access(target, os.X_OK):
        return target
    descriptor, temporary = tempfile.mkstemp(dir=bin_dir, prefix=f".{NAME}.")
    with os.fdopen(descriptor, "w") as handle:
        handle.write(text)
    path = Path(temporary)
    path.chmod(0o755)
    return path.replace(target)
