"""The comparison for people: a table for the terminal, and an HTML page with tables and plots, whole in itself."""

from __future__ import annotations

import html
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from rich.table import Table

from operators.simulator.compare import OURS, Cell, highest_peak, totals, turns_after_a_step
from operators.simulator.run import Outcome, Run
from operators.simulator.scenarios import STEP
from switchboard import page as pages
from switchboard.printing import columns

_POINTS = 1200
"""A plot has so many points across at most; a point is the most of what it stands for."""


@dataclass(frozen=True)
class Plot:
    """One run under several policies."""

    title: str
    run: Run
    outcomes: Mapping[str, Outcome]


def table(cells: Sequence[Cell]) -> Table:
    """The sums, best first, and how far and how often each went too far at most: `legend` says what is what."""
    sums, peaks, turns = totals(cells), highest_peak(cells), turns_after_a_step(cells)
    shown = columns(
        "POLICY",
        *("OUT OF LEVEL", "REPLICA-HOURS", "PEAK", "OF LEAST", "REVERSALS"),
        *(["AT STEP"] if turns else []),
    )
    for policy, one in sorted(sums.items(), key=lambda item: item[1]["violation_s"]):
        row = [policy, f"{one['violation_s']:,.0f} s", f"{one['replica_h']:,.0f}", f"{one['peak']:.0f}"]
        row += [f"{peaks[policy]:.2f}x", f"{one['reversals']:,.0f}"]
        row += [f"{turns[policy]}"] if turns else []
        shown.add_row(*row, style="bold" if policy == OURS else None)
    return shown


def legend(cells: Sequence[Cell]) -> list[str]:
    """What the columns of `table` say that don't say it themselves."""
    found = ["OF LEAST: the highest peak against the least constant count enough in hindsight"]
    if turns_after_a_step(cells):
        found.append(f"AT STEP: the most turns in a run of {STEP}; up, and down at its end, is one turn")
    return found


def ratios(cells: Sequence[Cell]) -> str | None:
    """Ours against the others in one line; None where one of them isn't there."""
    sums = totals(cells)
    others = [one["violation_s"] for policy, one in sums.items() if policy != OURS]
    if OURS not in sums or not others or "hpa-rate" not in sums:
        return None
    parts = []
    if best := min(others):
        parts.append(f"{sums[OURS]['violation_s'] / best:.2f}x the seconds out of level of the best other")
    if hours := sums["hpa-rate"]["replica_h"]:
        parts.append(f"{sums[OURS]['replica_h'] / hours:.2f}x the replica-hours of hpa-rate")
    return f"{OURS}: {', '.join(parts)}"


def worse_on_both(cells: Sequence[Cell]) -> list[str]:
    """The scenarios, with the other policy, in which ours is out of level for longer and costs more, seeds summed."""
    found = []
    for scenario in _names(cells):
        sums = totals(cell for cell in cells if cell.scenario == scenario)
        ours = sums.get(OURS)
        if ours is None:
            continue
        for policy, one in sums.items():
            if ours["violation_s"] > one["violation_s"] and ours["replica_h"] > one["replica_h"]:
                found.append(f"{scenario}: {policy}")
    return found


def page(title: str, cells: Sequence[Cell], plots: Iterable[Plot]) -> str:
    """The whole page."""
    parts = [
        f"<h1>{html.escape(title)}</h1>",
        "<p>A second is <em>out of level</em> when fewer than 99 % of the requests due in it were answered in time. "
        "Replica-hours are paid from a replica's creation to the end of its drain.</p>",
    ]
    if line := ratios(cells):
        parts.append(f"<p><b>{html.escape(line)}</b></p>")
    parts += [_sums("All scenarios", cells)]
    parts += ["<h2>Scenarios</h2>", _by_scenario(cells)]
    for plot in plots:
        parts += [f"<h2>{html.escape(plot.title)}</h2>", _svg(plot)]
    return pages.page(title, parts, "tr.ours{font-weight:600}")


def _names(cells: Iterable[Cell]) -> list[str]:
    return list(dict.fromkeys(cell.scenario for cell in cells))


def _sums(caption: str, cells: Sequence[Cell]) -> str:
    rows = [
        f"<tr{' class=ours' if policy == OURS else ''}><td>{html.escape(policy)}"
        f"<td class=n>{one['violation_s']:,.0f}<td class=n>{one['replica_h']:,.1f}<td class=n>{one['peak']:.0f}"
        f"<td class=n>{one['reversals']:,.0f}"
        for policy, one in sorted(totals(cells).items(), key=lambda item: item[1]["violation_s"])
    ]
    head = "<tr><th>policy<th class=n>out of level, s<th class=n>replica-hours<th class=n>peak<th class=n>reversals"
    return f"<h2>{html.escape(caption)}</h2><table>{head}{''.join(rows)}</table>"


def _by_scenario(cells: Sequence[Cell]) -> str:
    policies = list(dict.fromkeys(cell.policy for cell in cells))
    head = "<tr><th>scenario<th class=n>start, s" + "".join(
        f"<th class=n>{html.escape(policy)}<br><small>s · h · peak</small>" for policy in policies
    )
    rows = []
    for scenario in _names(cells):
        for start in sorted({cell.start_s for cell in cells if cell.scenario == scenario}):
            these = [cell for cell in cells if (cell.scenario, cell.start_s) == (scenario, start)]
            sums = totals(these)
            row = f"<tr><td>{html.escape(scenario)}<td class=n>{start}"
            for policy in policies:
                one = sums[policy]
                row += f"<td class=n>{one['violation_s']:,.0f} · {one['replica_h']:,.1f} · {one['peak']:.0f}"
            rows.append(row)
    return f"<table>{head}{''.join(rows)}</table>"


def _svg(plot: Plot) -> str:
    """Rate above, replicas below, and under them where each policy was out of level."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    arrivals = plot.run.arrivals
    names = list(plot.outcomes)
    colours = dict(zip(names, pyplot.get_cmap("tab10").colors, strict=False))  # type: ignore[attr-defined]
    figure, (top, middle, bottom) = pyplot.subplots(
        3, 1, figsize=(11, 6.5), sharex=True, height_ratios=[2, 4, 0.25 * len(names) + 0.5]
    )
    minutes, rate = _thin(arrivals.per_second().astype(float))
    top.plot(minutes, rate, lw=0.6, color="#8894a4")
    top.set_ylabel("requests/s")
    for name, outcome in plot.outcomes.items():
        width = 2.0 if name == OURS else 0.9
        x, wanted = _thin(outcome.wanted.astype(float))
        middle.plot(x, wanted, lw=width, color=colours[name], label=name, drawstyle="steps-post")
    middle.set_ylabel("replicas wanted")
    middle.legend(fontsize=8, ncols=3)
    for row, name in enumerate(names):
        x, out = _thin(plot.outcomes[name].out.astype(float))
        bottom.scatter(x[out > 0], np.full(int((out > 0).sum()), row), s=4, color=colours[name], marker="|")
    bottom.set_yticks(range(len(names)), names, fontsize=7)
    bottom.set_ylim(len(names) - 0.5, -0.5)
    bottom.set_xlabel("minutes; below: out of level")
    figure.tight_layout()
    target = io.StringIO()
    figure.savefig(target, format="svg", metadata={"Date": None})
    pyplot.close(figure)
    return target.getvalue()[target.getvalue().index("<svg") :]


def _thin(values: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Minutes and values of at most `_POINTS` points."""
    step = -(-len(values) // _POINTS)
    padded = np.pad(values, (0, -len(values) % step), mode="edge")
    thin = padded.reshape(-1, step).max(axis=1)
    return np.arange(len(thin)) * step / 60, thin
