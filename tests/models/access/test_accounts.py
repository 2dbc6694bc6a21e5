"""The server's users: made as the list says, changed when it changes, and no password in an error."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest

from models.access.accounts import Account, apply, read
from models.access.app import settings
from models.access.users import REMEMBERED_S, User, Users
from switchboard.errors import SwitchboardError
from switchboard.registry_users import SERVICES, Login, Role, login

PASSWORD = "correct-horse-battery"


@pytest.fixture
def store(tmp_path: Path) -> Any:
    from mlflow.server.auth.sqlalchemy_store import SqlAlchemyStore

    made = SqlAlchemyStore()
    made.init_db(f"sqlite:///{tmp_path}/users.db")
    return made


def header(name: str, password: str) -> bytes:
    return b"Basic " + base64.b64encode(f"{name}:{password}".encode())


def who(store: Any, name: str, password: str = PASSWORD) -> User | None:
    return Users(store).of(header(name, password))


def test_users_become_what_the_list_says_and_twice_is_once(store: Any) -> None:
    first = [Account("admin", Role.ADMIN, PASSWORD), Account("li", Role.TRAINER, PASSWORD)]
    for _ in range(2):
        apply(store, first)
        assert {user.username for user in store.list_users()} == {"admin", "li"}
    assert who(store, "admin") == User("admin", Role.ADMIN)
    assert who(store, "li") == User("li", Role.TRAINER)
    # Another role and password for one, and the other is no user any more.
    apply(store, [Account("li", Role.READER, PASSWORD + "2")])
    assert {user.username for user in store.list_users()} == {"li"}
    assert who(store, "li") is None
    assert who(store, "li", PASSWORD + "2") == User("li", Role.READER)
    assert who(store, "admin") is None


def test_whoever_was_admin_is_not_any_more(store: Any) -> None:
    apply(store, [Account("li", Role.ADMIN, PASSWORD)])
    apply(store, [Account("li", Role.READER, PASSWORD)])
    assert who(store, "li") == User("li", Role.READER)


def test_a_user_without_a_role_of_ours_is_nobody(store: Any) -> None:
    store.create_user("stray", PASSWORD)
    assert who(store, "stray") is None


@pytest.mark.parametrize(
    "given",
    [None, b"", b"Basic", b"Basic !!!", b"Bearer " + base64.b64encode(b"li:x"), b"Basic " + b"A" * 2000],
)
def test_what_is_no_name_and_password(store: Any, given: bytes | None) -> None:
    assert Users(store).of(given) is None


def test_who_was_right_is_remembered_for_a_while_only(store: Any) -> None:
    apply(store, [Account("li", Role.READER, PASSWORD)])
    now = [100.0]
    users = Users(store, clock=lambda: now[0])
    assert users.of(header("li", PASSWORD)) is not None
    store.delete_user("li")
    assert users.of(header("li", PASSWORD)) is not None
    now[0] += REMEMBERED_S + 1
    assert users.of(header("li", PASSWORD)) is None


def everybody() -> list[dict[str, str]]:
    return [{"name": name, "role": str(role), "password": PASSWORD} for name, role in SERVICES.items()]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[", "is no list of accounts"),
        ("{}", "has no account admin"),
        (json.dumps([{"name": "admin", "role": "king", "password": PASSWORD}]), "is no list of accounts"),
        (json.dumps([{"name": "admin", "role": "admin"}]), "is no list of accounts"),
        (json.dumps(everybody()[1:]), "has no account admin"),
        (
            json.dumps([{**one, "role": "trainer"} for one in everybody()]),
            "has no account admin with the role",
        ),
    ],
)
def test_a_list_that_can_t_be_used_is_named_without_its_passwords(
    tmp_path: Path, text: str, says: str
) -> None:
    file = tmp_path / "accounts.json"
    file.write_text(text)
    with pytest.raises(SwitchboardError, match=says) as raised:
        read(file)
    assert PASSWORD not in str(raised.value)


def test_nobody_s_password_is_in_what_is_shown_of_them() -> None:
    assert PASSWORD not in f"{Account('li', Role.READER, PASSWORD)!r} {Login('li', PASSWORD)!r}"


def test_mlflow_reads_the_url_of_its_users_as_it_was_meant(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlflow.server.auth.config import read_auth_config

    url = "postgresql+pg8000://ml:p%40ss%25w@db:5432/mlflow?plugin=verified-tls"
    (tmp_path / "auth.ini").write_text(settings(url))
    monkeypatch.setenv("MLFLOW_AUTH_CONFIG_PATH", str(tmp_path / "auth.ini"))
    config = read_auth_config()
    assert (config.database_uri, config.default_permission) == (url, "NO_PERMISSIONS")


def test_a_login_is_of_mlflow_s_variables_or_of_a_folder(tmp_path: Path) -> None:
    assert login({}) is None
    folder = {"MLFLOW_USER_FOLDER": str(tmp_path)}
    assert login(folder) is None, "the Secret isn't there yet"
    (tmp_path / "username").write_text("serving\n")
    (tmp_path / "password").write_text("x\n")
    assert login(folder) == Login("serving", "x")
    variables = {"MLFLOW_TRACKING_USERNAME": "li", "MLFLOW_TRACKING_PASSWORD": "y"}
    assert login({**folder, **variables}) == Login("li", "y")
