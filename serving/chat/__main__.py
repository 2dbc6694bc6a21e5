"""`python -m serving.chat`: one replica of the chat service, on POD_IP:PORT.

What must be set before anything heavy is imported is set here.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import tempfile
from pathlib import Path


def _prepare() -> None:
    # A process that is PID 1 of its container ignores signals that it has no handler for: a replica that is told to
    # stop while it still imports would otherwise live until it is killed.
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    os.environ.setdefault("BENTOML_HOME", str(Path(tempfile.gettempdir()) / "bentoml"))
    os.environ.setdefault("BENTOML_DO_NOT_TRACK", "True")
    # One prediction is too small to share among threads, and each thread of theirs costs memory.
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ.setdefault(name, "1")
    logging.basicConfig(
        level=os.environ.get("LOG_LEVEL", "INFO").upper(),
        format="%(asctime)s %(levelname)s %(name)s %(message)s",
        stream=sys.stderr,
    )


def main() -> int:
    _prepare()
    from switchboard.errors import SwitchboardError

    try:
        from serving.chat.service import SERVICE, replica, settings
    except SwitchboardError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    from serving.chat.server import run

    return run(SERVICE.to_asgi(), replica, settings)


if __name__ == "__main__":
    sys.exit(main())
