"""Importing only what a run needs: of the `pulumi` package the protocol, and the HTTP client when it is used.

`import pulumi` loads the whole SDK, of which the plugin needs the generated messages; aiohttp takes as long as all the
rest, and a run in which nothing changes asks no API server. Every `pulumi up` waits for the plugin's start, once for
each provider. Only for the plugin's own process.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
import types
from pathlib import Path
from typing import Any


def install() -> None:
    """Make `pulumi.runtime.proto` importable without running `pulumi/__init__.py`, and `aiohttp` load at first use."""
    sys.modules.setdefault("aiohttp", _AtFirstUse("aiohttp"))
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


class _AtFirstUse(types.ModuleType):
    """Stands for a module until one of its attributes is asked for.

    (`importlib.util.LazyLoader` does the same, but with it the very `import` statement asks for one.)
    """

    def __getattr__(self, name: str) -> Any:
        if sys.modules.get(self.__name__) is self:
            del sys.modules[self.__name__]
        module = importlib.import_module(self.__name__)
        self.__dict__.update(module.__dict__)
        return getattr(module, name)
