"""Who may do what in the model registry (MLflow): the roles, the users that every stack has, where their passwords are.

The tracking server enforces it (`models.access`), the Pulumi program makes the users and their Secrets, and pods read
theirs from a folder (`FOLDER`), so that a new password needs no new pod.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple


class Role(StrEnum):
    """What a user of the registry may do; each may read all of it."""

    ADMIN = "admin"
    """Removes what nobody needs. It moves no alias and writes no ledger."""
    RELEASE = "release"
    """Moves `champion` and `previous`, and writes the ledger: the operator."""
    TRAINER = "trainer"
    """Logs runs, makes versions, sets `challenger`."""
    READER = "reader"


SERVICES: Mapping[str, Role] = MappingProxyType(
    {
        "admin": Role.ADMIN,
        "release": Role.RELEASE,
        "trainer": Role.TRAINER,
        "serving": Role.READER,
    }
)
"""Users that every stack has: the first is nobody's everyday user, the others are the operator, training and the model
servers."""

OPERATOR = "release"
"""Of these, the one that writes of others in a ledger: who asked for a release is held true by its API server."""

OF_PEOPLE = (Role.READER, Role.TRAINER, Role.RELEASE)
"""Roles that the stack's configuration may give to people."""

CHAMPION, PREVIOUS, CHALLENGER = "champion", "previous", "challenger"
RELEASE_TAG = "switchboard.release"
"""On a version: what its last release came to, in a sentence. Releases alone write it."""
GATE_TAG = "switchboard.gate"
"""On a version: `passed` or `failed`; its lines are in tags that begin with it."""
LEDGER_SUFFIX = "-releases"
"""The experiment `<model>-releases` is the model's ledger."""
ENTRY = "entry."
"""An entry of a ledger is a parameter of its run. MLflow takes another value for none, so entries are only added."""
HEAD_TAG = "switchboard.ledger_head"
"""On a registered model: `<number>:<SHA-256>` of the last entry of its ledger."""

FOLDER = "/etc/mlflow-user"
FOLDER_VARIABLE = "MLFLOW_USER_FOLDER"
"""Names the folder with a user's name and password; MLflow's own variables win."""
USERNAME, PASSWORD = "username", "password"
"""Keys of a user's Secret, and so the files of that folder."""
SIGNING_SEED = "signing-seed"
"""A key of the operator's Secret alone: by what it signs the evidence of its site's releases."""


def secret_name(user: str) -> str:
    """The Secret of a user: `mlflow-serving`, of a person `mlflow-user-li`."""
    return f"mlflow-{user}" if user in SERVICES else f"mlflow-user-{user}"


class Login(NamedTuple):
    """A user's name and password, as MLflow takes them; never shown."""

    user: str
    password: str

    def __repr__(self) -> str:
        return f"Login(user={self.user!r})"


def login(environ: Mapping[str, str]) -> Login | None:
    """The user that this process is for the registry: of MLflow's own variables, else of the folder of its Secret.

    None where there is neither: the Secret may not be there yet, and whoever has a copy of a model goes on without.
    """
    if user := environ.get("MLFLOW_TRACKING_USERNAME"):
        return Login(user, environ.get("MLFLOW_TRACKING_PASSWORD", ""))
    if not (folder := environ.get(FOLDER_VARIABLE)):
        return None
    try:
        found = [(Path(folder) / name).read_text(encoding="utf-8").strip() for name in (USERNAME, PASSWORD)]
    except (OSError, UnicodeDecodeError):
        return None
    return Login(*found) if all(found) else None
