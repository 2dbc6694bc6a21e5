"""Are the existing clusters of a stack well: context, login, identity, version, clock, and what this user may do?

All is asked through `kubectl proxy` on a socket in a private folder, so that the login is kubectl's own, whatever it is
(certificates, tokens, an exec plugin of a cloud). Nothing is written: permissions are asked by
SelfSubjectAccessReviews, as `kubectl auth can-i` does.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import tempfile
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from infra import config, namespaces
from infra.doctor import servers
from infra.doctor.report import Finding, failed, ok, one_line, skipped, warning
from infra.local.toolchain import lookup
from infra.local.toolchain.recipes import TOOLS
from infra.local.toolchain.versions import Version, parse, show
from switchboard.kinds import NAMESPACES, Kind
from switchboard.kube import ApiError, Credentials, Kube, Object, Unreachable

OLDEST: Version = (1, 31, 0)
"""Native sidecars and `unhealthyPodEvictionPolicy` are on in all that are newer."""
NEWEST = TOOLS["kubectl"].fits.below
"""What kubectl and the manifests were tried with, and one release more."""
TIMEOUT_S = 5.0
CLOCK_TOLERANCE_S = 5.0

VERBS = ("get", "list", "watch", "create", "patch", "delete")
"""On all that is declared: it is watched until it is ready, or gone."""
_HELD = {("", "pods"): ("get", "list", "watch")}
"""What the stack's own Roles grant (`infra.components.pod_reader`): nobody may grant what they haven't themselves."""
_HELD_SERVING = {
    ("", "pods"): ("patch",),
    ("", "events"): ("create", "patch"),
    ("coordination.k8s.io", "leases"): ("create", "get", "update", "patch"),
    ("switchboard.dev", "modelreleases"): ("get", "list", "watch", "patch"),
    ("switchboard.dev", "modelreleases/finalizers"): ("update",),
    ("switchboard.dev", "modelreleases/status"): ("patch",),
    ("switchboard.dev", "modelservers/finalizers"): ("update",),
    ("switchboard.dev", "modelservers/status"): ("patch",),
}
"""And what those of a public site do (`infra.components.operator` and `pod_reader`)."""
_CLUSTER_WIDE = (("", "namespaces"),)
_CLUSTER_WIDE_SERVING = (
    ("apiextensions.k8s.io", "customresourcedefinitions"),
    ("admissionregistration.k8s.io", "validatingadmissionpolicies"),
    ("admissionregistration.k8s.io", "validatingadmissionpolicybindings"),
)
_NAMESPACED = {
    "": ("configmaps", "persistentvolumeclaims", "secrets", "serviceaccounts", "services"),
    "apps": ("deployments",),
    "batch": ("jobs",),
    "networking.k8s.io": ("networkpolicies",),
    "policy": ("poddisruptionbudgets",),
    "rbac.authorization.k8s.io": ("rolebindings", "roles"),
}
_SERVING = {"switchboard.dev": ("modelservers",)}
_REVIEWS = Kind(
    "authorization.k8s.io/v1", "selfsubjectaccessreviews", "SelfSubjectAccessReview", namespaced=False
)


@dataclass(frozen=True)
class Facts:
    """What a cluster answered, as far as it was asked: each step is asked only where the one before went well."""

    site: str
    context: str
    kubeconfig: str
    wanted_id: str | None
    stack_file: str
    index: int = 0
    """Of the site in the stack file."""
    no_kubectl: bool = False
    contexts: tuple[str, ...] | None = None
    """None where the kubeconfig can't be read; `problem` says why."""
    problem: str = ""
    version: Version | None = None
    id: str | None = None
    skew_s: float | None = None
    """The cluster's clock less this machine's, in seconds; None where it didn't tell."""
    refused: tuple[str, ...] | None = None
    """What this user may not do (`create deployments.apps`); None where that wasn't answered."""
    asked: int = 0
    servers: tuple[Object, ...] | None = None
    """Its ModelServers; None where it has none to have, or didn't say."""


def judge(facts: Facts) -> list[Finding]:
    """The findings up to the first that makes the rest pointless."""
    name = f"sites/{facts.site}"
    reach = _reach(f"{name}/cluster", facts)
    if facts.version is None:
        return [reach]
    return [
        reach,
        _identity(name, facts),
        _version(name, facts),
        _clock(name, facts),
        _permissions(name, facts),
        *(servers.judge(name, facts.context, facts.servers) if facts.servers is not None else ()),
    ]


def _reach(check: str, facts: Facts) -> Finding:
    if facts.no_kubectl:
        return skipped(check, "kubectl is missing", "`switchboard infra toolchain build` makes it")
    if facts.contexts is None:
        return failed(
            check, f"the kubeconfig {facts.kubeconfig} can't be read: {facts.problem}", "name another one"
        )
    if facts.context not in facts.contexts:
        known = ", ".join(facts.contexts) or "none"
        return failed(
            check,
            f"{facts.kubeconfig} has no context {facts.context} (it has {known})",
            f"get the cluster's kubeconfig and merge it, or correct `context` in {facts.stack_file}",
        )
    if facts.version is None:
        unauthorized = "Unauthorized" in facts.problem or "401" in facts.problem
        return failed(
            check,
            f"{facts.context} {'refuses the login' if unauthorized else 'is not reached'}: {facts.problem}",
            "log in again (the credential has expired or was withdrawn)"
            if unauthorized
            else f"check the network and VPN: `kubectl --context {facts.context} version`",
        )
    return ok(check, f"{facts.context} answers")


def _identity(name: str, facts: Facts) -> Finding:
    check = f"{name}/identity"
    if facts.id is None:
        return skipped(check, "this user may not read the namespace kube-system")
    if facts.wanted_id is None:
        key = f"{config.PROJECT}:sites[{facts.index}].cluster.id"
        return failed(
            check,
            f"{facts.context} is cluster {facts.id}; the stack file names none, and `up` refuses that",
            f"if it is the right one: `pulumi config set --path '{key}' {facts.id}`",
        )
    if facts.id != facts.wanted_id:
        return failed(
            check,
            f"{facts.context} is cluster {facts.id}, the stack file names {facts.wanted_id}",
            "use the kubeconfig of the right cluster; `up` refuses this one",
        )
    return ok(check, f"cluster {facts.id}, as the stack file says")


def _version(name: str, facts: Facts) -> Finding:
    check = f"{name}/version"
    words = f"Kubernetes {show(facts.version)}"
    if facts.version is not None and facts.version < OLDEST:
        return failed(check, f"{words}: older than {show(OLDEST)}", "upgrade the cluster first")
    if facts.version is not None and facts.version >= NEWEST:
        return warning(
            check,
            f"{words}: newer than what this was tried with (below {show(NEWEST)})",
            "try it in `staging` first",
        )
    return ok(check, words)


def _clock(name: str, facts: Facts) -> Finding:
    check = f"{name}/clock"
    if facts.skew_s is None:
        return skipped(check, "the cluster didn't tell its time")
    if abs(facts.skew_s) > CLOCK_TOLERANCE_S:
        way = "ahead of" if facts.skew_s > 0 else "behind"
        return warning(
            check,
            f"the cluster is {abs(facts.skew_s):.0f} s {way} this machine",
            "set the clock of whichever is wrong (`timedatectl`): tokens and certificates go by it",
        )
    return ok(check, "within a few seconds of this machine's")


def _permissions(name: str, facts: Facts) -> Finding:
    check = f"{name}/permissions"
    if facts.refused is None:
        return skipped(check, f"couldn't be asked: {facts.problem or 'no answer'}")
    if facts.refused:
        told = ", ".join(facts.refused[:4])
        more = f" and {len(facts.refused) - 4} more" if len(facts.refused) > 4 else ""
        return failed(
            check,
            f"this user may not {told}{more}",
            "have them bound to this user: beside `admin` in the namespace, these verbs on namespaces, "
            "customresourcedefinitions and validatingadmissionpolicies with their bindings of the cluster, and in the "
            "namespace on what `admin` hasn't",
        )
    return ok(check, f"all {facts.asked} that the stack needs")


# --- gathering -------------------------------------------------------------------------------------------


async def examine(site: config.Site, index: int, stack_name: str) -> list[Finding]:
    """Ask the cluster of the site, the `index`-th of the stack, and judge the answers."""
    return judge(await look(site, stack_name, index))


async def look(site: config.Site, stack_name: str, index: int = 0) -> Facts:
    """What the cluster answers; up to `TIMEOUT_S` for each step where it doesn't."""
    if site.cluster is None:
        raise ValueError(f"site {site.name} is embedded")
    named = site.cluster.kubeconfig
    told = str(named or os.environ.get("KUBECONFIG") or Path.home() / ".kube" / "config")
    file = config.stack_file(stack_name).name
    facts = Facts(site.name, site.cluster.context, told, site.cluster.id, file, index)
    found = lookup.find("kubectl")
    if found is None:
        return replace(facts, no_kubectl=True)
    kubectl = [str(found.path), *(["--kubeconfig", str(named.expanduser())] if named else [])]
    code, output, errors = await _run([*kubectl, "config", "get-contexts", "-o", "name"])
    if code != 0:
        return replace(facts, problem=one_line(errors)[:200])
    facts = replace(facts, contexts=tuple(output.split()))
    if facts.context not in output.split():
        return facts
    try:
        async with _proxy([*kubectl, "--context", facts.context]) as kube:
            return await _ask(kube, site, facts)
    except (ApiError, Unreachable) as error:
        return replace(facts, problem=one_line(error)[:200])


async def _ask(kube: Kube, site: config.Site, facts: Facts) -> Facts:
    answer = await kube.request("GET", "/version")
    facts = replace(facts, version=parse(answer["gitVersion"]))
    with contextlib.suppress(ApiError):
        facts = replace(facts, id=(await kube.get(NAMESPACES, "kube-system"))["metadata"]["uid"])
    namespace, serving = namespaces.of_role(site.role), site.role == "public"
    if serving:
        facts = replace(facts, servers=await servers.look(kube, namespace))
    wanted = needed(namespace, serving=serving)
    try:
        answers = await asyncio.gather(*(_may(kube, *each) for each in wanted))
    except ApiError as error:
        return replace(facts, problem=one_line(error)[:200])
    refused = tuple(
        f"{verb} {resource}{f'.{group}' if group else ''}"
        for (_, group, resource, verb), (allowed, _) in zip(wanted, answers, strict=True)
        if not allowed
    )
    skew_s = next((skew for _, skew in answers if skew is not None), None)
    return replace(facts, asked=len(wanted), refused=refused, skew_s=skew_s)


def needed(namespace: str, *, serving: bool) -> list[tuple[str | None, str, str, str]]:
    """What applying a stack takes in a site, a public one or not: (namespace or None, API group, resource, verb).

    >>> needed("n", serving=False)[0]
    (None, '', 'namespaces', 'get')
    """
    wide = (*_CLUSTER_WIDE, *(_CLUSTER_WIDE_SERVING if serving else ()))
    named = {**_NAMESPACED, **(_SERVING if serving else {})}
    held = [*_HELD.items(), *(_HELD_SERVING.items() if serving else ())]
    resources = [
        *((None, group, resource) for group, resource in wide),
        *((namespace, group, resource) for group, names in named.items() for resource in names),
    ]
    return [
        *((where, group, resource, verb) for where, group, resource in resources for verb in VERBS),
        *((namespace, *each, verb) for each, verbs in held for verb in verbs),
    ]


async def _may(
    kube: Kube, namespace: str | None, group: str, resource: str, verb: str
) -> tuple[bool, float | None]:
    """Whether it is allowed, and the cluster's clock less ours, in seconds, where the answer bears its time."""
    attributes = {"group": group, "resource": resource, "verb": verb}
    if namespace is not None:
        attributes["namespace"] = namespace
    answer = await kube.create(
        _REVIEWS,
        {
            "apiVersion": _REVIEWS.api_version,
            "kind": _REVIEWS.kind,
            "spec": {"resourceAttributes": attributes},
        },
    )
    stamps = [each.get("time") for each in answer.get("metadata", {}).get("managedFields") or ()]
    skew = None
    if stamps and stamps[0]:
        skew = (datetime.fromisoformat(stamps[0]) - datetime.now(UTC)).total_seconds()
    return bool(answer["status"]["allowed"]), skew


@contextlib.asynccontextmanager
async def _proxy(kubectl: Sequence[str]) -> AsyncIterator[Kube]:
    """A connection by kubectl's own login. The socket is in a folder that only this user can enter."""
    with tempfile.TemporaryDirectory(prefix="switchboard-") as folder:
        socket = Path(folder) / "proxy"
        process = await asyncio.create_subprocess_exec(
            *kubectl,
            "proxy",
            f"--unix-socket={socket}",
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        try:
            # Its first line of output says that it listens.
            line = await asyncio.wait_for(process.stdout.readline(), TIMEOUT_S) if process.stdout else b""
            if not line:
                errors = await process.stderr.read() if process.stderr else b""
                raise Unreachable(one_line(errors.decode(errors="replace")) or "kubectl proxy ended")
            credentials = Credentials(server="http://localhost", socket=socket)
            async with Kube(credentials, timeout_s=TIMEOUT_S, max_connections=10) as kube:
                yield kube
        except TimeoutError:
            raise Unreachable(f"kubectl proxy doesn't start within {TIMEOUT_S:.0f} s") from None
        finally:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()


async def _run(command: Sequence[str]) -> tuple[int, str, str]:
    process = await asyncio.create_subprocess_exec(
        *command,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    output, errors = await process.communicate()
    return process.returncode or 0, output.decode(errors="replace"), errors.decode(errors="replace")
