"""MLflow's users: a password for each, in Secrets where they are used, and the list that MLflow's server goes by.

Passwords are made of one secret of the stack, the user key, by HMAC: so they need no provider and no state of their
own, are the same in every site, and tell nothing of each other. Another key makes all of them anew.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from collections.abc import Sequence
from dataclasses import dataclass

import pulumi
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from pulumi_kubernetes.core.v1 import Secret

from infra.components import _data, _pod
from infra.components.site import SiteNamespace
from infra.config import Person
from switchboard.registry_users import (
    OPERATOR,
    PASSWORD,
    SERVICES,
    SIGNING_SEED,
    USERNAME,
    Role,
    secret_name,
)

ACCOUNTS = "accounts.json"
"""The key of the list in its Secret."""
_MATCH = _pod.names("mlflow-users", "registry-users")


@dataclass(frozen=True)
class RegistryUsersArgs:
    """The stack's user key, and the people who have users beside the services'."""

    key: pulumi.Input[str]
    people: Sequence[Person] = ()


def password(key: str, name: str, turn: int = 1) -> str:
    """A user's password: 43 characters, of which nobody learns the key or another one.

    >>> password("k" * 32, "li") != password("k" * 32, "li", turn=2), len(password("k" * 32, "li"))
    (True, 43)
    """
    digest = hmac.digest(key.encode(), f"mlflow/{name}/{turn}".encode(), hashlib.sha256)
    return base64.urlsafe_b64encode(digest).decode().rstrip("=")


def signing_seed(key: str, site: str) -> bytes:
    """The seed of the key (Ed25519) by which the operator of a site signs the evidence of releases: 32 bytes."""
    return hmac.digest(key.encode(), f"release-signing/{site}".encode(), hashlib.sha256)


def signing_key(key: str, site: str) -> str:
    """The public half, base64: whoever has it can tell whether evidence is the site's."""
    private = Ed25519PrivateKey.from_private_bytes(signing_seed(key, site))
    return base64.b64encode(private.public_key().public_bytes_raw()).decode()


class RegistryUsers(pulumi.ComponentResource):
    """All users, each with a Secret in the private site's `namespace`; `secret` makes one elsewhere.

    Outputs: `accounts`, the name of the Secret with the whole list, which is another one when a user is.
    """

    accounts: pulumi.Output[str]

    def __init__(self, namespace: SiteNamespace, args: RegistryUsersArgs) -> None:
        super().__init__(
            "switchboard:infra:RegistryUsers", "mlflow-users", None, pulumi.ResourceOptions(parent=namespace)
        )
        self._key = pulumi.Output.secret(args.key)
        self._users = {name: (role, 1) for name, role in SERVICES.items()}
        self._users |= {person.name: (person.role, person.turn) for person in args.people}
        self.secrets = {name: self.secret(namespace, name) for name in self._users}
        made = Secret(
            "mlflow-accounts",
            metadata=_data.meta(namespace, None, _MATCH, _data.INTERNAL),
            type="Opaque",
            string_data={ACCOUNTS: self._key.apply(self._list)},
            opts=namespace.child(self),
        )
        self.accounts = made.metadata.name
        self.register_outputs({})

    def secret(self, namespace: SiteNamespace, name: str) -> Secret:
        """The Secret of a user in a namespace, with the keys of `switchboard.registry_users`; the operator's has the
        seed of the site's signing key as well."""
        _, turn = self._users[name]
        data: dict[str, pulumi.Input[str]] = {
            USERNAME: name,
            PASSWORD: self._key.apply(lambda key: password(key, name, turn)),
        }
        if name == OPERATOR:
            site = namespace.site.name
            data[SIGNING_SEED] = self._key.apply(
                lambda key: base64.b64encode(signing_seed(key, site)).decode()
            )
        return Secret(
            f"{namespace.site.name}-{secret_name(name)}",
            metadata=_data.meta(namespace, secret_name(name), _MATCH, _data.INTERNAL),
            type="Opaque",
            string_data=data,
            opts=namespace.child(self),
        )

    def signing_key(self, site: str) -> pulumi.Output[str]:
        """The public key of a site, which is no secret."""
        return pulumi.Output.unsecret(self._key.apply(lambda key: signing_key(key, site)))

    def _list(self, key: str) -> str:
        def entry(name: str, role: Role, turn: int) -> dict[str, str]:
            return {"name": name, "role": str(role), "password": password(key, name, turn)}

        return json.dumps([entry(name, role, turn) for name, (role, turn) in sorted(self._users.items())])
