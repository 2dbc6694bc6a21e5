"""What the Service proxy tells about ports that it can't serve, and what becomes of it in the site's health."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from infra.local import health, processes
from infra.local.layout import SiteLayout
from infra.local.processes import Program
from infra.local.proxy import daemon, report
from infra.local.proxy.forwards import Forward
from infra.local.proxy.report import Report
from tests.infra.local.test_pki import layout_at
from tests.infra.local.test_processes import SLEEP


@pytest.fixture
def layout(tmp_path: Path) -> Iterator[SiteLayout]:
    """A site of which only something in the proxy's place runs."""
    made = layout_at(tmp_path)
    made.run.mkdir(parents=True)
    record = made.run / "proxy.json"
    processes.start(Program("proxy", SLEEP, {}, made.run, made.logs / "proxy.log", record))
    yield made
    processes.stop(record)


BUSY = {"core/mlflow:5000": "cannot bind '127.96.0.9:5000': Address already in use"}
API = {"default/kubernetes:443": "cannot bind: Permission denied (port 443 needs root)"}


@pytest.mark.parametrize(
    ("told", "healthy", "note"),
    [
        (None, False, "not ready yet"),
        (Report(), True, ""),
        (
            Report(refused=BUSY),
            False,
            "Service port core/mlflow:5000 isn't served: cannot bind '127.96.0.9:5000",
        ),
        (Report(dispensable=API), True, "Service port default/kubernetes:443 isn't served"),
        (Report(refused=BUSY, dispensable=API), False, "Service port core/mlflow:5000 isn't served"),
    ],
)
async def test_a_port_that_is_not_served_is_told(
    layout: SiteLayout, told: Report | None, healthy: bool, note: str
) -> None:
    if told is not None:
        report.write(layout.run / "proxy.ready", told)
    proxy = next(part for part in (await health.look(layout)).components if part.name == "proxy")
    assert proxy.healthy is healthy
    assert proxy.note.startswith(note)
    assert bool(proxy.note) is bool(note)


FORWARDS = (
    Forward("core/web:80", "127.96.0.9", 80, ()),
    Forward("default/kubernetes:443", "127.96.0.1", 443, ()),
)


@pytest.mark.parametrize(("uid", "dispensable"), [(0, set()), (1000, {"default/kubernetes:443"})])
@pytest.mark.skipif(daemon._first_unprivileged_port() <= 443, reason="everybody may have port 443 here")
def test_only_the_port_that_a_user_may_not_have_and_nobody_needs_is_dispensable(
    monkeypatch: pytest.MonkeyPatch, uid: int, dispensable: set[str]
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: uid)
    told = daemon._report(FORWARDS, {forward.name: "" for forward in FORWARDS})
    assert set(told.dispensable) == dispensable
    assert set(told.refused) == {forward.name for forward in FORWARDS} - dispensable


def test_a_report_is_read_back_and_replaced(tmp_path: Path) -> None:
    path = tmp_path / "proxy.ready"
    assert report.read(path) is None
    for told in (Report(), Report(refused=BUSY, dispensable=API), Report()):
        report.write(path, told)
        assert report.read(path) == told
    path.write_text("")
    assert report.read(path) == Report()
    assert list(tmp_path.iterdir()) == [path]


def test_many_ports_are_counted() -> None:
    assert Report(refused={f"a/s:{port}": "taken" for port in range(1, 9)}).note.endswith("; and 5 more")
