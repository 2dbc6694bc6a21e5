"""Progress where there is no terminal: one line a step, with its time and how it ended."""

from __future__ import annotations

import io
import re
import threading

import pytest

from switchboard.progress import Progress


def test_a_line_for_each_step_with_its_time() -> None:
    stream = io.StringIO()
    with Progress(stream) as progress:
        with progress.step("first"):
            pass
        with pytest.raises(RuntimeError), progress.step("second"):
            raise RuntimeError
        progress.note("between")
    first, second, note = stream.getvalue().splitlines()
    assert re.fullmatch(r"✓ first +\d+\.\d s", first)
    assert re.fullmatch(r"✗ second +\d+\.\d s", second)
    assert note == "between"


def test_steps_of_threads_keep_their_lines_whole() -> None:
    stream = io.StringIO()
    with Progress(stream) as progress:

        def work(name: str) -> None:
            with progress.step(name) as step:
                step.detail("half way")

        threads = [threading.Thread(target=work, args=(f"step-{index}",)) for index in range(20)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    lines = stream.getvalue().splitlines()
    assert sorted(line.split()[1] for line in lines) == sorted(f"step-{index}" for index in range(20))
