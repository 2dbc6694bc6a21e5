"""ModelServers: rules of their own, and the objects that the operator will make of them, which all rules judge.

They are made here of what a preview knows. Where it doesn't know enough, they are judged at the update.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from pydantic import ValidationError

from infra import made
from infra.components.exceptions import POLICY
from infra.policy.manifest import UNKNOWN, annotation, get, has_unknown, label
from infra.policy.subject import Fault, Subject
from switchboard import labels
from switchboard.api.model_server import Spec

SPARE_EXCEPTION = POLICY + "spare-replica"
FEWEST = 2


def with_made(subject: Subject) -> list[Subject]:
    """The subject, and what the operator makes of it."""
    if not isinstance(_spec(subject), Spec):
        return [subject]  # `model_server` says what is wrong with one
    server = {**_known(subject.manifest), "spec": _judged(subject.manifest["spec"])}
    try:
        found = made.manifests(server)
    except (KeyError, TypeError, AttributeError):
        return [subject]  # metadata that is none is an API server's to refuse
    return [subject, *(replace(subject, manifest=manifest, maker=subject) for manifest in found)]


def model_server(subject: Subject) -> Iterator[Fault]:
    """A ModelServer is one that an API server takes, and its label says of its data what its spec does."""
    spec = _spec(subject)
    if isinstance(spec, ValidationError):
        first = spec.errors(include_url=False)[0]
        where = ".".join(str(part) for part in ("spec", *first["loc"]))
        yield Fault(
            f"{where}: {first['msg'].removeprefix('Value error, ')}",
            "correct it: an API server refuses it, too",
        )
    elif spec is not None:
        said = label(subject.manifest, labels.DATA_CLASS)
        if said not in (str(spec.data_class), UNKNOWN):
            yield Fault(
                f"its label says that its data is {said or '(nothing)'}, its spec says {spec.data_class}",
                f"label it {labels.DATA_CLASS}: {spec.data_class}",
            )


def spare_replica(subject: Subject) -> Iterator[Fault]:
    """A model server of the core keeps two replicas or more, so that one that is lost is no outage."""
    spec = _spec(subject)
    if not isinstance(spec, Spec) or spec.placement.tier != "core" or made.least(spec) >= FEWEST:
        return
    reason = annotation(subject.manifest, SPARE_EXCEPTION)
    if reason is not UNKNOWN and not (isinstance(reason, str) and reason.strip()):
        yield Fault(
            "it may come to have one replica, and nobody answers while that is replaced"
            if made.least(spec)
            else "it may come to have no replica, and customers wait for one to start",
            f"`scaling.minReplicas: {FEWEST}` (`replicas`, where that is the number), or say why it may be away: "
            "`availabilityException` in the stack file",
        )


def _spec(subject: Subject) -> Spec | ValidationError | None:
    """The spec of a ModelServer, or what is wrong with it; None for others, and where too little is known."""
    if not made.is_model_server(subject.manifest):
        return None
    spec = _judged(get(subject.manifest, "spec"))
    if has_unknown(spec):
        return None
    try:
        return Spec.model_validate(spec)
    except ValidationError as error:
        return error


def _judged(spec: Any) -> Any:
    """The spec without those fields that no rule is about, and that a preview of a new stack doesn't know yet."""
    if not isinstance(spec, Mapping):
        return spec
    found = {key: value for key, value in spec.items() if key != "serviceAccountName"}
    if isinstance(model := found.get("model"), Mapping) and model.get("registry") is UNKNOWN:
        found["model"] = {key: value for key, value in model.items() if key != "registry"}
    return found


def _known(value: Any) -> Any:
    """`value` without what isn't known yet."""
    if isinstance(value, Mapping):
        return {key: _known(item) for key, item in value.items() if item is not UNKNOWN}
    return value
