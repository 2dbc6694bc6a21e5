"""`switchboard loadtests run SCENARIO`: a scenario, its verdict, and what it leaves for others to read.

Exit codes: 0 what is claimed is proven, 1 it is refuted, 2 it isn't proven; 3 nothing is said: the run is invalid, or
it couldn't be done.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import tempfile
import threading
import time
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated
from urllib.parse import urlsplit

import typer

from loadtests.starting import START_S, Start
from switchboard.errors import SwitchboardError
from switchboard.gateways import EDGES_VARIABLE, GATEWAY_VARIABLE, named
from switchboard.printing import Output, OutputOption
from switchboard.progress import Progress

if TYPE_CHECKING:
    from loadtests.breaking import Breaker
    from loadtests.figures import SoFar
    from loadtests.observing import Observer
    from loadtests.report import Shown
    from loadtests.scenario import Scenario

MOST_QUESTIONS = 200

app = typer.Typer()


@app.command(
    name="run",
    epilog="Examples: `switchboard loadtests run smoke` · "
    "`switchboard loadtests run peak-5x --target http://127.20.0.1:8080 --out reports/peak` · "
    "`switchboard loadtests run ./ours.yaml --processes 2 --output json`",
)
def run_scenario(
    scenario: Annotated[str, typer.Argument(help="Its name, or the path of its file.")],
    target: Annotated[
        str | None, typer.Option(help="The gateway that is asked.", envvar=GATEWAY_VARIABLE)
    ] = None,
    other: Annotated[
        str | None, typer.Option(help="Where a request that failed is put once more; --target by default.")
    ] = None,
    edge: Annotated[
        list[str] | None,
        typer.Option(
            metavar="REGION=URL",
            help="The gateway at the edge of a region; repeatable.",
            envvar=EDGES_VARIABLE,
        ),
    ] = None,
    stack: Annotated[
        str, typer.Option(help="What the target belongs to.", envvar="SWITCHBOARD_STACK")
    ] = "local",
    out: Annotated[
        Path | None,
        typer.Option(help="The folder for report, figures and requests.", show_default="loadtests-SCENARIO"),
    ] = None,
    processes: Annotated[int, typer.Option(min=1, max=64, help="So many that ask.")] = 1,
    questions: Annotated[
        int, typer.Option(min=0, max=1000, help="So many of the held-out set; 0: everyday questions alone.")
    ] = MOST_QUESTIONS,
    start_seconds: Annotated[
        float | None,
        typer.Option(
            min=0,
            help="How long a replica takes to start, at its 95th percentile.",
            show_default=f"as those that did in the run, or {START_S:g} where none did",
        ),
    ] = None,
    server: Annotated[str, typer.Option(help="The ModelServer whose replicas the report shows.")] = "chat",
    namespace: Annotated[
        str, typer.Option("--namespace", "-n", help="Its namespace.")
    ] = "switchboard-serving",
    context: Annotated[str | None, typer.Option(help="Of kubectl.", show_default="the current one")] = None,
    core_context: Annotated[
        str, typer.Option(help="The core site's, in which MLflow is: for scenarios with faults.")
    ] = "private",
    yes_break: Annotated[
        str | None,
        typer.Option(metavar="STACK", help="Really break things of a stack that isn't local: its name."),
    ] = None,
    seed: Annotated[
        int | None, typer.Option(min=0, help="Of all chance.", show_default="another each time")
    ] = None,
    output: OutputOption = Output.TEXT,
) -> None:
    """Put a scenario's customers on a target and say whether what it claims is proven."""
    from dataclasses import asdict

    from loadtests import probing, sizes
    from loadtests import scenario as scenarios
    from loadtests.agreed import Settings
    from loadtests.conversations import Question
    from loadtests.outcomes import finding, outcomes
    from loadtests.running import run
    from loadtests.scenario import Users
    from loadtests.spoken import recordings
    from loadtests.verdict import CODES, judge

    wanted = scenarios.load(scenario)
    name = Path(scenario).stem
    target = named(target, "--target")
    edges = _edges(wanted, edge or [])
    probing.check_target(target, stack)
    for what, url in (("--other", other), *((f"--edge {region}", url) for region, url in edges.items())):
        if url is not None:
            probing.check_target(url, stack, what=what)
    if Users.VOICE in wanted.users:
        probing.check_voice(target)
        if other is not None:
            probing.check_voice(other, what="--other")
    breaker = _breaker(wanted, stack, yes_break, (context, core_context), namespace, server)
    observer = _observer(namespace, server, context)
    if observer is None and wanted.claims.scale_down:
        raise SwitchboardError(
            "the scenario claims something of replicas (scaleDown), and there is no kubeconfig to see them by",
            'of the local cloud: eval "$(switchboard env)"; else KUBECONFIG, or a scenario without that claim',
        )
    folder = out or Path(f"loadtests-{name}")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SwitchboardError(f"--out {folder} can't be a folder: {error.strerror}") from None
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, signal.default_int_handler)  # as at Ctrl-C: what was measured is told
    profile = wanted.profile
    with ExitStack() as stacked:
        progress = stacked.enter_context(Progress(sys.stderr))
        temporary = Path(stacked.enter_context(tempfile.TemporaryDirectory()))
        asked = recorded = None
        known: dict[str, str] = {}
        if questions:
            with progress.step("which questions the model knows") as step:
                from models import corpus

                held_out = [
                    Question(one.text, one.language, one.intent) for one in corpus.handwritten(name="fresh")
                ]
                asked = temporary / "questions.jsonl"
                known["questions it knew"] = probing.find_out(target, held_out, asked, most=questions)
                step.detail(known["questions it knew"])
        if Users.VOICE in wanted.users:
            with progress.step("which recordings it understands") as step:
                recorded = temporary / "recordings.jsonl"
                known["recordings understood"] = probing.find_out(target, recordings(), recorded)
                step.detail(known["recordings understood"])
        if observer is not None:
            stacked.enter_context(observer)
        if breaker is not None:
            stacked.enter_context(breaker)
        step = stacked.enter_context(
            progress.step(f"{name}: {profile.requests():,.0f} requests in {profile.length_s:g} s")
        )
        settings = Settings(
            arrivals=wanted.arrivals.value,
            seed=random.randrange(2**31) if seed is None else seed,  # noqa: S311
            other=other,
            edges=edges,
            users={kind.value: weight for kind, weight in wanted.users.items()},
            points=profile.points,
            questions=str(asked) if asked is not None else None,
            recordings=str(recorded) if recorded is not None else None,
            requests=str((folder / "requests.csv").absolute()),
        )

        def tell(so_far: SoFar) -> None:
            if breaker is not None and so_far.total:
                breaker.begin()
            now = f"{breaker.now}: " if breaker is not None and breaker.now else ""
            counts = f"{so_far.total:,} asked, {so_far.failed:,} failed, {so_far.p99_ms or 0:.0f} ms at p99"
            step.detail(now + counts)

        found = run(target, settings, processes=processes, on_progress=tell)
    came_to = outcomes(breaker.happened, found.requests) if breaker is not None else []
    begun = found.figures.began_s or time.time()
    start = Start.of(start_seconds, observer.starts if observer is not None else ())
    looks = observer.looks if observer is not None else []
    sized = sizes.sizes(looks, found.requests)
    verdict = judge(
        wanted,
        found.requests,
        found.figures,
        begun,
        start_s=start.seconds,
        partial=found.partial,
        more=[
            *([sizes.finding(sized, found.figures.lost)] if wanted.claims.scale_down else []),
            *(finding(one) for one in came_to),
        ],
    )
    from loadtests import histograms, report

    shown = report.Shown(
        name=name,
        target=target,
        scenario=wanted,
        verdict=verdict,
        figures=found.figures,
        requests=found.requests,
        begun_s=begun,
        start=start,
        looks=looks,
        sizes=sized,
        faults=came_to,
        known=known,
    )
    result = {
        "scenario": name,
        "target": target,
        "begun": datetime.fromtimestamp(begun, UTC).isoformat(timespec="seconds"),
        "seed": settings.seed,
        "verdict": verdict.model_dump(mode="json"),
        "figures": found.figures.model_dump(),
        "start": asdict(start),
        "known": known,
        "sizes": asdict(sized) if sized is not None else None,
        "replicas": [asdict(one) for one in looks],
        "faults": [one.model_dump(mode="json") for one in came_to],
    }
    (folder / "report.html").write_text(report.document(shown), encoding="utf-8")
    (folder / "junit.xml").write_text(report.junit(shown), encoding="utf-8")
    (folder / "result.json").write_text(json.dumps(result, indent=2), encoding="utf-8")
    with (folder / "latency.hlog").open("w", encoding="utf-8") as file:
        histograms.write(found.requests, file, begun)
    if output is Output.JSON:
        typer.echo(json.dumps(result, indent=2))
    else:
        _tell(shown, folder)
    raise typer.Exit(CODES[verdict.outcome])


def _tell(shown: Shown, folder: Path) -> None:
    from loadtests import report
    from loadtests.figures import table
    from loadtests.verdict import Answer, Outcome

    verdict = shown.verdict
    for name, value in (*table(shown.figures), *report.more(shown)):
        typer.echo(f"{name:<26}{value}")
    marks = {
        Answer.HOLDS: ("✓", typer.colors.GREEN),
        Answer.REFUTED: ("✗", typer.colors.RED),
        Answer.NOT_PROVEN: ("?", typer.colors.YELLOW),
    }
    for one in verdict.findings:
        mark, colour = marks[one.answer]
        typer.secho(f"{mark} {one.claim}: {one.why}", fg=colour)
    for problem in verdict.problems:
        typer.secho(f"! {problem}", fg=typer.colors.RED)
    if verdict.partial:
        typer.secho("! ended before its time: this is a part of the run", fg=typer.colors.YELLOW)
    good = verdict.outcome is Outcome.PASSED
    typer.secho(verdict.outcome.value, bold=True, fg=typer.colors.GREEN if good else None)
    typer.echo(f"report: {folder / 'report.html'}")


def _edges(scenario: Scenario, given: list[str]) -> dict[str, str]:
    from loadtests.scenario import Users

    found = {}
    for one in given if Users.EDGE in scenario.users else ():
        region, equals, url = one.partition("=")
        if not equals or not region:
            raise SwitchboardError(
                f"--edge {one!r} isn't REGION=URL, such as cn-beijing=http://127.20.2.1:8080"
            )
        found[region] = url
    if Users.EDGE in scenario.users and not found:
        raise SwitchboardError(
            "the scenario has customers at edges, and no --edge is given",
            "`switchboard status` shows the addresses",
        )
    return found


def _observer(namespace: str, server: str, context: str | None) -> Observer | None:
    """None where there is no kubeconfig: a run needs no cluster."""
    from loadtests.observing import Observer
    from switchboard.credentials import Credentials

    files = [Path(one) for one in os.environ.get("KUBECONFIG", "").split(os.pathsep) if one]
    if not any(one.exists() for one in files):
        return None
    return Observer(Credentials.of_user(os.environ, context), namespace, server)


def _breaker(
    wanted: Scenario,
    stack: str,
    yes_break: str | None,
    contexts: tuple[str | None, str],
    namespace: str,
    server: str,
) -> Breaker | None:
    """None where the scenario breaks nothing.

    Raises:
        SwitchboardError: it isn't said that this stack may be broken, or there is no way to it.
    """
    from loadtests.breaking import Breaker, Place
    from loadtests.faults import Name
    from loadtests.probing import LOCAL, is_here
    from switchboard.credentials import Credentials

    if not wanted.faults:
        return None
    if yes_break not in (None, stack) or (yes_break is None and stack != LOCAL):
        raise SwitchboardError(
            f"the scenario breaks things, and nobody has said that the stack {stack} may be broken",
            f"where you mean it: --yes-break {stack}",
        )
    context, core_context = contexts
    core = None
    if Name.RESTART_MLFLOW in wanted.faults:
        core = Credentials.of_user(os.environ, core_context)
    serving = Credentials.of_user(os.environ, context)
    if stack == LOCAL:
        for name, one in ((context or "the current context", serving), (core_context, core)):
            if one is not None and not is_here(urlsplit(one.server).hostname or ""):
                raise SwitchboardError(
                    f"the cluster of {name} isn't on this machine, and the stack is called {LOCAL}",
                    'of the local cloud: eval "$(switchboard env)"',
                )
    place = Place(serving, core, context, core_context, namespace, server)
    return Breaker(place, wanted.faults, embedded=stack == LOCAL, stack=stack)
