"""`switchboard canary …`: what a release will show, how its judge fares; and releases themselves (`releases.commands`).

Exit codes: 0 done, or promoted; 1 rolled back; 2 inconclusive; 3 it couldn't be done, the message says why.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated

import typer

from operators.drills import commands as drills
from operators.releases import commands, reporting
from operators.releases.access import SHADOW_S, ShadowOption
from switchboard.errors import SwitchboardError
from switchboard.groups import AnswerGroup
from switchboard.printing import Output, OutputOption, columns, show
from switchboard.progress import Progress

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.table import Table

    from operators.canary.plan import Plan
    from operators.canary.simulation.run import Cell

app = typer.Typer(
    cls=AnswerGroup,
    no_args_is_help=True,
    help="How a new model reaches every customer: release it, look on, decide; plan a release, try its judge.",
)
app.add_typer(commands.app)
app.add_typer(reporting.app)
app.add_typer(drills.app)


@app.command(
    epilog="Examples: `switchboard canary plan --from-prometheus http://127.0.0.1:9090` · "
    "`switchboard canary plan --rps 3 --within-minutes 120` · "
    "`switchboard canary plan --rps 100 --weight 0.05 --weight 0.5 --rate failed=0.001 -o json`"
)
def plan(
    rps: Annotated[
        float | None,
        typer.Option(
            min=0.001, max=1e6, show_default="today's", help="Requests/s of the service, both arms."
        ),
    ] = None,
    from_prometheus: Annotated[
        str | None,
        typer.Option(metavar="URL", help="A site's Prometheus: requests/s, rates and replicas are today's."),
    ] = None,
    service: Annotated[str, typer.Option(help="Whose traffic, as in /v1/SERVICE.")] = "chat",
    weight: Annotated[
        list[float] | None,
        typer.Option(
            min=0.001,
            max=1.0,
            show_default="chosen by what the worst candidate may cost",
            help="Shares of the traffic, rising; repeatable.",
        ),
    ] = None,
    hold_s: Annotated[float, typer.Option(min=10, max=86_400, help="How long a step is held.")] = 60,
    shadow_s: ShadowOption = SHADOW_S,
    within_minutes: Annotated[
        float, typer.Option(min=1, max=1440, help="Without a verdict by then, a release is inconclusive.")
    ] = 30,
    rate: Annotated[
        list[str] | None,
        typer.Option(metavar="METRIC=RATE", help="The champion's own rate, as failed=0.002; repeatable."),
    ] = None,
    champion_pods: Annotated[
        int | None, typer.Option(min=1, max=10_000, show_default="today's, or 2")
    ] = None,
    candidate_pods: Annotated[
        int | None, typer.Option(min=1, max=10_000, show_default="a tenth of the champion's")
    ] = None,
    output: OutputOption = Output.TEXT,
) -> None:
    """How long a release will take, the smallest harm that it can see, and what the worst candidate would cost."""
    from operators.canary import plan as planning
    from operators.canary import today
    from operators.canary.values import USUAL

    given = _rates(rate or [])
    if from_prometheus is not None:
        seen = today.ask(from_prometheus, service, USUAL)
    elif rps is not None:
        seen = planning.Traffic(rps, USUAL)
    else:
        raise typer.BadParameter("say how much traffic there is: --rps, or --from-prometheus for today's")
    pods = champion_pods or seen.champion_pods
    traffic = planning.Traffic(
        rps or seen.rps,
        {**seen.rates, **given},
        pods,
        candidate_pods or (seen.candidate_pods if champion_pods is None else max(1, pods // today.SHARE)),
    )
    allowed = planning.allowed_failures(traffic.rps)
    if weight is None:
        steps = planning.weigh(traffic, allowed, hold_s)
    elif weight != sorted(set(weight)):
        raise typer.BadParameter("weights rise from step to step", param_hint="--weight")
    else:
        steps = tuple(planning.Step(one, hold_s) for one in weight)
    with Progress() as progress, progress.step("plan the release"):
        usual = planning.USUAL_MIRRORED
        shadow = planning.Mirrored(usual.share, shadow_s) if shadow_s > 0 else planning.NOT_MIRRORED
        found = planning.plan(traffic, steps, within_minutes * 60, allowed, mirrored=shadow)
    if output is Output.JSON:
        typer.echo(json.dumps(_as_json(found), indent=1))
    else:
        show(_plan_table(found))
        for line in _said(found):
            typer.echo(line)
    if found.refusal:
        raise SwitchboardError(f"such a release is refused: {found.refusal}")


@app.command(
    epilog="Examples: `switchboard canary simulate` · `switchboard canary simulate --scenario same --releases 10000` · "
    "`switchboard canary simulate --rps 20 --weight 0.25 -o json`"
)
def simulate(
    scenario: Annotated[list[str] | None, typer.Option(help="Only these scenarios; repeatable.")] = None,
    releases: Annotated[int, typer.Option(min=10, max=100_000, help="Of each scenario.")] = 2000,
    rps: Annotated[float, typer.Option(min=0.1, max=100_000, help="Requests/s, on the day's average.")] = 100,
    weight: Annotated[float, typer.Option(min=0.001, max=0.9, help="The candidate's share of them.")] = 0.1,
    minutes: Annotated[int, typer.Option(min=1, max=240, help="A release takes so long at most.")] = 60,
    seed: Annotated[int, typer.Option(min=0, help="Of all chance.")] = 0,
    output: OutputOption = Output.TEXT,
) -> None:
    """The judge beside a fixed threshold and the Mann-Whitney rule, on releases that are made up."""
    from operators.canary.simulation import run
    from operators.canary.simulation.world import Setting

    todo = run.chosen(scenario or [])
    setting = Setting(releases, rps, weight, minutes * 60.0, seed=seed)
    title = f"simulate {len(todo)} scenarios, {releases:,} releases each"
    with Progress() as progress, progress.step(title) as step:
        cells = run.simulate(todo, setting, lambda done: step.detail(f"{done} of {len(todo)}"))
    if output is Output.JSON:
        typer.echo(json.dumps({"cells": [cell.document() for cell in cells]}, indent=1))
        return
    show(_table(cells))
    typer.echo(
        "ABORT, PROMOTE: of the releases; MINUTES: the median until then, the whole time where it came to neither"
    )


def _rates(said: Sequence[str]) -> dict[str, float]:
    from operators.canary.values import USUAL

    rates: dict[str, float] = {}
    for one in said:
        name, _, value = one.partition("=")
        try:
            number = float(value)
        except ValueError:
            number = -1.0
        if name not in USUAL or not 0 <= number < 1000:
            raise typer.BadParameter(
                f"{one!r}: say it as failed=0.002; metrics are {', '.join(USUAL)}", param_hint="--rate"
            )
        rates[name] = number
    return rates


def _as_json(plan: Plan) -> dict[str, object]:
    return {
        "mirroredSeconds": plan.mirrored_s,
        "steps": [{"weight": one.weight, "holdSeconds": one.hold_s} for one in plan.steps],
        "promoteSeconds": plan.promote_s,
        "worstCase": {"failures": round(plan.failures, 1), "allowed": round(plan.allowed, 1)},
        "metrics": [
            {"name": one.metric.name, "rate": one.rate, "safeSeconds": one.safe_s, "smallestHarm": one.harm}
            for one in plan.metrics
        ],
        "refusal": plan.refusal,
    }


def _plan_table(plan: Plan) -> Table:
    shown = columns("METRIC", "CHAMPION", "MARGIN", "EXCLUDED IN", "SMALLEST HARM")
    for one in plan.metrics:
        shown.add_row(
            one.metric.what,
            one.metric.said(one.rate),
            one.metric.said(one.metric.margin),
            "not in time" if one.safe_s is None else f"{one.safe_s / 60:.1f} min",
            "none is seen" if one.harm is None else one.metric.said(one.harm),
        )
    return shown


def _said(plan: Plan) -> list[str]:
    weights = ", ".join(f"{one.weight:.0%}" for one in plan.steps)
    first = f"requests are mirrored for {plan.mirrored_s:.0f} s; then " if plan.mirrored_s > 0 else ""
    found = [
        f"{first}steps of {weights}, {plan.steps[0].hold_s:.0f} s each; the last one until there is a verdict",
        f"a candidate that fails every request: {plan.failures:,.0f} requests fail, {plan.allowed:,.0f} are allowed",
    ]
    if plan.promote_s is not None:
        found.append(
            f"one that is as good as the champion: promoted after about {plan.promote_s / 60:.1f} min"
        )
    return found


def _table(cells: Sequence[Cell]) -> Table:
    from operators.canary.simulation.run import JUDGES

    shown = columns("SCENARIO", *(f"{judge}: ABORT  PROMOTE  MINUTES" for judge in JUDGES))
    for cell in cells:
        figures = (cell.judges[judge].figures() for judge in JUDGES)
        shown.add_row(
            f"{cell.scenario.name} ({cell.scenario.what})",
            *(
                f"{one['abort_rate']:>7.2%}  {one['promote_rate']:>7.2%}  {one['median_minutes']:>5.1f}"
                for one in figures
            ),
        )
    return shown
