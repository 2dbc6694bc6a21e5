"""The log format: whole lines, parts of long lines, rotation, and what happens when nothing can be written."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra.local.runtime.crilog import MAX_CHUNK_BYTES, CriLog, chunks, timestamp

T = 1_767_323_045_000_000_001


@pytest.mark.parametrize(
    ("data", "found", "rest"),
    [
        (b"", [], b""),
        (b"a\n", [(b"F", b"a")], b""),
        (b"a\nb", [(b"F", b"a")], b"b"),
        (b"\n\n", [(b"F", b""), (b"F", b"")], b""),
        (b"x" * MAX_CHUNK_BYTES, [], b"x" * MAX_CHUNK_BYTES),  # its newline may come yet
        (b"x" * MAX_CHUNK_BYTES + b"\n", [(b"F", b"x" * MAX_CHUNK_BYTES)], b""),
        (b"x" * (MAX_CHUNK_BYTES + 1), [(b"P", b"x" * MAX_CHUNK_BYTES)], b"x"),
        (b"x" * (MAX_CHUNK_BYTES + 1) + b"\n", [(b"P", b"x" * MAX_CHUNK_BYTES), (b"F", b"x")], b""),
    ],
)
def test_chunks(data: bytes, found: list[tuple[bytes, bytes]], rest: bytes) -> None:
    assert chunks(data) == (found, rest)


@given(st.lists(st.binary(max_size=60_000), max_size=6))
def test_nothing_is_lost_however_it_is_cut(parts: list[bytes]) -> None:
    rest, out = b"", b""
    for part in parts:
        found, rest = chunks(rest + part)
        assert all(len(text) <= MAX_CHUNK_BYTES for _, text in found)
        out += b"".join(text + (b"\n" if tag == b"F" else b"") for tag, text in found)
    assert out + rest == b"".join(parts)


def test_timestamp_has_nine_digits() -> None:
    assert timestamp(T) == "2026-01-02T03:04:05.000000001Z"
    assert datetime.fromisoformat(timestamp(T)[:26] + "Z").microsecond == 0


def test_format_and_the_end_without_a_newline(tmp_path: Path) -> None:
    log = CriLog(str(tmp_path / "0.log"))
    log.feed(b"stdout", b"one\ntw", T)
    log.feed(b"stderr", b"bad\n", T)
    log.feed(b"stdout", b"o\nend", T)
    log.finish(T)
    stamp = "2026-01-02T03:04:05.000000001Z"
    assert (tmp_path / "0.log").read_text().splitlines() == [
        f"{stamp} stdout F one",
        f"{stamp} stderr F bad",
        f"{stamp} stdout F two",
        f"{stamp} stdout P end",
    ]


def test_rotation_keeps_two(tmp_path: Path) -> None:
    log = CriLog(str(tmp_path / "0.log"), max_bytes=100)
    for number in range(10):
        log.feed(b"stdout", b"line %d\n" % number, T)
    log.finish(T)
    kept = [(tmp_path / name).read_text() for name in ("0.log.2", "0.log.1", "0.log")]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0.log", "0.log.1", "0.log.2"]
    assert "".join(kept).splitlines()[-1].endswith("line 9")
    assert all(len(text) <= 100 for text in kept)
    assert [line.rsplit(" ", 1)[1] for line in "".join(kept).splitlines()] == ["4", "5", "6", "7", "8", "9"]


def test_a_full_disk_drops_and_counts() -> None:
    log = CriLog("/dev/full")
    log.feed(b"stdout", b"a\nb\nc\n", T)
    assert log.dropped == 3


def test_what_was_dropped_is_said_when_there_is_room_again(tmp_path: Path) -> None:
    log = CriLog("/dev/full")
    log.feed(b"stdout", b"a\nb\n", T)
    log.path = str(tmp_path / "0.log")
    log._open()
    log.feed(b"stdout", b"c\n", T)
    log.finish(T)
    first, second = (tmp_path / "0.log").read_text().splitlines()
    assert first.endswith("stderr F [2 log lines were dropped: the log could not be written]")
    assert second.endswith("stdout F c")
    assert log.dropped == 2


def test_a_folder_that_is_gone_does_not_stop_it(tmp_path: Path) -> None:
    log = CriLog(str(tmp_path / "gone" / "0.log"))
    log.feed(b"stdout", b"a\n", T)
    log.finish(T)
    assert log.dropped == 1
