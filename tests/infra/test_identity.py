"""A context that leads to another cluster is found out: pure judgements, and kubectl against a real API server.

The same by the real `pulumi` is in `test_stacks.py`.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from infra import config, identity
from infra.config import Cluster, Site
from infra.local.layout import SiteLayout
from infra.local.toolchain import lookup
from switchboard.errors import SwitchboardError
from tests.conftest import ControlPlane

UID, OTHER = "7a1c9f8e-2b3d-4c5e-8f60-1a2b3c4d5e6f", "0f0e0d0c-0000-4000-8000-000000000000"


def _site(id_: str | None) -> tuple[Site, Cluster]:
    cluster = Cluster(context="bank-private", id=id_)
    return Site(name="private", role="private", region="r", cluster=cluster), cluster


@pytest.mark.parametrize("applying", [False, True])
def test_the_right_cluster_passes_silently(applying: bool) -> None:
    assert identity.judge(0, *_site(UID), UID, applying=applying) is None


@pytest.mark.parametrize("applying", [False, True])
def test_another_cluster_is_refused_with_both_names(applying: bool) -> None:
    with pytest.raises(SwitchboardError) as caught:
        identity.judge(0, *_site(UID), OTHER, applying=applying)
    first = str(caught.value).splitlines()[0]
    assert first == (
        f"site private: context bank-private is cluster {OTHER}, the stack file names {UID}; nothing was sent"
    )


def test_a_cluster_that_nothing_names_is_a_warning_and_then_an_error() -> None:
    command = f"pulumi config set --path 'switchboard:sites[2].cluster.id' {UID}"
    warning = identity.judge(2, *_site(None), UID, applying=False)
    assert warning is not None
    assert command in warning
    assert "\n" not in warning
    with pytest.raises(SwitchboardError, match="names none; nothing was sent") as caught:
        identity.judge(2, *_site(None), UID, applying=True)
    assert command in str(caught.value)


CLUSTERS = [
    (Site(name=name, role="public", region="r", cluster=cluster), cluster)
    for name, cluster in ((name, Cluster(context=f"bank-{name}")) for name in ("private", "south", "north"))
]


@pytest.mark.parametrize("uids", [(UID, UID, OTHER), (UID, OTHER, UID), (OTHER, UID, UID), (UID, UID, UID)])
def test_two_sites_are_never_one_cluster(uids: tuple[str, ...]) -> None:
    found = [(*one, actual) for one, actual in zip(CLUSTERS, uids, strict=True)]
    with pytest.raises(SwitchboardError, match="are one cluster") as caught:
        identity.apart(found)
    first, second = [site.name for site, _, actual in found if actual == UID][:2]
    assert caught.value.what == (
        f"sites {first} and {second} are one cluster, {UID}: contexts bank-{first} and bank-{second} lead to it; "
        "nothing was sent"
    )


def test_sites_that_are_clusters_of_their_own_pass() -> None:
    identity.apart([(*one, f"{UID[:-1]}{number}") for number, one in enumerate(CLUSTERS)])


@pytest.mark.parametrize("applying", [False, True])
def test_verify_sees_it_by_the_clusters_own_answers(
    control_plane: ControlPlane, tmp_path: Path, applying: bool
) -> None:
    document = yaml.safe_load(control_plane.kubeconfig.read_text())
    (only,) = document["contexts"]
    names = [site.cluster.context for site in config.load("staging").sites if site.cluster is not None]
    document["contexts"] = [{**only, "name": name} for name in names]
    kubeconfig = tmp_path / "kubeconfig"
    kubeconfig.write_text(yaml.safe_dump(document))
    staging = config.load("staging")
    sites = tuple(
        site.model_copy(update={"cluster": Cluster(context=name, kubeconfig=kubeconfig)})
        for site, name in zip(staging.sites, names, strict=True)
    )
    with pytest.raises(SwitchboardError, match="sites private and public are one cluster"):
        identity.verify(staging.model_copy(update={"sites": sites}), tmp_path, applying=applying)


def _kubectl() -> Path:
    found = lookup.find("kubectl")
    assert found is not None
    return found.path


def test_a_cluster_tells_its_uid_again_and_again(control_plane: ControlPlane) -> None:
    cluster = Cluster(context="public", kubeconfig=control_plane.kubeconfig)
    uid = identity.uid(_kubectl(), "public", cluster)
    assert uid == identity.uid(_kubectl(), "public", cluster)
    assert Cluster(context="public", id=uid).id == uid


def _spoil(document: dict[str, Any], how: str) -> None:
    if how == "port":
        document["clusters"][0]["cluster"]["server"] = "https://127.0.0.1:1"
    elif how == "login":
        document["users"][0]["user"] = {"token": "wrong"}


@pytest.mark.parametrize(
    ("how", "reason"),
    [
        ("context", "context was not found"),
        ("port", "refused"),
        ("login", "logged in"),
        ("gone", "no such file"),
    ],
)
def test_a_cluster_that_does_not_answer_is_one_line(
    control_plane: ControlPlane, tmp_path: Path, how: str, reason: str
) -> None:
    kubeconfig = tmp_path / "kubeconfig"
    if how != "gone":
        document = yaml.safe_load(control_plane.kubeconfig.read_text())
        _spoil(document, how)
        kubeconfig.write_text(yaml.safe_dump(document))
    cluster = Cluster(context="elsewhere" if how == "context" else "public", kubeconfig=kubeconfig)
    with pytest.raises(SwitchboardError, match=reason) as caught:
        identity.uid(_kubectl(), "public", cluster)
    told = str(caught.value).splitlines()
    assert told[0].startswith(f"site public: it can't be told which cluster context {cluster.context} is: ")
    assert told[0].endswith("; nothing was sent")
    assert len(told) == 2


@pytest.fixture
def embedded(
    control_plane: ControlPlane, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> tuple[config.Stack, Path]:
    """The control plane's stack, and a copy of what its site keeps of itself."""
    for name, value in control_plane.env.items():
        monkeypatch.setenv(name, value)
    copied = SiteLayout(control_plane.layout.site, tmp_path)
    copied.pki.mkdir(parents=True)
    shutil.copy(control_plane.kubeconfig, copied.kubeconfig)
    shutil.copy(control_plane.layout.ca_cert, copied.ca_cert)
    return config.load(control_plane.stack), copied.kubeconfig


def test_an_embedded_site_is_its_own(embedded: tuple[config.Stack, Path], tmp_path: Path) -> None:
    assert identity.verify(embedded[0], tmp_path, applying=True) == []


@pytest.mark.parametrize(
    ("key", "value", "word"),
    [
        ("server", "https://10.0.0.1:6443", "leads to https://10.0.0.1:6443, the site is at https://127."),
        ("certificate-authority-data", "Zm9yZWlnbg==", "trusts another certificate authority"),
    ],
)
def test_a_replaced_kubeconfig_of_an_embedded_site_is_refused(
    embedded: tuple[config.Stack, Path], tmp_path: Path, key: str, value: str, word: str
) -> None:
    stack, kubeconfig = embedded
    document = yaml.safe_load(kubeconfig.read_text())
    document["clusters"][0]["cluster"][key] = value
    kubeconfig.write_text(yaml.safe_dump(document))
    with pytest.raises(SwitchboardError) as caught:
        identity.verify(stack, tmp_path, applying=False)
    told = str(caught.value)
    assert told.startswith("site public: its kubeconfig ")
    assert word in told
    assert "nothing was sent" in told
