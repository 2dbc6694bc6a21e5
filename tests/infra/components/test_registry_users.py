"""MLflow's users as a stack declares them: passwords that tell nothing of each other, Secrets where they are used."""

from __future__ import annotations

import json
from typing import Any

import pulumi
import pytest

from infra import config
from infra.components.program import deploy
from infra.components.registry_users import RegistryUsers, RegistryUsersArgs, password
from infra.components.site import SiteNamespace
from infra.declared import Declared, declare
from infra.plugin.wire import Secret
from models.access.accounts import read
from switchboard.registry_users import SERVICES, Role
from tests.infra.components.building import build
from tests.infra.components.rendered import stack_of
from tests.infra.components.test_mlflow import SECRET_SIGNATURE, SIGNATURE_KEY

KEY = "0123456789abcdef0123456789abcdef"
PEOPLE = [config.Person(name="li", role=Role.TRAINER, turn=2), config.Person(name="wu")]


def users() -> dict[str, Any]:
    def make(namespace: SiteNamespace, stack: config.Stack) -> dict[str, pulumi.Output[str]]:
        return {"accounts": RegistryUsers(namespace, RegistryUsersArgs(KEY, PEOPLE)).accounts}

    built = build("private", make)
    found: dict[str, Any] = {"accounts": built.outputs["accounts"]}
    for (kind, name), obj in built.objects.items():
        if kind == "Namespace":
            continue
        assert obj["stringData"][SIGNATURE_KEY] == SECRET_SIGNATURE, "Pulumi encrypts it in its state"
        found[name] = obj["stringData"]["value"]
    return found


def test_each_user_has_a_secret_and_the_server_has_the_list(tmp_path: Any) -> None:
    found = users()
    listed = found[found["accounts"]]["accounts.json"]
    (tmp_path / "accounts.json").write_text(listed)
    accounts = {account.name: account for account in read(tmp_path / "accounts.json")}
    assert {name: one.role for name, one in accounts.items()} == {
        **SERVICES,
        "li": Role.TRAINER,
        "wu": Role.READER,
    }
    for name, account in accounts.items():
        secret = found[f"mlflow-{name}" if name in SERVICES else f"mlflow-user-{name}"]
        own = {"signing-seed"} if name == "release" else set()  # the operator signs the evidence of releases
        assert set(secret) == {"username", "password"} | own
        assert (secret["username"], secret["password"]) == (name, account.password)
    assert found["accounts"] != "mlflow-accounts", (
        "another list is another Secret, for MLflow to start anew with"
    )


def test_passwords_are_apart() -> None:
    several = [password(KEY, "li"), password(KEY, "li", 2), password(KEY, "wu"), password(KEY + "x", "li")]
    assert len(set(several)) == len(several)
    assert not any(KEY in one or len(one) < 40 for one in several)
    assert password(KEY, "li") == password(KEY, "li")


def pods(stack: str) -> list[tuple[Declared, dict[str, Any]]]:
    """The pods of a stack's workloads, those that the operator makes too."""
    found = declare(stack_of(stack), name=stack)
    every = [*found, *(made for one in found for made in one.becomes())]
    return [
        (one, one.revealed()["spec"]["template"]["spec"])
        for one in every
        if one.kind in ("Deployment", "Job")
    ]


@pytest.mark.parametrize("stack", ["local", "staging", "production"])
def test_a_pod_sees_its_own_user_and_no_other(stack: str) -> None:
    seen: dict[str, set[str]] = {}
    optional: dict[str, bool] = {}
    for one, spec in pods(stack):
        for volume in spec["volumes"]:
            if (secret := volume.get("secret")) is not None:
                seen.setdefault(one.name, set()).add(secret["secretName"])
                optional[one.name] = bool(secret.get("optional"))
    lists = {name for names in seen.values() for name in names if name.startswith("mlflow-accounts-")}
    assert len(lists) == 1
    server = "mlflow" if stack == "local" else "mlflow-upgrade"
    chats = {name for name in seen if name.startswith("chat")}
    assert seen == {
        server: lists,
        "train-chat-intent": {"mlflow-trainer"},
        "operator": {"mlflow-release"},
        **{name: {"mlflow-serving"} for name in chats},
    }
    assert {name for name, may in optional.items() if may} == {"operator", *chats}


@pytest.mark.parametrize("stack", ["local", "staging", "production"])
def test_a_site_has_the_users_that_its_pods_are(stack: str) -> None:
    whole = stack_of(stack)
    secrets: dict[str, set[str]] = {}
    for one in declare(whole, name=stack):
        if (
            one.kind == "Secret"
            and one.name.startswith("mlflow-")
            and not one.name.startswith("mlflow-store")
        ):
            secrets.setdefault(one.site, set()).add(one.name.partition("-accounts-")[0])
            assert isinstance(one.manifest["stringData"], Secret)
    for site in whole.public:
        assert secrets[site.name] == {"mlflow-release", "mlflow-serving"}
    assert secrets[whole.private.name] == {"mlflow", *(f"mlflow-{name}" for name in SERVICES)}


def test_what_looks_at_a_stack_needs_no_secret() -> None:
    assert deploy.__kwdefaults__ is not None and deploy.__kwdefaults__["secrets"] is None
    text = json.dumps([one.name for one in declare(stack_of("production"), name="production")])
    assert "mlflow-serving" in text
