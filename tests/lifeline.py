"""Takes down the clouds of a test run that ended before it could: `python -m tests.lifeline FOLDER`.

It waits for the end of its input, which the kernel brings about however the run ends. With `DONE` before it the run has
taken down its own, and there is nothing to do. It needs nothing but the standard library until then: each run has one.
"""

from __future__ import annotations

import io
import sys
from pathlib import Path

DONE = b"done"


def main(folder: Path, said: bytes) -> None:
    if said == DONE:
        return
    from infra.local import teardown
    from switchboard.progress import Progress

    for run in sorted(folder.glob("**/sites/*/run")):
        site = run.parent
        with Progress(io.StringIO()).step("stop") as step:
            teardown.down(site, site.parent.parent.name, step)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.stdin.buffer.read())
