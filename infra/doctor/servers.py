"""Do the model servers of a site serve? What the operator says of them, and what to do where they don't."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from infra.doctor.report import Finding, Verdict, failed, ok, one_line, skipped, warning
from infra.namespaces import SERVING_NAMESPACE
from infra.status import ready_condition
from switchboard.kinds import MODEL_SERVERS
from switchboard.kube import ApiError, Kube, Object, Unreachable

_SHOWN = 160
UNDER_WAY = ("ReplicasStarting", "RollingOut")
"""Reasons that pass by themselves."""

_DESCRIBE = "`{kubectl} describe modelserver {name}` says more"
_LOGS = "`{kubectl} logs -l app.kubernetes.io/name={name} --tail 20` (and `--previous`) shows why"
MENDS = {
    "InvalidSpec": "correct the model server in the stack file, then `up`",
    "Refused": "the cluster refuses what the operator makes: its quota, admission rules or rights; "
    + _DESCRIBE,
    "ImagePullFailed": "correct `images` in the stack file, or the nodes' login to the registry",
    "QuotaExceeded": "raise the namespace's quota, or lower `scaling.maxReplicas`",
    "ReplicasRefused": "`{kubectl} describe replicaset -l app.kubernetes.io/name={name}` shows who refuses them",
    "ReplicasFailing": _LOGS,
    "ReplicasNotReady": _LOGS,
    "RolloutStuck": _LOGS + "; the replicas of before go on serving",
    "Unschedulable": "give the site more nodes or larger ones, or lower `resources`",
    **dict.fromkeys(UNDER_WAY, "wait; where that doesn't end, " + _DESCRIBE),
}
"""What to do, by the reason of a ModelServer's condition."""

_BLIND = "look whether Prometheus of the site runs, and scrapes the gateways; replicas are kept meanwhile"


def judge(site: str, context: str, servers: Sequence[Object]) -> list[Finding]:
    """One finding for all that serve, and one for each that doesn't, or can't be sized."""
    check = f"{site}/model servers"
    if not servers:
        return [skipped(check, "none yet", "`up` makes them")]
    kubectl = f"kubectl --context {context} -n {SERVING_NAMESPACE}"
    found = [each for server in servers for each in _of(server, check, kubectl)]
    bad = [each for each in found if each.status is not Verdict.OK]
    if bad:
        return bad
    return [ok(check, ", ".join(each.what for each in found))]


def _of(server: Object, check: str, kubectl: str) -> Iterator[Finding]:
    name, status = server["metadata"]["name"], server.get("status") or {}
    check = f"{check}/{name}"
    ready = ready_condition(server)
    if ready is None:
        yield failed(
            check,
            "the operator hasn't looked at it as it is now",
            f"`{kubectl} get deployment operator` says whether it runs, `{kubectl} logs deployment/operator` what "
            "it does",
        )
        return
    if ready["status"] != "True":
        tell = warning if ready["reason"] in UNDER_WAY else failed
        yield tell(check, _told(ready), _mend(ready["reason"], kubectl, name))
        return
    yield ok(check, f"{name} {status.get('readyReplicas', 0)}/{status.get('desiredReplicas', 0)}")
    if ready.get("message"):
        reason = ready["message"].partition(":")[0]
        yield warning(
            check, f"it serves, but {one_line(ready['message'])[:_SHOWN]}", _mend(reason, kubectl, name)
        )
    for one in status.get("conditions") or ():
        if one["status"] != "False":
            continue
        if one["type"] == "ScalingActive" and one["reason"] != "Paused":
            yield warning(check, f"it isn't sized: {_told(one)}", _BLIND)
        elif one["type"] == "AbleToScale" and one["reason"] in MENDS and one["reason"] not in UNDER_WAY:
            yield warning(check, f"it can't be sized: {_told(one)}", _mend(one["reason"], kubectl, name))


def _told(condition: dict[str, Any]) -> str:
    return one_line(": ".join(filter(None, (condition["reason"], condition.get("message")))))[:_SHOWN]


def _mend(reason: str, kubectl: str, name: str) -> str:
    return MENDS.get(reason, _DESCRIBE).format(kubectl=kubectl, name=name)


async def look(kube: Kube, namespace: str) -> tuple[Object, ...] | None:
    """The ModelServers of a namespace; None where they can't be asked for."""
    try:
        return tuple((await kube.request("GET", MODEL_SERVERS.path(namespace)))["items"])
    except ApiError as error:
        return () if error.not_found else None
    except Unreachable:
        return None
