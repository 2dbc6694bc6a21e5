"""The provider's configuration: kubeconfigs in all their forms, and clear words for what can't be."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from infra.plugin.config import Config, parse, replaces
from infra.plugin.wire import Secret
from switchboard.errors import SwitchboardError


def kubeconfig(
    *names: str, server: str = "https://127.9.9.9:6443", current: str | None = None
) -> dict[str, Any]:
    return {
        "current-context": current or names[0],
        "clusters": [{"name": n, "cluster": {"server": f"{server}/{n}"}} for n in names],
        "users": [{"name": n, "user": {"token": n}} for n in names],
        "contexts": [
            {"name": n, "context": {"cluster": n, "user": n, "namespace": f"ns-{n}"}} for n in names
        ],
    }


def test_contents_and_path_and_context_and_cluster(tmp_path: Path) -> None:
    path = tmp_path / "kubeconfig"
    path.write_text(json.dumps(kubeconfig("a", "b")))
    for source in (str(path), path.read_text(), f"{tmp_path / 'absent'}:{path}"):
        config = Config(kubeconfig=source)
        assert config.credentials().server.endswith("/a")
        assert config.default_namespace() == "ns-a"
        other = Config(kubeconfig=source, context="b")
        assert (other.credentials().token, other.default_namespace(), other.server()) == (
            "b",
            "ns-b",
            "https://127.9.9.9:6443/b",
        )
        assert Config(kubeconfig=source, cluster="b").credentials().server.endswith("/b")
        assert Config(kubeconfig=source, namespace="mine").default_namespace() == "mine"


def test_several_files_are_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("a", "b"):
        (tmp_path / name).write_text(json.dumps(kubeconfig(name)))
    monkeypatch.setenv("KUBECONFIG", f"{tmp_path / 'a'}:{tmp_path / 'b'}")
    assert Config().credentials().token == "a"
    assert Config(context="b").credentials().token == "b"


def test_relative_paths_start_at_the_file(tmp_path: Path) -> None:
    document = kubeconfig("a")
    document["users"][0]["user"] = {"tokenFile": "token"}
    (tmp_path / "token").write_text("t\n")
    (tmp_path / "kubeconfig").write_text(json.dumps(document))
    assert Config(kubeconfig=str(tmp_path / "kubeconfig")).credentials().bearer() == "t"


@pytest.mark.parametrize(
    ("config", "why"),
    [
        (Config(kubeconfig="/nowhere/kubeconfig"), "can't read the kubeconfig /nowhere/kubeconfig"),
        (Config(kubeconfig="{"), "not YAML"),
        (Config(kubeconfig="- a\n- b\n"), "empty or not an object"),
        (Config(kubeconfig=json.dumps(kubeconfig("a")), context="x"), "no context 'x'; it has a"),
        (Config(kubeconfig=json.dumps(kubeconfig("a")), cluster="x"), "no cluster 'x'; it has a"),
    ],
)
def test_a_kubeconfig_that_can_t_be_used(config: Config, why: str) -> None:
    with pytest.raises(SwitchboardError, match=why):
        config.credentials()
    assert config.default_namespace() in ("default", "ns-a")


def test_settings_come_as_strings_and_from_the_environment() -> None:
    config = parse({"deleteUnreachable": "true", "kubeconfig": Secret("x"), "version": "4.34.2"}, {})
    assert config.delete_unreachable
    assert config.kubeconfig == "x"
    environ = {"PULUMI_K8S_ENABLE_CONFIGMAP_MUTABLE": "1", "PULUMI_K8S_UPSERT_EXISTING_OBJECTS": "true"}
    config = parse({"upsertExistingObjects": "false"}, environ)
    assert config.options.mutable_config_maps
    assert not config.upsert


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({"kubeConfig": "x"}, "no setting 'kubeConfig'"),
        ({"deleteUnreachable": "maybe"}, "must be true or false"),
        ({"enableServerSideApply": "false"}, "official Kubernetes plugin"),
        ({"renderYamlToDirectory": "out"}, "official Kubernetes plugin"),
    ],
)
def test_what_can_t_be_configured(settings: dict[str, Any], why: str) -> None:
    with pytest.raises(SwitchboardError, match=why):
        parse(settings, {})


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        pytest.param(("a", {}), ("a", {}), [], id="the same"),
        pytest.param(("a", {}), ("b", {}), ["kubeconfig"], id="another server"),
        pytest.param(
            ("a", {"namespace": "x"}), ("a", {"namespace": "y"}), [], id="another default namespace"
        ),
        pytest.param(
            ("a", {"cluster_identifier": "1"}),
            ("b", {"cluster_identifier": "1"}),
            [],
            id="the same by identifier",
        ),
        pytest.param(
            ("a", {"cluster_identifier": "1"}),
            ("a", {"cluster_identifier": "2"}),
            ["clusterIdentifier"],
            id="another by identifier",
        ),
    ],
)
def test_another_cluster_means_everything_anew(
    old: tuple[str, dict[str, Any]], new: tuple[str, dict[str, Any]], expected: list[str]
) -> None:
    before, after = (Config(kubeconfig=json.dumps(kubeconfig(name)), **more) for name, more in (old, new))
    assert replaces(before, after) == expected
