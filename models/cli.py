"""`switchboard models …`: train, evaluate and look at models.

Heavy imports happen in the commands that need them: `list` and `show` ask the registry over its REST API and answer in
a fraction of a second.
"""

from __future__ import annotations

import json
import tempfile
import time
from dataclasses import asdict, replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from models import rest
from models.rest import DATA_TAG, NotFound, Registry, RegistryError, Version
from switchboard.errors import SwitchboardError
from switchboard.text import columns

if TYPE_CHECKING:
    from models.evaluation import Report

app = typer.Typer(no_args_is_help=True, help="What is served: train, evaluate and look at models.")

MAIN_TEST = "handwritten"


class Output(StrEnum):
    TEXT = "text"
    JSON = "json"


class DatasetName(StrEnum):
    CORPUS = "corpus"
    BANKING77 = "banking77"


OutputOption = Annotated[Output, typer.Option("--output", "-o", help="How to print the result.")]
UriOption = Annotated[
    str | None,
    typer.Option(
        "--tracking-uri", envvar="MLFLOW_TRACKING_URI", help="MLflow's address.", show_default=False
    ),
]


@app.callback()
def _group() -> None:
    """A group even with one command."""


@app.command(
    epilog="Examples: `switchboard models train` · `switchboard models train --register --alias challenger` · "
    "`switchboard models train --dataset banking77`"
)
def train(
    dataset: Annotated[DatasetName, typer.Option(help="What to train on.")] = DatasetName.CORPUS,
    register: Annotated[bool, typer.Option("--register", help="Log to MLflow and make a version.")] = False,
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
    """Train a model, print its figures and, with --register, make a version of it."""
    from models import evaluation, report, training

    if alias and not register:
        raise SwitchboardError("--alias needs a registered version", "add --register")
    if register and dataset is not DatasetName.CORPUS:
        raise SwitchboardError(
            f"a model of {dataset.value} is a check and is not registered: its intents are not Switchboard's"
        )
    address = rest.tracking_uri(tracking_uri) if register else ""
    given = {"c": c, "seed": seed, "target_accuracy": target_accuracy}
    params = replace(training.Params(), **{name: v for name, v in given.items() if v is not None})  # type: ignore[arg-type]
    trained = training.train(training.load(dataset.value, params), params)
    reports = evaluation.evaluate(trained.classifier, trained.data.tests)
    if report_dir is not None:
        report_dir.mkdir(parents=True, exist_ok=True)
        report.write(trained, reports, report_dir)
    registered = None
    if register:
        from models import registry

        registered = registry.register(trained, reports, name=model, tracking_uri=address, alias=alias)
    if output is Output.JSON:
        settings = trained.classifier.settings
        found: dict[str, Any] = {
            "dataset": trained.data.name,
            "data_sha256": trained.data.sha256,
            "threshold": settings.threshold,
            "metrics": evaluation.metrics(reports),
        }
        if registered is not None:
            found["registered"] = asdict(registered)
        _print_json(found)
        return
    typer.echo(
        f"trained on {trained.texts:,} texts of {trained.data.name} in {trained.seconds:.1f} s; "
        f"hand-off below {trained.classifier.settings.threshold:.2f}"
    )
    _print_figures(reports)
    if registered is not None:
        named = f", {model}@{alias}" if alias else ""
        typer.echo(f"registered {model} version {registered.version}{named} (run {registered.run_id})")


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
        trained_on = Registry(address).version(model.name, model.version).tags.get(DATA_TAG)
    except RegistryError:
        trained_on = None
    reports = evaluation.evaluate(model.classifier, data.tests)
    same = trained_on == data.sha256
    if output is Output.JSON:
        _print_json(
            {
                "model": {"name": model.name, "version": model.version, "digest": model.digest},
                "same_data": same,
                "metrics": evaluation.metrics(reports),
                "mistakes": {one.name: [asdict(o) for o in one.mistakes[:mistakes]] for one in reports},
            }
        )
        return
    typer.echo(f"{model.name} version {model.version}, {model.digest[:12]}")
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
        raise _failed(error) from None
    if output is Output.JSON:
        _print_json(found)
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
                age(now_ms - item["created_ms"]),
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
        raise _failed(error) from None
    if output is Output.JSON:
        _print_json(found)
        return
    lines = [
        ("Name:", found["name"]),
        ("Version:", found["version"]),
        ("Aliases:", ",".join(aliases) or "<none>"),
        ("Status:", found["status"]),
        ("Run:", found["run_id"]),
        ("Data:", found["data_sha256"] or "<none>"),
        ("Age:", age(time.time() * 1000 - found["created_ms"])),
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
            interval = f"[{_percent(metrics[f'{name}_low'])}, {_percent(metrics[f'{name}_high'])}]"
            rows.append((f"{name}:", _percent(value), interval, f"n={metrics.get(f'{name}_n', 0):.0f}"))
    return rows


def _print_figures(reports: list[Report]) -> None:
    rows = [("TEST", "LANGUAGE", "ACCURACY", "COVERAGE", "ANSWERS RIGHT", "OUT OF SCOPE HANDED OFF")]
    for one in reports:
        for language, found in {"all": one.overall, **one.by_language}.items():
            rows.append(
                (
                    one.name,
                    language,
                    str(found.accuracy),
                    str(found.coverage),
                    str(found.answered_accuracy),
                    str(found.out_of_scope_rejected) if found.out_of_scope_rejected.n else "<none>",
                )
            )
    typer.echo(columns(rows))


def age(milliseconds: float) -> str:
    """As kubectl shows it: 45s, 12m, 5h, 3d."""
    seconds = max(0, int(milliseconds / 1000))
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds >= size * (2 if unit != "d" else 1):
            return f"{seconds // size}{unit}"
    return f"{seconds}s"


def _percent(value: float | None) -> str:
    return "<none>" if value is None else f"{value:.1%}"


def _print_json(value: Any) -> None:
    typer.echo(json.dumps(value, ensure_ascii=False, indent=2))


def _failed(error: RegistryError) -> SwitchboardError:
    if isinstance(error, NotFound):
        return SwitchboardError(str(error).rstrip("."), "see what there is: switchboard models list")
    return SwitchboardError(str(error), "see whether MLflow runs: switchboard status")
