"""`switchboard models promote` and `rollback`: move `champion` by hand, and write it into the ledger.

For a registry without an operator: a new one, one that was restored, tests. Only a release may do it, so the server
takes it from users of that role alone, and the ledger's "who" is the user that the server has made sure of. All that
can be refused is refused before an alias is moved; what is interrupted after that is finished by the same command.
"""

from __future__ import annotations

import getpass
from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from models import rest
from models.cli_shared import OutputOption, UriOption, entry_json, failed, print_json
from models.rest import Forbidden, RegistryError, Unreachable
from switchboard.errors import SwitchboardError
from switchboard.printing import Output

if TYPE_CHECKING:
    from models.aliases import Moved
    from models.rest_write import RegistryWriter

PROMOTE_EXAMPLES = (
    "Examples: `switchboard models promote chat-intent 8 --reason 'restored from the backup of 3 March'` · "
    "`switchboard models promote chat-intent 1 --reason 'the first one' --without-gate -o json`"
)
ROLLBACK_EXAMPLES = (
    "Examples: `switchboard models rollback chat-intent --reason 'takes transfers for loans'` · "
    "`switchboard models rollback chat-intent --reason 'as in incident 12' -o json`"
)
MAX_REASON = 512
"""As of a ModelRelease."""
NOBODY = "unknown"

ModelArgument = Annotated[str, typer.Argument(help="The registered model's name.")]
ReasonOption = Annotated[str, typer.Option(help="Why, for the ledger.")]


def promote(
    model: ModelArgument,
    version: Annotated[int, typer.Argument(min=1, help="The version that is to be the champion.")],
    reason: ReasonOption,
    without_gate: Annotated[
        bool, typer.Option("--without-gate", help="Though the offline gate hasn't passed it.")
    ] = False,
    tracking_uri: UriOption = None,
    output: OutputOption = Output.TEXT,
) -> None:
    """Make a version the champion by hand, and write it into the ledger: for a registry without an operator.

    Where a stack serves the model, `switchboard canary start` is the way: it tries the version on customers first.
    Replicas load what `champion` means when they start; those that a release has pinned to a version keep it.
    """
    from models.rest_write import RegistryWriter

    why = _checked(reason)
    registry = RegistryWriter(rest.tracking_uri(tracking_uri))
    try:
        moved = _promote(registry, model, str(version), why, needs_gate=not without_gate)
    except RegistryError as error:
        raise _failed(error, f"switchboard canary start {version}") from None
    _show(model, moved, output)


def rollback(
    model: ModelArgument,
    reason: ReasonOption,
    start: Annotated[
        int | None,
        typer.Option("--from", min=1, help="Only where this version is the champion.", show_default=False),
    ] = None,
    tracking_uri: UriOption = None,
    output: OutputOption = Output.TEXT,
) -> None:
    """Make `previous` the champion again by hand, and write it into the ledger: for a registry without an operator.

    Where a stack serves the model, `switchboard canary abort` takes customers back while the old version is kept warm,
    and `switchboard canary start` releases it after that; an alias alone moves no replica that a release has pinned.
    """
    from models.rest_write import RegistryWriter

    why = _checked(reason)
    registry = RegistryWriter(rest.tracking_uri(tracking_uri))
    try:
        moved = _roll_back(registry, model, why, str(start) if start is not None else None)
    except Unreachable as error:
        # Whether it was written isn't known, so the same again might go back twice.
        raise SwitchboardError(
            str(error),
            f"see whether MLflow runs (switchboard status) and what it knows (switchboard models history {model}); "
            "--from VERSION goes back from that one alone",
        ) from None
    except RegistryError as error:
        raise _failed(error, "switchboard canary abort") from None
    _show(model, moved, output)


def _promote(registry: RegistryWriter, model: str, version: str, why: str, *, needs_gate: bool) -> Moved:
    from models import aliases, eligible
    from models.ledger import Ledger

    now, ledger = aliases.read(registry, model), Ledger(registry, model)
    if now.champion != version or not aliases.unrecorded(now, ledger.entries()):
        facts, champion = (
            eligible.facts_of(registry, model, version),
            eligible.champion_of(registry, model),
        )
        refusal = eligible.refusal(facts, champion, needs_gate=needs_gate)
        if refusal is not None:
            only_gate = eligible.refusal(facts, champion) is None
            raise SwitchboardError(refusal, _next_step(model, version, only_gate=only_gate))
    reason = aliases.Reason(who(registry), why)
    ledger.prepare()
    return aliases.promote(registry, model, version, reason=reason, now=datetime.now(UTC))


def _next_step(model: str, version: str, *, only_gate: bool) -> str:
    if only_gate:
        return f"judge it: switchboard models gate models:/{model}/{version}; or go without: --without-gate"
    return f"see what there is: switchboard models list {model}"


def _roll_back(registry: RegistryWriter, model: str, why: str, start: str | None = None) -> Moved:
    """What it goes back to was in production, so the gate isn't asked about it; but it is to be whole."""
    from models import aliases, eligible
    from models.ledger import Ledger

    now, ledger = aliases.read(registry, model), Ledger(registry, model)
    bad = aliases.to_take_out(now, ledger.entries())
    if bad is None:
        raise SwitchboardError(
            f"{model} has no champion: there is nothing to go back from",
            f"promote one: switchboard models promote {model} VERSION",
        )
    if start is not None and start != bad:
        raise SwitchboardError(
            f"the champion of {model} is version {bad}, not {start}: it was taken out already",
            f"see when, and by whom: switchboard models history {model}",
        )
    if bad == now.champion and now.previous is not None:
        refusal = eligible.refusal(eligible.facts_of(registry, model, now.previous), None)
        if refusal is not None:
            raise SwitchboardError(
                f"there is no going back: {refusal}",
                f"promote one that is good: switchboard models promote {model} VERSION",
            )
    reason = aliases.Reason(who(registry), why)
    ledger.prepare()
    return aliases.roll_back(registry, model, bad, reason=reason, now=datetime.now(UTC))


def who(registry: RegistryWriter) -> str:
    """The user that the server has made sure of; of one that asks nobody, whoever is logged in here."""
    try:
        return registry.user() or getpass.getuser()
    except (OSError, KeyError):  # a container's user may have no name
        return NOBODY


def _checked(reason: str) -> str:
    """Raises SwitchboardError for one that says nothing, or too much."""
    if not reason.strip() or len(reason) > MAX_REASON:
        raise SwitchboardError(
            f"a reason has 1 to {MAX_REASON} characters, this has {len(reason.strip())}",
            "say in a sentence why, for whoever reads the ledger: --reason",
        )
    return reason.strip()


def _failed(error: RegistryError, release: str) -> SwitchboardError:
    if isinstance(error, Forbidden):
        return SwitchboardError(
            str(error), f"`{release}` has the operator do it; by hand it takes a user of the role release"
        )
    if isinstance(error, Unreachable):
        return SwitchboardError(
            str(error), "see whether MLflow runs: switchboard status; the same command then does what is left"
        )
    return failed(error)


def _show(model: str, moved: Moved, output: Output) -> None:
    entry = moved.entry
    if output is Output.JSON:
        steps = [asdict(step) for step in moved.steps]
        print_json({"model": model, "steps": steps, "entry": entry_json(entry)})
        return
    instead = f" instead of version {entry.from_version}" if entry.from_version else ", the first one"
    typer.echo(f"{model}@champion is version {entry.to_version}{instead}")
    typer.echo(f"entry {entry.number} of the ledger: {entry.action} by {entry.who}, {entry.why}")
