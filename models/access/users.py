"""Who asks: a name and a password, held against MLflow's own store of users.

A password's hash takes a tenth of a second on purpose, so who was right once is remembered for a little while: so long
may a password that was changed, or a user that was removed, be good for.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, NamedTuple

from switchboard.registry_users import Role

REMEMBERED_S = 30.0
MOST = 1024
MAX_HEADER_BYTES = 1024
HASHES_AT_ONCE = 2
"""Of all who are asked for their password: guesses take no more of the server than that."""


class User(NamedTuple):
    """Somebody whose password was right."""

    name: str
    role: Role


class Users:
    """The users of `store` (`mlflow.server.auth`'s), with their roles."""

    def __init__(self, store: Any, clock: Callable[[], float] = time.monotonic) -> None:
        self._store, self._clock = store, clock
        self._key = secrets.token_bytes(32)
        self._known: OrderedDict[bytes, tuple[float, User | None]] = OrderedDict()
        self._lock = threading.Lock()

    def of(self, authorization: bytes | None) -> User | None:
        """Whose name and password are in a header `Authorization`; None where they are nobody's."""
        if (user := self.remembered(authorization)) is not None:
            return user
        given = parse(authorization)
        if given is None or (user := self._ask(*given)) is None:
            return None
        with self._lock:
            self._known[self._digest(given)] = (self._clock() + REMEMBERED_S, user)
            while len(self._known) > MOST:
                self._known.popitem(last=False)
        return user

    def remembered(self, authorization: bytes | None) -> User | None:
        """The same without a hash, at once: None too for somebody who wasn't here lately."""
        given = parse(authorization)
        if given is None:
            return None
        with self._lock:
            until, user = self._known.get(self._digest(given), (0.0, None))
        return user if self._clock() < until else None

    def _digest(self, given: tuple[str, str]) -> bytes:
        """By a key of this process: neither the password nor what it could be guessed from is kept."""
        return hmac.digest(self._key, "\0".join(given).encode(), "sha256")

    def _ask(self, name: str, password: str) -> User | None:
        from mlflow.exceptions import MlflowException

        if not self._store.authenticate_user(name, password):
            return None
        try:
            found = self._store.get_user(name)
        except MlflowException:  # removed in between
            return None
        if found.is_admin:
            return User(name, Role.ADMIN)
        roles = [role.name for role in self._store.list_user_roles(found.id) if role.name in set(Role)]
        return User(name, Role(roles[0])) if len(roles) == 1 else None


def parse(authorization: bytes | None) -> tuple[str, str] | None:
    """Name and password of a header `Authorization: Basic …`.

    >>> parse(b"Basic " + base64.b64encode(b"li:a:b")), parse(b"Bearer x"), parse(b"Basic ?")
    (('li', 'a:b'), None, None)
    """
    if authorization is None or len(authorization) > MAX_HEADER_BYTES:
        return None
    scheme, _, value = authorization.partition(b" ")
    if scheme.lower() != b"basic":
        return None
    try:
        text = base64.b64decode(value.strip(), validate=True).decode("utf-8")
    except (binascii.Error, UnicodeDecodeError):
        return None
    name, colon, password = text.partition(":")
    return (name, password) if name and colon and "\0" not in text else None
