"""What the process that starts a load test and the process that runs it agree on (imports nothing, so both may)."""

from __future__ import annotations

from typing import Final

TIMEOUT_S: Final = 5.0
"""The longest that a customer waits for an answer."""

RESULT_VARIABLE: Final = "SWITCHBOARD_LOADTEST_RESULT"
"""Environment variable: the file that the figures go to."""

PER_USER_VARIABLE: Final = "SWITCHBOARD_LOADTEST_PER_USER_RPS"
"""Environment variable: how many questions a second each user asks."""

SECONDS_VARIABLE: Final = "SWITCHBOARD_LOADTEST_SECONDS"
"""Environment variable: the file that each second's counts go to, if anyone wants them."""

REQUESTS_VARIABLE: Final = "SWITCHBOARD_LOADTEST_REQUESTS"
"""Environment variable: the file that each request goes to, if anyone wants it."""
