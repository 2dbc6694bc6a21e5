"""A site's keys and certificates: made once, renewed when they must be, readable by their owner only."""

from __future__ import annotations

import base64
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

import pytest
import yaml
from cryptography import x509

from infra.config import Embedded, Node, Site
from infra.local import pki
from infra.local.layout import SiteLayout

NOW = datetime(2030, 1, 1, tzinfo=UTC)


def layout_at(
    state: Path, network: str = "127.31.0.0/16", nodes: tuple[str, ...] = ("n1", "n2")
) -> SiteLayout:
    embedded = Embedded(
        network=IPv4Network(network),
        services=IPv4Network("127.131.0.0/16"),
        nodes=tuple(Node(name=name) for name in nodes),
    )
    return SiteLayout(Site(name="s", role="private", region="r", embedded=embedded), state)


@pytest.fixture
def layout(tmp_path: Path) -> SiteLayout:
    return layout_at(tmp_path)


def files(layout: SiteLayout) -> dict[str, bytes]:
    return {
        str(p.relative_to(layout.directory)): p.read_bytes()
        for p in layout.directory.rglob("*")
        if p.is_file()
    }


def cert(path: Path) -> x509.Certificate:
    return x509.load_pem_x509_certificate(path.read_bytes())


def client_cert(kubeconfig: Path) -> x509.Certificate:
    user = yaml.safe_load(kubeconfig.read_text())["users"][0]["user"]
    return x509.load_pem_x509_certificate(base64.b64decode(user["client-certificate-data"]))


def changed(before: dict[str, bytes], after: dict[str, bytes]) -> set[str]:
    return {name for name in before | after if before.get(name) != after.get(name)}


def test_a_second_time_changes_nothing(layout: SiteLayout) -> None:
    pki.ensure(layout, NOW)
    before = files(layout)
    pki.ensure(layout, NOW + timedelta(days=300))
    assert files(layout) == before


def test_everything_is_private(layout: SiteLayout) -> None:
    pki.ensure(layout, NOW)
    assert layout.pki.stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o777 for path in layout.directory.rglob("*") if path.is_file()} == {0o600}


def test_leaves_are_renewed_before_they_expire_and_authorities_stay(layout: SiteLayout) -> None:
    pki.ensure(layout, NOW)
    before = files(layout)
    later = NOW + pki.LEAF_LIFE - timedelta(days=29)
    pki.ensure(layout, later)
    stayed = {name for name in before if name not in changed(before, files(layout))}
    assert stayed == {
        *(f"pki/{name}.{end}" for name in ("ca", "etcd-ca", "front-proxy-ca") for end in ("crt", "key")),
        "pki/service-account.key",
        "pki/service-account.pub",
    }
    for path in (layout.pki / "apiserver.crt", layout.nodes[0].serving_cert):
        assert cert(path).not_valid_after_utc > later + timedelta(days=300)


def test_a_new_authority_signs_everything_anew(layout: SiteLayout) -> None:
    pki.ensure(layout, NOW)
    later = NOW + pki.CA_LIFE - timedelta(days=10)
    made = pki.ensure(layout, later)
    assert made.ca.cert.not_valid_after_utc > later + timedelta(days=3000)
    for path in (layout.kubeconfig, layout.nodes[1].kubeconfig):
        client_cert(path).verify_directly_issued_by(made.ca.cert)
        text = yaml.safe_load(path.read_text())
        embedded = base64.b64decode(text["clusters"][0]["cluster"]["certificate-authority-data"])
        assert embedded == made.ca.pem


SPOILS = {
    "missing": lambda path: path.unlink(),
    "empty": lambda path: path.write_bytes(b""),
    "half": lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
    "not text": lambda path: path.write_bytes(b"\xff\xfe\x00"),
}


@pytest.mark.parametrize("spoil", SPOILS.values(), ids=SPOILS)
@pytest.mark.parametrize(
    "name", ["pki/apiserver.key", "pki/etcd.crt", "nodes/n1/kubelet.crt", "kubeconfig", "nodes/n2/kubeconfig"]
)
def test_what_is_spoilt_is_made_anew(layout: SiteLayout, name: str, spoil: object) -> None:
    pki.ensure(layout, NOW)
    before = files(layout)
    assert callable(spoil)
    spoil(layout.directory / name)
    pki.ensure(layout, NOW)
    pair = {name, name.replace(".key", ".crt"), name.replace(".crt", ".key")}
    assert changed(before, files(layout)) == pair


def test_other_addresses_get_other_certificates(tmp_path: Path) -> None:
    pki.ensure(layout_at(tmp_path), NOW)
    moved = layout_at(tmp_path, network="127.33.0.0/16", nodes=("n1", "n2", "n3"))
    pki.ensure(moved, NOW)
    names = (
        cert(moved.pki / "apiserver.crt")
        .extensions.get_extension_for_class(x509.SubjectAlternativeName)
        .value
    )
    assert IPv4Address("127.33.0.1") in names.get_values_for_type(x509.IPAddress)
    assert moved.nodes[2].kubeconfig.exists()
    assert "127.33.0.1" in moved.kubeconfig.read_text()


def test_the_api_server_is_known_by_all_its_names(layout: SiteLayout) -> None:
    pki.ensure(layout, NOW)
    names = (
        cert(layout.pki / "apiserver.crt")
        .extensions.get_extension_for_class(x509.SubjectAlternativeName)
        .value
    )
    assert set(names.get_values_for_type(x509.IPAddress)) == {
        layout.control_plane_ip,
        layout.kubernetes_service_ip,
        IPv4Address("127.0.0.1"),
    }
    assert {"kubernetes.default.svc", "kubernetes.default.svc.cluster.local", "localhost"} <= set(
        names.get_values_for_type(x509.DNSName)
    )


def test_who_is_who(layout: SiteLayout) -> None:
    """User and groups are what Kubernetes' own roles and the Node authorizer expect."""
    made = pki.ensure(layout, NOW)
    subjects = {
        layout.kubeconfig: "CN=switchboard-admin,O=switchboard:administrators",
        layout.proxy_kubeconfig: "CN=system:kube-proxy",
        layout.nodes[0].kubeconfig: "CN=system:node:n1,O=system:nodes",
        made.kubeconfig("scheduler"): "CN=system:kube-scheduler",
        made.kubeconfig("controller-manager"): "CN=system:kube-controller-manager",
    }
    assert {path: client_cert(path).subject.rfc4514_string() for path in subjects} == subjects


def test_serving_certificates_are_no_client_certificates(layout: SiteLayout) -> None:
    """Whoever steals a node's serving key can't call the API server with it."""
    pki.ensure(layout, NOW)
    for path in (layout.nodes[0].serving_cert, layout.pki / "apiserver.crt"):
        usage = cert(path).extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
        assert list(usage) == [x509.oid.ExtendedKeyUsageOID.SERVER_AUTH]
