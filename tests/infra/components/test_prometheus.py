"""Prometheus' configuration, judged by Prometheus' own checker."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
import yaml

from infra.components.alertmanager import CONFIG
from infra.components.prometheus import RULES, configuration
from infra.local import toolchain
from switchboard.paths import ROOT


@pytest.mark.parametrize(
    ("role", "federated"),
    [("public", {}), ("private", {"public": "127.97.3.4:9090"})],
    ids=["public", "private"],
)
def test_promtool_accepts_it(tmp_path: Path, role: str, federated: dict[str, str]) -> None:
    promtool = toolchain.locate(["prometheus"]).path("prometheus").with_name("promtool")
    (tmp_path / "rules.yml").write_text(yaml.safe_dump(RULES))
    config = configuration("s", "switchboard-serving", role, "127.96.0.9:9093", federated)
    config["rule_files"] = [str(tmp_path / "rules.yml")]
    # The service account's files exist in a pod only; promtool looks for what is named, and nothing is.
    (tmp_path / "prometheus.yml").write_text(yaml.safe_dump(config))
    done = subprocess.run(
        [promtool, "check", "config", str(tmp_path / "prometheus.yml")], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 rules found" in done.stdout


def test_amtool_accepts_alertmanagers(tmp_path: Path) -> None:
    amtool = toolchain.locate(["alertmanager"]).path("alertmanager").with_name("amtool")
    (tmp_path / "alertmanager.yml").write_text(yaml.safe_dump(CONFIG))
    done = subprocess.run(
        [amtool, "check-config", str(tmp_path / "alertmanager.yml")], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_alert_has_its_runbook() -> None:
    for group in RULES["groups"]:
        for rule in group["rules"]:
            runbook = ROOT / rule["annotations"]["runbook"]
            assert runbook.stem == rule["alert"]
            text = runbook.read_text()
            heads = [line[3:] for line in text.splitlines() if line.startswith("## ")]
            assert heads == ["Meaning", "Impact", "Diagnosis", "Mitigation"]
