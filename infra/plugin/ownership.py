"""Whose an object's fields are, by its `managedFields`; and what an apply says of those that the user ignores.

An apply owns each field that it names. So a field under `ignore_changes` that another manager owns is left out: named,
even at its own value, it would be ours as well, and the other manager's next change of it a conflict. What we alone own
is named at its live value, since a field goes that its only owner leaves out. What nobody owns is a default: left out.

`managedFields` are trees in the API server's own words: below `f:<name>` is a field, below `k:<keys>` that item of a
list which has these keys, below `v:<value>` the item that is this value; `.` is the thing itself, and what has nothing
else below it is owned as a whole.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from infra.plugin.annotations import PATCH_FIELD_MANAGER, annotation
from infra.plugin.paths import Path, copy_at, parse_path
from switchboard.kube import Object

Fields = Mapping[str, Any]

_ABSENT: Final = object()


def leave_ignored(obj: Object, live: Object, ignore_changes: Iterable[str], managers: Iterable[str]) -> None:
    """Set in `obj`, in place, what the user ignores to what of it in `live` only `managers` have applied.

    What an object is (its kind, its name) can't be ignored.

    Raises:
        ValueError: a path isn't one.
    """
    ours, theirs = _owned(live, frozenset(managers))
    what = {key: obj[key] for key in ("apiVersion", "kind")}
    which = {key: obj["metadata"][key] for key in ("name", "namespace") if key in obj["metadata"]}
    for text in ignore_changes:
        if path := parse_path(text):
            _leave(path, obj, live, ours, theirs)
    obj |= what | {"metadata": {**obj.get("metadata", {}), **which}}


def by_pulumi(live: Object) -> bool:
    """Whether a Pulumi has applied the object, or may have: under a manager of its own, or the user's name for one."""
    managers = (entry.get("manager", "") for entry in live["metadata"].get("managedFields") or [])
    return annotation(live, PATCH_FIELD_MANAGER) is not None or any(
        manager.startswith(("pulumi-kubernetes", "pulumi-resource-kubernetes")) for manager in managers
    )


def _owned(live: Object, managers: frozenset[str]) -> tuple[Fields, Fields]:
    """What these managers have applied, and what anybody else has applied or written."""
    ours: dict[str, Any] = {}
    theirs: dict[str, Any] = {}
    for entry in live["metadata"].get("managedFields") or []:
        own = entry.get("operation") == "Apply" and entry.get("manager") in managers
        _add(entry.get("fieldsV1") or {}, ours if own else theirs)
    return ours, theirs


def _add(fields: Fields, to: dict[str, Any]) -> None:
    for key, below in fields.items():
        _add(below, to.setdefault(key, {}))


def _leave(path: Path, obj: Any, live: Any, ours: Fields | None, theirs: Fields | None) -> Any:
    """`obj` with what `path` names in it as `leave_ignored` has it; _ABSENT: without it."""
    if not path:
        return _alone(live, ours, theirs)
    if not (_below(ours) or _below(theirs)):  # inside of what is owned as a whole, if at all
        copy_at(path, live, obj)
        return obj
    for at, there, key in list(_steps(path, obj, live, [*_below(ours), *_below(theirs)])):
        left = _leave(path[1:], _at(obj, at), there, (ours or {}).get(key), (theirs or {}).get(key))
        if left is not _ABSENT:
            obj[at] = left if path[1:] else _with_keys(left, key)
        elif isinstance(obj, list) or at in obj:
            del obj[at]
    return obj


def _steps(path: Path, obj: Any, live: Any, keys: list[str]) -> Iterator[tuple[Any, Any, str]]:
    """For each thing in `obj` that the path's first step names: where it is, what it is in `live`, its key.

    Only where both have what is to be looked into. A list's items are the same by their keys, wherever they are; they
    come from the end, since what is left out moves what is behind it.
    """
    head, last = path[0], len(path) == 1
    if isinstance(obj, dict) and isinstance(live, dict):
        for name in list(obj) if head == "*" else [head]:
            if last or (name in obj and name in live):
                yield name, live.get(name, _ABSENT), f"f:{name}"
    elif isinstance(obj, list) and isinstance(live, list):
        for i in reversed(range(len(obj))):
            if head not in ("*", i):
                continue
            key = next((key for key in keys if _is(obj[i], key)), "")
            there = next((item for item in live if key and _is(item, key)), _ABSENT)
            if last or there is not _ABSENT:
                yield i, there, key


def _alone(live: Any, ours: Fields | None, theirs: Fields | None) -> Any:
    """The part of `live` that is in `ours` and not in `theirs`; _ABSENT where there is none."""
    if live is _ABSENT or ours is None:
        return _ABSENT
    keys = _below(ours)
    if not keys:
        return live if theirs is None else _ABSENT
    if isinstance(live, dict):
        named = {key[2:]: key for key in keys}
        parts = {
            name: _alone(live[name], ours[key], (theirs or {}).get(key))
            for name, key in named.items()
            if name in live
        }
        return {name: part for name, part in parts.items() if part is not _ABSENT} or _ABSENT
    if isinstance(live, list):
        items = [(item, key) for item in live for key in keys if _is(item, key)]
        kept = [(key, _alone(item, ours[key], (theirs or {}).get(key))) for item, key in items]
        return [_with_keys(part, key) for key, part in kept if part is not _ABSENT] or _ABSENT
    return _ABSENT


def _below(fields: Fields | None) -> list[str]:
    return [key for key in fields or {} if key != "."]


def _at(obj: Any, at: Any) -> Any:
    return obj.get(at) if isinstance(obj, dict) else obj[at]


def _is(item: Any, key: str) -> bool:
    """Whether a list's item is the one of that key. A key that the item doesn't give has its default."""
    sort, value = key[:2], key[2:]
    if sort == "v:":
        return bool(item == json.loads(value))
    if sort != "k:" or not isinstance(item, dict):
        return False
    wanted = json.loads(value)
    return any(name in item for name in wanted) and all(item.get(n, v) == v for n, v in wanted.items())


def _with_keys(part: Any, key: str) -> Any:
    """An item with the keys by which an apply finds it."""
    return {**json.loads(key[2:]), **part} if key.startswith("k:") else part
