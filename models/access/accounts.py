"""The tracking server's users, as the stack has them: made, given their passwords and roles, and removed.

It can be run again, after any interruption, and changes only what is different. The list comes from a Secret, as a
file: `[{"name": …, "role": …, "password": …}]`. Users that aren't in it are removed; none are made in any other way.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from switchboard.errors import SwitchboardError
from switchboard.registry_users import SERVICES, Role

log = logging.getLogger("models.access")

FILE_VARIABLE = "MLFLOW_ACCOUNTS_FILE"
WORKSPACE = "default"
"""MLflow keeps roles by workspace, and has this one where there are no others."""
_GRANTS = {Role.RELEASE: "MANAGE", Role.TRAINER: "MANAGE", Role.READER: "READ"}
"""What MLflow itself lets a role do with all experiments and models: outer bounds (EDIT takes no alias away)."""
_OF = ("experiment", "registered_model")


class Account(NamedTuple):
    """A user as the stack has it."""

    name: str
    role: Role
    password: str

    def __repr__(self) -> str:
        return f"Account(name={self.name!r}, role={self.role!r})"


def read(path: Path) -> list[Account]:
    """The accounts of a file.

    Raises:
        SwitchboardError: it can't be read, or isn't such a list; no password is in the message.
    """
    try:
        listed = json.loads(path.read_text(encoding="utf-8"))
        found = [Account(str(one["name"]), Role(one["role"]), str(one["password"])) for one in listed]
    except OSError as error:
        raise SwitchboardError(f"can't read the accounts {path}: {error.strerror}") from None
    except (ValueError, TypeError, KeyError) as error:
        raise SwitchboardError(f"{path} is no list of accounts ({type(error).__name__})") from None
    if missing := [name for name, role in SERVICES.items() if (name, role) not in {one[:2] for one in found}]:
        raise SwitchboardError(f"{path} has no account {missing[0]} with the role {SERVICES[missing[0]]}")
    return found


def apply(store: Any, accounts: Iterable[Account]) -> None:
    """Bring the users of `store` (`mlflow.server.auth`'s, opened) to what `accounts` says."""
    roles = {role: _role(store, role, level) for role, level in _GRANTS.items()}
    wanted = {account.name: account for account in accounts}
    present = {user.username: user for user in store.list_users()}
    for name in present.keys() - wanted.keys():
        store.delete_user(name)
        log.info("removed the user %s", name)
    for account in wanted.values():
        is_admin = account.role is Role.ADMIN
        user = present.get(account.name)
        if user is None:
            user = store.create_user(account.name, account.password, is_admin=is_admin)
            log.info("made the user %s, role %s", account.name, account.role)
        elif not store.authenticate_user(account.name, account.password):
            store.update_user(account.name, password=account.password)
            log.info("gave the user %s another password", account.name)
        if user.is_admin != is_admin:
            store.update_user(account.name, is_admin=is_admin)
        _assign(
            store, user.id, {roles[account.role]} if account.role in roles else set(), set(roles.values())
        )


def _role(store: Any, role: Role, level: str) -> int:
    """MLflow's role of that name, with its grants; its id."""
    found = next((one for one in store.list_roles([WORKSPACE]) if one.name == role), None)
    if found is None:
        found = store.create_role(str(role), WORKSPACE)
    granted = {one.resource_type: one for one in store.list_role_permissions(found.id)}
    for of in _OF:
        if of not in granted:
            store.add_role_permission(found.id, of, "*", level)
        elif granted[of].permission != level:
            store.update_role_permission(granted[of].id, level)
    return int(found.id)


def _assign(store: Any, user_id: int, wanted: set[int], ours: set[int]) -> None:
    """Of our roles exactly the wanted one; MLflow gives users roles of its own, which stay."""
    has = {int(role.id) for role in store.list_user_roles(user_id)} & ours
    for role_id in has - wanted:
        store.unassign_role_from_user(user_id, role_id)
    for role_id in wanted - has:
        store.assign_role_to_user(user_id, role_id)
