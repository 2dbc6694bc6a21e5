"""`python -m infra.local.supervisor --site DIRECTORY`: starts again what of a site dies between two `make up`s.

    died for the first time   started again after 1 s
    dies again and again      after 2 s, 4 s, … up to 30 s; one that lived for a minute begins anew

It goes by what `up` leaves in the site's folder: `supervised.json`, the programs as `up` would start them, and the
record of each. A program without a record was taken down on purpose and stays down. While somebody holds `held` (that
is `up`) it starts nothing; `down` ends it first. It is a process like the others, shown by `status`, and nobody starts
it again but `up`. It doesn't judge: a process that hangs is told by `status` and mended by `up`.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import json
import logging
import os
import select
import signal
import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from infra.local import processes
from infra.local.processes import Program, Record
from switchboard.errors import SwitchboardError

log = logging.getLogger("infra.local.supervisor")

NAME = "supervisor"
FIRST_S, MOST_S, STEADY_S = 1.0, 30.0, 60.0
LOOK_S = 5.0
"""How often the records are looked at when nothing dies: `up` may have added a program."""


def next_delay(delay_s: float, lived_s: float) -> float:
    """How long to wait before a start, after one that waited `delay_s` (0: none yet) and a life of `lived_s`."""
    return FIRST_S if lived_s >= STEADY_S else min(MOST_S, max(FIRST_S, 2 * delay_s))


@dataclass
class Care:
    """What is remembered of one program: since when its process is known, and when it is to be started."""

    process: tuple[int, int] | None = None
    since: float = 0.0
    delay_s: float = 0.0
    start_at: float | None = None

    def lives(self, process: tuple[int, int], now: float) -> None:
        if self.process != process:
            self.process, self.since = process, now
        self.start_at = None

    def is_due(self, now: float) -> bool:
        """Called when it doesn't live: whether to start it now."""
        if self.start_at is None:
            lived_s = now - self.since if self.process is not None else STEADY_S
            self.delay_s = next_delay(self.delay_s, lived_s)
            self.start_at = now + self.delay_s
            return False
        return now >= self.start_at

    def started(self, now: float) -> None:
        """A start was tried; a process that isn't there at the next look died at once."""
        self.process, self.since, self.start_at = (0, 0), now, None


def write(site: Path, programs: Iterable[Program]) -> None:
    """Leave the programs for the supervisor of the site with that folder."""
    listed = [
        asdict(program)
        | {key: str(getattr(program, key)) for key in ("cwd", "log", "record")}
        | {"env": dict(program.env), "restart_signal": int(program.restart_signal)}
        for program in programs
    ]
    temporary = site / ".supervised.json.new"
    temporary.touch(mode=0o600)
    temporary.write_text(json.dumps(listed))
    temporary.replace(site / "supervised.json")


def read(site: Path) -> list[Program]:
    """The programs of a site; none where there is no list, or half of one."""
    try:
        return [
            Program(
                **found
                | {key: Path(found[key]) for key in ("cwd", "log", "record")}
                | {"argv": tuple(found["argv"]), "listens": tuple((h, p) for h, p in found["listens"])}
                | {"restart_signal": signal.Signals(found["restart_signal"])}
            )
            for found in json.loads((site / "supervised.json").read_text())
        ]
    except (OSError, ValueError, KeyError, TypeError):
        return []


@contextlib.contextmanager
def held(site: Path, *, wait: bool = True) -> Iterator[bool]:
    """Nobody else starts processes of the site meanwhile; False where `wait` is false and somebody else is at it."""
    with (site / "supervisor.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            yield False
        else:
            yield True


class Supervisor:
    """Looks after the site whose state is in `site`."""

    def __init__(self, site: Path) -> None:
        self.site = site
        self._cares: dict[str, Care] = {}

    def look(self, now: float) -> tuple[list[Record], float]:
        """Start what is due; who lives (to be watched), and when to look again at the latest."""
        living, again = [], now + LOOK_S
        for program in read(self.site):
            record = processes.read(program.record)
            if record is None:
                self._cares.pop(program.name, None)
                continue
            care = self._cares.setdefault(program.name, Care())
            if processes.alive(record):
                care.lives((record.pid, record.started_ticks), now)
                living.append(record)
            elif care.is_due(now):
                self._start(program, care, now)
                again = min(again, now + 0.2)
            elif care.start_at is not None:
                if care.start_at == now + care.delay_s:
                    log.warning("%s ended; it is started again in %g s", program.name, care.delay_s)
                again = min(again, care.start_at)
        return living, again

    def _start(self, program: Program, care: Care, now: float) -> None:
        with held(self.site, wait=False) as free:
            # Asked again, now that nobody else is at it: taken down, or started by `up` meanwhile.
            if not free or not program.record.exists():
                return
            try:
                if processes.find(program) is None:
                    record = processes.start(program)
                    log.warning("%s is started again (pid %d)", program.name, record.pid)
            except (SwitchboardError, OSError) as error:
                log.error("%s can't be started: %s", program.name, error)
            care.started(now)

    def run(self) -> None:
        """For ever."""
        while True:
            living, again = self.look(time.monotonic())
            _until_one_ends(living, again - time.monotonic())


def _until_one_ends(living: Iterable[Record], timeout_s: float) -> None:
    poll, handles = select.poll(), []
    try:
        for record in living:
            with contextlib.suppress(OSError):
                handles.append(os.pidfd_open(record.pid))
                poll.register(handles[-1], select.POLLIN)
        poll.poll(max(0.0, timeout_s) * 1000)
    finally:
        for handle in handles:
            os.close(handle)


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m infra.local.supervisor", description="A site's supervisor."
    )
    parser.add_argument("--site", required=True, type=Path, help="the site's state folder")
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    Supervisor(parser.parse_args().site).run()
    return 0


if __name__ == "__main__":
    sys.exit(main())
