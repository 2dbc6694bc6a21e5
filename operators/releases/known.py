"""What is known of a release, from what the operator has in memory: no effects in here."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from operators.canary.plan import Traffic
from operators.canary.values import USUAL, Judgement
from operators.releases import arms
from operators.releases.values import Checked, Facts, Running, Told
from operators.servers.server import Server
from operators.view import View
from switchboard import labels, workload
from switchboard.api.model_release import FINALIZER, Phase, Spec, Status, arm_of
from switchboard.api.model_server import Arm
from switchboard.kube import Object
from switchboard.releases import ReleasePolicy

USUAL_START_S = 120.0


def facts(
    release: Object,
    spec: Spec,
    status: Status,
    servers: Mapping[str, Server],
    view: View,
    *,
    others: Iterable[Object],
    checked: Checked | None,
    told: Told | None,
    unseen: tuple[str, ...] | None,
    judgement: Judgement | None,
    policy: ReleasePolicy,
    now: float,
) -> Facts:
    """All that is known of `release` at `now`; `others` are the releases that there are."""
    notes = release["metadata"].get("annotations") or {}
    server = servers.get(spec.server)
    own = server.spec if server is not None else None
    champion = running(server, view)
    pin = workload.pinned(server.object) if server is not None else None
    due = spec.version if status.phase in (Phase.SETTLING, Phase.PROMOTED) else status.champion_version
    if pin != due:  # what it has was asked for before
        champion = replace(champion, current=False)
    return Facts(
        problem=arms.problem(spec.server, own),
        waits_for=first_of(release, spec, others),
        held=policy.held(notes.get(labels.REQUESTED_BY, ""), notes.get(labels.APPROVED_BY, ""), now),
        service=own.service_of(spec.server) if own is not None else "",
        champion=champion,
        candidate=running(servers.get(arm_of(spec.server, Arm.CANDIDATE)), view),
        baseline=running(servers.get(arm_of(spec.server, Arm.BASELINE)), view),
        checked=checked,
        traffic=traffic(server, champion),
        unseen=unseen,
        judgement=judgement,
        told=told,
        settled=pin == spec.version and champion.current and champion.ready >= champion.wanted,
        deleted="deletionTimestamp" in release["metadata"],
        start_s=float(workload.startup_s(own)) if own is not None else USUAL_START_S,
    )


def first_of(release: Object, spec: Spec, others: Iterable[Object]) -> str | None:
    """Of the releases of a server that aren't done, the one that goes first, if that is another one."""

    def order(one: Object) -> tuple[bool, str, str]:
        begun = (one.get("status") or {}).get("startedAt") is not None
        return not begun, one["metadata"].get("creationTimestamp") or "", one["metadata"]["name"]

    there = [one for one in others if one["spec"].get("server") == spec.server and not done(one)]
    first = min(there, key=order, default=release)
    return None if first["metadata"]["uid"] == release["metadata"]["uid"] else first["metadata"]["name"]


def over(release: Object) -> bool:
    """Whether nothing more happens in a release."""
    try:
        return Phase((release.get("status") or {}).get("phase", Phase.PENDING)).over
    except ValueError:
        return False


def done(release: Object) -> bool:
    """Whether it is over, its arms have gone, and the registry knows: the next one may begin."""
    return over(release) and FINALIZER not in (release["metadata"].get("finalizers") or ())


def running(server: Server | None, view: View) -> Running:
    """What runs of a ModelServer."""
    if server is None:
        return Running(0, 0, current=False)
    found = view.deployments.get(server.name)
    pods = list(view.pods.get(server.name, {}).values())
    trouble = next((one.trouble.message for one in pods if one.trouble is not None), server.refused)
    current = (
        found is not None
        and server.marks is not None
        and found.applied == server.marks.deployment
        and not found.rolling
    )
    wanted = server.target if server.target is not None else (found.replicas if found is not None else 0)
    return Running(wanted, sum(one.is_sent_requests for one in pods), current, trouble)


def fails(candidate: Running, champion: Running) -> bool:
    """Whether a candidate doesn't serve while the champion does: else it may be its nodes' fault, or its site's."""
    return candidate.ready == 0 and 0 < champion.wanted <= champion.ready


def traffic(server: Server | None, champion: Running) -> Traffic | None:
    """What a plan is made for: the requests of now, the usual rates, and a tenth of the replicas for the candidate.

    None too where only some of the gateways were seen: what is missing isn't zero.
    """
    if server is None or server.seen is None:
        return None
    _, seen, whole, _ = server.seen
    if seen.rate is None or not whole:
        return None
    return Traffic(seen.rate, USUAL, max(1, champion.ready), max(1, champion.ready // 10))


def arms_of(release: Object, servers: Iterable[Server]) -> set[str]:
    """The names of the ModelServers that are its arms."""
    name = release["metadata"]["name"]
    return {
        one.name
        for one in servers
        if (one.object["metadata"].get("labels") or {}).get(labels.RELEASE) == name
    }


def of_service(service: str, servers: Iterable[Server]) -> list[Server]:
    """The service's ModelServers in the core and at edges, without arms, that follow an alias."""
    return [
        one
        for one in servers
        if one.spec is not None
        and one.spec.arm is None
        and one.spec.model.alias is not None
        and one.spec.service_of(one.name) == service
    ]


def addresses(service: str, servers: Iterable[Server], view: View) -> Mapping[str, Mapping[str, str]]:
    """Where the core's replicas are that serve, by fleet and pod."""
    found: dict[str, dict[str, str]] = {}
    for one in servers:
        own = one.spec
        if own is not None and own.placement.tier == "core" and own.service_of(one.name) == service:
            mine = {
                name: pod.ip
                for name, pod in view.pods.get(one.name, {}).items()
                if pod.ready and pod.ip is not None
            }
            found.setdefault(own.fleet_of(one.name), {}).update(mine)
    return found
