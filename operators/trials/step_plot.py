"""The timeline of steps as a plot: what was asked, how much of it was answered in time, replicas wanted and serving."""

from __future__ import annotations

import csv
import json
from collections import defaultdict
from pathlib import Path
from typing import Any


def write(folder: Path, rule: str, base: float) -> Path:
    """Plot the first run's step, of what `operators.trials.step` left in `folder`; the picture's path."""
    import matplotlib.pyplot as plt  # a second of import, and only here

    document: dict[str, Any] = json.loads((folder / f"{rule}.json").read_text())
    run = document["runs"][0]
    start, end = run["first_s"] - 20, run["ended_s"] + (run["back_s"] or 60) + 30
    due, good = _seconds(folder / f"step-{rule}-{run['number']}.csv", start, end)
    figure, (above, below) = plt.subplots(2, 1, sharex=True, figsize=(9, 6), height_ratios=(2, 2))
    times = [second - run["first_s"] for second in range(int(start), int(end))]
    above.plot(
        times, [base + due.get(second, 0) for second in range(int(start), int(end))], label="requests/s"
    )
    late = [second - run["first_s"] for second in due if good.get(second, 0) < 0.99 * due[second]]
    for number, second in enumerate(late):
        above.axvspan(
            second, second + 1, color="tab:red", alpha=0.2, label="out of level" if not number else None
        )
    above.set_ylim(bottom=0)
    above.legend(loc="upper right")
    for name, label in (("desired", "wanted"), ("ready", "serving")):
        points = [(at - run["first_s"], count) for at, count in document["timeline"][name]]
        below.step(
            [at for at, _ in points] + [end - run["first_s"]],
            [count for _, count in points] + [points[-1][1]],
            where="post",
            label=label,
        )
    below.set_xlim(start - run["first_s"], end - run["first_s"])
    below.set_ylim(bottom=0)
    below.set_ylabel("replicas")
    below.set_xlabel("seconds after the step's first request")
    below.legend(loc="upper right")
    figure.suptitle(f"A step of real customers, sized by {rule}")
    path = folder / f"{rule}.png"
    figure.savefig(path, dpi=120, bbox_inches="tight")
    plt.close(figure)
    return path


def _seconds(file: Path, start: float, end: float) -> tuple[dict[int, int], dict[int, int]]:
    due: dict[int, int] = defaultdict(int)
    good: dict[int, int] = defaultdict(int)
    with file.open() as lines:
        for row in csv.DictReader(lines):
            if start <= (second := int(row["second"])) <= end:
                due[second] += int(row["due"])
                good[second] += int(row["good"])
    return due, good
