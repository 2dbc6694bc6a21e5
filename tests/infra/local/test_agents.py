"""When the Service proxy and the node agents are started anew, and which tools they find."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from infra.local import pki
from infra.local.layout import SiteLayout
from infra.local.site import EmbeddedSite
from infra.local.toolchain import lookup
from tests.infra.local.test_pki import layout_at


@pytest.fixture
def layout(tmp_path: Path) -> SiteLayout:
    made = layout_at(tmp_path)
    pki.ensure(made)
    return made


def digests(layout: SiteLayout) -> dict[str, str]:
    return {program.name: program.digest for program in EmbeddedSite("local", layout).agent_programs()}


RENEWED: list[tuple[Callable[[SiteLayout], Path], set[str]]] = [
    (lambda site: site.nodes[0].kubeconfig, {"node-n1"}),
    (lambda site: site.nodes[1].serving_cert, {"node-n2"}),
    (lambda site: site.proxy_kubeconfig, {"proxy"}),
    (lambda site: site.ca_cert, {"node-n1", "node-n2", "proxy"}),
    (lambda site: site.kubeconfig, set()),
]


@pytest.mark.parametrize(("file", "restarted"), RENEWED)
def test_a_renewed_credential_reaches_whoever_uses_it(
    layout: SiteLayout, file: Callable[[SiteLayout], Path], restarted: set[str]
) -> None:
    before = digests(layout)
    assert digests(layout) == before
    path = file(layout)
    path.write_bytes(path.read_bytes() + b"\n")
    after = digests(layout)
    assert {name for name in before if before[name] != after[name]} == restarted


def test_a_tool_that_up_found_on_its_path_is_found_by_the_agents(
    layout: SiteLayout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SWITCHBOARD_TOOLS", raising=False)
    monkeypatch.setenv("SWITCHBOARD_CACHE", str(tmp_path / "cache"))
    without = EmbeddedSite("local", layout)
    folder = tmp_path / "opt" / "bin"
    folder.mkdir(parents=True)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    standard = without.environment()["PATH"]
    tool = folder / "prometheus"
    tool.write_text("#!/bin/sh\necho prometheus, version 3.13.0\n")
    tool.chmod(0o755)
    found = EmbeddedSite("local", layout)
    path = found.environment()["PATH"]
    assert path == f"{standard}:{folder}"
    assert found.proxy_program().digest != without.proxy_program().digest, "they are started anew"
    monkeypatch.setenv("PATH", path)
    assert lookup.locate(["prometheus"]).path("prometheus") == tool
