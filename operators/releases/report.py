"""A release for people who weren't there: one HTML page, whole in itself."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from typing import Any

from scipy.special import gammaincinv

from models.intervals import wilson
from operators.canary.values import METRICS, Metric, Unit
from switchboard import labels
from switchboard import page as pages
from switchboard.api.model_release import Compared, Spec, Status, Turn
from switchboard.kube import Object
from switchboard.registry_users import GATE_TAG

_METRICS: Mapping[str, Metric] = {one.name: one for one in METRICS}
_STYLE = """
.verdict{padding:.6rem 1rem;border-left:.3rem solid #889;background:#f4f6f9}.Promoted{border-color:#2b8a3e}
.RolledBack,.Refused{border-color:#c92a2a}.Inconclusive{border-color:#e67700}
"""


def page(
    release: Object,
    spec: Spec,
    status: Status,
    *,
    tags: Mapping[str, str] | None = None,
    load_test: Mapping[str, Any] | None = None,
    evidence: str = "",
) -> str:
    """The page. `tags` are the candidate version's in the registry (the gate's results among them), `load_test` the
    figures of a load test, `evidence` the SHA-256 of the signed bundle; what isn't given is said to be missing."""
    name = release["metadata"]["name"]
    title = f"{status.model or spec.server}: version {status.champion_version or '?'} to {spec.version}"
    notes = release["metadata"].get("annotations") or {}
    people = [
        f"asked for by {notes.get(labels.REQUESTED_BY, 'unknown')}",
        *([f"approved by {one}"] if (one := notes.get(labels.APPROVED_BY)) else []),
        *([f"because: {spec.reason}"] if spec.reason else []),
    ]
    parts = [
        f"<h1>{_text(title)}</h1>",
        f"<p>Release <b>{_text(name)}</b> of ModelServer {_text(spec.server)}; {_text('; '.join(people))}.</p>",
        f'<p class="verdict {_text(status.phase)}"><b>{_text(status.phase)}</b>'
        f"{_text(f', the judge: {status.verdict}' if status.verdict else '')}<br>{_text(_why(status))}</p>",
        "<h2>Steps</h2>",
        _weights(status.turns),
        _turns(status.turns),
        "<h2>Both arms</h2>",
        _both(status.compared, status.compared_seconds),
        "<h2>Offline gate</h2>",
        _gate(tags or {}),
        "<h2>Load test</h2>",
        _figures(load_test) if load_test else "<p>None was given.</p>",
    ]
    if evidence:
        parts.append(f"<p><small>SHA-256 of the signed evidence: {_text(evidence)}</small></p>")
    return pages.page(title, parts, _STYLE)


def _why(status: Status) -> str:
    """The sentence that decided: of the turn that ended it, or that promoted it."""
    deciding = [
        turn for turn in status.turns if turn.phase in ("Promoting", "RolledBack", "Inconclusive", "Refused")
    ]
    return deciding[-1].sentence if deciding else status.sentence


def _turns(turns: Sequence[Turn]) -> str:
    rows = [
        f"<tr><td>{one.at:%Y-%m-%d %H:%M:%S}<td>{_text(one.phase)}<td class=n>{one.weight} %<td>{_text(one.sentence)}"
        for one in turns
    ]
    return _table("<th>When (UTC)<th>Phase<th class=n>Weight<th>Why", rows)


def _weights(turns: Sequence[Turn]) -> str:
    """The candidate's share over time, as a picture: minutes from left to right, 100 % at the top."""
    if len(turns) < 2:
        return ""
    wide, high, left, low = 860, 150, 46, 28
    began, ended = turns[0].at, turns[-1].at
    whole_s = max((ended - began).total_seconds(), 1.0)
    corners, last = [f"M{left},{high - low}"], 0
    for turn in turns:
        x = left + (turn.at - began).total_seconds() / whole_s * (wide - left - 10)
        corners += [
            f"L{x:.1f},{_height(last, high, low):.1f}",
            f"L{x:.1f},{_height(turn.weight, high, low):.1f}",
        ]
        last = turn.weight
    line = " ".join(corners)
    marks = "".join(
        f'<text x="{left - 8}" y="{_height(share, high, low) + 4:.0f}" text-anchor="end">{share} %</text>'
        f'<line x1="{left}" x2="{wide - 10}" y1="{_height(share, high, low):.0f}" y2="{_height(share, high, low):.0f}" '
        f'stroke="#e3e8ee"/>'
        for share in (0, 50, 100)
    )
    ends = (
        f'<text x="{left}" y="{high - 8}">{began:%H:%M:%S}</text>'
        f'<text x="{wide - 10}" y="{high - 8}" text-anchor="end">{ended:%H:%M:%S}</text>'
    )
    return (
        f'<svg viewBox="0 0 {wide} {high}" font-size="12" fill="#445" role="img" '
        f'aria-label="the candidate\'s share of the requests over time">{marks}{ends}'
        f'<path d="{line}" fill="none" stroke="#1c7ed6" stroke-width="2.5"/></svg>'
    )


def _height(share: float, high: int, low: int) -> float:
    return high - low - share / 100 * (high - low - 12)


def _both(compared: Sequence[Compared], seconds: float) -> str:
    if not compared:
        return "<p>Nothing was compared.</p>"
    rows = []
    for one in compared:
        metric = _METRICS[one.name.value]
        rows.append(
            f"<tr><td>{_text(metric.what)}<td class=n>{_rate(metric, one.candidate_events, one.candidate_of)}"
            f"<td class=n>{_rate(metric, one.champion_events, one.champion_of)}"
            f"<td class=n>{_text(metric.said(metric.margin))}<td>{_text(one.standing)}"
        )
    head = "<th>Metric<th class=n>Candidate<th class=n>Champion<th class=n>Margin<th>Standing"
    note = (
        f"<p><small>Compared in the same {seconds:,.0f} s. Intervals are of 95 % (Wilson's for requests, "
        "Garwood's for counts in time), each for itself; the verdict rests on evidence that holds for all looks "
        "together.</small></p>"
    )
    return _table(head, rows) + note


def _rate(metric: Metric, events: float, of: float) -> str:
    if of <= 0:
        return "nothing"
    low, high = interval(metric, events, of)
    said = f"{metric.said(events / of)} [{metric.said(low)}, {metric.said(high)}]"
    return f"{_text(said)}<br><small>{events:,.0f} of {of:,.4g} {_text(metric.unit)}</small>"


def interval(metric: Metric, events: float, of: float) -> tuple[float, float]:
    """The 95 % interval of a rate: Wilson's of a share of requests, the exact one of a Poisson count in time (F.
    Garwood, 1936), by the gamma distribution's quantiles."""
    if metric.unit is Unit.REQUESTS:
        return wilson(round(min(events, of)), max(1, round(of)))
    low = float(gammaincinv(events, 0.025)) if events > 0 else 0.0
    return low / of, float(gammaincinv(events + 1, 0.975)) / of


def _gate(tags: Mapping[str, str]) -> str:
    lines = {key: value for key, value in sorted(tags.items()) if key.startswith(GATE_TAG)}
    if not lines:
        return "<p>It wasn't asked about this version.</p>"
    return _table("<th>Line<th>Result", [f"<tr><td>{_text(k)}<td>{_text(v)}" for k, v in lines.items()])


def _figures(found: Mapping[str, Any]) -> str:
    rows = [
        f"<tr><td>{_text(key)}<td class=n>{_text(f'{value:,.6g}' if isinstance(value, float) else str(value))}"
        for key, value in found.items()
        if not isinstance(value, dict | list) and key != "first_s"
    ]
    return _table("<th>Figure<th class=n>Value", rows)


def _table(head: str, rows: Sequence[str]) -> str:
    return f"<table><tr>{head}{''.join(rows)}</table>"


def _text(value: str) -> str:
    return html.escape(str(value))
