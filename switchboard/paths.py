"""Where things are: the checkout, a stack's state and the cache of built tools.

State belongs to one checkout and one stack and may be deleted (`make clean`); the cache belongs to the user,
is keyed by version and is shared by all checkouts.
"""

from __future__ import annotations

import os
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
"""The checkout that this code runs from."""

DEFAULT_STACK = "local"


def state_root() -> Path:
    """The folder of all stacks' state: `$SWITCHBOARD_STATE`, else `.switchboard` in the checkout."""
    return Path(os.environ.get("SWITCHBOARD_STATE") or ROOT / ".switchboard").absolute()


def state_dir(stack: str = DEFAULT_STACK) -> Path:
    """The folder of one stack's state (not created here)."""
    return state_root() / stack


def cache_dir() -> Path:
    """The folder of built tools: `$SWITCHBOARD_CACHE`, else `switchboard` in the user's cache folder."""
    if own := os.environ.get("SWITCHBOARD_CACHE"):
        return Path(own).absolute()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache").absolute() / "switchboard"
