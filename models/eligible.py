"""Whether a version may be released at all: asked before anything is deployed, by the operator and by commands.

`refusal` decides from facts; `facts_of` gathers them from the registry, with the standard library and YAML alone. What
a server would load is downloaded and compared with the hashes that were registered, so a version whose files are
missing or were changed is refused before a pod finds out.
"""

from __future__ import annotations

import hashlib
import json
import time
from dataclasses import dataclass
from typing import Any, Final

from models.classifier import FILES
from models.rest import ARTIFACT_FOLDER, NotFound, Refused, Registry, Version
from switchboard.registry_users import GATE_TAG

MAX_MODEL_BYTES: Final = 256 << 20
_SECONDS_A_FILE: Final = 30.0
_MLMODEL: Final = "MLmodel"


@dataclass(frozen=True)
class Facts:
    """What is known of a version. `signature` is canonical JSON; empty where the model has none."""

    name: str
    version: str
    exists: bool = True
    status: str = "READY"
    signature: str = ""
    wrong_files: tuple[str, ...] = ()
    """A clause for each file that a server couldn't use: `classifier.npz is missing`."""
    gate: str = ""


def refusal(candidate: Facts, champion: Facts | None, *, needs_gate: bool = False) -> str | None:
    """Why the candidate may not be released, in one sentence; None where it may.

    Where there is no champion nothing is compared: the candidate would be the first.
    """
    named = f"{candidate.name} version {candidate.version}"
    if not candidate.exists:
        return f"{candidate.name} has no version {candidate.version}"
    if champion is not None and champion.version == candidate.version:
        return f"{named} is the champion already"
    if candidate.status != "READY":
        return f"{named} is not ready: its status is {candidate.status}"
    if candidate.wrong_files:
        return f"{named} can't be served: {' and '.join(candidate.wrong_files)}"
    if champion is not None and candidate.signature != champion.signature:
        return (
            f"{named} has another signature than the champion, version {champion.version}: "
            f"{candidate.signature or 'none'} instead of {champion.signature or 'none'}"
        )
    if needs_gate and not candidate.gate:
        return f"the offline gate hasn't been asked about {named}"
    if needs_gate and candidate.gate != "passed":
        return f"{named} didn't pass the offline gate"
    return None


def facts_of(registry: Registry, name: str, version: str, *, files: bool = True) -> Facts:
    """The facts of a version; without `files`, they aren't downloaded and are taken for good.

    Raises:
        RegistryError: the registry can't be reached, or refuses for another reason than that there is none.
    """
    try:
        found = registry.version(name, version)
        root = registry.artifact_root(name, version)
    except NotFound:
        return Facts(name, version, exists=False)
    wrong = wrong_files(registry, found, root) if files else ()
    return Facts(
        name,
        version,
        status=found.status,
        signature=_signature(registry, root),
        wrong_files=wrong,
        gate=found.tags.get(GATE_TAG, ""),
    )


def champion_of(registry: Registry, name: str) -> Facts | None:
    """The facts of the champion, its files not looked at; None where there is none.

    Raises:
        RegistryError: see `facts_of`.
    """
    try:
        version = registry.version_of_alias(name, "champion").version
    except NotFound:
        return None
    return facts_of(registry, name, version, files=False)


def wrong_files(registry: Registry, version: Version, root: str) -> tuple[str, ...]:
    """A clause for each file of a version that is missing or isn't what was registered."""
    registered = version.files()
    if set(registered) != set(FILES):
        return ("it was not registered by Switchboard (no hashes of its files)",)
    if sum(info.size for info in registered.values()) > MAX_MODEL_BYTES:
        return (f"it is larger than {MAX_MODEL_BYTES >> 20} MiB",)
    wrong: list[str] = []
    for file, info in registered.items():
        try:
            content = _artifact(registry, f"{root}/artifacts/{ARTIFACT_FOLDER}/{file}", info.size + 1)
        except NotFound:
            wrong.append(f"{file} is missing")
            continue
        except Refused as error:
            if "is larger than" not in str(error):
                raise
            content = b""
        if hashlib.sha256(content).hexdigest() != info.sha256:
            wrong.append(f"{file} was changed (its hash differs)")
    return tuple(wrong)


def _signature(registry: Registry, root: str) -> str:
    try:
        return signature(_artifact(registry, f"{root}/{_MLMODEL}", 1 << 20))
    except NotFound:
        return ""


def signature(mlmodel: bytes) -> str:
    """The signature in an `MLmodel` file, as canonical JSON; empty where it has none or isn't one."""
    import yaml

    try:
        raw = yaml.safe_load(mlmodel)
        parts: dict[str, Any] = {
            part: json.loads(text) for part, text in raw["signature"].items() if isinstance(text, str)
        }
    except (yaml.YAMLError, ValueError, TypeError, KeyError, AttributeError):
        return ""
    return json.dumps(parts, sort_keys=True, separators=(",", ":"))


def _artifact(registry: Registry, path: str, max_bytes: int) -> bytes:
    return registry.artifact(path, max_bytes=max_bytes, deadline=time.monotonic() + _SECONDS_A_FILE)
