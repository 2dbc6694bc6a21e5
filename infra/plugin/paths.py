"""Property paths as Pulumi writes them: `spec.containers[0].image`, `metadata.annotations["pulumi.com/skipAwait"]`."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

Path = tuple[str | int, ...]
"""Keys and list positions from the root; `"*"` in a pattern stands for any one of them."""

_PLAIN = re.compile(r"[A-Za-z_$][A-Za-z0-9_$-]*\Z")
_STEP = re.compile(r"""\.?([^.\[\]"]+)|\[(\d+)\]|\[\*\]|\["((?:[^"\\]|\\.)*)"\]""")


def format_path(path: Iterable[str | int]) -> str:
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        elif _PLAIN.match(part):
            text += f".{part}" if text else part
        else:
            quoted = part.replace("\\", "\\\\").replace('"', '\\"')
            text += f'["{quoted}"]'
    return text


def parse_path(text: str) -> Path:
    """The path in `text`; `[*]` and `*` become `"*"`.

    Raises:
        ValueError: it isn't a property path.
    """
    parts: list[str | int] = []
    at = 0
    while at < len(text):
        step = _STEP.match(text, at)
        if step is None:
            raise ValueError(f"{text!r} is not a property path (at {text[at:]!r})")
        plain, index, quoted = step.groups()
        if plain is not None:
            parts.append(plain)
        elif index is not None:
            parts.append(int(index))
        elif quoted is not None:
            parts.append(re.sub(r"\\(.)", r"\1", quoted))
        else:
            parts.append("*")
        at = step.end()
    return tuple(parts)


def covers(pattern: Path, path: Path) -> bool:
    """Whether `path` is what `pattern` names, or lies inside it."""
    return len(pattern) <= len(path) and all(
        one in ("*", other) for one, other in zip(pattern, path, strict=False)
    )


def copy_at(pattern: Path, source: Any, target: Any) -> None:
    """Make `target` hold at `pattern` what `source` holds there, in place; absent in `source`: removed.

    Only where `target` holds something, inside objects and lists that both have.
    """
    head, rest = pattern[0], pattern[1:]
    if isinstance(target, dict) and isinstance(source, dict):
        for key in list(target) if head == "*" else [head]:
            _copy_key(key, rest, source, target)
    elif isinstance(target, list) and isinstance(source, list):
        both = range(min(len(target), len(source)))
        for i in both if head == "*" else [i for i in both if i == head]:
            if rest:
                copy_at(rest, source[i], target[i])
            else:
                target[i] = source[i]


def _copy_key(key: Any, rest: Path, source: dict[str, Any], target: dict[str, Any]) -> None:
    if rest:
        if key in target and key in source:
            copy_at(rest, source[key], target[key])
    elif key in target and key in source:
        target[key] = source[key]
    else:
        target.pop(key, None)
