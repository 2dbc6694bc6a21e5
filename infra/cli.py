"""The infra group of the `switchboard` command; `up`, `down`, `status` and their like are at the root as well."""

from __future__ import annotations

import shlex
import sys
from typing import Annotated, Literal

import typer

from infra import fault_cli, render_cli
from infra.stack_option import StackOption, known
from switchboard.errors import SwitchboardError
from switchboard.gateways import EDGES_VARIABLE, GATEWAY_VARIABLE
from switchboard.paths import DEFAULT_STACK

app = typer.Typer(no_args_is_help=True, help="What is there: the cloud, its stacks and its tools.")


OutputOption = Annotated[
    Literal["text", "json"], typer.Option("--output", "-o", help="`json` for other programs.")
]


@app.command(epilog="Example: `switchboard up`")
def up(stack: StackOption = DEFAULT_STACK) -> None:
    """Bring the embedded cloud up, lay it out with Pulumi and ask it a customer's question."""
    from infra.up import up as bring_up
    from switchboard.progress import Progress

    with Progress() as progress:
        answered = bring_up(stack, progress)
    body = answered.body
    typer.echo(f"\nCustomer:    {answered.question}")
    typer.echo(f"Switchboard: {body['answer']}")
    typer.echo(
        f"             ({body['intent']}, confidence {body['confidence']:.2f}, model version {body['model_version']},"
        f" {answered.seconds * 1000:.0f} ms, by {answered.url})"
    )


@app.command(epilog="Example: `switchboard down`")
def down(stack: StackOption = DEFAULT_STACK) -> None:
    """Stop what `up` started: no process, mount or cgroup is left; state and volumes stay."""
    from infra import pulumi_cli
    from infra.local import cloud
    from switchboard.progress import Progress

    known(stack)
    with Progress() as progress, cloud.exclusive(stack, "switchboard down"):
        pulumi_cli.end_leftovers(stack)
        cloud.down(stack, progress)


@app.command(epilog="Example: `switchboard clean --stack local`")
def clean(stack: StackOption = DEFAULT_STACK) -> None:
    """Stop the stack and remove its state: sites, volumes, Pulumi's state. Built tools stay."""
    from infra import pulumi_cli
    from infra.local import cloud
    from switchboard.progress import Progress

    known(stack)
    with Progress() as progress, cloud.exclusive(stack, "switchboard clean"):
        pulumi_cli.end_leftovers(stack)
        cloud.clean(stack, progress)


@app.command(epilog="Examples: `switchboard status` · `switchboard status --output json | jq .endpoints`")
def status(stack: StackOption = DEFAULT_STACK, output: OutputOption = "text") -> None:
    """What runs, healthy or not, with addresses. Exit code 1 where something is unhealthy."""
    from infra.status import read, table

    found = read(stack)
    typer.echo(found.model_dump_json(indent=2) if output == "json" else table(found))
    if not found.healthy:
        raise typer.Exit(1)


@app.command(
    epilog="Examples: `switchboard doctor` · `switchboard doctor --stack staging` · "
    "`switchboard doctor -o json | jq '.findings[] | select(.status == \"failed\")'`"
)
def doctor(stack: StackOption = DEFAULT_STACK, output: OutputOption = "text") -> None:
    """What is wrong with machine, tools, sites and stack, and how to mend it. Exit code 1 where something failed."""
    from infra.doctor import examine, table

    report = examine(stack)
    typer.echo(report.model_dump_json(indent=2) if output == "json" else table(report))
    if not report.passed:
        raise typer.Exit(1)


@app.command(epilog='Example: `eval "$(switchboard env)"`, then `kubectl --context public get pods -A`')
def env(
    stack: StackOption = DEFAULT_STACK,
    user: Annotated[str, typer.Option(help="Who to be in MLflow.")] = "trainer",
) -> None:
    """Print the environment in which plain `pulumi up`, `kubectl` and MLflow's clients work on the stack."""
    from infra import pulumi_cli, registry_login
    from infra.local import toolchain
    from infra.status import read

    values = pulumi_cli.environment(stack, toolchain.locate())
    endpoints = read(stack).endpoints
    if endpoints.gateway:
        values[GATEWAY_VARIABLE] = endpoints.gateway
    if endpoints.edges:
        values[EDGES_VARIABLE] = " ".join(
            f"{region}={url}" for region, url in sorted(endpoints.edges.items())
        )
    if endpoints.mlflow:
        values["MLFLOW_TRACKING_URI"] = endpoints.mlflow
        try:
            values |= registry_login.variables(registry_login.read(stack, user))
        except SwitchboardError as error:  # the rest is of use without
            typer.echo(f"warning: {error}", err=True)
    for name, value in values.items():
        typer.echo(f"export {name}={shlex.quote(value)}")


@app.command(
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True},
    epilog="Example: `switchboard pulumi -- preview --diff`",
)
def pulumi(ctx: typer.Context, stack: StackOption = DEFAULT_STACK) -> None:
    """Run Pulumi with the right environment; its arguments come after `--`."""
    from infra import pulumi_cli
    from infra.local import toolchain

    sys.exit(pulumi_cli.run(stack, toolchain.locate(), ctx.args))


@app.command(epilog='Example: `eval "$(switchboard infra credentials trainer --stack staging)"`')
def credentials(
    user: Annotated[str, typer.Argument(help="A user of MLflow: one of every stack's, or a person.")],
    stack: StackOption = DEFAULT_STACK,
) -> None:
    """Print a user's name and password for MLflow as variables, for whoever may read Secrets in the private site."""
    from infra import registry_login

    for name, value in registry_login.variables(registry_login.read(stack, user)).items():
        typer.echo(f"export {name}={shlex.quote(value)}")


def _toolchain() -> typer.Typer:
    from infra.local.toolchain.cli import app as toolchain_app

    return toolchain_app


app.command("render", epilog=render_cli.RENDER_EXAMPLES)(render_cli.render)
app.command("check", epilog=render_cli.CHECK_EXAMPLES)(render_cli.check)
app.add_typer(_toolchain(), name="toolchain")
app.add_typer(fault_cli.app, name="fault")
