"""The secrets of a stack, as its Pulumi program gets them: decrypted by Pulumi, and never out of an Output."""

from __future__ import annotations

import pulumi

from infra.config import PROJECT, SECRETS, Stack, set_secret
from switchboard.errors import SwitchboardError


def read(stack: Stack) -> dict[str, pulumi.Output[str]]:
    """The values of `stack.secrets_needed`.

    Raises:
        SwitchboardError: some are not set, with the command that sets the first.
    """
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
    return found
