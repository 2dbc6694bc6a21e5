"""`switchboard infra credentials`: who there is, and what is said where a Secret can't be read."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from infra import registry_login
from infra.cli import app
from switchboard.errors import SwitchboardError
from switchboard.kube import NAMESPACES, SECRETS, Credentials, Kube
from switchboard.registry_users import Login
from tests.conftest import ControlPlane
from tests.pods import until


def test_a_user_that_there_isn_t_is_named_with_those_that_there_are() -> None:
    with pytest.raises(
        SwitchboardError, match="has no MLflow user 'nobody': it has admin, release, trainer, serving"
    ):
        registry_login.read("local", "nobody")


def test_a_stack_that_isn_t_up_is_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SWITCHBOARD_STATE", str(tmp_path))
    with pytest.raises(
        SwitchboardError, match="the Secret mlflow-trainer of site private can't be read"
    ) as caught:
        registry_login.read("local", "trainer")
    assert caught.value.next_step


async def test_the_secret_of_a_cluster_is_read_by_its_context(
    control_plane: ControlPlane, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stack on existing clusters, whose private site is the tests' control plane."""
    file = tmp_path / "Pulumi.login.yaml"
    sites = [
        {"name": "private", "role": "private", "region": "r1", "cluster": {"context": "public"}},
        {"name": "other", "role": "public", "region": "r2", "cluster": {"context": "elsewhere"}},
    ]
    sites[0]["cluster"]["kubeconfig"] = str(control_plane.kubeconfig)  # type: ignore[index]
    images = dict.fromkeys(("switchboard", "envoy", "prometheus", "alertmanager"), "x:1")
    server = {"name": "chat", "model": "m", "alias": "champion", "dataRegions": ["r2"]}
    config = {"sites": sites, "images": images, "modelServers": [server], "mlflowUsers": [{"name": "li"}]}
    file.write_text(json.dumps({"config": {f"switchboard:{key}": value for key, value in config.items()}}))
    monkeypatch.setenv("SWITCHBOARD_STACK_FILE", str(file))
    space, name = "switchboard-core", "mlflow-user-li"
    async with Kube(Credentials.from_kubeconfig(control_plane.kubeconfig)) as kube:
        await kube.apply(NAMESPACES, {"metadata": {"name": space}}, field_manager="test")
        meta = {"name": name, "namespace": space}
        await kube.apply(
            SECRETS,
            {"metadata": meta, "stringData": {"username": "li", "password": "p'w"}},
            field_manager="test",
        )
        try:
            assert registry_login.read("login", "li") == Login("li", "p'w")
            done = CliRunner().invoke(app, ["credentials", "li", "--stack", "login"])
            assert done.exit_code == 0, done.output
            said = done.stdout.splitlines()
            assert said == [
                "export MLFLOW_TRACKING_USERNAME=li",
                "export MLFLOW_TRACKING_PASSWORD='p'\"'\"'w'",
            ]
        finally:  # others begin with a cluster without this namespace
            await kube.delete(NAMESPACES, space)
            await until(lambda: _gone(kube, space), what=f"{space} is gone")


async def _gone(kube: Kube, space: str) -> bool:
    return await kube.get_or_none(NAMESPACES, space) is None
