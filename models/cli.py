"""`switchboard models …`: train, evaluate, gate, compare, register and look at models.

Heavy imports happen in the commands that need them: `list` and `show` ask the registry over its REST API and answer in
a fraction of a second.
"""

from __future__ import annotations

import tempfile
import time
from dataclasses import asdict, replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from models import cli_champion, cli_compare, cli_gate, cli_releases, rest
from models.cli_shared import OutputOption, UriOption, failed, print_json
from models.rest import DATA_TAG, Registry, RegistryError, Version
from switchboard.errors import SwitchboardError
from switchboard.printing import Output
from switchboard.text import age, columns

if TYPE_CHECKING:
    from models.evaluation import Report

app = typer.Typer(no_args_is_help=True, help="What is served: train, evaluate, gate and look at models.")

MAIN_TEST = "handwritten"


class DatasetName(StrEnum):
    CORPUS = "corpus"
    BANKING77 = "banking77"


@app.callback()
def _group() -> None:
    """A group even with one command."""


@app.command(
    epilog="Examples: `switchboard models train` · `switchboard models train --register --alias challenger` · "
    "`switchboard models train --log` · `switchboard models train --dataset banking77`"
)
def train(
    dataset: Annotated[DatasetName, typer.Option(help="What to train on.")] = DatasetName.CORPUS,
    register: Annotated[bool, typer.Option("--register", help="Log to MLflow and make a version.")] = False,
    log: Annotated[
        bool, typer.Option("--log", help="Log to MLflow; `register` may make a version later.")
    ] = False,
    model: Annotated[str, typer.Option(help="The registered model's name.")] = "chat-intent",
    alias: Annotated[str | None, typer.Option(help="Let this alias mean the new version.")] = None,
    c: Annotated[float | None, typer.Option("--c", min=0.001, help="The linear model's C.")] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Seed of splits and sampling.")] = None,
    target_accuracy: Annotated[
        float | None,
        typer.Option(
            min=0.5, max=1.0, help="Share of the given answers that must be right; sets the threshold."
        ),
    ] = None,
    report_dir: Annotated[Path | None, typer.Option(help="Write report.html and report.json here.")] = None,
    tracking_uri: UriOption = None,
    output: OutputOption = Output.TEXT,
) -> None:
    """Train a model, print its figures and, with --log or --register, log it to MLflow and make a version of it."""
    from models import evaluation, report, training

    if alias and not register:
        raise SwitchboardError("--alias needs a registered version", "add --register")
    if (register or log) and dataset is not DatasetName.CORPUS:
        raise SwitchboardError(
            f"a model of {dataset.value} is a check and is not registered: its intents are not Switchboard's"
        )
    address = rest.tracking_uri(tracking_uri) if register or log else ""
    given = {"c": c, "seed": seed, "target_accuracy": target_accuracy}
    params = replace(training.Params(), **{name: v for name, v in given.items() if v is not None})  # type: ignore[arg-type]
    trained = training.train(training.load(dataset.value, params), params)
    reports = evaluation.evaluate(trained.classifier, trained.data.tests)
    if report_dir is not None:
        report_dir.mkdir(parents=True, exist_ok=True)
        report.write(trained, reports, report_dir)
    registered = logged = None
    if register or log:
        from models import registry

        logged = registry.log_run(trained, reports, name=model, tracking_uri=address)
        if register:
            registered = registry.make_version(logged, name=model, tracking_uri=address, alias=alias)
    if output is Output.JSON:
        settings = trained.classifier.settings
        found: dict[str, Any] = {
            "dataset": trained.data.name,
            "data_sha256": trained.data.sha256,
            "threshold": settings.threshold,
            "metrics": evaluation.metrics(reports),
        }
        if logged is not None:
            found["run_id"] = logged.run_id
        if registered is not None:
            found["registered"] = asdict(registered)
        print_json(found)
        return
    typer.echo(
        f"trained on {trained.texts:,} texts of {trained.data.name} in {trained.seconds:.1f} s; "
        f"hand-off below {trained.classifier.settings.threshold:.2f}"
    )
    _print_figures(reports)
    if registered is not None:
        named = f", {model}@{alias}" if alias else ""
        typer.echo(f"registered {model} version {registered.version}{named} (run {registered.run_id})")
    elif logged is not None:
        typer.echo(f"logged run {logged.run_id}; make a version: switchboard models register {logged.run_id}")


@app.command(
    epilog="Examples: `switchboard models evaluate` · `switchboard models evaluate models:/chat-intent/3 -o json`"
)
def evaluate(
    uri: Annotated[
        str, typer.Argument(help="models:/<name>@<alias> or models:/<name>/<version>.")
    ] = "models:/chat-intent@champion",
    mistakes: Annotated[int, typer.Option(min=0, help="Show so many wrong answers of each test.")] = 0,
    tracking_uri: UriOption = None,
    output: OutputOption = Output.TEXT,
) -> None:
    """Evaluate a registered model on this checkout's held-out templates and hand-written tests."""
    from models import evaluation, loading, training

    address = rest.tracking_uri(tracking_uri)
    with tempfile.TemporaryDirectory(prefix="switchboard-models-") as folder:
        model = loading.load(uri, Path(folder), timeout_s=30, tracking_uri=address)
    data = training.load_corpus(training.Params())
    try:
        version = Registry(address).version(model.name, model.version)
    except RegistryError as error:
        raise failed(error) from None
    trained_on = version.tags.get(DATA_TAG)
    size = sum(info.size for info in version.files().values())
    reports = evaluation.evaluate(model.classifier, data.tests)
    same = trained_on == data.sha256
    if output is Output.JSON:
        print_json(
            {
                "model": {"name": model.name, "version": model.version, "digest": model.digest},
                "same_data": same,
                "size_bytes": size,
                "metrics": evaluation.metrics(reports),
                "slices": {one.name: {k: asdict(f) for k, f in one.slices().items()} for one in reports},
                "mistakes": {one.name: [asdict(o) for o in one.mistakes[:mistakes]] for one in reports},
            }
        )
        return
    typer.echo(f"{model.name} version {model.version}, {model.digest[:12]}, {size:,} bytes")
    if not same:
        typer.echo(
            "note: it was trained on other data than this checkout's; templates may not be unseen to it"
        )
    _print_figures(reports)
    for one in reports:
        for outcome in one.mistakes[:mistakes]:
            typer.echo(
                f"  {one.name}: {outcome.text!r} is {outcome.wanted}, "
                f"answered {outcome.answered} ({outcome.confidence:.2f})"
            )


@app.command(
    "list", epilog="Examples: `switchboard models list` · `switchboard models list chat-intent -o json`"
)
def list_models(
    model: Annotated[str | None, typer.Argument(help="Only this model.")] = None,
    tracking_uri: UriOption = None,
    output: OutputOption = Output.TEXT,
) -> None:
    """Registered versions, newest first, with aliases and main figures."""
    registry = Registry(rest.tracking_uri(tracking_uri))
    try:
        found = [
            _described(registry, version, aliases.get(version.version, ()))
            for name in ([model] if model else registry.models())
            for aliases in [registry.aliases(name)]
            for version in reversed(registry.versions(name))
        ]
    except RegistryError as error:
        raise failed(error) from None
    if output is Output.JSON:
        print_json(found)
        return
    if not found:
        typer.echo("no registered models; make one: switchboard models train --register --alias champion")
        return
    rows = [("NAME", "VERSION", "ALIASES", "ACCURACY", "COVERAGE", "DATA", "AGE")]
    now_ms = time.time() * 1000
    for item in found:
        rows.append(
            (
                item["name"],
                item["version"],
                ",".join(item["aliases"]) or "<none>",
                _percent(item["metrics"].get(f"{MAIN_TEST}.answered_accuracy")),
                _percent(item["metrics"].get(f"{MAIN_TEST}.coverage")),
                item["data_sha256"][:8] or "<none>",
                age((now_ms - item["created_ms"]) / 1000),
            )
        )
    typer.echo(columns(rows))


@app.command(
    epilog="Examples: `switchboard models show` · `switchboard models show models:/chat-intent/2 -o json`"
)
def show(
    uri: Annotated[
        str, typer.Argument(help="models:/<name>@<alias> or models:/<name>/<version>.")
    ] = "models:/chat-intent@champion",
    tracking_uri: UriOption = None,
    output: OutputOption = Output.TEXT,
) -> None:
    """One version: where it comes from, its parameters and its figures with their intervals."""
    from models.loading import parse

    registry = Registry(rest.tracking_uri(tracking_uri))
    reference = parse(uri)
    try:
        version = (
            registry.version_of_alias(reference.name, reference.alias)
            if reference.alias
            else registry.version(reference.name, reference.version or "")
        )
        aliases = registry.aliases(version.name).get(version.version, ())
        found = _described(registry, version, aliases)
    except RegistryError as error:
        raise failed(error) from None
    if output is Output.JSON:
        print_json(found)
        return
    lines = [
        ("Name:", found["name"]),
        ("Version:", found["version"]),
        ("Aliases:", ",".join(aliases) or "<none>"),
        ("Status:", found["status"]),
        ("Run:", found["run_id"]),
        ("Data:", found["data_sha256"] or "<none>"),
        ("Age:", age(time.time() - found["created_ms"] / 1000)),
    ]
    typer.echo(columns(lines))
    typer.echo("Parameters:")
    typer.echo(columns([("", f"{name}:", value) for name, value in sorted(found["params"].items())]))
    typer.echo("Figures (95 % intervals):")
    typer.echo(columns([("", *row) for row in _metric_rows(found["metrics"])]))


def _described(registry: Registry, version: Version, aliases: tuple[str, ...]) -> dict[str, Any]:
    metrics, params = registry.run(version.run_id) if version.run_id else ({}, {})
    return {
        "name": version.name,
        "version": version.version,
        "aliases": list(aliases),
        "status": version.status,
        "run_id": version.run_id,
        "created_ms": version.created_ms,
        "data_sha256": version.tags.get(DATA_TAG, ""),
        "metrics": dict(sorted(metrics.items())),
        "params": params,
    }


def _metric_rows(metrics: dict[str, float]) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = []
    for name, value in metrics.items():
        if f"{name}_low" in metrics:
            low, high = (_shown(name, metrics[f"{name}{end}"]) for end in ("_low", "_high"))
            n = f"n={metrics.get(f'{name}_n', 0):.0f}"
            rows.append((f"{name}:", _shown(name, value), f"[{low}, {high}]", n))
    return rows


def _print_figures(reports: list[Report]) -> None:
    rows = [("TEST", "SLICE", "ACCURACY", "COVERAGE", "ANSWERS RIGHT", "OUT OF SCOPE HANDED OFF")]
    more: list[tuple[str, ...]] = [("TEST", "SLICE", "MACRO F1", "CALIBRATION ERROR", "BRIER", "P50", "P99")]
    for one in reports:
        for part, found in {"all": one.overall, **one.by_language, **one.by_customers}.items():
            rejected = found.out_of_scope_rejected
            rows.append(
                (
                    one.name,
                    part,
                    str(found.accuracy),
                    str(found.coverage),
                    str(found.answered_accuracy),
                    str(rejected) if rejected.n else "<none>",
                )
            )
            figures = (found.macro_f1, found.calibration_error, found.brier, found.p50_ms, found.p99_ms)
            more.append((one.name, part, *(f"{figure.shown()} {figure.interval()}" for figure in figures)))
    typer.echo(columns(rows))
    typer.echo(columns(more))


def _shown(name: str, value: float) -> str:
    return f"{value:.3g} ms" if name.endswith("_ms") else _percent(value)


def _percent(value: float | None) -> str:
    return "<none>" if value is None else f"{value:.1%}"


app.command(epilog=cli_gate.GATE_EXAMPLES)(cli_gate.gate)
app.command(epilog=cli_compare.COMPARE_EXAMPLES)(cli_compare.compare)
app.command(epilog=cli_compare.DIFF_EXAMPLES)(cli_compare.diff)
app.command(epilog=cli_releases.REGISTER_EXAMPLES)(cli_releases.register)
app.command(epilog=cli_champion.PROMOTE_EXAMPLES)(cli_champion.promote)
app.command(epilog=cli_champion.ROLLBACK_EXAMPLES)(cli_champion.rollback)
app.command(epilog=cli_releases.HISTORY_EXAMPLES)(cli_releases.history)
