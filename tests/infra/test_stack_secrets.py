"""The key of MLflow's users: on this machine for the embedded cloud, and long enough everywhere else."""

from __future__ import annotations

import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from infra import stack_secrets
from switchboard.errors import SwitchboardError


def test_it_is_made_once_and_read_by_nobody_else(tmp_path: Path) -> None:
    file = tmp_path / "new" / "key"
    with ThreadPoolExecutor(8) as pool:
        found = set(pool.map(lambda _: stack_secrets.kept(file), range(32)))
    assert len(found) == 1
    assert len(found.pop()) >= stack_secrets.LEAST_CHARACTERS
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert [path.name for path in file.parent.iterdir()] == ["key"]


def test_a_place_that_can_t_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(SwitchboardError, match=r"can't keep a secret in .*key"):
        stack_secrets.kept(tmp_path / "file" / "key")


@pytest.mark.parametrize("value", ["", "hunter2", "hunter2" * 4])
def test_a_short_one_is_refused_and_not_repeated(value: str) -> None:
    with pytest.raises(SwitchboardError, match="fewer than 32 characters") as caught:
        stack_secrets._long_enough(value)
    assert "hunter2" not in str(caught.value)
