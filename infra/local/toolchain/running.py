"""Runs a build's commands: output to a log, each line to the progress, an end when we end.

A command gets a process group of its own, which is ended when the work is called off, and the kernel ends it when this
process dies, so that nothing goes on building in the background. A failure becomes a SwitchboardError that has the last
lines of output and the place of the log.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from switchboard.errors import SwitchboardError

# prctl(PR_SET_PDEATHSIG, SIGTERM), then the command. A preexec_fn would do the same, but isn't safe beside threads.
_DIES_WITH_US = (
    "import ctypes, os, sys; ctypes.CDLL(None).prctl(1, 15); "
    "os.getppid() == int(sys.argv[1]) or sys.exit(1); os.execvp(sys.argv[2], sys.argv[2:])"
)
_TAIL_LINES = 12
_UNREACHABLE = re.compile(
    r"dial tcp|no such host|i/o timeout|connection (?:refused|reset)|network is unreachable|TLS handshake|"
    r"Temporary failure resolving|Could not (?:resolve|connect)|Failed to fetch",
    re.IGNORECASE,
)


class CalledOff(Exception):
    """The work was called off while this part of it ran."""


@dataclass
class Runner:
    """Starts commands, and can end all that run (`call_off`), from any thread."""

    _off: threading.Event = field(default_factory=threading.Event)
    _running: set[subprocess.Popen[str]] = field(default_factory=set)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def call_off(self) -> None:
        """End what runs; what is started from now on raises CalledOff."""
        self._off.set()
        with self._lock:
            for process in self._running:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGTERM)

    def check(self) -> None:
        """Raise CalledOff if the work was called off."""
        if self._off.is_set():
            raise CalledOff

    def run(
        self,
        command: Sequence[str],
        log: Path,
        what: str,
        line: Callable[[str], None] = lambda _: None,
        cwd: Path | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> list[str]:
        """Run a command and return its standard output, line by line; every line of both outputs goes to `line` too.

        `what` names the work in the error ("building etcd").
        """
        tail: deque[str] = deque(maxlen=_TAIL_LINES)
        with log.open("a", encoding="utf-8") as file, self._start(command, cwd, environment) as process:
            file.write(f"$ {' '.join(command)}\n")
            errors = threading.Thread(target=_drain, args=(process.stderr, tail, file, line))
            errors.start()
            output: list[str] = []
            _drain(process.stdout, output, file, line)
            errors.join()
            code = process.wait()
            with self._lock:
                self._running.discard(process)
        self.check()
        if code != 0:
            raise failure(what, list(tail) or output[-_TAIL_LINES:], log, code)
        return output

    def _start(
        self, command: Sequence[str], cwd: Path | None, environment: Mapping[str, str] | None
    ) -> subprocess.Popen[str]:
        with self._lock:
            self.check()
            process = subprocess.Popen(
                [sys.executable, "-I", "-S", "-c", _DIES_WITH_US, str(os.getpid()), *command],
                cwd=cwd,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                errors="replace",
                start_new_session=True,
            )
            self._running.add(process)
            return process


def failure(what: str, tail: list[str], log: Path, code: int) -> SwitchboardError:
    """The error for a command that failed, with the next step that its last words suggest."""
    lines = "".join(f"\n    {line}" for line in tail)
    reason = "was killed (out of memory?)" if code in (-9, 137) else f"failed (exit code {code})"
    next_step = "correct the cause and run the same command again; what is built already is kept"
    if _UNREACHABLE.search("\n".join(tail)):
        reason = "failed: a package server can't be reached"
        next_step = f"check the network{_proxies()}, then run the same command again"
    elif any("no space left" in line.lower() for line in tail):
        reason, next_step = (
            "failed: the disk is full",
            "make room (`go clean -cache` frees Go's), then run again",
        )
    return SwitchboardError(f"{what} {reason}; all of its output is in {log}:{lines}", next_step)


def _proxies() -> str:
    """The settings that lead to other servers, as a person would want to see them beside such an error."""
    names = ("GOPROXY", "http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY")
    found = [f"{name} is {value}" for name in names if (value := os.environ.get(name))]
    return f" ({', '.join(found)})" if found else ""


def _drain(
    stream: IO[str] | None, tail: deque[str] | list[str], file: IO[str], line: Callable[[str], object]
) -> None:
    for text in stream or ():
        file.write(text)
        if stripped := text.rstrip():
            tail.append(stripped)
            line(stripped)
