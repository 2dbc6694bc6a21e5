"""A real control plane: who may do what, and what everybody can rely on from its first minute."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from infra.local import controlplane, health
from infra.local.bootstrap_objects import PROVISIONER, STORAGE_CLASS
from infra.local.pki import Pair
from switchboard.kube import (
    CONFIG_MAPS,
    NAMESPACES,
    NODES,
    PERSISTENT_VOLUME_CLAIMS,
    PERSISTENT_VOLUMES,
    PODS,
    SECRETS,
    SERVICE_ACCOUNTS,
    SERVICES,
    STORAGE_CLASSES,
    ApiError,
    Credentials,
    Kind,
    Kube,
    Unreachable,
)
from tests.conftest import ControlPlane
from tests.pods import until

REVIEWS = Kind(
    "authorization.k8s.io/v1", "selfsubjectaccessreviews", "SelfSubjectAccessReview", namespaced=False
)


def kubeconfig(control_plane: ControlPlane, who: str) -> Path:
    layout = control_plane.layout
    return {
        "admin": layout.kubeconfig,
        "proxy": layout.proxy_kubeconfig,
        "node": layout.nodes[0].kubeconfig,
    }[who]


async def may(kube: Kube, verb: str, kind: Kind, *, subresource: str = "", name: str = "") -> bool:
    attributes = {"verb": verb, "resource": kind.plural, "subresource": subresource, "name": name}
    attributes["group"] = kind.api_version.rpartition("/")[0]
    if kind.namespaced:
        attributes["namespace"] = "default"
    review = await kube.create(REVIEWS, {"spec": {"resourceAttributes": attributes}})
    return bool(review["status"]["allowed"])


ALLOWED: list[tuple[str, str, Kind, dict[str, str], bool]] = [
    ("admin", "delete", NAMESPACES, {}, True),
    ("node", "create", PERSISTENT_VOLUMES, {}, True),  # it provisions its pods' volumes
    ("node", "delete", PERSISTENT_VOLUMES, {}, True),
    ("node", "watch", PERSISTENT_VOLUME_CLAIMS, {}, True),
    ("node", "watch", SERVICES, {}, True),  # names in /etc/hosts
    ("node", "watch", PODS, {}, True),
    ("node", "list", SECRETS, {}, False),  # only those of its own pods, which the Node authorizer knows
    ("node", "list", CONFIG_MAPS, {}, False),
    ("node", "delete", NODES, {"name": "public-2"}, False),
    ("node", "patch", PERSISTENT_VOLUME_CLAIMS, {}, False),
    ("node", "create", NAMESPACES, {}, False),
    ("proxy", "watch", SERVICES, {}, True),
    ("proxy", "watch", PODS, {}, True),
    ("proxy", "patch", SERVICES, {"subresource": "status"}, True),  # it is the load-balancer controller
    ("proxy", "patch", SERVICES, {}, False),
    ("proxy", "list", SECRETS, {}, False),
    ("proxy", "delete", PODS, {}, False),
]


@pytest.mark.parametrize(("who", "verb", "kind", "more", "allowed"), ALLOWED)
async def test_who_may_do_what(
    control_plane: ControlPlane, who: str, verb: str, kind: Kind, more: dict[str, str], allowed: bool
) -> None:
    async with Kube(Credentials.from_kubeconfig(kubeconfig(control_plane, who))) as kube:
        assert await may(kube, verb, kind, **more) is allowed


def node(name: str, **labels: str) -> dict[str, Any]:
    return {"metadata": {"name": name, "labels": labels}}


async def test_a_node_registers_itself_and_no_other(control_plane: ControlPlane) -> None:
    layout = control_plane.layout.nodes[1]
    async with Kube(Credentials.from_kubeconfig(layout.kubeconfig)) as kube:
        labels = {
            "kubernetes.io/hostname": layout.name,
            "topology.kubernetes.io/zone": "cn-shenzhen-b",
            "topology.kubernetes.io/region": layout.region,
            "switchboard.dev/tier": "core",
            "switchboard.dev/site": "public",
        }
        with pytest.raises(ApiError, match="is not allowed to modify node"):
            await kube.create(NODES, node("edge-1"))
        created = await kube.create(NODES, node(layout.name, **labels))
        try:
            assert labels.items() <= created["metadata"]["labels"].items()
        finally:
            async with Kube(Credentials.from_kubeconfig(control_plane.kubeconfig)) as admin:
                await admin.delete(NODES, layout.name)


async def test_strangers_learn_nothing(control_plane: ControlPlane) -> None:
    layout = control_plane.layout
    async with Kube(Credentials(layout.api_server, layout.ca_cert.read_text())) as nobody:
        for path in ("/readyz", "/version", "/api/v1/namespaces"):
            with pytest.raises(ApiError) as caught:
                await nobody.request("GET", path)
            assert caught.value.status == 401


@pytest.mark.parametrize("who", ["nobody", "node", "front-proxy-client", "etcd-client"])
async def test_etcd_speaks_to_the_api_server_only(
    control_plane: ControlPlane, tmp_path: Path, who: str
) -> None:
    """Whoever can read etcd reads every secret: a certificate of the site's own CA must not do."""
    layout = control_plane.layout
    context = ssl.create_default_context(cafile=str(layout.pki / "etcd-ca.crt"))
    if who == "node":
        credentials = Credentials.from_kubeconfig(layout.nodes[0].kubeconfig)
        assert credentials.client_cert is not None and credentials.client_key is not None
        pem = tmp_path / "node.pem"
        pem.write_text(credentials.client_cert + credentials.client_key)
        context.load_cert_chain(pem)
    elif who != "nobody":
        pair = Pair(layout.pki / f"{who}.crt", layout.pki / f"{who}.key")
        context.load_cert_chain(pair.cert, pair.key)
    url = f"https://{layout.control_plane_ip}:{controlplane.ETCD_PORT}/version"
    async with aiohttp.ClientSession() as session:
        if who == "etcd-client":
            async with session.get(url, ssl=context) as response:
                assert response.status == 200
            return
        with pytest.raises((aiohttp.ClientError, ssl.SSLError)):
            await session.get(url, ssl=context)


async def test_a_namespace_has_what_its_pods_need(control_plane: ControlPlane) -> None:
    async with Kube(Credentials.from_kubeconfig(control_plane.kubeconfig)) as kube:
        await until(lambda: kube.get_or_none(SERVICE_ACCOUNTS, "default", "default"))
        config = await until(lambda: kube.get_or_none(CONFIG_MAPS, "kube-root-ca.crt", "default"))
        assert config["data"]["ca.crt"] == control_plane.layout.ca_cert.read_text()


async def test_the_default_storage_class(control_plane: ControlPlane) -> None:
    async with Kube(Credentials.from_kubeconfig(control_plane.kubeconfig)) as kube:
        found = await kube.get(STORAGE_CLASSES, STORAGE_CLASS)
    assert (found["provisioner"], found["volumeBindingMode"]) == (PROVISIONER, "WaitForFirstConsumer")
    assert found["metadata"]["annotations"]["storageclass.kubernetes.io/is-default-class"] == "true"


async def test_pod_security_is_enforced(control_plane: ControlPlane) -> None:
    async with Kube(Credentials.from_kubeconfig(control_plane.kubeconfig)) as kube:
        name = "restricted-here"
        labels = {"pod-security.kubernetes.io/enforce": "restricted"}
        await kube.create(NAMESPACES, {"metadata": {"name": name, "labels": labels}})
        try:
            # Without it a pod is refused as well.
            await until(lambda: kube.get_or_none(SERVICE_ACCOUNTS, "default", name))
            pod = {
                "metadata": {"name": "root"},
                "spec": {"containers": [{"name": "c", "image": "busybox"}]},
            }
            with pytest.raises(ApiError, match='violates PodSecurity "restricted'):
                await kube.create(PODS, pod, name)
        finally:
            await kube.delete(NAMESPACES, name)


async def test_services_have_loopback_addresses(control_plane: ControlPlane) -> None:
    async with Kube(Credentials.from_kubeconfig(control_plane.kubeconfig)) as kube:
        service = await kube.get(SERVICES, "kubernetes", "default")
    assert service["spec"]["clusterIP"] == str(control_plane.layout.kubernetes_service_ip)


async def test_health_says_what_runs_and_what_does_not(control_plane: ControlPlane) -> None:
    async def as_it_is() -> Any:
        """A busy machine answers later than is waited for."""
        found = await health.look(control_plane.layout)
        return found if {part.name for part in found.components if part.healthy} == parts_that_run else None

    parts_that_run = set(controlplane.NAMES)
    found = await until(as_it_is, what="a healthy control plane")
    parts = {part.name: part for part in found.components}
    assert (parts["proxy"].healthy, parts["proxy"].note) == (False, "not running")
    assert parts["kube-apiserver"].address == f"{control_plane.layout.control_plane_ip}:6443"
    assert {node.name for node in found.nodes} == {"public-1", "public-2", "edge-1"}
    assert found.running
    assert not found.healthy


NODE_CONDITIONS = [
    ([], False),
    ([{"type": "Ready", "status": "True"}], True),
    ([{"type": "Ready", "status": "False"}], False),
    ([{"type": "Ready", "status": "Unknown"}], False),  # its lease ran out
    ([{"type": "MemoryPressure", "status": "True"}], False),
]


@pytest.mark.parametrize(("conditions", "ready"), NODE_CONDITIONS)
def test_a_node_is_ready(conditions: list[dict[str, str]], ready: bool) -> None:
    assert health.node_is_ready({"status": {"conditions": conditions}}) is ready


async def test_a_foreign_authority_is_refused(control_plane: ControlPlane) -> None:
    """The client checks the server: an etcd certificate doesn't pass for the API server's."""
    layout = control_plane.layout
    credentials = Credentials.from_kubeconfig(layout.kubeconfig)
    credentials.ca = (layout.pki / "etcd-ca.crt").read_text()
    async with Kube(credentials) as kube:
        with pytest.raises(Unreachable, match="certificate verify failed"):
            await kube.list(NAMESPACES)
