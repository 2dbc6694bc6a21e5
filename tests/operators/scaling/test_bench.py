"""The benchmark runs, and what it prints is of all servers."""

from __future__ import annotations

import sys

import pytest

from operators.scaling import bench


def test_the_benchmark(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["bench", "--servers", "5", "--ticks", "6"])
    bench.main()
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "5 servers, 6 ticks; processor time"
    assert [line.split(":")[0] for line in lines[1:]] == [
        "a decision",
        "with a full bucket",
        "a tick of all servers",
        "a history from outside",
        "memory",
    ]
    assert "nan" not in "".join(lines)


def test_every_decision_is_counted() -> None:
    found = bench.run(7, 5)
    assert len(found.ordinary_s) + len(found.full_s) == 35
    assert len(found.full_s) == 7, "one bucket in 10 s"
    assert len(found.ticks_s) == 5
