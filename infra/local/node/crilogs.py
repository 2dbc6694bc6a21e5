"""Containers' logs in the CRI format (`<time> <stream> <F|P> <text>`), read as `kubectl logs` asks for them."""

from __future__ import annotations

import asyncio
import os
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import BinaryIO

_POLL_S = 0.2
_CHUNK_BYTES = 256 * 1024


@dataclass(frozen=True)
class Options:
    """What `kubectl logs` can ask; `since` as the first characters of a CRI time stamp."""

    follow: bool = False
    previous: bool = False
    timestamps: bool = False
    tail_lines: int | None = None
    limit_bytes: int | None = None
    since: bytes | None = None

    @classmethod
    def of(cls, query: Mapping[str, str], now: datetime) -> Options:
        """From the query of a request. Raises ValueError."""
        since = None
        if seconds := query.get("sinceSeconds"):
            since = now - timedelta(seconds=int(seconds))
        elif at := query.get("sinceTime"):
            since = datetime.fromisoformat(at.replace("Z", "+00:00"))
        tail, limit = query.get("tailLines"), query.get("limitBytes")
        return cls(
            follow=query.get("follow") in ("true", "1"),
            previous=query.get("previous") in ("true", "1"),
            timestamps=query.get("timestamps") in ("true", "1"),
            tail_lines=int(tail) if tail else None,
            limit_bytes=int(limit) if limit else None,
            since=None if since is None else since.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%f").encode(),
        )


def show(line: bytes, options: Options) -> bytes:
    """A line of the file as the user sees it: empty where it is too old or not a line of a log."""
    stamp, _, rest = line.partition(b" ")
    _, _, rest = rest.partition(b" ")
    tag, _, text = rest.partition(b" ")
    if tag not in (b"F", b"P") or (options.since is not None and stamp < options.since):
        return b""
    end = b"\n" if tag == b"F" else b""
    return (stamp + b" " + text if options.timestamps else text) + end


def whole_lines(file: BinaryIO, rest: bytes = b"") -> Iterator[bytes]:
    """The lines that are complete; what follows the last of them stays unread."""
    while chunk := file.read(_CHUNK_BYTES):
        *lines, rest = (rest + chunk).split(b"\n")
        yield from lines
    file.seek(-len(rest), os.SEEK_CUR)


def select(lines: Iterable[bytes], options: Options) -> Iterator[bytes]:
    """The lines that are asked for, as the user sees them."""
    shown = (text for line in lines if (text := show(line, options)))
    return iter(deque(shown, maxlen=options.tail_lines)) if options.tail_lines is not None else shown


def last_text(path: Path, lines: int, limit_bytes: int) -> str:
    """The end of a log, without times."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - 8 * limit_bytes))
            text = b"".join(select(whole_lines(file), Options(tail_lines=lines)))
    except OSError:
        return ""
    return text[-limit_bytes:].decode(errors="replace")


async def read(path: Path, options: Options, runs: Callable[[], bool]) -> AsyncIterator[bytes]:
    """The log in pieces; with `follow` until `runs` says that the container is over (and all is read)."""
    left = options.limit_bytes
    async for piece in _pieces(path, options, runs):
        if left is not None:
            piece = piece[:left]
            left -= len(piece)
        if piece:
            yield piece
        if left == 0:
            return


async def _pieces(path: Path, options: Options, runs: Callable[[], bool]) -> AsyncIterator[bytes]:
    while (file := _open(path)) is None:
        if not (options.follow and runs()):
            return
        await asyncio.sleep(_POLL_S)
    try:
        yield await asyncio.to_thread(_read, file, options)
        later = Options(timestamps=options.timestamps, since=options.since)
        while options.follow:
            running = runs()  # before the last read, so that nothing is missed
            yield await asyncio.to_thread(_read, file, later)
            if _rotated(file, path) and (fresh := _open(path)) is not None:
                yield await asyncio.to_thread(
                    _read, file, later
                )  # what came between the last look and the rotation
                file.close()
                file = fresh
            elif not running:
                return
            else:
                await asyncio.sleep(_POLL_S)
    finally:
        file.close()


def _open(path: Path) -> BinaryIO | None:
    try:
        return path.open("rb")
    except FileNotFoundError:
        return None


def _read(file: BinaryIO, options: Options) -> bytes:
    return b"".join(select(whole_lines(file), options))


def _rotated(file: BinaryIO, path: Path) -> bool:
    try:
        return path.stat().st_ino != os.fstat(file.fileno()).st_ino
    except OSError:
        return False
