"""A run for people who weren't there: one HTML page, whole in itself, the verdict first; and the same as JUnit XML."""

from __future__ import annotations

import html
import io
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final
from xml.etree import ElementTree

from loadtests.faults import FAULTS
from loadtests.figures import Figures, by_second, failed_of, first_failure, levels_ms, table
from loadtests.observing import Look
from loadtests.outcomes import Outcome
from loadtests.profile import Span
from loadtests.scenario import Scenario
from loadtests.sizes import Sizes
from loadtests.starting import Start
from loadtests.verdict import Answer, Verdict
from loadtests.verdict import Outcome as Ended
from switchboard import page
from switchboard.requests import Request, percentile

_STYLE: Final = """
.verdict{padding:.6rem 1rem;border-left:.3rem solid #889;background:#f4f6f9;font-size:1.1rem}
.pass{border-color:#2b8a3e}.fail{border-color:#c92a2a}.not-proven{border-color:#e67700}.invalid{border-color:#868e96}
"""
_ANSWERS: Final = {Answer.HOLDS: "#2b8a3e", Answer.REFUTED: "#c92a2a", Answer.NOT_PROVEN: "#e67700"}
_BAND: Final = "#ffe066"


@dataclass(frozen=True)
class Shown:
    """All that a report tells of."""

    name: str
    target: str
    scenario: Scenario
    verdict: Verdict
    figures: Figures
    requests: Sequence[Request]
    begun_s: float
    start: Start
    looks: Sequence[Look] = ()
    sizes: Sizes | None = None
    faults: Sequence[Outcome] = ()
    known: Mapping[str, str] = field(default_factory=dict)
    """Of what was asked, how much the service had answered rightly before: only of that the intent is checked."""


def document(shown: Shown) -> str:
    """The page."""
    verdict, name = shown.verdict, shown.name
    kind = verdict.outcome.value.replace(" ", "-")
    cut = " The run was ended before its time: what follows is a part of it." if verdict.partial else ""
    parts = [
        f"<h1>Load test {_text(name)}: {_text(verdict.outcome.value)}</h1>",
        f'<p class="verdict {kind}">{_text(verdict.sentence)}.{cut}</p>',
        f"<p>{_text(shown.scenario.summary)} Target {_text(shown.target)}, from {_clock(shown.begun_s)} on.</p>",
        *(f"<p>{_text(problem)}</p>" for problem in verdict.problems),
        "<h2>Claims</h2>",
        _claims(verdict),
        *(["<h2>Faults</h2>", _faults(shown.faults)] if shown.faults else []),
        "<h2>What was measured</h2>",
        _table([*table(shown.figures), *more(shown)]),
        "<h2>Over time</h2>",
        _timeline(shown),
        "<h2>Who asked</h2>",
        _by_who(shown.requests),
        "<h2>Why requests failed</h2>",
        _reasons(shown.requests),
    ]
    return page.page(f"Load test {name}: {verdict.outcome.value}", parts, _STYLE)


def more(shown: Shown) -> Iterable[tuple[str, str]]:
    """Rows for people, beside those of the figures."""
    yield "a replica's start", str(shown.start)
    if shown.sizes is not None:
        yield "replicas", str(shown.sizes)
    yield from shown.known.items()


def junit(shown: Shown) -> str:
    """Each claim as a test case: refuted is a failure, not proven is skipped, and so is what holds in a part of a run;
    an invalid run is an error."""
    verdict = shown.verdict
    suite = ElementTree.Element(
        "testsuite", name=f"loadtests.{shown.name}", tests=str(max(1, len(verdict.findings)))
    )
    counts: Counter[str] = Counter()
    if not verdict.findings:
        case = ElementTree.SubElement(suite, "testcase", classname=f"loadtests.{shown.name}", name="claims")
        ElementTree.SubElement(case, "skipped", message=verdict.sentence)
        counts["skipped"] += 1
    for one in verdict.findings:
        case = ElementTree.SubElement(suite, "testcase", classname=f"loadtests.{shown.name}", name=one.claim)
        if verdict.outcome is Ended.INVALID:
            ElementTree.SubElement(case, "error", message=verdict.sentence)
            counts["errors"] += 1
        elif one.answer is Answer.REFUTED:
            ElementTree.SubElement(case, "failure", message=one.why)
            counts["failures"] += 1
        elif one.answer is Answer.NOT_PROVEN or verdict.partial:
            cut = "the run was ended before its time; " if verdict.partial else ""
            ElementTree.SubElement(case, "skipped", message=f"{cut}{one.why}")
            counts["skipped"] += 1
    for kind in ("errors", "failures", "skipped"):
        suite.set(kind, str(counts[kind]))
    suite.set("time", f"{shown.figures.duration_s:.3f}")
    return ElementTree.tostring(suite, encoding="unicode", xml_declaration=True) + "\n"


def _claims(verdict: Verdict) -> str:
    rows = [
        f'<tr><td>{_text(one.claim)}<td style="color:{_ANSWERS[one.answer]}">{_text(one.answer.value)}'
        f"<td>{_text(one.why)}"
        for one in verdict.findings
    ]
    return f"<table><tr><th>claim<th>answer<th>why{''.join(rows)}</table>" if rows else "<p>None.</p>"


def _faults(outcomes: Sequence[Outcome]) -> str:
    names = (
        "requests",
        "failed",
        "at the first try",
        "longest out of level, s",
        "out of level in all, s",
    )
    head = "<tr><th>fault<th>what was done<th>hypothesis<th>repair" + "".join(
        f"<th class=n>{name}" for name in names
    )
    rows = []
    for one in outcomes:
        fault, happened = FAULTS[one.happened.name], one.happened
        row = (
            f"<tr><td>{_text(fault.name)}<td>{_text(fault.done)}: {_text(happened.target)}"
            f"<td>{_text(fault.hypothesis)}<td>{_text(fault.repair)}"
        )
        if happened.problem is not None:
            rows.append(f"{row}<td colspan=5>{_text(happened.problem)}")
            continue
        longest = f"{one.longest_s:g}" + (", and still" if one.recovered_s is None else "")
        rows.append(
            f"{row}<td class=n>{one.requests:,}<td class=n>{one.failed:,}<td class=n>{one.first_failed:,}"
            f"<td class=n>{longest}<td class=n>{one.out_s}"
        )
    return f"<table>{head}{''.join(rows)}</table>"


def _table(rows: Iterable[tuple[str, str]]) -> str:
    return (
        "<table>" + "".join(f"<tr><td>{_text(name)}<td>{_text(value)}" for name, value in rows) + "</table>"
    )


def _by_who(requests: Sequence[Request]) -> str:
    numbers = ("requests", "failed", "at the first try", "p50, ms", "p99, ms")
    head = "<tr><th>who" + "".join(f"<th class=n>{name}" for name in numbers)
    rows = []
    for who in sorted({one.who for one in requests}):
        own = [one for one in requests if one.who == who]
        times = sorted(one.seconds * 1000 for one in own)
        failed, first = failed_of(own)
        rows.append(
            f"<tr><td>{_text(who)}<td class=n>{len(own):,}<td class=n>{failed:,}<td class=n>{first:,}"
            f"<td class=n>{percentile(times, 50):.1f}<td class=n>{percentile(times, 99):.1f}"
        )
    return f"<table>{head}{''.join(rows)}</table>"


def _failures(requests: Sequence[Request]) -> tuple[list[str | None], list[str | None]]:
    return [one.failure for one in requests], [first_failure(one) for one in requests]


def _reasons(requests: Sequence[Request]) -> str:
    parts = []
    for title, values in zip(("In the end", "At the first try"), _failures(requests), strict=True):
        counts = Counter(value for value in values if value is not None).most_common(20)
        rows = "".join(f"<tr><td class=n>{count:,}<td>{_text(str(reason))}" for reason, count in counts)
        parts.append(f"<h3>{title}</h3>" + (f"<table>{rows}</table>" if rows else "<p>None did.</p>"))
    return "".join(parts)


def _timeline(shown: Shown) -> str:
    """One time axis: the rate, latencies, failures, replicas and weights, and what was done to the cloud as bands."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    weights = [one for one in shown.looks if one.weight is not None]
    rows = 3 + bool(shown.looks) + bool(weights)
    figure, drawn = pyplot.subplots(rows, 1, figsize=(12, 1.9 * rows + 0.6), sharex=True)
    axes = list(drawn)
    seconds = by_second(shown.requests)
    times = [row[0] - shown.begun_s for row in seconds]
    _rate(axes[0], shown, times, seconds)
    _latencies(axes[1], shown)
    axes[2].bar(times, [row[3] for row in seconds], width=1.0, color="#c92a2a")
    axes[2].set_ylabel("failed/s")
    if shown.looks:
        at = [one.at - shown.begun_s for one in shown.looks]
        axes[3].plot(
            at, [one.desired for one in shown.looks], drawstyle="steps-post", color="#889", label="wanted"
        )
        axes[3].plot(
            at, [one.ready for one in shown.looks], drawstyle="steps-post", color="#1c7ed6", label="ready"
        )
        axes[3].set_ylabel("replicas")
        axes[3].legend(fontsize=8, loc="upper right")
    if weights:
        at = [one.at - shown.begun_s for one in weights]
        axes[-1].plot(at, [one.weight for one in weights], drawstyle="steps-post", color="#ae3ec9")
        axes[-1].set_ylabel("candidate, %")
    for one in (outcome.happened for outcome in shown.faults):
        if one.begun_s is None:
            continue
        begin, end = one.begun_s - shown.begun_s, (one.ended_s or one.begun_s) - shown.begun_s
        for axis in axes:
            axis.axvspan(begin, max(end, begin + 1.0), color=_BAND, alpha=0.5, lw=0)
        axes[0].annotate(
            one.name.value, (begin, 1.02), xycoords=("data", "axes fraction"), fontsize=7, rotation=30
        )
    axes[-1].set_xlabel("seconds")
    figure.tight_layout()
    target = io.StringIO()
    figure.savefig(target, format="svg", metadata={"Date": None})
    pyplot.close(figure)
    return target.getvalue()[target.getvalue().index("<svg") :]


def _rate(axis: Any, shown: Shown, times: list[float], seconds: Sequence[tuple[int, int, int, int]]) -> None:
    axis.plot(times, [row[1] for row in seconds], lw=0.6, color="#8894a4", label="sent")
    points = shown.scenario.profile.points
    axis.plot(
        [time for time, _ in points], [rate for _, rate in points], lw=1.2, color="#1c7ed6", label="asked for"
    )
    axis.set_ylabel("requests/s")
    axis.legend(fontsize=8, loc="upper right")
    for span in _held(shown):
        axis.axvspan(span.begin_s, span.end_s, ymax=0.03, color="#2b8a3e", lw=0)


def _held(shown: Shown) -> list[Span]:
    return shown.scenario.held(shown.start.seconds)


def _latencies(axis: Any, shown: Shown) -> None:
    """Of windows of five seconds, or of so many as make three hundred points."""
    width = max(5.0, shown.figures.duration_s / 300)
    windows: dict[int, list[float]] = {}
    for one in shown.requests:
        windows.setdefault(int((one.started_s - shown.begun_s) // width), []).append(one.seconds * 1000)
    at = sorted(windows)
    for percent, colour in ((50, "#74c0fc"), (90, "#1c7ed6"), (99, "#0b4f8a")):
        values = [percentile(sorted(windows[window]), percent) for window in at]
        axis.plot(
            [(window + 0.5) * width for window in at], values, lw=1.0, color=colour, label=f"p{percent}"
        )
    for level in levels_ms(shown.requests):
        axis.axhline(level, color="#c92a2a", lw=0.8, ls="--")
    axis.set_yscale("log")
    axis.set_ylabel("ms")
    axis.legend(fontsize=8, loc="upper right", ncols=3)


def _clock(at: float) -> str:
    from datetime import UTC, datetime

    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def _text(value: str) -> str:
    return html.escape(value)
