"""Is a context the cluster that the stack file means? Found out before anything is declared, or sent there.

Contexts are names in a file of the user's: one that was renamed, merged or replaced leads elsewhere and says nothing.
An existing cluster is known by the UID of its namespace `kube-system`, which it keeps for life (the stack file's
`cluster.id`); an embedded site by its address and the certificate authority that `up` made for it.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from infra.config import PROJECT, Cluster, Site, Stack
from infra.local.layout import SiteLayout
from switchboard.credentials import Credentials
from switchboard.errors import SwitchboardError

REQUEST_TIMEOUT_S = 10
TIMEOUT_S = 60.0
"""With a login by a cloud's own program, which may take its time."""


def verify(stack: Stack, state: Path, *, applying: bool) -> list[str]:
    """Compare each site of `stack` with what its context leads to; `state` is where embedded sites keep theirs.

    Returns warnings: clusters without an `id` in the stack file, which are tolerated unless it is `applying`.

    Raises:
        SwitchboardError: a site is another cluster, or the same as another site, can't be reached, or can't be told
            and would be applied to.
    """
    for site in stack.sites:
        if site.embedded is not None:
            _verify_embedded(SiteLayout(site, state))
    clusters = [(index, site, site.cluster) for index, site in enumerate(stack.sites) if site.cluster]
    if not clusters:
        return []
    kubectl = _kubectl()
    with ThreadPoolExecutor(len(clusters)) as pool:
        found = list(pool.map(lambda one: uid(kubectl, one[1].name, one[2]), clusters))
    apart([(site, cluster, actual) for (_, site, cluster), actual in zip(clusters, found, strict=True)])
    judged = [
        judge(index, site, cluster, actual, applying=applying)
        for (index, site, cluster), actual in zip(clusters, found, strict=True)
    ]
    return [warning for warning in judged if warning is not None]


def apart(found: Sequence[tuple[Site, Cluster, str]]) -> None:
    """See that no two sites are one cluster, by the UIDs that were found: data that must stay in the private site
    would be in the public one.

    Raises:
        SwitchboardError: two are.
    """
    first: dict[str, tuple[Site, Cluster]] = {}
    for site, cluster, actual in found:
        other, its = first.setdefault(actual, (site, cluster))
        if other is not site:
            raise SwitchboardError(
                f"sites {other.name} and {site.name} are one cluster, {actual}: contexts {its.context} and "
                f"{cluster.context} lead to it; nothing was sent",
                "each site is a cluster of its own: correct a `context` in the stack file, or the kubeconfig",
            )


def judge(index: int, site: Site, cluster: Cluster, actual: str, *, applying: bool) -> str | None:
    """Whether the `actual` UID is that of the site, the `index`-th of the stack; a warning where nothing says so.

    Raises:
        SwitchboardError: it isn't, or `applying` and nothing says so.
    """
    where = f"site {site.name}: context {cluster.context} is cluster {actual}"
    if cluster.id == actual:
        return None
    if cluster.id is not None:
        raise SwitchboardError(
            f"{where}, the stack file names {cluster.id}; nothing was sent",
            "use the kubeconfig of the right cluster; if the cluster was made anew, correct its `id`",
        )
    command = f"pulumi config set --path '{PROJECT}:sites[{index}].cluster.id' {actual}"
    if applying:
        raise SwitchboardError(
            f"{where}, and the stack file names none; nothing was sent",
            f"if it is the right one: `{command}`",
        )
    return f"{where}, and the stack file names none: `up` will refuse it. If it is the right one: `{command}`"


def uid(kubectl: Path, site: str, cluster: Cluster) -> str:
    """The UID of a cluster's namespace `kube-system`, asked by kubectl, which knows every way to log in.

    Raises:
        SwitchboardError: the context is not known, or the cluster doesn't answer.
    """
    words = [str(kubectl), "--context", cluster.context, f"--request-timeout={REQUEST_TIMEOUT_S}s"]
    if cluster.kubeconfig is not None:
        words += ["--kubeconfig", str(cluster.kubeconfig.expanduser())]
    words += ["get", "namespace", "kube-system", "--output", "json"]
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=TIMEOUT_S)
    except subprocess.TimeoutExpired:
        raise _unknown(site, cluster, f"no answer within {TIMEOUT_S:.0f} s") from None
    if done.returncode != 0:
        raise _unknown(site, cluster, _last_line(done.stderr.splitlines()))
    try:
        return str(json.loads(done.stdout)["metadata"]["uid"])
    except (ValueError, KeyError, TypeError):
        raise _unknown(site, cluster, "its answer is not a namespace") from None


def _unknown(site: str, cluster: Cluster, reason: str) -> SwitchboardError:
    return SwitchboardError(
        f"site {site}: it can't be told which cluster context {cluster.context} is: {reason}; nothing was sent",
        f"`kubectl --context {cluster.context} get namespace kube-system` has to work",
    )


def _last_line(lines: Sequence[str]) -> str:
    return lines[-1].strip().removeprefix("error: ") if lines else "kubectl failed"


def _kubectl() -> Path:
    from infra.local.toolchain import lookup

    found = lookup.find("kubectl")
    if found is None:
        raise SwitchboardError(
            "kubectl is missing: clusters are told apart by it",
            "`switchboard infra toolchain build` makes it",
        )
    return found.path


def _verify_embedded(layout: SiteLayout) -> None:
    """A site that was never up has no kubeconfig, and nothing to be mistaken for."""
    if not layout.kubeconfig.exists() or not layout.ca_cert.exists():
        return
    credentials = Credentials.from_kubeconfig(layout.kubeconfig, layout.name)
    if credentials.server != layout.api_server:
        wrong = f"leads to {credentials.server}, the site is at {layout.api_server}"
    elif (credentials.ca or "").strip() != layout.ca_cert.read_text().strip():
        wrong = "trusts another certificate authority than the site's"
    else:
        return
    raise SwitchboardError(
        f"site {layout.name}: its kubeconfig {layout.kubeconfig} {wrong}; nothing was sent",
        "`switchboard up` makes it anew",
    )
