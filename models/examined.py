"""A registered model with all that it says of itself: for the gate, `compare` and `diff`.

Read over MLflow's REST API without importing mlflow. What is downloaded is checked against the hashes that the version
was registered with; whether the record of training fits the version is told rather than raised.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from models import eligible, loading, record
from models.classifier import IntentClassifier
from models.corpus import Example
from models.registry import RECORD_TAG
from models.rest import DATA_TAG, NotFound, Version
from models.rest_write import RegistryWriter, Run
from models.training import Params
from switchboard.errors import SwitchboardError

_MAX_RECORD_BYTES = 64 << 20
_INPUT_EXAMPLE = "input_example.json"


@dataclass(frozen=True)
class Examined:
    """A version, its run, its classifier, and what it was fitted on."""

    version: Version
    run: Run
    classifier: IntentClassifier = field(repr=False)
    digest: str
    size_bytes: int
    learnt: tuple[Example, ...] = field(repr=False)
    record_fault: str
    """Why the record can't be believed; then `learnt` is empty. Empty where it can."""
    signature: str
    input_example: tuple[str, ...]

    @property
    def named(self) -> str:
        return f"{self.version.name} version {self.version.version}"

    @property
    def data_sha256(self) -> str:
        """What the version says; empty where its run says otherwise, as then neither can be believed."""
        stated = self.version.tags.get(DATA_TAG, "")
        return stated if self.run.params.get("data_sha256") == stated else ""

    @property
    def answers(self) -> frozenset[str]:
        return frozenset(self.classifier.settings.labels)

    def params(self) -> Params:
        """What it was trained with.

        Raises:
            SwitchboardError: its run doesn't say, so Switchboard's `train` didn't make it.
        """
        return params_of(self.run.params, self.named)


def params_of(stated: Mapping[str, str], named: str) -> Params:
    """The parameters of training from those of a run.

    Raises:
        SwitchboardError: one is missing or isn't what it should be.
    """
    try:
        return Params(
            c=float(stated["c"]),
            per_template=int(stated["per_template"]),
            augment={"True": True, "False": False}[stated["augment"]],
            target_accuracy=float(stated["target_accuracy"]),
            seed=int(stated["seed"]),
        )
    except (KeyError, ValueError) as error:
        raise SwitchboardError(
            f"the run of {named} doesn't say how it was trained: {error}",
            "train and register it with switchboard models train --register",
        ) from None


def resolve(registry: RegistryWriter, uri: str) -> Version:
    """The version that a model uri means.

    Raises:
        SwitchboardError: it isn't a model uri.
        RegistryError: there is no such version, or the registry can't be reached.
    """
    reference = loading.parse(uri)
    if reference.alias:
        return registry.version_of_alias(reference.name, reference.alias)
    return registry.version(reference.name, reference.version or "")


def examine(registry: RegistryWriter, uri: str) -> Examined:
    """All of a registered model.

    Raises:
        SwitchboardError: it isn't a model uri, or the model can't be loaded (a file is missing or was changed).
        RegistryError: there is no such version, or the registry can't be reached.
    """
    version = resolve(registry, uri)
    run = registry.run_record(version.run_id)
    with tempfile.TemporaryDirectory(prefix="switchboard-models-") as folder:
        model = loading.load(
            f"models:/{version.name}/{version.version}",
            Path(folder),
            timeout_s=30,
            tracking_uri=registry.uri,
        )
    learnt, fault = _record(registry, version, run)
    root = registry.artifact_root(version.name, version.version)
    return Examined(
        version,
        run,
        model.classifier,
        model.digest,
        sum(info.size for info in version.files().values()),
        learnt,
        fault,
        eligible.signature(_optional(registry, f"{root}/MLmodel")),
        _texts(_optional(registry, f"{root}/{_INPUT_EXAMPLE}")),
    )


def _record(registry: RegistryWriter, version: Version, run: Run) -> tuple[tuple[Example, ...], str]:
    try:
        found = record.unpack(registry.run_artifact(run, record.ARTIFACT, max_bytes=_MAX_RECORD_BYTES))
    except NotFound:
        return (), "the run has no record of what was learnt"
    except ValueError as error:
        return (), str(error)
    if record.sha256(found) != version.tags.get(RECORD_TAG):
        return (), "the record of what was learnt is not the one that was registered (its hash differs)"
    return found, ""


def _optional(registry: RegistryWriter, path: str) -> bytes:
    try:
        return registry.artifact(path, max_bytes=1 << 20, deadline=time.monotonic() + 30)
    except NotFound:
        return b""


def _texts(content: bytes) -> tuple[str, ...]:
    """Every string of a JSON document; where it isn't one, the whole of it."""
    try:
        return tuple(_strings(json.loads(content or b"[]")))
    except ValueError:
        return (content.decode(errors="replace"),)


def _strings(value: Any) -> list[str]:
    if isinstance(value, str):
        return [value]
    if isinstance(value, dict):
        return [text for item in (*value.keys(), *value.values()) for text in _strings(item)]
    if isinstance(value, list):
        return [text for item in value for text in _strings(item)]
    return [str(value)] if isinstance(value, int) else []
