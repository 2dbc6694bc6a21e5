"""The Kubernetes client and its informer, against a real API server."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
import yaml

from switchboard import informer as informer_module
from switchboard.errors import SwitchboardError
from switchboard.informer import Informer, Key, key_of
from switchboard.kube import CONFIG_MAPS, PODS, ApiError, Credentials, Kind, Kube, Object, Unreachable
from tests.conftest import ControlPlane


@pytest.fixture
async def kube(control_plane: ControlPlane) -> AsyncIterator[Kube]:
    async with Kube(Credentials.from_kubeconfig(control_plane.kubeconfig)) as client:
        yield client


@pytest.fixture
def name() -> str:
    return f"test-{uuid.uuid4().hex[:8]}"


def config_map(name: str, **data: str) -> Object:
    return {"metadata": {"name": name, "namespace": "default", "labels": {"test": name}}, "data": data}


async def until(condition: Callable[[], bool], deadline_s: float = 120) -> None:
    async with asyncio.timeout(deadline_s):
        while not condition():
            await asyncio.sleep(0.02)


@pytest.mark.parametrize(
    ("kind", "namespace", "name", "subresource", "path"),
    [
        (PODS, "a", "b", None, "/api/v1/namespaces/a/pods/b"),
        (PODS, "a", "b", "status", "/api/v1/namespaces/a/pods/b/status"),
        (PODS, None, None, None, "/api/v1/pods"),
        (
            Kind("apps/v1", "deployments", "Deployment"),
            "a",
            None,
            None,
            "/apis/apps/v1/namespaces/a/deployments",
        ),
        (Kind("v1", "nodes", "Node", namespaced=False), "ignored", "n", None, "/api/v1/nodes/n"),
    ],
)
def test_paths(
    kind: Kind, namespace: str | None, name: str | None, subresource: str | None, path: str
) -> None:
    assert kind.path(namespace, name, subresource) == path


async def test_create_read_patch_replace_delete(kube: Kube, name: str) -> None:
    made = await kube.create(CONFIG_MAPS, config_map(name, a="1"))
    assert (await kube.get(CONFIG_MAPS, name, "default"))["data"] == {"a": "1"}
    patched = await kube.patch(CONFIG_MAPS, name, {"data": {"b": "2"}}, "default")
    assert patched["data"] == {"a": "1", "b": "2"}
    patched["data"] = {"c": "3"}
    assert (await kube.replace(CONFIG_MAPS, patched))["data"] == {"c": "3"}
    with pytest.raises(ApiError) as stale:
        await kube.replace(CONFIG_MAPS, made)
    assert stale.value.conflict
    with pytest.raises(ApiError) as other:
        await kube.delete(CONFIG_MAPS, name, "default", uid="another")
    assert other.value.conflict
    assert await kube.delete(CONFIG_MAPS, name, "default") is not None
    assert await kube.delete(CONFIG_MAPS, name, "default") is None
    assert await kube.get_or_none(CONFIG_MAPS, name, "default") is None
    with pytest.raises(ApiError) as gone:
        await kube.get(CONFIG_MAPS, name, "default")
    assert gone.value.not_found
    assert name in gone.value.message


async def test_apply_owns_its_fields(kube: Kube, name: str) -> None:
    tried = await kube.apply(CONFIG_MAPS, config_map(name, a="1"), field_manager="one", dry_run=True)
    assert tried["data"] == {"a": "1"}
    assert await kube.get_or_none(CONFIG_MAPS, name, "default") is None
    await kube.apply(CONFIG_MAPS, config_map(name, a="1"), field_manager="one")
    with pytest.raises(ApiError) as conflict:
        await kube.apply(CONFIG_MAPS, config_map(name, a="2"), field_manager="two", force=False)
    assert conflict.value.conflict
    assert '"one"' in conflict.value.message
    forced = await kube.apply(CONFIG_MAPS, config_map(name, a="2"), field_manager="two")
    assert forced["data"] == {"a": "2"}


async def test_an_informer_follows(kube: Kube, name: str) -> None:
    seen: list[tuple[Key, bool, bool]] = []
    await kube.create(CONFIG_MAPS, config_map(name, a="1"))
    informer = Informer(
        kube,
        CONFIG_MAPS,
        namespace="default",
        label_selector=f"test={name}",
        on_change=lambda key, old, new: seen.append((key, old is not None, new is not None)),
    )
    running = asyncio.create_task(informer.run())
    try:
        await asyncio.wait_for(informer.synced.wait(), 120)
        key = ("default", name)
        assert informer.items[key]["data"] == {"a": "1"}
        await kube.patch(CONFIG_MAPS, name, {"data": {"a": "2"}}, "default")
        await until(lambda: informer.items[key]["data"] == {"a": "2"})
        await kube.delete(CONFIG_MAPS, name, "default")
        await until(lambda: key not in informer.items)
    finally:
        running.cancel()
    assert seen == [(key, False, True), (key, True, True), (key, True, False)]


async def labelled(kube: Kube, name: str, count: int) -> set[Key]:
    """So many ConfigMaps with the same label."""
    for number in range(count):
        body = config_map(f"{name}-{number}", a="1")
        body["metadata"]["labels"]["test"] = name
        await kube.create(CONFIG_MAPS, body)
    return {("default", f"{name}-{number}") for number in range(count)}


async def test_a_list_comes_in_pages(kube: Kube, name: str) -> None:
    made = await labelled(kube, name, 7)
    pages: list[Object] = []
    token: str | None = None
    while token or not pages:
        pages.append(
            await kube.list_raw(CONFIG_MAPS, "default", label_selector=f"test={name}", limit=3, token=token)
        )
        token = pages[-1]["metadata"].get("continue")
    assert [len(page["items"]) for page in pages] == [3, 3, 1]
    assert {key_of(item) for page in pages for item in page["items"]} == made
    assert len({page["metadata"]["resourceVersion"] for page in pages}) == 1  # all of one moment
    with pytest.raises(ApiError):
        await kube.list_raw(CONFIG_MAPS, "default", limit=3, token="none")


async def test_an_informer_reads_all_pages_and_notices_what_has_gone(
    kube: Kube, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(informer_module, "PAGE", 3)
    made = await labelled(kube, name, 8)
    gone: list[Key] = []
    informer = Informer(
        kube,
        CONFIG_MAPS,
        namespace="default",
        label_selector=f"test={name}",
        on_change=lambda key, _, new: gone.append(key) if new is None else None,
    )

    async def synced() -> None:
        running = asyncio.create_task(informer.run())
        await asyncio.wait_for(informer.synced.wait(), 120)
        running.cancel()
        await asyncio.wait([running])

    await synced()
    assert set(informer.items) == made
    for number in (0, 4, 7):
        await kube.delete(CONFIG_MAPS, f"{name}-{number}", "default")
    informer.synced.clear()
    await synced()
    assert set(gone) == {("default", f"{name}-{number}") for number in (0, 4, 7)}
    assert set(informer.items) == made - set(gone)


async def test_an_informer_keeps_what_it_is_told_to(kube: Kube, name: str) -> None:
    """The whole object is shown once; what is left of it is what the next change is compared with."""
    seen: list[tuple[Object | None, Object | None]] = []

    def compact(obj: Object) -> Object:
        kept = {key: obj["metadata"][key] for key in ("namespace", "name", "resourceVersion")}
        return {"metadata": kept, "a": obj["data"]["a"]}

    await kube.create(CONFIG_MAPS, config_map(name, a="1", b="x" * 1000))
    informer = Informer(
        kube,
        CONFIG_MAPS,
        namespace="default",
        label_selector=f"test={name}",
        on_change=lambda _, old, new: seen.append((old, new)),
        compact=compact,
    )
    running = asyncio.create_task(informer.run())
    try:
        await asyncio.wait_for(informer.synced.wait(), 120)
        key = ("default", name)
        assert set(informer.items[key]) == {"metadata", "a"}
        await kube.patch(CONFIG_MAPS, name, {"data": {"a": "2"}}, "default")
        await until(lambda: informer.items[key]["a"] == "2")
        await kube.delete(CONFIG_MAPS, name, "default")
        await until(lambda: key not in informer.items)
    finally:
        running.cancel()
    (_, first), (before, second), (last, none) = seen
    assert first is not None and second is not None and before is not None and last is not None
    assert (len(first["data"]["b"]), second["data"]["a"], none) == (1000, "2", None)
    assert (before["a"], "data" in before, last["a"]) == ("1", False, "2")


async def test_nobody_there_is_unreachable(control_plane: ControlPlane) -> None:
    credentials = Credentials.from_kubeconfig(control_plane.kubeconfig)
    credentials.server = f"https://{control_plane.layout.control_plane_ip}:1"
    async with Kube(credentials, timeout_s=2) as kube:
        with pytest.raises(Unreachable, match=":1"):
            await kube.list(PODS)


async def test_another_ca_is_unreachable(control_plane: ControlPlane) -> None:
    credentials = Credentials.from_kubeconfig(control_plane.kubeconfig)
    credentials.ca = None
    async with Kube(credentials, timeout_s=60) as kube:
        with pytest.raises(Unreachable, match="certificate"):
            await kube.list(PODS)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda config: config.update({"current-context": "nowhere"}), "no context 'nowhere'"),
        (lambda config: config.pop("clusters"), "not a usable kubeconfig"),
        (lambda config: config["users"][0].update(user={"exec": {"command": "x"}}), "logs in by exec"),
        (
            lambda config: config["clusters"][0]["cluster"].update({"certificate-authority-data": "%%"}),
            "not a usable",
        ),
        (
            lambda config: config["users"][0]["user"].update({"client-key-data": None, "client-key": "no"}),
            "no",
        ),
    ],
)
def test_kubeconfigs_that_can_not_be_used(
    control_plane: ControlPlane, tmp_path: Path, change: Callable[[Object], object], words: str
) -> None:
    config = yaml.safe_load(control_plane.kubeconfig.read_text())
    change(config)
    path = tmp_path / "kubeconfig"
    path.write_text(yaml.safe_dump(config))
    with pytest.raises(SwitchboardError, match=words) as caught:
        Credentials.from_kubeconfig(path)
    assert str(path) in str(caught.value)


def test_a_spoilt_certificate_is_told(control_plane: ControlPlane) -> None:
    credentials = Credentials.from_kubeconfig(control_plane.kubeconfig)
    credentials.client_key = "-----BEGIN PRIVATE KEY-----\nspoilt\n-----END PRIVATE KEY-----\n"
    with pytest.raises(
        SwitchboardError, match=r"the credentials for https://.*: its certificates can't be used"
    ):
        credentials.ssl_context()


def test_a_missing_kubeconfig_is_named(tmp_path: Path) -> None:
    with pytest.raises(SwitchboardError, match=r"can't read the kubeconfig .*nowhere"):
        Credentials.from_kubeconfig(tmp_path / "nowhere")


def test_outside_a_pod_there_is_no_service_account(tmp_path: Path) -> None:
    with pytest.raises(SwitchboardError, match="not in a pod"):
        Credentials.in_cluster({}, tmp_path)
