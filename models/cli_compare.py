"""`switchboard models compare` and `diff`: two versions side by side, in what they do and in what they are."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from models import rest
from models.cli_shared import ModelUri, OutputOption, UriOption, failed, print_json
from models.rest import RegistryError
from switchboard.printing import Output
from switchboard.text import columns

COMPARE_EXAMPLES = (
    "Examples: `switchboard models compare models:/chat-intent/3 models:/chat-intent@champion` · "
    "`switchboard models compare models:/chat-intent/3 models:/chat-intent/2 --figure accuracy -o json`"
)
DIFF_EXAMPLES = (
    "Examples: `switchboard models diff models:/chat-intent/3 models:/chat-intent@champion` · "
    "`switchboard models diff models:/chat-intent/3 models:/chat-intent/2 -o json`"
)


def compare(
    one: ModelUri,
    other: ModelUri,
    figure: Annotated[
        list[str] | None,
        typer.Option(help="accuracy, resolved, wrong or hand_off; repeatable.", show_default="all four"),
    ] = None,
    confidence: Annotated[
        float, typer.Option(min=0.51, max=0.999, help="Of each end of the intervals.")
    ] = 0.975,
    tracking_uri: UriOption = None,
    output: OutputOption = Output.TEXT,
) -> None:
    """Two versions on the texts that neither has learnt: each, the difference and its interval, slice by slice."""
    from models import latency, training
    from models.comparison import FIGURES, by_slice
    from models.evaluation import outcomes
    from models.examined import examine
    from models.gates.gathering import comparable
    from models.rest_write import RegistryWriter
    from switchboard.errors import SwitchboardError

    if unknown := set(figure or ()) - set(FIGURES):
        raise SwitchboardError(
            f"{', '.join(sorted(unknown))} can't be compared", f"one of {', '.join(FIGURES)}"
        )
    registry = RegistryWriter(rest.tracking_uri(tracking_uri))
    try:
        first, second = examine(registry, one), examine(registry, other)
    except RegistryError as error:
        raise failed(error) from None
    tests = comparable(training.load_corpus(first.params()).tests, first, second)
    ours, theirs = (
        {name: outcomes(model.classifier, examples) for name, examples in tests.items()}
        for model in (first, second)
    )
    found = [
        less for name in figure or FIGURES for less in by_slice(ours, theirs, name, confidence=confidence)
    ]
    texts = [example.text for examples in tests.values() for example in examples]
    took = latency.side_by_side([first.classifier, second.classifier], texts)
    models = [
        {
            "name": model.version.name,
            "version": model.version.version,
            "digest": model.digest,
            "size_bytes": model.size_bytes,
            "p50_ms": asdict(ms.p50_ms),
            "p99_ms": asdict(ms.p99_ms),
        }
        for model, ms in zip((first, second), took, strict=True)
    ]
    if output is Output.JSON:
        print_json({"models": models, "texts": len(texts), "differences": [asdict(less) for less in found]})
        return
    rows: list[tuple[str, ...]] = [
        ("FIGURE", "SLICE", first.named.upper(), second.named.upper(), "DIFFERENCE")
    ]
    for less in found:
        part = "all" if less.kind == "all" else f"{less.kind} {less.slice}"
        rows.append((less.figure, part, f"{less.one:.1%}", f"{less.other:.1%}", str(less.less)))
    for label, key in (("p50 of one text", "p50_ms"), ("p99 of one text", "p99_ms")):
        cells = [str(getattr(ms, key)) for ms in took]
        rows.append((label, "all", *cells, "<none>"))
    sizes = (first.size_bytes, second.size_bytes)
    rows.append(("size in bytes", "all", *(f"{size:,}" for size in sizes), f"{sizes[0] - sizes[1]:+,}"))
    typer.echo(columns(rows))


def diff(
    one: ModelUri,
    other: ModelUri,
    tracking_uri: UriOption = None,
    output: OutputOption = Output.TEXT,
) -> None:
    """What differs between two versions: parameters, data, code, lock file, labels, files and figures."""
    from models.differing import described, differing
    from models.rest_write import RegistryWriter

    registry = RegistryWriter(rest.tracking_uri(tracking_uri))
    try:
        first, second = described(registry, one), described(registry, other)
    except RegistryError as error:
        raise failed(error) from None
    found = differing(first, second)
    if output is Output.JSON:
        print_json(
            {
                "models": [first.named, second.named],
                "differing": [asdict(row) for row in found],
            }
        )
        return
    if not found:
        typer.echo(f"{first.named} and {second.named} differ in nothing")
        return
    rows: list[tuple[str, ...]] = [("WHAT", "NAME", first.named.upper(), second.named.upper())]
    rows += [(row.kind, row.name, _short(row.one), _short(row.other)) for row in found]
    typer.echo(columns(rows))


def _short(value: str) -> str:
    return "<none>" if not value else value if len(value) <= 40 else f"{value[:12]}…"
