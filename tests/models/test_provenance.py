"""Where a model says that it comes from."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
from pathlib import Path

import pytest

from models import corpus, provenance, record, training
from models.corpus import Example
from models.provenance import UNKNOWN, Provenance, of_checkout
from models.training import Trained
from switchboard.paths import ROOT
from tests.models.conftest import SMALL


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A folder with what is looked at."""
    (tmp_path / "models").mkdir()
    for name in provenance.DECIDING:
        shutil.copy(ROOT / "models" / name, tmp_path / "models")
    (tmp_path / provenance.LOCK).write_text("a==1\n")
    return tmp_path


def git(directory: Path, *arguments: str) -> str:
    done = subprocess.run(
        ["git", "-C", str(directory), "-c", "user.name=t", "-c", "user.email=t@example.com", *arguments],
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.strip()


def test_a_clean_and_a_changed_tree(checkout: Path) -> None:
    git(checkout, "init", "-q")
    git(checkout, "add", ".")
    git(checkout, "commit", "-q", "-m", "all")
    clean = of_checkout(checkout)
    assert clean.git_commit == git(checkout, "rev-parse", "HEAD")
    assert clean.git_dirty == "false"
    assert clean.lock_sha256 == hashlib.sha256(b"a==1\n").hexdigest()
    (checkout / "models" / "text.py").write_text("# another\n")
    changed = of_checkout(checkout)
    assert changed.git_dirty == "true"
    assert changed.code_sha256 != clean.code_sha256
    assert (changed.git_commit, changed.lock_sha256) == (clean.git_commit, clean.lock_sha256)


def test_without_git(checkout: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Neither where there is no repository, nor where there is no git at all."""
    found = of_checkout(checkout)
    assert (found.git_commit, found.git_dirty) == (UNKNOWN, UNKNOWN)
    assert UNKNOWN not in (found.lock_sha256, found.code_sha256)
    monkeypatch.setenv("PATH", str(tmp_path / "nothing"))
    assert of_checkout(checkout) == found


def test_somebody_elses_repository_is_not_ours(checkout: Path) -> None:
    git(checkout, "init", "-q")
    git(checkout, "add", ".")
    git(checkout, "commit", "-q", "-m", "all")
    (checkout / "installed").mkdir()
    assert of_checkout(checkout / "installed") == Provenance()


def test_the_record_is_what_was_learnt(small: Trained) -> None:
    packed = record.pack(small.learnt)
    assert record.pack(small.learnt) == packed
    assert record.unpack(packed) == small.learnt
    assert record.sha256(small.learnt) == hashlib.sha256(record.lines(small.learnt)).hexdigest()
    fitted, labels = training.fit(record.unpack(packed), small.params)
    assert labels == small.classifier.settings.labels
    assert (fitted.weights == small.classifier.model.weights).all()


def test_bent_copies_are_marked() -> None:
    known = corpus.load(per_template=SMALL.per_template).known
    learnt = corpus.augment(known)
    assert [example for example in learnt if not example.bent] == list(known)
    assert {example.group for example in learnt if example.bent} <= {example.group for example in known}


@pytest.mark.parametrize("content", [b"", b"not packed", record.pack([])[:-4]])
def test_what_is_no_record_is_refused(content: bytes) -> None:
    with pytest.raises(ValueError, match="not a record"):
        record.unpack(content)


def test_a_record_of_odd_texts() -> None:
    examples = (Example('a "quoted"\tline \u2028 第', "greeting", "en", "g"),)
    assert record.unpack(record.pack(examples)) == examples
