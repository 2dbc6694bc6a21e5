"""Conditions that a manifest states itself, by `pulumi.com/waitFor`, in place of its kind's own rule.

    condition=Synced                                 a status condition that is True
    condition=Stalled=False                          … of that status (`kubectl wait --for` writes it so)
    jsonpath={.status.phase}=Running                 a field with that value
    jsonpath={.status.address}                       a field that is there
    ["condition=Ready", "jsonpath={.spec.paused}=false"]    all of them

A condition about an earlier generation (its `observedGeneration`, else the status') isn't met: it is of the past.

JSON paths are those of `kubectl wait`: keys, positions, `["key"]` and filters `[?(@.type=="Ready")]`; each must come
to one value.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from infra.plugin.await_.rule import DONE, Rule, Seen, Verdict, condition, missing
from switchboard.kube import Object

_STEP = re.compile(
    r"""\.(?P<key>(?:\\.|[^.\[\]\\])+)
      | \[(?P<index>-?\d+)\]
      | \[['"](?P<quoted>[^'"]+)['"]\]
      | \[\?\(@\.(?P<field>[\w.]+)\s*==\s*['"](?P<value>[^'"]*)['"]\)\]""",
    re.VERBOSE,
)

Step = Callable[[Any], Any]
_ABSENT = object()


@dataclass(frozen=True)
class Wanted:
    """One condition: its text, whether an object meets it, and what the object says of why not."""

    text: str
    met: Callable[[Object], bool]
    why: Callable[[Object], str] = lambda _: ""


def rule(text: str) -> Rule:
    """The rule in the annotation's value.

    Raises:
        ValueError: it is malformed.
    """
    wanted = tuple(parse(item) for item in _items(text))

    def check(live: Object, _: Seen) -> Verdict:
        unmet = [item.text + item.why(live) for item in wanted if not item.met(live)]
        return missing(f"not met yet: {', '.join(unmet)}") if unmet else DONE

    return Rule(check)


def _items(text: str) -> list[str]:
    if not text.lstrip().startswith("["):
        return [text]
    try:
        items = json.loads(text)
    except ValueError:
        items = None
    if not isinstance(items, list) or not items or not all(isinstance(item, str) for item in items):
        raise ValueError(f"pulumi.com/waitFor: {text!r} is not a JSON array of conditions")
    return items


def parse(text: str) -> Wanted:
    """One condition.

    Raises:
        ValueError: it is malformed.
    """
    how, equals, rest = text.partition("=")
    if how == "condition" and equals and rest:
        type_, _, status = rest.partition("=")
        return Wanted(
            text, lambda live: _condition_met(live, type_, status or "True"), lambda live: _told(live, type_)
        )
    if how == "jsonpath" and equals:
        path, steps, value = _json_path(text, rest)
        return Wanted(
            f"{path}={value}" if value is not None else path, lambda live: _path_met(live, steps, value)
        )
    raise ValueError(
        f"pulumi.com/waitFor: {text!r} is neither `condition=<type>[=<status>]` nor `jsonpath={{<path>}}[=<value>]`"
    )


def _condition_met(live: Object, type_: str, status: str) -> bool:
    found = condition(live, type_)
    if found is None or _observed(live, found) < live.get("metadata", {}).get("generation", 0):
        return False
    return str(found.get("status", "")).lower() == status.lower()


def _observed(live: Object, found: Mapping[str, Any]) -> float:
    """The generation that a condition is about, as `kubectl wait` finds it: the condition's own, else its object's.

    A condition that is about no generation in particular is about the latest.
    """
    for place in (found, live.get("status") or {}):
        if isinstance(observed := place.get("observedGeneration"), int):
            return observed
    return math.inf


def _told(live: Object, type_: str) -> str:
    """What a condition of the latest generation says of itself: ` (ImagePullFailed: no such image)`."""
    found = condition(live, type_)
    if found is None or _observed(live, found) < live.get("metadata", {}).get("generation", 0):
        return ""
    said = ": ".join(filter(None, (found.get("reason"), found.get("message"))))
    return f" ({said})" if said else ""


def _json_path(text: str, rest: str) -> tuple[str, list[Step], str | None]:
    rest = rest.strip().removeprefix("'").removesuffix("'")
    whole = re.fullmatch(r"\{(?P<path>.+?)\}(?:=(?P<value>.*))?", rest)
    path = whole["path"] if whole else ""
    steps, at = [], 0
    while at < len(path):
        match = _STEP.match(path, at)
        if match is None:
            break
        steps.append(_step(match))
        at = match.end()
    if not steps or at < len(path) or whole is None:
        raise ValueError(
            f"pulumi.com/waitFor: {text!r} has no JSON path that can be read, like {{.status.phase}}"
        )
    value = whole["value"]
    return path, steps, value.strip("'\"") if value is not None else None


def _step(match: re.Match[str]) -> Step:
    if match["index"] is not None:
        index = int(match["index"])
        return lambda at: at[index] if isinstance(at, list) and -len(at) <= index < len(at) else _ABSENT
    if match["field"] is not None:
        keys, value = match["field"].split("."), match["value"]
        return lambda at: _filtered(at, keys, value)
    key = match["quoted"] or re.sub(r"\\(.)", r"\1", match["key"])
    return lambda at: at.get(key, _ABSENT) if isinstance(at, dict) else _ABSENT


def _filtered(items: Any, keys: list[str], value: str) -> Any:
    for item in items if isinstance(items, list) else []:
        at = item
        for key in keys:
            at = at.get(key) if isinstance(at, dict) else None
        if _shown(at) == value:
            return item
    return _ABSENT


def _path_met(live: Object, steps: list[Step], value: str | None) -> bool:
    at: Any = live
    for step in steps:
        at = step(at)
        if at is _ABSENT:
            return False
    return value is None or _shown(at) == value


def _shown(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
