"""The evaluation report: JSON for programs, one HTML page for people, one line for lists."""

from __future__ import annotations

import html
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from models.evaluation import Figures, Report, to_json
from models.intents import HANDOVER
from models.intervals import Figure
from models.training import Trained
from switchboard.page import page

_STYLE = """
.matrix td,.matrix th{padding:.15rem .35rem;font-size:.75rem;border:1px solid #eef1f5;text-align:center}
.matrix th.col{writing-mode:vertical-rl;transform:rotate(180deg)}.matrix th.row{text-align:right}
"""


def write(trained: Trained, reports: Sequence[Report], directory: Path) -> list[Path]:
    """`report.json` and `report.html` in an existing folder."""
    settings = trained.classifier.settings
    head = {
        "dataset": trained.data.name,
        "data_sha256": trained.data.sha256,
        "params": asdict(trained.params),
        "temperature": settings.temperature,
        "threshold": settings.threshold,
        "labels": list(settings.labels),
    }
    as_json, as_html = directory / "report.json", directory / "report.html"
    content = json.dumps({**head, "tests": to_json(reports)}, ensure_ascii=False, indent=1)
    as_json.write_text(content + "\n", encoding="utf-8")
    as_html.write_text(_page(trained, reports), encoding="utf-8")
    return [as_json, as_html]


def one_line(reports: Sequence[Report]) -> str:
    """For a version's description: the main figures of each test."""
    return "; ".join(
        f"{one.name}: {one.overall.answered_accuracy.value:.1%} of answers right at "
        f"{one.overall.coverage.value:.1%} coverage ({one.overall.accuracy.value:.1%} without hand-off)"
        for one in reports
    )


def _page(trained: Trained, reports: Sequence[Report]) -> str:
    settings = trained.classifier.settings
    parts = [
        f"<h1>Intent classifier, {html.escape(trained.data.name)}</h1>",
        f"<p>{trained.texts:,} texts, {len(settings.labels)} classes, {trained.features:,} features; temperature "
        f"{settings.temperature}, hand-off below {settings.threshold:.2f}.<br><small>data SHA-256 "
        f"{trained.data.sha256}</small></p><p>Intervals are of 95 %: a bootstrap over templates where texts share "
        "one, Wilson's elsewhere.</p>",
    ]
    for one in reports:
        parts += [
            f"<h2>{html.escape(one.name)}</h2>",
            _summary(one),
            _intents(one),
            _matrix(one),
            _mistakes(one),
        ]
    return page("Intent classifier", parts, _STYLE)


def _cell(figure: Figure) -> str:
    if figure.n == 0:
        return "<td class=n>–</td>"
    return f"<td class=n>{figure.shown()} <small>{html.escape(figure.interval())}, n={figure.n}</small></td>"


def _row(name: str, figures: Figures) -> str:
    cells = "".join(_cell(figure) for figure in figures.named().values())
    return f"<tr><th>{html.escape(name)}</th>{cells}</tr>"


def _table(heads: Sequence[str], rows: Sequence[str]) -> str:
    head = "".join(f"<th>{html.escape(name.replace('_', ' '))}</th>" for name in heads)
    return f"<table><tr><th></th>{head}</tr>{''.join(rows)}</table>"


def _summary(one: Report) -> str:
    parts = {"all": one.overall, **one.by_language, **one.by_customers}
    rows = [_row(name, found) for name, found in parts.items()]
    return _table(list(one.overall.named()), rows)


def _intents(one: Report) -> str:
    rows = [
        _row(name, found)
        for name, found in sorted(one.by_intent.items(), key=lambda item: item[1].accuracy.value)
    ]
    return _table(list(one.overall.named()), rows)


def _matrix(one: Report) -> str:
    answered = {answered for row in one.confusion.values() for answered in row}
    columns = [*sorted(answered - {HANDOVER}), HANDOVER]
    head = "".join(f"<th class=col>{html.escape(name)}</th>" for name in columns)
    rows = []
    for wanted, row in one.confusion.items():
        total = sum(row.values())
        cells = []
        for column in columns:
            share = row.get(column, 0) / total
            colour = "210,150,40" if column == HANDOVER else "40,130,80" if column == wanted else "200,50,50"
            style = f' style="background:rgba({colour},{share:.2f})"' if share else ""
            cells.append(f"<td{style}>{row.get(column) or ''}</td>")
        rows.append(f"<tr><th class=row>{html.escape(wanted)}</th>{''.join(cells)}</tr>")
    return f"<table class=matrix><tr><th>wanted \\ answered</th>{head}</tr>{''.join(rows)}</table>"


def _mistakes(one: Report) -> str:
    rows = "".join(
        f"<tr><td>{html.escape(o.text)}</td><td>{html.escape(o.wanted)}</td><td>{html.escape(o.answered)}</td>"
        f"<td class=n>{o.confidence:.2f}</td></tr>"
        for o in one.mistakes[:40]
    )
    head = "<tr><th>text</th><th>wanted</th><th>answered</th><th>confidence</th></tr>"
    return f"<h3>Wrong answers, surest first ({len(one.mistakes)})</h3><table>{head}{rows}</table>"
