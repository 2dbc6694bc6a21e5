"""The model for a serving process: found in the registry, kept on disk, loaded without MLflow's own packages.

    model = load("models:/chat-intent@champion", Path("/models"), timeout_s=30)
    model.predict(["I lost my card"])  # [Prediction(intent="card_lost", confidence=0.97)]

It speaks MLflow's REST API through the standard library (importing mlflow costs seconds and 200 MB), checks what it
downloads against the hashes that were registered with the model version, and keeps it on disk, in a folder that many
replicas may share. Where the registry can't be reached, or has only a damaged file, the last known good copy is used.
What is loaded is data, never a pickle.
"""

from __future__ import annotations

import logging
import random
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from models.classifier import FILES, IntentClassifier, Prediction
from models.rest import (
    ARTIFACT_FOLDER,
    Denied,
    NotFound,
    Refused,
    Registry,
    RegistryError,
    Unreachable,
    Version,
    tracking_uri,
)
from models.store import Copy, Store, digest_of, fingerprint, valid_name
from switchboard.errors import SwitchboardError

__all__ = ["LoadedModel", "Prediction", "Reference", "current_version", "load", "parse"]

log = logging.getLogger(__name__)

MAX_MODEL_BYTES = 256 << 20
PATIENCE_S = 5.0
"""How long the registry is tried where a copy on disk could be used."""

Source = Literal["registry", "disk"]


@dataclass(frozen=True)
class Reference:
    """A model uri taken apart; exactly one of `alias` and `version` is set."""

    name: str
    alias: str | None = None
    version: str | None = None

    def __str__(self) -> str:
        return f"models:/{self.name}@{self.alias}" if self.alias else f"models:/{self.name}/{self.version}"


class LoadedModel:
    """A model in memory; safe to be used by several threads."""

    def __init__(
        self, reference: Reference, copy: Copy, source: Source, classifier: IntentClassifier
    ) -> None:
        self.uri = str(reference)
        """What was asked for: `models:/chat-intent@champion`."""
        self.name = copy.name
        self.version = copy.version
        self.run_id = copy.run_id
        self.digest = copy.digest
        """SHA-256 over the model's files, hexadecimal."""
        self.source: Source = source
        """`disk` where the registry couldn't give a usable answer and the last known good copy was taken."""
        self.classifier = classifier

    def predict(self, texts: list[str]) -> list[Prediction]:
        """One prediction for each text, in order; never raises for a text, however odd."""
        return self.classifier.predict(texts)

    def __repr__(self) -> str:
        return f"<{self.name} version {self.version} from {self.source}, {self.digest[:12]}>"


def parse(uri: str) -> Reference:
    """Take `models:/<name>@<alias>` or `models:/<name>/<version>` apart.

    Raises:
        SwitchboardError: it is neither.
    """
    found = re.fullmatch(r"models:/([^/@]+)(?:@([^/@]+)|/([1-9]\d{0,9}))", uri)
    if found is None or not all(valid_name(part) for part in found.groups() if part is not None):
        raise SwitchboardError(
            f"{uri!r} is not a model uri", "write models:/<name>@<alias> or models:/<name>/<version>"
        )
    return Reference(found[1], found[2], found[3])


def load(
    uri: str, cache_dir: Path, *, timeout_s: float = 60.0, tracking_uri: str | None = None
) -> LoadedModel:
    """The model at `models:/<name>@<alias>` or `models:/<name>/<version>`.

    `tracking_uri` defaults to `$MLFLOW_TRACKING_URI`. Where nothing is on disk the registry is tried until `timeout_s`
    (also while it has no such alias yet: the first champion may be in training); where there is a copy, also one that
    another process keeps there meanwhile, it gets 5 s at the most before the copy is used (`source == "disk"`). A
    folder that can't be written, or is full, costs only the copy.

    Raises:
        SwitchboardError: a malformed uri, or no usable model when the time is up.
    """
    reference = parse(uri)
    store = Store(cache_dir, reference.name)
    failure: Exception
    try:
        return _from_registry(reference, store, tracking_uri, timeout_s)
    except (RegistryError, ValueError, OSError, SwitchboardError) as error:
        failure = error
    nothing = True
    for copy in _copies(store, reference):
        nothing = False
        try:
            classifier = _classifier(copy)
        except ValueError as error:
            log.warning("copy of %s version %s is not usable: %s", copy.name, copy.version, error)
            continue
        log.warning("%s: %s; using the copy on disk, version %s", reference, failure, copy.version)
        store.used(copy.version)
        return LoadedModel(reference, copy, "disk", classifier)
    if nothing and isinstance(failure, SwitchboardError):
        raise failure
    raise SwitchboardError(
        f"can't load {reference}: {failure}; and there is no usable copy in {store.directory}",
        _advice(failure),
    )


def current_version(uri: str, *, timeout_s: float = 5.0, tracking_uri: str | None = None) -> str:
    """The version that `uri` means now in the registry (for whoever watches an alias); asks once.

    Raises:
        SwitchboardError: the registry can't be reached or has no such model, alias or version.
    """
    reference = parse(uri)
    try:
        return _resolve(reference, Registry(_tracking_uri(tracking_uri), timeout_s=timeout_s)).version
    except RegistryError as error:
        raise SwitchboardError(f"can't resolve {reference}: {error}", _advice(error)) from None


_tracking_uri = tracking_uri


def _copies(store: Store, reference: Reference) -> Iterator[Copy]:
    """What is on disk now, the last known good one first."""
    versions = [reference.version] if reference.version else store.history(reference.alias or "")
    return (copy for version in versions if (copy := store.get(version)) is not None)


def _resolve(reference: Reference, registry: Registry) -> Version:
    if reference.alias:
        return registry.version_of_alias(reference.name, reference.alias)
    return registry.version(reference.name, reference.version or "")


def _from_registry(reference: Reference, store: Store, address: str | None, timeout_s: float) -> LoadedModel:
    """Try until the time is up, with growing pauses that are jittered so that replicas don't come back all at once."""
    started = time.monotonic()
    deadline, patience = (started + limit_s for limit_s in (timeout_s, min(timeout_s, PATIENCE_S)))
    registry = Registry(_tracking_uri(address))
    attempt = 0
    while True:
        known = next(_copies(store, reference), None)  # another process may have kept one meanwhile
        until = deadline if known is None else patience
        try:
            return _once(reference, store, registry, known, until)
        except (Unreachable, NotFound) as error:
            pause_s = min(5.0, 0.2 * 2**attempt) * random.uniform(0.5, 1.0)  # noqa: S311
            if time.monotonic() + pause_s >= until:
                raise
            if attempt in (0, 5):
                log.info("%s: %s; trying again", reference, error)
        attempt += 1
        time.sleep(pause_s)


def _once(
    reference: Reference, store: Store, registry: Registry, known: Copy | None, deadline: float
) -> LoadedModel:
    wanted = _resolve(reference, registry)
    files = wanted.files()
    if set(files) != set(FILES):
        raise Refused(
            f"{wanted.name} version {wanted.version} was not registered by Switchboard (no hashes of its files)"
        )
    copy = known if known is not None and known.version == wanted.version else store.get(wanted.version)
    if copy is not None and copy.files == files:
        return _loaded(reference, store, copy)
    copy = _download(wanted, registry, deadline)
    try:
        store.put(copy)
    except OSError as error:
        log.warning("can't keep %s version %s on disk: %s", wanted.name, wanted.version, error)
        return LoadedModel(reference, copy, "registry", _classifier(copy))
    return _loaded(reference, store, copy)


def _loaded(reference: Reference, store: Store, copy: Copy) -> LoadedModel:
    """Load first, point after: an alias on disk never means a copy that can't be loaded."""
    model = LoadedModel(reference, copy, "registry", _classifier(copy))
    if reference.alias:
        try:
            store.point(reference.alias, copy.version)
        except OSError as error:
            log.warning("can't remember what %s means: %s", reference, error)
    store.used(copy.version)
    return model


def _download(wanted: Version, registry: Registry, deadline: float) -> Copy:
    files = wanted.files()
    if sum(info.size for info in files.values()) > MAX_MODEL_BYTES:
        raise Refused(f"{wanted.name} version {wanted.version} is larger than {MAX_MODEL_BYTES >> 20} MiB")
    root = registry.artifact_root(wanted.name, wanted.version)
    contents: dict[str, bytes] = {}
    for name, info in files.items():
        content = registry.artifact(
            f"{root}/artifacts/{ARTIFACT_FOLDER}/{name}", max_bytes=MAX_MODEL_BYTES, deadline=deadline
        )
        if fingerprint(content) != info:
            raise Refused(
                f"{name} of {wanted.name} version {wanted.version} is damaged in the registry (its hash differs)"
            )
        contents[name] = content
    log.info("downloaded %s version %s, %s", wanted.name, wanted.version, digest_of(files)[:12])
    return Copy(wanted.name, wanted.version, wanted.run_id, files, contents)


def _classifier(copy: Copy) -> IntentClassifier:
    classifier = IntentClassifier.of(copy.contents)  # what was checked, whatever is on disk by now
    # The first prediction compiles patterns and touches the pages; not at the cost of a customer.
    classifier.predict(["warm up", "预热"])
    return classifier


def _advice(error: Exception) -> str | None:
    if isinstance(error, NotFound):
        return "register a model: switchboard models train --register"
    if isinstance(error, Unreachable):
        return "see whether MLflow runs: switchboard status"
    if isinstance(error, Denied):
        return error.next_step
    if isinstance(error, Refused):
        return "register the model again: switchboard models train --register"
    return error.next_step if isinstance(error, SwitchboardError) else None
