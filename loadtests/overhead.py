"""What a gateway adds to a call: `python -m loadtests.overhead --gateway URL --direct URL [--direct URL ...]`.

Customers ask through the gateway, and replicas themselves, in blocks that take turns, at a rate that is below half of
what the replicas can take (or it is their queues that are measured). Of each pair of blocks there is a difference of
medians and of 99th percentiles; what is said of it is its mean, and the bound that it is below with 95 %.

Exit codes: 0 both bounds are within what is allowed, 1 one isn't, 3 nothing is said, since requests failed.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from loadtests.agreed import Settings
from loadtests.bounds import CONFIDENCE, mean_at_most
from loadtests.running import run
from switchboard.errors import SwitchboardError

FEWEST = 10


@dataclass(frozen=True)
class Block:
    """Milliseconds, from when requests were due."""

    p50: float
    p99: float
    requests: int
    failed: int


@dataclass(frozen=True)
class Added:
    """By the gateway, at a quantile, in milliseconds: on average, and at most (with 95 %)."""

    quantile: str
    mean: float
    at_most: float
    allowed: float

    @property
    def holds(self) -> bool:
        return self.at_most <= self.allowed

    def __str__(self) -> str:
        holds = "as allowed" if self.holds else "more than allowed"
        return (
            f"added at {self.quantile}: {self.mean:.2f} ms, at most {self.at_most:.2f} ms ({CONFIDENCE:.0%}); "
            f"{holds} ({self.allowed:g} ms)"
        )


def added(pairs: Sequence[tuple[Block, Block]], p50_ms: float, p99_ms: float) -> list[Added]:
    """Of pairs of blocks: through the gateway, and not."""
    found = []
    for name, allowed in (("p50", p50_ms), ("p99", p99_ms)):
        more = [getattr(through, name) - getattr(direct, name) for through, direct in pairs]
        found.append(Added(name, statistics.fmean(more), mean_at_most(more), allowed))
    return found


def measured(url: str, rate: float, seconds: float, seed: int) -> Block:
    """
    Raises:
        SwitchboardError: it was cut short, or too little was sent.
    """
    done = run(url, Settings(points=((0.0, rate), (seconds, rate)), again=False, seed=seed))
    found = done.figures
    if done.partial:
        raise SwitchboardError("cut short: of a part nothing is said")
    if not found.total or found.p50_ms is None or found.p99_ms is None or found.dropped:
        raise SwitchboardError(f"{url}: {found.total} of {found.offered} requests were sent")
    return Block(found.p50_ms, found.p99_ms, found.total, found.failed)


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m loadtests.overhead", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("--gateway", required=True, help="its address")
    parser.add_argument(
        "--direct", required=True, action="append", help="a replica's address; several take turns"
    )
    parser.add_argument("--rate", type=float, default=40.0, help="requests/s")
    parser.add_argument("--seconds", type=float, default=20.0, help="of each block")
    parser.add_argument("--blocks", type=int, default=FEWEST, help="pairs of them")
    parser.add_argument("--p50", type=float, default=1.0, help="allowed at the median, ms")
    parser.add_argument("--p99", type=float, default=3.0, help="allowed at the 99th percentile, ms")
    asked = parser.parse_args()
    if asked.blocks < FEWEST:
        parser.error(f"--blocks {asked.blocks}: fewer than {FEWEST} pairs say little")
    print(f"{'':>5}{'gateway p50':>13}{'p99':>8}{'direct p50':>13}{'p99':>8}  ms")
    pairs: list[tuple[Block, Block]] = []
    for number in range(asked.blocks):
        urls = [asked.gateway, asked.direct[number % len(asked.direct)]]
        order = (0, 1) if number % 2 == 0 else (1, 0)
        try:
            found = {which: measured(urls[which], asked.rate, asked.seconds, number) for which in order}
        except SwitchboardError as error:
            print(error, file=sys.stderr)
            return 3
        through, direct = found[0], found[1]
        pairs.append((through, direct))
        print(
            f"{number + 1:>5}{through.p50:>13.2f}{through.p99:>8.2f}{direct.p50:>13.2f}{direct.p99:>8.2f}",
            flush=True,
        )
    failed = sum(block.failed for pair in pairs for block in pair)
    requests = sum(block.requests for pair in pairs for block in pair)
    print(f"{requests:,} requests at {asked.rate:g}/s, {failed:,} failed")
    if failed:
        return 3
    claims = added(pairs, asked.p50, asked.p99)
    print(*claims, sep="\n")
    return 0 if all(one.holds for one in claims) else 1


if __name__ == "__main__":
    sys.exit(main())
