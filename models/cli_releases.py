"""`switchboard models register` and `history`: a trained model becomes a version; what was in production when."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Any

import typer

from models import rest
from models.cli_shared import OutputOption, UriOption, entry_json, failed, print_json
from models.rest import NotFound, RegistryError
from switchboard.errors import SwitchboardError
from switchboard.printing import Output
from switchboard.text import columns

if TYPE_CHECKING:
    from models.ledger import Entry, Standing

REGISTER_EXAMPLES = (
    "Examples: `switchboard models register 3f2c…` · "
    "`switchboard models register 3f2c… --alias challenger -o json` (the run is what `switchboard models train --log` "
    "prints)"
)
HISTORY_EXAMPLES = (
    "Examples: `switchboard models history chat-intent` · "
    "`switchboard models history chat-intent --at 2026-03-03` · "
    "`switchboard models history chat-intent --at 2026-03-03T12:00Z -o json` · "
    "`switchboard models history chat-intent --verify`"
)


def register(
    run: Annotated[str, typer.Argument(help="The run that holds the model.")],
    model: Annotated[str, typer.Option(help="The registered model's name.")] = "chat-intent",
    alias: Annotated[str | None, typer.Option(help="Let this alias mean the new version.")] = None,
    tracking_uri: UriOption = None,
    output: OutputOption = Output.TEXT,
) -> None:
    """Make a version of a model that `train --log` logged; one that there is already is not made twice."""
    from models import registry
    from models.rest_write import RegistryWriter

    address = rest.tracking_uri(tracking_uri)
    try:
        logged = registry.find_logged(run, tracking_uri=address)
        known = _version_of(rest.Registry(address), model, run)
        if known is None:
            known = registry.make_version(logged, name=model, tracking_uri=address, alias=alias).version
            made = True
        else:
            made = False
            if alias:
                RegistryWriter(address).set_alias(model, alias, known)
    except RegistryError as error:
        raise failed(error) from None
    if output is Output.JSON:
        print_json({"name": model, "version": known, "run_id": run, "alias": alias, "made": made})
        return
    named = f", {model}@{alias}" if alias else ""
    said = "registered" if made else "there is already"
    typer.echo(f"{said} {model} version {known}{named} (run {run})")


def _version_of(registry: rest.Registry, model: str, run: str) -> str | None:
    try:
        return next((one.version for one in registry.versions(model) if one.run_id == run), None)
    except NotFound:
        return None


def history(
    model: Annotated[str, typer.Argument(help="The registered model's name.")] = "chat-intent",
    at: Annotated[
        str | None,
        typer.Option(
            help="What was in production on a day (2026-03-03) or at a moment (2026-03-03T12:00Z); UTC where no zone "
            "is said."
        ),
    ] = None,
    verify: Annotated[bool, typer.Option("--verify", help="Only look whether the ledger is whole.")] = False,
    tracking_uri: UriOption = None,
    output: OutputOption = Output.TEXT,
) -> None:
    """The ledger of a model: what was in production when, who decided it, why, and on what evidence."""
    from models.ledger import Ledger, during, standings
    from models.rest_write import RegistryWriter

    span = moments(at) if at else None
    ledger = Ledger(RegistryWriter(rest.tracking_uri(tracking_uri)), model)
    try:
        entries, wrong = ledger.entries(), ledger.verify()
    except RegistryError as error:
        raise failed(error) from None
    found = during(entries, *span) if span else standings(entries)
    by_number = {entry.number: entry for entry in entries}
    if output is Output.JSON:
        print_json(
            {
                "model": model,
                "problems": wrong,
                "standings": [] if verify else [_plain(one, by_number.get(one.entry or 0)) for one in found],
            }
        )
    elif verify:
        typer.echo("\n".join(wrong) if wrong else f"the ledger of {model} is whole: {len(entries)} entries")
    elif not found:
        typer.echo(f"the ledger of {model} knows of nothing in production{f' at {at}' if at else ''}")
    else:
        typer.echo(columns(_rows(found, by_number)))
    if not wrong:
        return
    if not verify and output is Output.TEXT:
        typer.echo("\n".join(f"warning: {one}" for one in wrong), err=True)
    raise typer.Exit(1)


def moments(text: str) -> tuple[datetime, datetime]:
    """The first and the last moment that a day or a time means; UTC where it names no zone.

    Raises:
        SwitchboardError: it is neither.
    """
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise SwitchboardError(
            f"{text!r} is neither a day nor a time", "write 2026-03-03 or 2026-03-03T12:00Z"
        ) from None
    start = found if found.tzinfo else found.replace(tzinfo=UTC)
    if re.fullmatch(r"\d{4}-?\d{2}-?\d{2}", text):
        return start, start + timedelta(days=1) - timedelta(microseconds=1)
    return start, start


def _rows(found: list[Standing], by_number: dict[int, Entry]) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = [("VERSION", "SINCE", "UNTIL", "BY", "WHO", "WHY", "EVIDENCE")]
    for one in found:
        entry = by_number.get(one.entry or 0)
        rows.append(
            (
                one.version,
                _when(one.since) or "before the ledger",
                _when(one.until) or "now",
                entry.action.value if entry else "<none>",
                entry.who if entry else "<none>",
                (entry.why if entry else "") or "<none>",
                entry.evidence[:12] if entry and entry.evidence else "<none>",
            )
        )
    return rows


def _when(at: datetime | None) -> str:
    return "" if at is None else at.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%SZ")


def _plain(one: Standing, entry: Entry | None) -> dict[str, Any]:
    return {
        "version": one.version,
        "since": one.since.astimezone(UTC).isoformat() if one.since else None,
        "until": one.until.astimezone(UTC).isoformat() if one.until else None,
        "entry": None if entry is None else entry_json(entry),
    }
