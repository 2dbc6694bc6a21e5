"""What a gateway adds to a call: `python -m loadtests.overhead --gateway URL --direct URL [--direct URL ...]`.

Customers ask through the gateway, and its replicas themselves, each request the next one, in blocks that take turns.
The rate is below half of what the replicas can take (or it is their queues that are measured), and arrivals are open: a
time counts from when a request was due. All is asked from this one process, over connections that are kept.

What is said is the difference of the medians, and of the 99th percentiles, of all the blocks of either kind, with the
bound that it is below with 95 %.

Exit codes: 0 both bounds are within what is allowed, 1 one isn't, 3 nothing is said, since requests failed.
"""

from __future__ import annotations

import argparse
import gc
import itertools
import json
import random
import sys
import time
import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

import gevent

from loadtests.agreed import TIMEOUT_S
from loadtests.arrivals import poisson
from loadtests.bounds import CONFIDENCE, more_at_most
from loadtests.client import Door, Reply
from loadtests.expected import wrong_with
from loadtests.pacing import Pacer
from loadtests.questions import questions
from loadtests.spoken import request_of
from switchboard.requests import percentile

FEWEST: Final = 10
WARM_S: Final = 3.0
"""What is asked first isn't counted: connections are opened."""


@dataclass
class Block:
    """What was asked in it: milliseconds, from when requests were due, and why requests failed."""

    times: list[float] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)

    def at(self, percent: float) -> float:
        return percentile(sorted(self.times), percent)


@dataclass(frozen=True)
class Added:
    """By the gateway, at a percentile, in milliseconds: as measured, and at most (with 95 %)."""

    percent: int
    found: float
    at_most: float
    allowed: float

    @property
    def holds(self) -> bool:
        return self.at_most <= self.allowed

    def __str__(self) -> str:
        holds = "as allowed" if self.holds else "more than allowed"
        return (
            f"added at p{self.percent}: {self.found:.2f} ms, at most {self.at_most:.2f} ms ({CONFIDENCE:.0%}); "
            f"{holds} ({self.allowed:g} ms)"
        )


def added(pairs: Sequence[tuple[Block, Block]], p50_ms: float, p99_ms: float) -> list[Added]:
    """Of pairs of blocks: through the gateway, and not."""
    times = [(through.times, direct.times) for through, direct in pairs]
    return [Added(at, *more_at_most(times, at), allowed) for at, allowed in ((50, p50_ms), (99, p99_ms))]


class Asker:
    """Asks some addresses in turns."""

    def __init__(self, urls: Iterable[str]) -> None:
        """
        Raises:
            ValueError: one is no address.
        """
        self._doors = itertools.cycle([Door(url) for url in urls])
        self._questions = [one for some in questions().values() for one in some]

    def block(self, rate: float, seconds: float, seed: int) -> Block:
        """So many requests/s, for so long, and until all are answered."""
        chance, made = random.Random(f"{seed} questions"), Block()  # noqa: S311 - no secret

        def ask(due: float) -> None:
            question = chance.choice(self._questions)
            session = uuid.UUID(int=chance.getrandbits(128), version=4).hex
            path, body, kind = request_of(question)
            reply = next(self._doors).post(path, body, {**kind, "X-Session-Id": session})
            made.times.append((time.perf_counter() - due) * 1000)
            if problem := _problem(reply, question.language):
                made.failures.append(problem)

        pacer = Pacer(poisson(seed), ask)
        pacer.set_rate(rate)
        gevent.sleep(seconds)
        left = pacer.finish(TIMEOUT_S)
        made.failures += ["no answer in time"] * (left + pacer.dropped)
        return made


def _problem(reply: Reply, language: str) -> str | None:
    """Why that is no answer."""
    if reply.status != 200:
        return reply.error or str(reply.status)
    try:
        return wrong_with(json.loads(reply.body), language)
    except ValueError:
        return "the answer is no JSON"


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m loadtests.overhead", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("--gateway", required=True, help="its address")
    parser.add_argument(
        "--direct", required=True, action="append", help="a replica's address; all take turns"
    )
    parser.add_argument("--rate", type=float, default=20.0, help="requests/s")
    parser.add_argument("--seconds", type=float, default=10.0, help="of each block")
    parser.add_argument("--blocks", type=int, default=2 * FEWEST, help="pairs of them")
    parser.add_argument("--p50", type=float, default=1.0, help="allowed at the median, ms")
    parser.add_argument("--p99", type=float, default=3.0, help="allowed at the 99th percentile, ms")
    asked = parser.parse_args()
    if asked.blocks < FEWEST:
        parser.error(f"--blocks {asked.blocks}: fewer than {FEWEST} pairs say little")
    if not asked.rate > 0 or not asked.seconds > 0:
        parser.error("--rate and --seconds must be more than 0")
    try:
        askers = [Asker([asked.gateway]), Asker(asked.direct)]
    except ValueError as error:
        parser.error(str(error))
    for one in askers:
        one.block(asked.rate, WARM_S, seed=0)
    gc.collect()
    gc.freeze()
    print(f"{'':>5}{'gateway p50':>13}{'p99':>8}{'direct p50':>13}{'p99':>8}  ms")
    pairs: list[tuple[Block, Block]] = []
    for number in range(1, asked.blocks + 1):
        order = (0, 1) if number % 2 else (1, 0)
        # The same requests at the same distances, whoever is asked.
        found = {which: askers[which].block(asked.rate, asked.seconds, seed=number) for which in order}
        through, direct = pair = found[0], found[1]
        pairs.append(pair)
        if failures := through.failures + direct.failures:
            print(f"{len(failures)} requests failed: {failures[0]}", file=sys.stderr)
            return 3
        if not through.times or not direct.times:
            print("a block had no request: more --rate or more --seconds", file=sys.stderr)
            return 3
        print(
            f"{number:>5}{through.at(50):>13.2f}{through.at(99):>8.2f}{direct.at(50):>13.2f}{direct.at(99):>8.2f}",
            flush=True,
        )
    requests = sum(len(block.times) for pair in pairs for block in pair)
    print(f"{requests:,} requests at {asked.rate:g}/s, none failed")
    claims = added(pairs, asked.p50, asked.p99)
    print(*claims, sep="\n")
    return 0 if all(one.holds for one in claims) else 1


if __name__ == "__main__":
    sys.exit(main())
