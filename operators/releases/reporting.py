"""`switchboard canary report | verify`: a release for who wasn't there, and whether its evidence is what was signed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from models.cli_shared import UriOption
from operators.releases.access import NAMESPACE, ContextOption, NamespaceOption, get, with_kube
from switchboard.errors import SwitchboardError

app = typer.Typer()


@app.command(
    epilog="Examples: `switchboard canary report chat-8-x7k2p` · "
    "`switchboard canary report chat-8-x7k2p --html release.html --load-test figures.json`"
)
def report(
    name: Annotated[str, typer.Argument(help="The release.")],
    html: Annotated[
        Path | None, typer.Option(help="Where to write the page.", show_default="NAME.html")
    ] = None,
    load_test: Annotated[
        Path | None,
        typer.Option(
            exists=True, dir_okay=False, help="What `switchboard loadtests chat --output json` printed."
        ),
    ] = None,
    attach: Annotated[
        bool, typer.Option("--attach/--no-attach", help="Put it beside the version in MLflow, too.")
    ] = True,
    tracking_uri: UriOption = None,
    context: ContextOption = None,
    namespace: NamespaceOption = NAMESPACE,
) -> None:
    """A page of what happened: steps, weights, both arms with intervals, the verdict, the gate, a load test."""
    from models.rest import RegistryError
    from models.rest_write import RegistryWriter
    from operators.releases import report as pages
    from operators.releases import shown

    release = with_kube(context, lambda kube: get(kube, name, namespace))
    spec, status = shown.parse(release)
    figures = _figures(load_test) if load_test is not None else None
    tags: dict[str, str] = {}
    client = run = None
    try:
        if tracking_uri and status.model:
            client = RegistryWriter(tracking_uri)
            version = client.version(status.model, str(spec.version))
            tags = dict(version.tags)
            run = client.run_record(version.run_id)
    except RegistryError as error:
        typer.echo(f"note: without what MLflow knows of the version: {error}", err=True)
    page = pages.page(release, spec, status, tags=tags, load_test=figures)
    path = html or Path(f"{name}.html")
    path.write_text(page, encoding="utf-8")
    typer.echo(f"wrote {path}")
    if attach and client is not None and run is not None:
        where = f"releases/{name}/report.html"
        try:
            client.log_artifact(run, where, page.encode())
        except RegistryError as error:
            raise SwitchboardError(
                f"the page can't be put into MLflow: {error}", "--no-attach leaves it out"
            ) from None
        typer.echo(f"attached to {status.model} version {spec.version}: {where}")


def _figures(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise SwitchboardError(f"{path} can't be read: {error}") from None
    if not isinstance(found, dict):
        raise SwitchboardError(f"{path} has no figures of a load test in it")
    return found


@app.command(
    epilog="Examples: `switchboard canary verify evidence.json` · "
    "`switchboard canary verify evidence.json --key $(pulumi stack output releaseKey)`"
)
def verify(
    file: Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="`evidence.json` of a release.")],
    key: Annotated[
        str | None, typer.Option(help="The site's public key; without it, the one that the file names.")
    ] = None,
) -> None:
    """Whether the evidence of a release is what was signed when it was decided."""
    from operators.releases import evidence

    content = file.read_bytes()
    found = evidence.verify(content, key)
    release, status = found["release"], found["release"]["status"]
    typer.echo(
        f"good: release {release['metadata']['name']}, {status['model']} {status['championVersion']} to "
        f"{release['spec']['version']}, {status['phase']}: {status['sentence']}"
    )
    typer.echo(f"signed by {json.loads(content)['publicKey']}")
