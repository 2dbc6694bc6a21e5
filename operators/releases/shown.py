"""A release for people: a line of the list, what both arms did, what happened. Pure functions of the object."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING

from operators.canary.values import METRICS
from switchboard import text
from switchboard.api.model_release import Compared, Phase, Spec, Status
from switchboard.kube import Object
from switchboard.printing import columns

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table

EXIT_CODES = {Phase.PROMOTED: 0, Phase.WARM: 0, Phase.SETTLING: 0, Phase.INCONCLUSIVE: 2, Phase.REFUSED: 3}
"""What a release comes to; anything else that is over was rolled back: 1."""
_WHAT = {one.name: one for one in METRICS}
BAR = 40


def decided(status: Status) -> bool:
    """Whether customers have what they will have: the rest of a promotion is the operator's own business."""
    return status.phase.over or status.phase in (Phase.WARM, Phase.SETTLING)


def exit_code(status: Status) -> int:
    """0 promoted, 1 rolled back, 2 inconclusive, 3 refused."""
    return EXIT_CODES.get(status.phase, 1)


def parse(release: Object) -> tuple[Spec, Status]:
    """Both halves of a release.

    Raises:
        ValueError: it isn't one.
    """
    return Spec.model_validate(release["spec"]), Status.model_validate(release.get("status") or {})


def listed(releases: Sequence[Object], now: datetime) -> str:
    """As `kubectl get mr` shows them, newest last."""
    rows = [("NAME", "SERVER", "CANDIDATE", "PHASE", "STEP", "WEIGHT", "VERDICT", "AGE", "REASON")]
    for one in releases:
        spec, status = parse(one)
        made = datetime.fromisoformat(one["metadata"]["creationTimestamp"])
        rows.append(
            (
                str(one["metadata"]["name"]),
                spec.server,
                str(spec.version),
                f"{status.phase}{' (paused)' if spec.paused and not status.phase.over else ''}",
                status.progress,
                f"{status.weight}%",
                status.verdict,
                text.age((now - made).total_seconds()),
                status.sentence,
            )
        )
    return text.columns(rows)


def screen(release: Object, now: datetime) -> RenderableType:
    """All that is known of one release, for a terminal."""
    from rich.console import Group
    from rich.text import Text

    spec, status = parse(release)
    name = release["metadata"]["name"]
    begun = status.started_at or datetime.fromisoformat(release["metadata"]["creationTimestamp"])
    head = Text.assemble(
        (f"{name}", "bold"),
        f"  {status.model or spec.server} {status.champion_version or '?'} → {spec.version}"
        f"  {status.phase}{' (paused)' if spec.paused else ''}  {text.age((now - begun).total_seconds())}",
    )
    filled = round(BAR * status.weight / 100)
    bar = Text.assemble(
        ("█" * filled, "cyan"),
        ("░" * (BAR - filled), "dim"),
        f"  {status.weight} % of the requests",
        f", {status.mirror} % mirrored" if status.mirror else "",
        f", step {status.progress}" if status.step else "",
    )
    parts: list[RenderableType] = [head, bar, Text(status.sentence)]
    if status.compared:
        parts += [Text(), compared(status.compared)]
    for one in status.conditions:
        if one.status == "False":
            parts.append(Text(f"! {one.type}: {one.message}", style="yellow"))
    return Group(*parts)


def compared(found: Sequence[Compared]) -> Table:
    """What both arms did, metric by metric."""
    shown = columns("METRIC", "CANDIDATE", "CHAMPION", "MARGIN", "STANDING")
    for one in found:
        metric = _WHAT[one.name.value]
        shown.add_row(
            metric.what,
            _rate(one.candidate_events, one.candidate_of, one.name.value),
            _rate(one.champion_events, one.champion_of, one.name.value),
            metric.said(metric.margin),
            one.standing,
        )
    return shown


def _rate(events: float, of: float, name: str) -> str:
    return f"{_WHAT[name].said(events / of)} ({events:,.0f} of {of:,.3g})" if of > 0 else "nothing yet"


def document(release: Object) -> Object:
    """For programs: as the API server has it, with what it came to."""
    _, status = parse(release)
    meta = release["metadata"]
    return {
        "name": meta["name"],
        "spec": release["spec"],
        "status": release.get("status") or {},
        "exitCode": exit_code(status) if decided(status) else None,
    }
