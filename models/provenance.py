"""Where a model comes from: hashes of the lock file and of the code that decides it, and the checkout's commit.

With the seed and the hash of the data, which a run states beside it, that is all that is needed to train the same
files again. It works without git and without a lock file too (in an image there is neither): what isn't known is said
to be unknown.
"""

from __future__ import annotations

import hashlib
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from switchboard.paths import ROOT

UNKNOWN: Final = "unknown"
LOCK: Final = "requirements.lock"
DECIDING: Final = ("classifier.py", "corpus.py", "intents.py", "text.py", "traditional.py", "training.py")
"""The modules that decide what comes out of training."""
_GIT_TIMEOUT_S = 10.0


@dataclass(frozen=True)
class Provenance:
    """Each is `unknown` where it is; `git_dirty` is `true` or `false` otherwise."""

    lock_sha256: str = UNKNOWN
    code_sha256: str = UNKNOWN
    git_commit: str = UNKNOWN
    git_dirty: str = UNKNOWN

    def named(self) -> dict[str, str]:
        return dict(self.__dict__)


def of_checkout(root: Path = ROOT) -> Provenance:
    """What is known of a checkout."""
    commit = _commit(root)
    changed = None if commit is None else _git(root, "status", "--porcelain")
    return Provenance(
        lock_sha256=_sha256(root / LOCK),
        code_sha256=_code_sha256(root / "models"),
        git_commit=commit or UNKNOWN,
        git_dirty=UNKNOWN if changed is None else str(changed != "").lower(),
    )


def _commit(root: Path) -> str | None:
    """None too where `root` lies in somebody else's repository, as an installed package may."""
    top = _git(root, "rev-parse", "--show-toplevel")
    if not top or Path(top).resolve() != root.resolve():
        return None
    return _git(root, "rev-parse", "HEAD") or None


def _git(root: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(root), *arguments],
            capture_output=True,
            text=True,
            timeout=_GIT_TIMEOUT_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def _code_sha256(package: Path) -> str:
    digest = hashlib.sha256()
    for name in DECIDING:
        found = _sha256(package / name)
        if found == UNKNOWN:
            return UNKNOWN
        digest.update(f"{found}  {name}\n".encode())
    return digest.hexdigest()


def _sha256(path: Path) -> str:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError:
        return UNKNOWN
