"""What the generator can do, and whether it measures right: `python -m loadtests.bench [--rates 200 1000]`.

It asks an Envoy that answers every question itself, in tens of microseconds, so that what is measured is the generator:
how late it sends, how long answers seem to take, and what a request costs it. Beside it, in turns, asks an independent
tool with open arrivals where there is one on the path: vegeta (`go install github.com/tsenart/vegeta/v12@v12.12.0`).
"""

from __future__ import annotations

import argparse
import json
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from loadtests.agreed import Settings
from loadtests.running import free_port, run
from switchboard import envoy

HOST: Final = "127.38.0.7"
ANSWER: Final = {
    "intent": "greeting",
    "confidence": 1.0,
    "answer": "Hello! How can I help you?",
    "language": "en",
    "handover": False,
    "model_version": "1",
}
SHORT_S: Final = 5.0
"""Of a second run at the same rate: what both cost beside the requests (imports, the report) is left out."""


@dataclass(frozen=True)
class Row:
    """Of a run; times in milliseconds, `cores` of the processes that ask."""

    tool: str
    rate: float
    sent_rps: float
    failed: int
    p50: float
    p99: float
    late_p50: float | None = None
    late_p99: float | None = None
    cores: float | None = None


def ours(url: str, rate: float, seconds: float, questions: Path) -> Row:
    """Locust's, in one process."""

    def once(length_s: float) -> tuple[Any, float]:
        before = _children_s()
        settings = Settings(points=((0.0, rate), (length_s, rate)), again=False, questions=str(questions))
        found = run(url, settings).figures
        return found, _children_s() - before

    short, short_s = once(SHORT_S)
    found, long_s = once(seconds)
    each_s = (long_s - short_s) / max(1, found.total - short.total)
    return Row(
        "switchboard",
        rate,
        found.total / seconds,
        found.failed,
        found.p50_ms or 0.0,
        found.p99_ms or 0.0,
        found.late_p50_ms,
        found.late_p99_ms,
        each_s * rate,
    )


def theirs(program: str, url: str, rate: float, seconds: float, folder: Path) -> Row:
    """Vegeta's: a constant rate, whatever the answers do."""
    body, targets = folder / "body.json", folder / "targets"
    body.write_text(json.dumps({"text": "hello there", "language": "en"}))
    targets.write_text(f"POST {url}/v1/chat\nContent-Type: application/json\n@{body}\n")
    before = _children_s()
    attack = subprocess.run(
        [program, "attack", f"-rate={rate:g}", f"-duration={seconds:g}s", f"-targets={targets}"],
        check=True,
        capture_output=True,
    )
    spent = _children_s() - before
    said = subprocess.run(
        [program, "report", "-type=json"], input=attack.stdout, check=True, capture_output=True
    )
    found = json.loads(said.stdout)
    latencies = found["latencies"]
    return Row(
        "vegeta",
        rate,
        found["rate"],
        round(found["requests"] * (1 - found["success"])),
        latencies["50th"] / 1e6,
        latencies["99th"] / 1e6,
        cores=spent / seconds,
    )


@contextmanager
def answering(folder: Path) -> Iterator[str]:
    """An Envoy that answers by itself; its address."""
    port = free_port(HOST)
    body = {"status": 200, "body": {"inline_string": json.dumps(ANSWER)}}
    routes = {"name": "all", "virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [_route(body)]}]}
    manager = envoy.typed(
        "HttpConnectionManager",
        stat_prefix="bench",
        route_config=routes,
        http_filters=[
            # An answer that is there before the question is would end the connection.
            envoy.extension("envoy.filters.http.buffer", "Buffer", max_request_bytes=65_536),
            envoy.extension("envoy.filters.http.router", "Router"),
        ],
    )
    chain = {"filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]}
    listener = {"name": "bench", "address": envoy.address(HOST, port), "filter_chains": [chain]}
    config = envoy.bootstrap(
        "bench",
        admin_socket=str(folder / "admin"),
        stats=[],
        max_connections=20_000,
        static={"listeners": [listener]},
    )
    file = folder / "envoy.json"
    file.write_text(json.dumps(config))
    program = shutil.which("envoy") or str(Path(sys.prefix) / "bin" / "envoy")
    log = (folder / "envoy.log").open("wb")
    process = subprocess.Popen([program, "-c", str(file), *envoy.ARGUMENTS], stdout=log, stderr=log)
    try:
        url = f"http://{HOST}:{port}"
        _wait(url, process)
        yield url
    finally:
        process.terminate()
        process.wait()
        log.close()


def _route(answer: dict[str, Any]) -> dict[str, Any]:
    head = {"header": {"key": "content-type", "value": "application/json"}}
    return {"match": {"prefix": "/"}, "direct_response": answer, "response_headers_to_add": [head]}


def _wait(url: str, process: subprocess.Popen[bytes], patience_s: float = 30.0) -> None:
    deadline = time.monotonic() + patience_s
    while True:
        try:
            with urllib.request.urlopen(url, timeout=1):  # noqa: S310 - our own
                return
        except (OSError, urllib.error.URLError):
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError("Envoy didn't begin to answer") from None
            time.sleep(0.05)


def _children_s() -> float:
    """Processor seconds of the processes that were begun here and have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def table(rows: list[Row]) -> str:
    """The median of all rounds, each tool and rate a line."""
    lines = [
        f"{'tool':<12}{'asked/s':>9}{'sent/s':>9}{'failed':>8}{'p50 ms':>9}{'p99 ms':>9}"
        f"{'late p50':>10}{'late p99':>10}{'cores':>8}"
    ]
    for tool, rate in dict.fromkeys((row.tool, row.rate) for row in rows):
        own = [row for row in rows if (row.tool, row.rate) == (tool, rate)]

        def median(name: str, these: list[Row] = own) -> float:
            values = [getattr(row, name) for row in these]
            return statistics.median(values) if None not in values else float("nan")

        lines.append(
            f"{tool:<12}{rate:>9g}{median('sent_rps'):>9.1f}{sum(row.failed for row in own):>8}"
            f"{median('p50'):>9.2f}{median('p99'):>9.2f}{median('late_p50'):>10.2f}{median('late_p99'):>10.2f}"
            f"{median('cores'):>8.2f}"
        )
    return "\n".join(lines).replace("nan", "  -")


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m loadtests.bench", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("--rates", type=float, nargs="+", default=[200.0, 1000.0], help="requests/s")
    parser.add_argument("--seconds", type=float, default=20.0, help="of each run")
    parser.add_argument("--rounds", type=int, default=3)
    asked = parser.parse_args()
    other = shutil.which("vegeta")
    rows: list[Row] = []
    with tempfile.TemporaryDirectory(prefix="switchboard-bench-") as root:
        folder = Path(root)
        questions = folder / "questions.jsonl"
        questions.write_text(json.dumps({"text": "hello there", "language": "en"}) + "\n")
        with answering(folder) as url:
            for _ in range(asked.rounds):
                for rate in asked.rates:
                    rows.append(ours(url, rate, asked.seconds, questions))
                    if other is not None:
                        rows.append(theirs(other, url, rate, asked.seconds, folder))
                    print(".", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    print(table(rows))
    if other is None:
        print("vegeta isn't on the path: nothing to compare with")
    return 0


if __name__ == "__main__":
    sys.exit(main())
