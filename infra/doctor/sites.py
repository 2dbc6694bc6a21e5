"""Are the embedded sites well: control plane, certificates, agents and proxies that run and move, nodes, clocks?

How a part answers is `infra.local.health`'s to say; here it is joined with what the process table, the certificates and
the leases tell, since a stopped agent answers nothing and a certificate that ends tomorrow answers today.
"""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psutil
import yaml
from cryptography import x509

from infra.doctor.report import Finding, failed, of_error, ok, one_line, skipped, warning
from infra.local import health, pki, processes
from infra.local.health import SiteHealth
from infra.local.layout import SiteLayout
from switchboard.errors import SwitchboardError
from switchboard.kube import LEASES, ApiError, Credentials, Kube, Unreachable

REPAIR = "`make up` repairs it"
LEASE_NAMESPACE = "kube-node-lease"
LEASE_LATE = timedelta(seconds=25)
"""Agents renew theirs every 10 s; the API server gives a node up after 50 s."""
CLOCK_TOLERANCE = timedelta(seconds=5)
STOPPED = (psutil.STATUS_STOPPED, psutil.STATUS_TRACING_STOP)


@dataclass(frozen=True)
class Certificate:
    """One of the site's certificates: where it is, and until when it is good; `spoilt` where it can't be read."""

    name: str
    not_before: datetime | None = None
    not_after: datetime | None = None
    spoilt: str = ""


@dataclass(frozen=True)
class Halted:
    """A process of the site that is stopped (by SIGSTOP, a debugger or a terminal), or one below it."""

    name: str
    pid: int


@dataclass(frozen=True)
class Facts:
    """A site as it is now. `leases` are when each node last said that it lives; None where that couldn't be asked."""

    health: SiteHealth
    certificates: tuple[Certificate, ...]
    halted: tuple[Halted, ...]
    leases: dict[str, datetime] | None
    now: datetime
    made: bool
    """Was the site ever up?"""


def judge(facts: Facts) -> list[Finding]:
    """The site's findings; of one that doesn't run, only its certificates are judged."""
    name = f"sites/{facts.health.name}"
    if not facts.made:
        return [skipped(name, "never brought up", "`make up` brings it up")]
    certificates = _certificates(name, facts)
    if not facts.health.running:
        return [skipped(name, "not running (its data is kept)", "`make up` brings it up"), certificates]
    return [
        _control_plane(name, facts),
        certificates,
        _agents(name, facts),
        _nodes(name, facts),
        _clock(name, facts),
    ]


def _control_plane(site: str, facts: Facts) -> Finding:
    check = f"{site}/control plane"
    parts = [part for part in facts.health.components if not _is_agent(part.name)]
    return _processes(check, parts, facts)


def _agents(site: str, facts: Facts) -> Finding:
    check = f"{site}/agents and proxy"
    parts = [part for part in facts.health.components if _is_agent(part.name)]
    return _processes(check, parts, facts)


def _processes(check: str, parts: Sequence[health.Component], facts: Facts) -> Finding:
    """One finding for several processes: one that is stopped explains more than that it doesn't answer."""
    names = {part.name for part in parts}
    if halted := [each for each in facts.halted if each.name in names]:
        pids = " ".join(str(each.pid) for each in halted)
        told = ", ".join(f"{each.name} (pid {each.pid})" for each in halted)
        return failed(check, f"stopped, and waiting to be continued: {told}", f"`kill -CONT {pids}`")
    if bad := [part for part in parts if not part.healthy]:
        told = "; ".join(f"{part.name}: {one_line(part.note) or 'unhealthy'}" for part in bad)
        return failed(check, told, f"{REPAIR}; logs are beside {facts.health.kubeconfig}")
    notes = "; ".join(f"{part.name}: {one_line(part.note)}" for part in parts if part.note)
    return ok(check, f"{', '.join(part.name for part in parts)}{f' ({notes})' if notes else ''}")


def _is_agent(name: str) -> bool:
    return name == "proxy" or name.startswith("node-")


def _certificates(site: str, facts: Facts) -> Finding:
    check = f"{site}/certificates"
    if spoilt := [each for each in facts.certificates if each.spoilt]:
        told = ", ".join(f"{each.name} ({each.spoilt})" for each in spoilt)
        return failed(check, f"can't be read: {told}", "`make up` makes them anew")
    dated = [
        (each.not_after, each.not_before, each.name)
        for each in facts.certificates
        if each.not_after is not None and each.not_before is not None
    ]
    if not dated:
        return skipped(check, "none yet", "`make up` makes them")
    if expired := [(end, name) for end, _, name in dated if end <= facts.now]:
        told = ", ".join(f"{name} ({_day(end)})" for end, name in expired[:4])
        more = f" and {len(expired) - 4} more" if len(expired) > 4 else ""
        return failed(check, f"expired: {told}{more}", "`make up` makes new ones and restarts who uses them")
    if early := [(begin, name) for _, begin, name in dated if begin > facts.now]:
        begin, name = early[0]
        return failed(
            check,
            f"{name} is valid from {_day(begin)} on: the clock was set back",
            "set the clock; `make up` makes new ones otherwise",
        )
    soonest, _, name = min(dated)
    if soonest <= facts.now + pki.RENEW_BEFORE:
        return warning(check, f"{name} is valid until {_day(soonest)} only", "`make up` renews it")
    return ok(check, f"{len(dated)} valid until {_day(soonest)} or later; `make up` renews them before")


def _nodes(site: str, facts: Facts) -> Finding:
    check = f"{site}/nodes"
    if facts.leases is None:
        return skipped(check, "the API server didn't say")
    if bad := [node for node in facts.health.nodes if not node.healthy]:
        told = "; ".join(f"{node.name}: {one_line(node.note) or 'not ready'}" for node in bad)
        return failed(
            check, told, f"{REPAIR}; `kubectl --context {facts.health.name} describe node` says more"
        )
    late = sorted(name for name, renewed in (facts.leases or {}).items() if facts.now - renewed > LEASE_LATE)
    if late:
        seconds = max((facts.now - facts.leases[name]).total_seconds() for name in late if facts.leases)
        return warning(
            check,
            f"{', '.join(late)}: the agent hasn't renewed its lease for {seconds:.0f} s",
            f"{REPAIR}, if it doesn't come back by itself",
        )
    return ok(check, f"{', '.join(node.name for node in facts.health.nodes)} ready")


def _clock(site: str, facts: Facts) -> Finding:
    check = f"{site}/clock"
    if facts.leases is None:
        return skipped(check, "the API server didn't say")
    ahead = [
        (renewed, name) for name, renewed in facts.leases.items() if renewed > facts.now + CLOCK_TOLERANCE
    ]
    if ahead:
        renewed, name = max(ahead)
        seconds = (renewed - facts.now).total_seconds()
        return failed(
            check,
            f"node {name} renewed its lease {seconds:.0f} s from now: the clock was set back",
            "set the clock; nodes are thought to be lost or alive wrongly until it has caught up",
        )
    return ok(check, "the nodes' clocks are this machine's")


def _day(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%d %H:%M UTC")


# --- gathering -------------------------------------------------------------------------------------------


async def look(layout: SiteLayout) -> Facts:
    """The site's facts; about as long as its slowest part takes to answer, 3 s where it doesn't."""
    found, leases = await asyncio.gather(health.look(layout), _leases(layout))
    return Facts(
        health=found,
        certificates=tuple(_read_certificates(layout)),
        halted=tuple(_halted(found)),
        leases=leases,
        now=datetime.now(UTC),
        made=layout.kubeconfig.exists() or layout.pki.exists(),
    )


def of_site(name: str, facts: Facts | SwitchboardError) -> list[Finding]:
    """`judge`, or why it couldn't be looked at."""
    if isinstance(facts, SwitchboardError):
        return [of_error(f"sites/{name}", facts, REPAIR)]
    return judge(facts)


async def _leases(layout: SiteLayout) -> dict[str, datetime] | None:
    try:
        async with Kube(Credentials.from_kubeconfig(layout.kubeconfig), timeout_s=health.TIMEOUT_S) as kube:
            answer = await kube.request("GET", LEASES.path(LEASE_NAMESPACE))
    except (SwitchboardError, ApiError, Unreachable):
        return None
    times = {item["metadata"]["name"]: item["spec"].get("renewTime") for item in answer["items"]}
    ours = {node.name for node in layout.nodes}
    return {name: datetime.fromisoformat(time) for name, time in times.items() if time and name in ours}


def _halted(found: SiteHealth) -> Iterable[Halted]:
    for part in found.components:
        if part.pid is None:
            continue
        try:
            process = psutil.Process(part.pid)
            # The proxy's Envoy is below it; an agent's pods are not (they outlive it).
            family = [process, *process.children(recursive=True)]
            stopped = [each.pid for each in family if each.status() in STOPPED]
        except psutil.Error:
            continue
        yield from (Halted(part.name, pid) for pid in stopped)


def _read_certificates(layout: SiteLayout) -> Iterable[Certificate]:
    """All of the site's: files of their own, and those in kubeconfigs."""
    files = [*layout.pki.glob("*.crt"), *(node.serving_cert for node in layout.nodes)]
    kubeconfigs = [layout.kubeconfig, layout.proxy_kubeconfig, *(node.kubeconfig for node in layout.nodes)]
    for path in (*files, *kubeconfigs, *layout.pki.glob("*.kubeconfig")):
        if path.exists():
            yield read_certificate(path, str(path.relative_to(layout.directory)))


def read_certificate(path: Path, name: str) -> Certificate:
    """The certificate in a PEM file, or the user's in a kubeconfig."""
    try:
        raw = path.read_bytes()
        if path.suffix != ".crt":
            user = yaml.safe_load(raw)["users"][0]["user"]
            raw = base64.b64decode(user["client-certificate-data"])
        cert = x509.load_pem_x509_certificate(raw)
    except (OSError, ValueError, KeyError, TypeError, IndexError, yaml.YAMLError) as error:
        return Certificate(name, spoilt=one_line(error)[:80] or type(error).__name__)
    return Certificate(name, cert.not_valid_before_utc, cert.not_valid_after_utc)


def running(layout: SiteLayout) -> bool:
    """Does any process of the site run?"""
    records = (processes.read(path) for path in layout.run.glob("*.json"))
    return any(record is not None and processes.alive(record) for record in records)
