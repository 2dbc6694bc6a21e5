"""How the commands reach the releases of a serving site: by KUBECONFIG and a context, as kubectl does."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from switchboard.errors import SwitchboardError

if TYPE_CHECKING:
    from switchboard.kube import Kube, Object

NAMESPACE = "switchboard-serving"

ContextOption = Annotated[
    str | None, typer.Option(help="Of kubectl; the current one by default.", show_default=False)
]
NamespaceOption = Annotated[str, typer.Option("--namespace", "-n", help="Where ModelServers are.")]
SHADOW_S = 30
"""As `switchboard.api.model_release.Shadow` has it; the command's help needs no such imports."""
ShadowOption = Annotated[
    int,
    typer.Option(
        "--shadow-seconds", min=0, max=86_400, help="How long requests are mirrored first; 0: none are."
    ),
]

T = TypeVar("T")


async def whoami(kube: Kube) -> str:
    """As whom the API server knows us."""
    review = {"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"}
    found = await kube.request("POST", "/apis/authentication.k8s.io/v1/selfsubjectreviews", body=review)
    return str(found["status"]["userInfo"]["username"])


async def begin(kube: Kube, meta: Object, spec: Object) -> Object:
    """Make a release, asked for by who we are; `meta` has its name, or how it begins, and its namespace."""
    from switchboard import labels
    from switchboard.kinds import MODEL_RELEASES

    made = {
        "apiVersion": MODEL_RELEASES.api_version,
        "kind": MODEL_RELEASES.kind,
        "metadata": {**meta, "annotations": {labels.REQUESTED_BY: await whoami(kube)}},
        "spec": spec,
    }
    return await kube.create(MODEL_RELEASES, made, meta["namespace"], params={"fieldValidation": "Strict"})


async def all_of(kube: Kube, namespace: str) -> list[Object]:
    from switchboard.kinds import MODEL_RELEASES

    found = await kube.list(MODEL_RELEASES, namespace)
    return sorted(found, key=lambda one: str(one["metadata"]["creationTimestamp"]))


async def get(kube: Kube, name: str, namespace: str) -> Object:
    from switchboard.kinds import MODEL_RELEASES

    found = await kube.get_or_none(MODEL_RELEASES, name, namespace)
    if found is None:
        raise missing(name, namespace)
    return found


def missing(name: str, namespace: str) -> SwitchboardError:
    return SwitchboardError(
        f"there is no release {name} in {namespace}", "`switchboard canary status` shows those that there are"
    )


def with_kube(context: str | None, work: Callable[[Kube], Awaitable[T]]) -> T:
    """What `work` gives, at the API server of a serving site.

    Raises:
        SwitchboardError: there is no kubeconfig, or the API server refuses or doesn't answer.
    """
    from switchboard.credentials import Credentials
    from switchboard.kube import ApiError, Kube, Unreachable

    credentials = Credentials.of_user(os.environ, context)

    async def run() -> T:
        async with Kube(credentials, user_agent="switchboard-cli") as kube:
            return await work(kube)

    try:
        return asyncio.run(run())
    except ApiError as error:
        raise SwitchboardError(error.message.splitlines()[0] if error.message else str(error)) from None
    except Unreachable as error:
        raise SwitchboardError(
            f"the API server doesn't answer: {error}", "`switchboard status` shows what runs"
        ) from None
