"""Which gateway a command asks: the environment's, where none is named."""

from __future__ import annotations

from typing import Final

from switchboard.errors import SwitchboardError

GATEWAY_VARIABLE: Final = "SWITCHBOARD_GATEWAY_URL"
"""Environment variable: the address of a site's gateway (`switchboard env` says it)."""
EDGES_VARIABLE: Final = "SWITCHBOARD_EDGE_URLS"
"""Environment variable: the edges' addresses, as `region=URL`, with spaces between."""


def named(url: str | None, option: str = "--url") -> str:
    """The address that `option` or the environment gave.

    Raises:
        SwitchboardError: neither did.
    """
    if url:
        return url
    raise SwitchboardError(
        f"which gateway? neither {option} nor ${GATEWAY_VARIABLE} is given",
        'of the local cloud: eval "$(switchboard env)"; `switchboard status` shows the addresses',
    )
