"""Programs on gevent's loop: it has one of its own in each thread, so that each gets a process of its own here."""

from __future__ import annotations

import subprocess
import sys
import textwrap


def told(head: str, program: str) -> str:
    """What a program prints that begins with `head`."""
    made = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(head) + textwrap.dedent(program)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert made.returncode == 0, made.stderr
    return made.stdout.strip()
