"""An embedded site's checks: from facts, and from a real control plane with a stopped process."""

from __future__ import annotations

import io
import os
import signal
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from infra.doctor import sites
from infra.doctor.report import Finding, Verdict
from infra.doctor.sites import Certificate, Facts, Halted
from infra.local import cloud, controlplane, health, pki, processes, site
from infra.local.health import Component, NodeHealth, SiteHealth
from switchboard.kube import Credentials, Kube
from switchboard.progress import Progress
from tests.conftest import ControlPlane
from tests.infra.local.test_pki import layout_at
from tests.pods import until

NOW = datetime(2026, 6, 1, tzinfo=UTC)
YEAR = timedelta(days=365)


def _component(name: str, *, healthy: bool = True, note: str = "", pid: int | None = 7) -> Component:
    return Component(name, pid, healthy, "127.9.0.1:1", note)


HEALTH = SiteHealth(
    "public",
    "public",
    "cn-shenzhen",
    Path("/k"),
    (_component("etcd"), _component("kube-apiserver"), _component("proxy"), _component("node-a")),
    (NodeHealth("a", True, "core", "cn-shenzhen", "127.9.0.11"),),
)
WELL = Facts(
    HEALTH,
    (
        Certificate("pki/ca.crt", NOW - YEAR, NOW + 9 * YEAR),
        Certificate("kubeconfig", NOW - YEAR, NOW + YEAR),
    ),
    (),
    {"a": NOW - timedelta(seconds=9)},
    NOW,
    True,
)


def _by_check(facts: Facts) -> dict[str, Finding]:
    return {each.check.removeprefix("sites/public").lstrip("/"): each for each in sites.judge(facts)}


def test_a_site_that_is_well() -> None:
    assert {name: each.status for name, each in _by_check(WELL).items()} == dict.fromkeys(
        ["control plane", "certificates", "agents and proxy", "nodes", "clock"], Verdict.OK
    )


def _with(*components: Component) -> Facts:
    return replace(WELL, health=replace(HEALTH, components=components))


def _certificates(*found: Certificate) -> Facts:
    return replace(WELL, certificates=found)


SICK_NODE = NodeHealth("a", False, "core", "cn-shenzhen", "127.9.0.11", "agent stopped posting")


@pytest.mark.parametrize(
    ("check", "facts", "status", "told"),
    [
        (
            "control plane",
            _with(_component("etcd", healthy=False, note="not running", pid=None), _component("proxy")),
            "failed",
            "etcd: not running",
        ),
        ("control plane", replace(WELL, halted=(Halted("etcd", 7),)), "failed", "continued: etcd (pid 7)"),
        ("agents and proxy", replace(WELL, halted=(Halted("node-a", 9),)), "failed", "node-a (pid 9)"),
        (
            "agents and proxy",
            _with(_component("etcd"), _component("proxy", healthy=False, note="not ready yet")),
            "failed",
            "proxy: not ready yet",
        ),
        (
            "agents and proxy",
            _with(_component("etcd"), _component("proxy", note="port 443\nisn't served")),
            "ok",
            "(proxy: port 443 isn't served)",
        ),
        ("nodes", replace(WELL, health=replace(HEALTH, nodes=(SICK_NODE,))), "failed", "a: agent stopped"),
        ("nodes", replace(WELL, leases={"a": NOW - timedelta(seconds=40)}), "warning", "lease for 40 s"),
        ("nodes", replace(WELL, leases=None), "skipped", "the API server didn't say"),
        ("clock", replace(WELL, leases=None), "skipped", "didn't say"),
        ("clock", replace(WELL, leases={"a": NOW + timedelta(hours=2)}), "failed", "7200 s from now"),
        ("certificates", _certificates(Certificate("x", spoilt="no PEM")), "failed", "x (no PEM)"),
        (
            "certificates",
            _certificates(Certificate("x", NOW - YEAR, NOW)),
            "failed",
            "expired: x (2026-06-01",
        ),
        (
            "certificates",
            _certificates(Certificate("x", NOW - YEAR, NOW + timedelta(days=29))),
            "warning",
            "x is valid until 2026-06-30",
        ),
        (
            "certificates",
            _certificates(Certificate("x", NOW + timedelta(days=1), NOW + YEAR)),
            "failed",
            "the clock was set back",
        ),
        ("certificates", _certificates(), "skipped", "none yet"),
        ("", replace(WELL, made=False), "skipped", "never brought up"),
        ("", _with(_component("etcd", pid=None, healthy=False)), "skipped", "not running"),
    ],
)
def test_what_is_found(check: str, facts: Facts, status: str, told: str) -> None:
    found = _by_check(facts)[check]
    assert found.status == status
    assert told in found.what
    assert found.mend or status in ("ok", "skipped")


def test_a_site_that_is_down_has_its_certificates_judged() -> None:
    down = _with(_component("etcd", pid=None, healthy=False))
    assert set(_by_check(down)) == {"", "certificates"}


async def test_a_stopped_process_is_named(control_plane: ControlPlane) -> None:
    """The scheduler's: nobody else notices that it stands still for a second."""
    record = processes.read(control_plane.layout.run / f"{controlplane.SCHEDULER}.json")
    assert record is not None
    os.kill(record.pid, signal.SIGSTOP)
    try:
        await until(lambda: processes.is_stopped(record))
        facts = await sites.look(control_plane.layout)
    finally:
        os.kill(record.pid, signal.SIGCONT)
    found = {each.check: each for each in sites.judge(facts)}["sites/public/control plane"]
    assert found.status is Verdict.FAILED
    assert f"kube-scheduler (pid {record.pid})" in found.what
    assert found.mend == f"`kill -CONT {record.pid}`"


async def test_a_control_plane_that_is_well(control_plane: ControlPlane) -> None:
    """Without node agents, which this one hasn't."""

    async def well() -> Any:
        """A busy machine answers later than is waited for; leases of nodes that tests had go after their nodes."""
        facts = await sites.look(control_plane.layout)
        own = [part for part in facts.health.components if part.name in controlplane.NAMES]
        return facts if facts.leases == {} and [part.healthy for part in own] == [True] * 4 else None

    facts = await until(well, what="a healthy control plane without leases")
    found = {each.check: each for each in sites.judge(facts)}
    assert found["sites/public/certificates"].status is Verdict.OK
    assert not facts.halted


@pytest.mark.parametrize("name", ["kubeconfig", "pki/etcd.crt", "nodes/n1/kubelet.crt"])
def test_an_expired_credential_is_named_and_up_makes_a_new_one(tmp_path: Path, name: str) -> None:
    """The same files a year on: `pki.ensure` is what every `up` begins with."""
    layout = layout_at(tmp_path)
    then = datetime.now(UTC) - pki.LEAF_LIFE - timedelta(hours=1)
    pki.ensure(layout, then)
    found = [each for each in sites._read_certificates(layout) if each.name == name]
    assert len(found) == 1
    finding = sites._certificates("sites/x", replace(WELL, certificates=tuple(found), now=datetime.now(UTC)))
    assert finding.status is Verdict.FAILED
    assert f"expired: {name} (" in finding.what
    pki.ensure(layout)
    renewed = tuple(sites._read_certificates(layout))
    assert len(renewed) > 10
    assert (
        sites._certificates("sites/x", replace(WELL, certificates=renewed, now=datetime.now(UTC))).status
        == "ok"
    )


async def test_up_renews_expired_credentials_in_place(
    control_plane: ControlPlane, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The administrator's, whom the API server refuses by now, and the scheduler's, which is restarted for it."""
    for name, value in control_plane.env.items():
        monkeypatch.setenv(name, value)
    layout = control_plane.layout
    ca = pki.ensure(layout).ca
    ended = datetime.now(UTC) - timedelta(days=2)
    admin = pki.Subject("switchboard-admin", groups=(pki.ADMIN_GROUP,))
    cert, key = ca.issue(admin, ended, timedelta(hours=1))
    pki.write_private(layout.kubeconfig, pki.kubeconfig_text(layout, ca.pem, cert, key, "admin"))
    serving = pki.Subject("kube-scheduler", ips=(layout.control_plane_ip,), server=True, client=False)
    pki.write_private(layout.pki / "scheduler.crt", ca.issue(serving, ended, timedelta(hours=1))[0])
    before = processes.read(layout.run / f"{controlplane.SCHEDULER}.json")

    found = {each.check: each for each in sites.judge(await sites.look(layout))}
    certificates = found["sites/public/certificates"]
    assert certificates.status is Verdict.FAILED
    assert "kubeconfig (" in certificates.what
    assert "pki/scheduler.crt (" in certificates.what
    assert "kube-apiserver: " in found["sites/public/control plane"].what

    embedded = site.EmbeddedSite(control_plane.stack, layout)
    await site.up(embedded, cloud.tools(), Progress(io.StringIO()), nodes=False, proxy=False)
    found = {each.check: each for each in sites.judge(await sites.look(layout))}
    assert found["sites/public/certificates"].status is Verdict.OK
    after = processes.read(layout.run / f"{controlplane.SCHEDULER}.json")
    assert before is not None and after is not None
    assert after.pid != before.pid
    async with Kube(Credentials.from_kubeconfig(layout.kubeconfig)) as kube:
        assert await health.controllers_work(layout, kube)


@pytest.mark.parametrize(
    "text", ["", "users: []", "users: [{user: {client-certificate-data: '!'}}]", "[", "\0"]
)
def test_a_spoilt_credential_is_told(tmp_path: Path, text: str) -> None:
    path = tmp_path / "kubeconfig"
    path.write_text(text)
    found = sites.read_certificate(path, "kubeconfig")
    assert found.spoilt
    assert "\n" not in found.spoilt
