"""What differs between two versions, by what they and their runs say: the decision is a pure function of the two.

Figures are those of the runs, with their intervals: of two that differ, each is shown, and it is for the reader (or for
`compare`, which asks both the same texts) to say whether that means something.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from models.classifier import FILES, SETTINGS_FILE
from models.eligible import signature
from models.examined import resolve
from models.registry import RECORD_TAG
from models.rest import ARTIFACT_FOLDER, CODE_TAG, DATA_TAG, NotFound
from models.rest_write import RegistryWriter

KINDS: Final = ("data", "code", "lock", "parameter", "labels", "signature", "files", "figure")
_DATA: Final = {DATA_TAG: "data_sha256", RECORD_TAG: "training_sha256"}
_CODE: Final = {
    CODE_TAG: "version",
    "switchboard.code_sha256": "code_sha256",
    "switchboard.git_commit": "git_commit",
    "switchboard.git_dirty": "git_dirty",
}
_LOCK: Final = {"switchboard.lock_sha256": "lock_sha256"}
_STATED: Final = {"data_sha256", "lock_sha256", "code_sha256", "git_commit", "git_dirty"}
"""Parameters that say again what tags say."""


@dataclass(frozen=True)
class Described:
    """A version by kind and name of what it says."""

    named: str
    said: Mapping[str, Mapping[str, str]] = field(repr=False)


@dataclass(frozen=True)
class Differs:
    """One thing that differs; empty where one of the two has none."""

    kind: str
    name: str
    one: str
    other: str


def differing(one: Described, other: Described) -> list[Differs]:
    """Everything that differs, by kind and name."""
    found: list[Differs] = []
    for kind in KINDS:
        ours, theirs = one.said.get(kind, {}), other.said.get(kind, {})
        for name in sorted({*ours, *theirs}):
            if ours.get(name, "") != theirs.get(name, ""):
                found.append(Differs(kind, name, ours.get(name, ""), theirs.get(name, "")))
    return found


def described(registry: RegistryWriter, uri: str) -> Described:
    """What a version and its run say.

    Raises:
        SwitchboardError: it isn't a model uri.
        RegistryError: there is no such version, or the registry can't be reached.
    """
    version = resolve(registry, uri)
    run = registry.run_record(version.run_id)
    root = registry.artifact_root(version.name, version.version)
    settings = _settings(_artifact(registry, f"{root}/artifacts/{ARTIFACT_FOLDER}/{SETTINGS_FILE}"))
    files = version.files()

    def tags(names: Mapping[str, str]) -> dict[str, str]:
        return {short: version.tags[tag] for tag, short in names.items() if tag in version.tags}

    return Described(
        f"{version.name} version {version.version}",
        {
            "data": tags(_DATA),
            "code": tags(_CODE),
            "lock": tags(_LOCK),
            "parameter": {name: value for name, value in run.params.items() if name not in _STATED},
            "labels": {label: "known" for label in settings},
            "signature": {"signature": signature(_artifact(registry, f"{root}/MLmodel"))},
            "files": {name: files[name].sha256 for name in FILES if name in files},
            "figure": figures(run.metrics),
        },
    )


def figures(metrics: Mapping[str, float]) -> dict[str, str]:
    """Each figure with its interval; what was timed differs with the machine's mood and is left out."""
    found: dict[str, str] = {}
    for name, value in metrics.items():
        if name.endswith(("_low", "_high", "_n", "_ms", "_seconds")):
            continue
        low, high = metrics.get(f"{name}_low"), metrics.get(f"{name}_high")
        interval = f" [{low:.1%}, {high:.1%}]" if low is not None and high is not None else ""
        found[name] = f"{value:.1%}{interval}"
    return found


def _settings(content: bytes) -> list[str]:
    try:
        return [str(label) for label in json.loads(content)["labels"]]
    except (ValueError, KeyError, TypeError):
        return []


def _artifact(registry: RegistryWriter, path: str) -> bytes:
    try:
        return registry.artifact(path, max_bytes=1 << 20, deadline=time.monotonic() + 30)
    except NotFound:
        return b""
