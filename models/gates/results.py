"""A gate's verdict, kept where people and the operator look: tags of the version, and a file of its run."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any, Final

from models.examined import Examined
from models.gates.judge import Line, Verdict
from models.gates.spec import Gate
from models.rest_write import RegistryWriter
from switchboard.registry_users import GATE_TAG

SHA256_TAG: Final = "switchboard.gate_sha256"
"""Of the gate's file."""
CHAMPION_TAG: Final = "switchboard.gate_champion"
"""The version that it was compared with; empty where there was none."""
_FOLDER: Final = "gate"


def to_json(gate: Gate, candidate: Examined, champion: str, verdict: Verdict) -> dict[str, Any]:
    """The verdict as plain data."""
    return {
        "model": candidate.version.name,
        "version": candidate.version.version,
        "digest": candidate.digest,
        "champion": champion,
        "gate_sha256": gate.sha256,
        "data_sha256": candidate.data_sha256,
        "passed": verdict.passed,
        "lines": [asdict(line) for line in verdict.lines],
    }


def publish(registry: RegistryWriter, candidate: Examined, found: dict[str, Any], verdict: Verdict) -> str:
    """Write the tags and the file; gives the file's path in the run.

    The tag that the operator reads comes last: who finds it finds the rest.

    Raises:
        RegistryError: the registry refused or can't be reached.
    """
    name, version = candidate.version.name, candidate.version.version
    path = f"{_FOLDER}/{name}-{version}.json"
    content = json.dumps(found, ensure_ascii=False, indent=1) + "\n"
    registry.log_artifact(candidate.run, path, content.encode())
    for line in verdict.lines:
        registry.set_version_tag(name, version, tag_of(line), said(line))
    registry.set_version_tag(name, version, SHA256_TAG, str(found["gate_sha256"]))
    registry.set_version_tag(name, version, CHAMPION_TAG, str(found["champion"]))
    registry.set_version_tag(name, version, GATE_TAG, outcome(verdict.passed))
    return path


def outcome(passed: bool) -> str:
    return "passed" if passed else "failed"


def tag_of(line: Line) -> str:
    return f"{GATE_TAG}.{line.name.replace(' ', '_')}"


def said(line: Line) -> str:
    """A line in a tag."""
    by = f", by {line.by}" if line.by else ""
    return f"{outcome(line.passed)}{by}: {line.found} (wanted: {line.wanted})"
