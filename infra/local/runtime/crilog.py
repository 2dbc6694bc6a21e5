"""A container's log file in the CRI format, written by its shim.

    2026-01-02T03:04:05.000000000Z stdout F text

`F` ends a line, `P` is a part of one longer than 16 KiB. At 10 MiB the file becomes `<path>.1` (and that `<path>.2`),
so a reader that follows it has to notice a new inode. Logging never blocks the container: what can't be written
(a full disk, a folder that is gone) is dropped and counted, and the count is logged when there is room again.

Loaded by the shim under `python -I -S`: standard library only, cheap imports only.
"""

# No pathlib, no contextlib: each import lengthens the start of every container.
# ruff: noqa: PTH105, PTH110, SIM105

from __future__ import annotations

import os
import time

MAX_CHUNK_BYTES = 16 * 1024
MAX_FILE_BYTES = 10 * 1024 * 1024
KEEP = 2

_REOPEN_AFTER_S = 1.0


def timestamp(time_ns: int) -> str:
    """RFC 3339 in UTC with nine digits, as the CRI has it."""
    seconds, nanos = divmod(time_ns, 1_000_000_000)
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(seconds))}.{nanos:09d}Z"


def chunks(data: bytes) -> tuple[list[tuple[bytes, bytes]], bytes]:
    """Split into (tag, text) of at most 16 KiB; the rest, which has no newline yet, comes second."""
    found = []
    *lines, rest = data.split(b"\n")
    for line in lines:
        while len(line) > MAX_CHUNK_BYTES:
            found.append((b"P", line[:MAX_CHUNK_BYTES]))
            line = line[MAX_CHUNK_BYTES:]
        found.append((b"F", line))
    while len(rest) > MAX_CHUNK_BYTES:
        found.append((b"P", rest[:MAX_CHUNK_BYTES]))
        rest = rest[MAX_CHUNK_BYTES:]
    return found, rest


class CriLog:
    """The log of one container; `dropped` is the number of lines that could not be written so far."""

    def __init__(self, path: str, max_bytes: int = MAX_FILE_BYTES) -> None:
        self.path = path
        self.max_bytes = max_bytes
        self.dropped = 0
        self._unsaid = 0
        self._rest = {b"stdout": b"", b"stderr": b""}
        self._fd = -1
        self._size = 0
        self._retry_at = 0.0
        self._open()

    def feed(self, stream: bytes, data: bytes, now_ns: int) -> None:
        """Take what a stream gave; whole lines are written at once, the rest waits for its end."""
        found, self._rest[stream] = chunks(self._rest[stream] + data)
        self._write(stream, found, now_ns)

    def finish(self, now_ns: int) -> None:
        """Write what is left without a newline, and close."""
        for stream, rest in self._rest.items():
            if rest:
                self._write(stream, [(b"P", rest)], now_ns)  # so no reader adds the newline
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _write(self, stream: bytes, found: list[tuple[bytes, bytes]], now_ns: int) -> None:
        if not found:
            return
        prefix = timestamp(now_ns).encode() + b" "
        text = b"".join([b"%s%s %s %s\n" % (prefix, stream, tag, line) for tag, line in found])
        if self._unsaid:
            said = b"%sstderr F [%d log lines were dropped: the log could not be written]\n"
            text = said % (prefix, self._unsaid) + text
        if self._append(text):
            self._unsaid = 0
        else:
            self._unsaid += len(found)
            self.dropped += len(found)

    def _append(self, text: bytes) -> bool:
        if self._fd < 0 and time.monotonic() >= self._retry_at:
            self._open()
        if self._fd < 0:
            return False
        if self._size and self._size + len(text) > self.max_bytes:
            self._rotate()
        try:
            if os.write(self._fd, text) == len(text):
                self._size += len(text)
                return True
        except OSError:
            pass
        try:
            os.ftruncate(self._fd, self._size)  # no half lines
        except OSError:
            pass
        return False

    def _open(self) -> None:
        try:
            self._fd = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o640)
            self._size = os.fstat(self._fd).st_size
        except OSError:
            self._fd = -1
            self._retry_at = time.monotonic() + _REOPEN_AFTER_S

    def _rotate(self) -> None:
        os.close(self._fd)
        try:
            for number in range(KEEP, 1, -1):
                if os.path.exists(f"{self.path}.{number - 1}"):
                    os.replace(f"{self.path}.{number - 1}", f"{self.path}.{number}")
            os.replace(self.path, f"{self.path}.1")
        except OSError:
            pass
        self._open()
