"""What the API server said last of a kind, kept in a file for an agent that starts while it can't be asked.

The gateway serves without the definitions of its kinds, without the right to see them and without the API server: until
there is a list, it goes by the file, and after that by the list, however old that is.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any, Generic, TypeVar

from switchboard import envoy
from switchboard.informer import Informer
from switchboard.kube import Object

T = TypeVar("T")


class LastKnown(Generic[T]):
    """A kind's objects as plain values: `read` makes these of a list, `made` is their data class."""

    def __init__(
        self,
        informer: Informer,
        path: Path,
        read: Callable[[Iterable[Object]], tuple[T, ...]],
        made: Callable[..., T],
    ) -> None:
        self._informer, self._path, self._read, self._made = informer, path, read, made
        self._known: tuple[T, ...] | None = None

    def values(self) -> tuple[T, ...]:
        """Those of the last list, or of the file, as long as there is no list."""
        if not self._informer.synced.is_set():
            return load(self._path.read_text(), self._made) if self._path.exists() else ()
        found = self._read(self._informer.items.values())
        if found != self._known:
            envoy.write(self._path, dump(found))
            self._known = found
        return found


def dump(values: Iterable[Any]) -> dict[str, Any]:
    """The file's document."""
    return {"known": [asdict(one) for one in values]}


def load(text: str, made: Callable[..., T]) -> tuple[T, ...]:
    """Nothing where the text isn't what `dump` made."""
    try:
        return tuple(made(**one) for one in json.loads(text)["known"])
    except (ValueError, TypeError, KeyError):
        return ()
