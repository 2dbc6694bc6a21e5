"""`switchboard scaling …`: what a scaling policy does with traffic, before it is applied.

Exit codes: 0 done, 1 it couldn't be done (the message says why), 2 wrong usage.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from switchboard.api.scaling import Scaling
from switchboard.errors import SwitchboardError
from switchboard.printing import Output, OutputOption, show
from switchboard.progress import Progress

if TYPE_CHECKING:
    from collections.abc import Callable

    from operators.simulator.compare import Job
    from operators.simulator.report import Plot

app = typer.Typer(
    no_args_is_help=True, help="What keeps it sized: try scaling policies on traffic, recorded or made up."
)
COMPARISON, REPLAY = Path("scaling-comparison.html"), Path("scaling-replay.html")


PolicyHelp = "A YAML file with a policy, as `spec.scaling` of a ModelServer."
Existing = {"exists": True, "dir_okay": False, "readable": True}


@app.command(
    epilog="Examples: `switchboard scaling simulate` · `switchboard scaling simulate --scenario bursty --start-s 60` · "
    "`switchboard scaling simulate --trace monday.csv -o json`"
)
def simulate(
    scenario: Annotated[
        list[str] | None, typer.Option(help="Only these scenarios (a trace has its file's name); repeatable.")
    ] = None,
    start_s: Annotated[
        list[int] | None,
        typer.Option(
            min=1,
            max=3600,
            show_default="5, 60, 180, 420",
            help="Start times of a replica, seconds; repeatable.",
        ),
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, max=100, help="Runs of each, with other chance.")] = 5,
    trace: Annotated[
        Path | None,
        typer.Option(
            **Existing, help="A CSV file with the columns time_s and requests_per_s, as one more scenario."
        ),
    ] = None,
    policy: Annotated[
        Path | None, typer.Option(**Existing, show_default="its defaults", help=PolicyHelp)
    ] = None,
    html: Annotated[
        Path, typer.Option(dir_okay=False, help="Where the page with tables and plots goes.")
    ] = COMPARISON,
    output: OutputOption = Output.TEXT,
) -> None:
    """Switchboard's policy beside Knative's, the HPA, KEDA and Ray Serve, on made-up traffic and real traces."""
    from operators.simulator import compare
    from operators.simulator import report as pages
    from operators.simulator.scenarios import STARTS_S

    scaling = None if policy is None else read_policy(policy)
    starts = start_s or list(STARTS_S)
    todo = compare.jobs(scenario or [], starts, seeds, trace=trace, scaling=scaling)
    with Progress() as progress:
        with progress.step(
            f"simulate {len(compare.POLICIES)} policies, {len(todo) * len(starts)} runs each"
        ) as step:
            cells = compare.compare(todo, lambda done: step.detail(f"{done * 100 // len(todo)} %"))
        with progress.step(f"write {html}") as step:
            shown = starts[min(1, len(starts) - 1)]
            plots = (_plot(job, shown, step.detail) for job in todo if job.seed == 0)
            _write(html, pages.page("Scaling policies compared", cells, plots))
    if output is Output.JSON:
        typer.echo(json.dumps(compare.as_json(cells), indent=1))
        return
    show(pages.table(cells))
    for meaning in pages.legend(cells):
        typer.echo(meaning)
    if line := pages.ratios(cells):
        typer.echo(line)
    for found in pages.worse_on_both(cells):
        typer.echo(f"worse on both than in {found}")


@app.command(
    epilog="Examples: `switchboard scaling replay --policy new.yaml --trace monday.csv` · "
    "`switchboard scaling replay --policy new.yaml --from-prometheus http://127.0.0.1:9090 --model-server chat "
    "--last 24h`"
)
def replay(
    policy: Annotated[Path, typer.Option(**Existing, help=PolicyHelp)],
    trace: Annotated[
        Path | None, typer.Option(**Existing, help="A CSV file with the columns time_s and requests_per_s.")
    ] = None,
    from_prometheus: Annotated[
        str | None, typer.Option(metavar="URL", help="Where the traffic was recorded.")
    ] = None,
    model_server: Annotated[
        str,
        typer.Option(
            metavar="SERVICE",
            help="Whose traffic: a service, as in /v1/SERVICE. What its gateways counted, in means of 10 s.",
        ),
    ] = "chat",
    region: Annotated[
        str | None,
        typer.Option(
            show_default="the core", help="What went to the service's own replicas on this region's edge."
        ),
    ] = None,
    query: Annotated[
        str | None,
        typer.Option(help="Another PromQL query for requests/s (one series), in place of the gateways'."),
    ] = None,
    last: Annotated[str, typer.Option(help="How much of it: 90m, 24h, 7d.")] = "4h",
    end: Annotated[
        datetime | None,
        typer.Option(formats=["%Y-%m-%dT%H:%M:%S", "%Y-%m-%d"], show_default="now", help="Up to then, UTC."),
    ] = None,
    against: Annotated[
        Path | None,
        typer.Option(**Existing, show_default="the defaults", help=f"{PolicyHelp} To compare with."),
    ] = None,
    replica_start_s: Annotated[
        float, typer.Option(min=0, max=3600, help="From a decision to a ready replica.")
    ] = 60,
    capacity_rps: Annotated[float, typer.Option(min=0.01, help="Requests/s that a replica can take.")] = 40,
    service_s: Annotated[float, typer.Option(min=0.001, max=60, help="How long an answer takes.")] = 0.1,
    bound_s: Annotated[float, typer.Option(min=0.001, max=600, help="In time is within this.")] = 0.3,
    html: Annotated[Path, typer.Option(dir_okay=False, help="Where the page with the plot goes.")] = REPLAY,
    output: OutputOption = Output.TEXT,
) -> None:
    """What another policy would have done with recorded traffic, beside the one that there is."""
    from operators.signals.values import EDGE, Key
    from operators.simulator import recorded, scenarios
    from operators.simulator import report as pages
    from operators.simulator.plant import Replica
    from operators.simulator.replay import replay as run_replay

    if (trace is None) == (from_prometheus is None):
        raise typer.BadParameter("say where the traffic is from: --trace or --from-prometheus, one of them")
    if bound_s <= service_s:
        raise typer.BadParameter(f"an answer takes {service_s:g} s, so none is within --bound-s {bound_s:g}")
    policies = {"new": read_policy(policy)}
    before = None if against is None else read_policy(against)
    replica = Replica(slots=capacity_rps * service_s, service_s=service_s, bound_s=bound_s)
    with Progress() as progress:
        with progress.step("read the traffic"):
            if trace is not None:
                scenario = scenarios.from_trace(trace)
            else:
                url, until = str(from_prometheus), end or datetime.now(UTC)
                span = recorded.Span.of(until.replace(tzinfo=UTC), length(last))
                if query is not None:
                    scenario = recorded.of_query(url, query, span)
                else:
                    key = Key(model_server) if region is None else Key(model_server, EDGE, region)
                    scenario = recorded.of_service(url, key, span)
        with progress.step("replay it"):
            found = run_replay(scenario, replica, replica_start_s, policies["new"], before)
        with progress.step(f"write {html}"):
            _write(html, pages.page(f"Replay of {scenario.what}", found.cells, [found.plot]))
    if output is Output.JSON:
        from operators.simulator.compare import as_json

        typer.echo(json.dumps(as_json(found.cells), indent=1))
        return
    show(pages.table(found.cells))
    for meaning in pages.legend(found.cells):
        typer.echo(meaning)


def read_policy(path: Path) -> Scaling:
    """The policy of a YAML file: `spec.scaling` of a ModelServer, alone or in it.

    Raises:
        SwitchboardError: one line for the first wrong key or value.
    """
    import yaml
    from pydantic import ValidationError

    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise SwitchboardError(f"policy {path}: {str(error).splitlines()[0]}") from None
    if isinstance(content, dict) and content.get("kind") == "ModelServer":
        spec = content.get("spec")
        content = spec.get("scaling") if isinstance(spec, dict) else None
    try:
        return Scaling.model_validate(content)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        reason = first["msg"].removeprefix("Value error, ")
        raise SwitchboardError(f"policy {path}: {f'{where}: ' if where else ''}{reason}") from None


_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}


def length(text: str) -> timedelta:
    """`90m`, `24h`, `7d` as a length of time.

    Raises:
        typer.BadParameter: it is none.
    """
    number, unit = text[:-1], text[-1:]
    if unit not in _UNITS or not number.isdecimal() or not 1 <= int(number) <= 10**7:
        raise typer.BadParameter(
            f"{text!r} is no length of time: say it as 90m, 24h or 7d", param_hint="--last"
        )
    return timedelta(seconds=int(number) * _UNITS[unit])


def _plot(job: Job, start_s: int, say: Callable[[str], None]) -> Plot:
    from operators.simulator import compare
    from operators.simulator.report import Plot
    from operators.simulator.run import simulate as run_one

    scenario = compare.find(job)
    say(f"plot of {scenario.name}")
    run = scenario.run(start_s, job.seed)
    outcomes = {name: run_one(run, compare.policy(name, run, job.scaling)) for name in job.policies}
    return Plot(f"{scenario.name}: {scenario.what} (replicas start in {start_s} s)", run, outcomes)


def _write(path: Path, content: str) -> None:
    try:
        path.write_text(content, encoding="utf-8")
    except OSError as error:
        raise SwitchboardError(f"can't write {path}: {error.strerror}", "name another by --html") from None
