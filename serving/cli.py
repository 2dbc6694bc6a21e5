"""`switchboard serving …`: talk to what is served, as a customer's app would."""

from __future__ import annotations

import json
from enum import StrEnum
from typing import Annotated, Any

import typer

from switchboard import questions
from switchboard.errors import SwitchboardError
from switchboard.gateways import GATEWAY_VARIABLE, named
from switchboard.printing import Output, OutputOption

app = typer.Typer(no_args_is_help=True, help="How it is served: ask the chat service a question.")


class Tongue(StrEnum):
    ZH = "zh"
    EN = "en"


@app.callback()
def _group() -> None:
    """A group even with one command."""


@app.command()
def ask(
    question: Annotated[str, typer.Argument(help="What the customer says, in English or Chinese.")],
    url: Annotated[
        str | None,
        typer.Option(help=f"A gateway, or a replica. Else ${GATEWAY_VARIABLE}.", envvar=GATEWAY_VARIABLE),
    ] = None,
    language: Annotated[Tongue | None, typer.Option(help="Answer in this language.")] = None,
    session: Annotated[str | None, typer.Option(help="The customer's session; a new one by default.")] = None,
    timeout_s: Annotated[float, typer.Option("--timeout", help="Seconds to wait for the answer.")] = 10.0,
    output: OutputOption = Output.TEXT,
) -> None:
    """Ask a question and print the answer."""
    answer = ask_chat(
        named(url),
        question,
        language=language.value if language else None,
        session=session,
        timeout_s=timeout_s,
    )
    if output is Output.JSON:
        typer.echo(json.dumps(answer, ensure_ascii=False, indent=2))
        return
    typer.echo(answer["answer"])
    marks = [
        f"{answer['intent']} {answer['confidence']:.0%}",
        f"{answer['model']} version {answer['model_version']}",
        answer["tier"],
    ]
    if answer["handover"]:
        marks.append("a person takes over")
    typer.secho(f"({', '.join(marks)})", dim=True)


def ask_chat(
    url: str,
    text: str,
    *,
    language: str | None = None,
    session: str | None = None,
    timeout_s: float = 10.0,
) -> dict[str, Any]:
    """One turn with the chat service at `url`; the answer as the service sends it.

    Raises:
        SwitchboardError: no answer, or a refusal, with the service's own words.
    """
    if not url.startswith(("http://", "https://")):
        raise SwitchboardError(f"{url!r} is no address; it must begin with http:// or https://")
    try:
        answer = questions.put(url, text, language=language, session=session, timeout_s=timeout_s).body
    except questions.Refused as error:
        raise SwitchboardError(f"{url} answered {error.status}: {error.reason}") from None
    except questions.NoAnswer as error:
        raise SwitchboardError(
            f"no answer from {url}: {error}", "`switchboard status` shows what runs"
        ) from None
    if not isinstance(answer, dict) or "answer" not in answer:
        raise SwitchboardError(f"{url} answers, but not as the chat service does")
    return answer
