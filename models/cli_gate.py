"""`switchboard models gate`: may this version be released, and if not, which line says so and by how much.

Exit codes: 0 it passed, 1 it failed, 2 wrong usage, 3 it couldn't be judged (the message says why).
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from models import corpus, rest
from models.cli_shared import ModelUri, OutputOption, UriOption, failed, print_json
from models.rest import RegistryError
from switchboard.errors import SwitchboardError
from switchboard.printing import Output
from switchboard.text import columns

GATE_EXAMPLES = (
    "Examples: `switchboard models gate models:/chat-intent/3` · "
    "`switchboard models gate models:/chat-intent@challenger -o json` · "
    "`switchboard models gate models:/chat-intent/3 --dry-run`. "
    "Exit codes: 0 passed, 1 failed, 3 couldn't be judged."
)
FAILED, ERROR = 1, 3


def gate(
    uri: ModelUri,
    file: Annotated[
        Path | None,
        typer.Option("--gate", help="The gate's file.", show_default="models/gates/<name>.yaml"),
    ] = None,
    champion: Annotated[str, typer.Option(help="The alias of what it is compared with.")] = "champion",
    data: Annotated[
        Path, typer.Option(help="The folder of the data.", show_default="this checkout's models/data")
    ] = corpus.DATA,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Write nothing to MLflow.")] = False,
    tracking_uri: UriOption = None,
    output: OutputOption = Output.TEXT,
) -> None:
    """Judge a version by its gate's file, against the champion; the result is kept with the version."""
    try:
        found = _judged(uri, file, champion, data, dry_run, tracking_uri)
    except RegistryError as error:
        _stop(failed(error))
    except SwitchboardError as error:
        _stop(error)
    if output is Output.JSON:
        print_json(found)
    else:
        _print(found)
    if not found["passed"]:
        raise typer.Exit(FAILED)


def _judged(
    uri: str, file: Path | None, champion: str, data: Path, dry_run: bool, tracking_uri: str | None
) -> dict[str, Any]:
    from models.examined import examine
    from models.gates import gathering, results, spec
    from models.gates.judge import judge
    from models.loading import parse
    from models.rest_write import RegistryWriter

    asked = spec.load(parse(uri).name, file)
    registry = RegistryWriter(rest.tracking_uri(tracking_uri))
    candidate = examine(registry, uri)
    evidence = gathering.gather(registry, candidate, champion_alias=champion, directory=data)
    verdict = judge(asked, evidence)
    compared = evidence.champion.version if evidence.champion else ""
    found = results.to_json(asked, candidate, compared, verdict)
    if not dry_run:
        found["artifact"] = results.publish(registry, candidate, found, verdict)
        found["run_id"] = candidate.run.run_id
    return found


def _print(found: dict[str, Any]) -> None:
    against = f"champion version {found['champion']}" if found["champion"] else "no champion"
    typer.echo(f"{found['model']} version {found['version']}, {found['digest'][:12]}, against {against}")
    rows = [("LINE", "RESULT", "BY", "FOUND", "WANTED")]
    for line in found["lines"]:
        result = "passed" if line["passed"] else "FAILED"
        rows.append((line["name"], result, line["by"] or "-", line["found"], line["wanted"]))
    typer.echo(columns(rows))
    wrong = sum(not line["passed"] for line in found["lines"])
    typer.echo("passed" if found["passed"] else f"failed: {wrong} of {len(found['lines'])} lines")


def _stop(error: SwitchboardError) -> None:
    typer.echo(f"error: {error}", err=True)
    raise typer.Exit(ERROR)
