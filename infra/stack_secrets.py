"""The secrets of a stack, as its Pulumi program gets them: decrypted by Pulumi, and never out of an Output.

The embedded cloud has one of its own, on this machine's disk beside the rest of its state: its stack file has none,
as the passphrase that would encrypt it is known to everybody.
"""

from __future__ import annotations

import contextlib
import os
import secrets
from pathlib import Path

import pulumi

from infra.config import PROJECT, SECRETS, Stack, set_secret
from switchboard.errors import SwitchboardError

USER_KEY = "mlflowUserKey"
LEAST_CHARACTERS = 32
"""Of the user key: whoever has a password that was made of a short one could guess the key, and with it all others."""


def read(stack: Stack, state: Path) -> dict[str, pulumi.Output[str]]:
    """The values of `stack.secrets_needed`; of an embedded stack the key of its users, which is in `state`.

    Raises:
        SwitchboardError: some are not set, with the command that sets the first.
    """
    if stack.embedded:
        return {USER_KEY: pulumi.Output.secret(kept(state / "mlflow-user-key"))}
    given = pulumi.Config(PROJECT)
    found: dict[str, pulumi.Output[str]] = {}
    for key in stack.secrets_needed:
        value = given.get_secret(key)
        if value is None:
            rest = [
                other for other in stack.secrets_needed if given.get_secret(other) is None and other != key
            ]
            raise SwitchboardError(
                f"the secret {PROJECT}:{key} is not set: {SECRETS[key]}"
                + (f" (nor is {', nor '.join(rest)})" if rest else ""),
                f"`{set_secret(key)}` asks for it and encrypts it",
            )
        found[key] = value
    found[USER_KEY] = found[USER_KEY].apply(_long_enough)
    return found


def _long_enough(value: str) -> str:
    if len(value) < LEAST_CHARACTERS:
        raise SwitchboardError(
            f"the secret {PROJECT}:{USER_KEY} has fewer than {LEAST_CHARACTERS} characters: it could be guessed",
            f"make one by `openssl rand -base64 32` and set it by `{set_secret(USER_KEY)}`",
        )
    return value


def kept(path: Path) -> str:
    """A random secret in a file that this user alone may read; made where there is none.

    Raises:
        SwitchboardError: the file can't be read or made.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            own = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
            own.touch(mode=0o600, exist_ok=False)
            try:
                own.write_text(secrets.token_urlsafe(32), encoding="ascii")
                with contextlib.suppress(FileExistsError):
                    os.link(own, path)  # whole, and of several at once one is first
            finally:
                own.unlink()
        return path.read_text(encoding="ascii").strip()
    except OSError as error:
        raise SwitchboardError(f"can't keep a secret in {path}: {error.strerror}") from None
