"""The words that the files of this package share: a rule, its verdict, and what belongs to an object."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from switchboard.kube import PODS, Kind, Object

Seen = Mapping[str, Sequence[Object]]
"""What belongs to the object, by the plural of its kind."""


@dataclass(frozen=True)
class Verdict:
    """`done`: as wanted. `failed`: it never will be. Otherwise `message` says what is still missing."""

    done: bool
    message: str
    failed: bool = False


DONE = Verdict(True, "ready")


def missing(message: str) -> Verdict:
    return Verdict(False, message)


def failed(message: str) -> Verdict:
    return Verdict(False, message, failed=True)


@dataclass(frozen=True)
class Related:
    """Objects that belong to another: `select` gives their label selector (None: all), `applies` whether to look."""

    kind: Kind
    select: Callable[[Object], str | None] = lambda _: None
    applies: Callable[[Object], bool] = lambda _: True


@dataclass(frozen=True)
class Rule:
    """When an object is as wanted."""

    check: Callable[[Object, Seen], Verdict]
    related: tuple[Related, ...] = ()


def selector_of(obj: Object) -> str | None:
    """`spec.selector` of a workload as the API's label selector."""
    selector = obj.get("spec", {}).get("selector") or {}
    parts = [f"{key}={value}" for key, value in (selector.get("matchLabels") or {}).items()]
    for item in selector.get("matchExpressions") or []:
        values = ",".join(item.get("values") or [])
        parts.append(
            {
                "In": f"{item['key']} in ({values})",
                "NotIn": f"{item['key']} notin ({values})",
                "Exists": item["key"],
                "DoesNotExist": f"!{item['key']}",
            }[item["operator"]]
        )
    return ",".join(parts) or None


OWN_PODS = Related(PODS, selector_of)


def condition(obj: Object, type_: str) -> Mapping[str, str] | None:
    """The condition of that type in `status.conditions`."""
    for item in obj.get("status", {}).get("conditions") or []:
        if item.get("type") == type_:
            return item
    return None


def is_condition(obj: Object, type_: str, status: str = "True") -> bool:
    found = condition(obj, type_)
    return found is not None and found.get("status") == status


def observed(obj: Object) -> bool:
    """Whether the controller has seen the object's latest spec: before that, its status is about the past."""
    return obj.get("status", {}).get("observedGeneration", 0) >= obj["metadata"].get("generation", 0)


def count(obj: Object, field: str) -> int:
    return int(obj.get("status", {}).get(field) or 0)
