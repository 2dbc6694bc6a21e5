"""Importing only the protocol from the `pulumi` package.

`import pulumi` loads the whole SDK, of which the plugin needs the generated messages: leaving the rest out halves
the plugin's start, which every `pulumi up` waits for, once for each provider. Only for the plugin's own process.
"""

from __future__ import annotations

import importlib.util
import sys
import types
from pathlib import Path


def install() -> None:
    """Make `pulumi.runtime.proto` importable without running `pulumi/__init__.py`."""
    if "pulumi" in sys.modules:
        return
    found = importlib.util.find_spec("pulumi")
    if found is None or found.origin is None:
        return
    base = Path(found.origin).parent
    for name, folder in (
        ("pulumi", base),
        ("pulumi.runtime", base / "runtime"),
        ("pulumi.runtime.proto", base / "runtime" / "proto"),
    ):
        module = types.ModuleType(name)
        module.__path__ = [str(folder)]
        sys.modules[name] = module
