"""What the commands of `switchboard models` share: options, and how results and errors are shown."""

from __future__ import annotations

import json
from dataclasses import asdict
from datetime import UTC
from typing import TYPE_CHECKING, Annotated, Any

import typer

from models.rest import Denied, NotFound, RegistryError
from switchboard.errors import SwitchboardError
from switchboard.printing import OutputOption as OutputOption

if TYPE_CHECKING:
    from models.ledger import Entry

UriOption = Annotated[
    str | None,
    typer.Option(
        "--tracking-uri", envvar="MLFLOW_TRACKING_URI", help="MLflow's address.", show_default=False
    ),
]
ModelUri = Annotated[str, typer.Argument(help="models:/<name>@<alias> or models:/<name>/<version>.")]


def print_json(value: Any) -> None:
    typer.echo(json.dumps(value, ensure_ascii=False, indent=2))


def entry_json(entry: Entry) -> dict[str, Any]:
    """An entry of a ledger, for `--output json`."""
    return asdict(entry) | {"at": entry.at.astimezone(UTC).isoformat(), "sha256": entry.sha256}


def failed(error: RegistryError) -> SwitchboardError:
    """What to tell a person of a failure of the registry."""
    if isinstance(error, Denied):
        return SwitchboardError(str(error), error.next_step)
    if isinstance(error, NotFound):
        return SwitchboardError(str(error).rstrip("."), "see what there is: switchboard models list")
    return SwitchboardError(str(error), "see whether MLflow runs: switchboard status")
