"""The keys and certificates of one embedded site, made and renewed in place.

Three authorities a site: `ca` for the API server, its clients and the nodes' serving certificates; `etcd-ca` for etcd
alone (whoever holds any certificate of the site's CA must not be able to read etcd); `front-proxy-ca` for the API
server's own calls to extension API servers (whoever it signs may speak for any user). All keys are ECDSA P-256.
`ensure` is idempotent: it makes what is missing, and makes anew what expires soon, doesn't fit its authority or
doesn't fit the addresses any more; it relies on one caller at a time (`infra.local.cloud` holds a lock).
Keys are readable by their owner only.
"""

from __future__ import annotations

import base64
import hashlib
import os
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address
from pathlib import Path

import yaml
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from infra.local.layout import CLUSTER_DOMAIN, SiteLayout

CA_LIFE = timedelta(days=3650)
LEAF_LIFE = timedelta(days=365)
RENEW_BEFORE = timedelta(days=30)
BACKDATE = timedelta(days=1)
"""A machine whose clock is put back by hours (it ran ahead, or woke up in the wrong zone) keeps its certificates."""

ADMIN_GROUP = "switchboard:administrators"
"""The group of the administrators' certificates, bound to `cluster-admin` (see `bootstrap_objects`)."""
KUBELET_CLIENT = "kube-apiserver-kubelet-client"
"""The common name by which the API server calls the nodes' kubelet API; nobody else may."""


@dataclass(frozen=True)
class Subject:
    """What a certificate says: who (user and groups), and for a serving certificate under which names."""

    common_name: str
    groups: tuple[str, ...] = ()
    dns: tuple[str, ...] = ()
    ips: tuple[IPv4Address, ...] = ()
    server: bool = False
    client: bool = True


@dataclass(frozen=True)
class Pair:
    """A certificate and its key as files."""

    cert: Path
    key: Path


@dataclass(frozen=True)
class Authority:
    """A CA in memory."""

    cert: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    @property
    def pem(self) -> bytes:
        return self.cert.public_bytes(serialization.Encoding.PEM)

    def issue(self, subject: Subject, now: datetime, life: timedelta = LEAF_LIFE) -> tuple[bytes, bytes]:
        """A certificate and its key, as PEM."""
        key = ec.generate_private_key(ec.SECP256R1())
        builder = (
            _builder(_name(subject), key.public_key(), now, life)
            .issuer_name(self.cert.subject)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_key_usage(signs_certs=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage(_purposes(subject)), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key()), critical=False
            )
        )
        if subject.dns or subject.ips:
            builder = builder.add_extension(x509.SubjectAlternativeName(_sans(subject)), critical=False)
        cert = builder.sign(self.key, hashes.SHA256())
        return cert.public_bytes(serialization.Encoding.PEM), _key_pem(key)


@dataclass(frozen=True)
class SitePki:
    """What `ensure` made, by the files that the site's parts are given."""

    layout: SiteLayout
    ca: Authority

    def pair(self, name: str) -> Pair:
        return Pair(self.layout.pki / f"{name}.crt", self.layout.pki / f"{name}.key")

    def kubeconfig(self, name: str) -> Path:
        """Of `controller-manager` and `scheduler` (the others' places are the layout's)."""
        return self.layout.pki / f"{name}.kubeconfig"

    def digest(self, *names: str) -> str:
        """Changes when one of the files in `pki` does, so that whoever reads them at its start is restarted."""
        return _digest(self.layout.pki / name for name in names)

    def bootstrap_kubeconfig(self, now: datetime) -> str:
        """The contents of a kubeconfig of `system:masters` for ten minutes, for the first role bindings only."""
        subject = Subject("switchboard:bootstrap", groups=("system:masters",))
        cert, key = self.ca.issue(subject, now, timedelta(minutes=10))
        return kubeconfig_text(self.layout, self.ca.pem, cert, key, "bootstrap")


def ensure(layout: SiteLayout, now: datetime | None = None) -> SitePki:
    """Make, renew and place all of the site's keys, certificates and kubeconfigs."""
    now = now or datetime.now(UTC)
    layout.pki.mkdir(parents=True, exist_ok=True)
    layout.pki.chmod(0o700)
    ca = _authority(layout, "ca", f"switchboard site {layout.name}", now)
    etcd_ca = _authority(layout, "etcd-ca", f"switchboard etcd {layout.name}", now)
    pki = SitePki(layout, ca)
    for name, subject in _etcd_subjects(layout).items():
        _leaf(pki.pair(name), etcd_ca, subject, now)
    front_proxy_ca = _authority(layout, "front-proxy-ca", f"switchboard front proxy {layout.name}", now)
    _leaf(pki.pair("front-proxy-client"), front_proxy_ca, Subject("front-proxy-client"), now)
    for name, subject in _subjects(layout).items():
        _leaf(pki.pair(name), ca, subject, now)
    for node in layout.nodes:
        node.directory.mkdir(parents=True, exist_ok=True)
        subject = Subject(node.name, dns=(node.name,), ips=(node.ip,), server=True, client=False)
        _leaf(Pair(node.serving_cert, node.serving_key), ca, subject, now)
    for path, (user, subject) in _users(layout, pki).items():
        _user(layout, ca, path, user, subject, now)
    _service_account_key(layout)
    return pki


def _etcd_subjects(layout: SiteLayout) -> dict[str, Subject]:
    ips = (layout.control_plane_ip,)
    return {
        "etcd": Subject("etcd", ips=ips, server=True),
        "etcd-client": Subject("kube-apiserver"),
    }


def _subjects(layout: SiteLayout) -> dict[str, Subject]:
    kubernetes = ("kubernetes", "kubernetes.default", "kubernetes.default.svc")
    own = (layout.control_plane_ip,)
    return {
        "apiserver": Subject(
            "kube-apiserver",
            dns=(*kubernetes, f"kubernetes.default.svc.{CLUSTER_DOMAIN}", "localhost"),
            ips=(*own, layout.kubernetes_service_ip, IPv4Address("127.0.0.1")),
            server=True,
            client=False,
        ),
        "apiserver-kubelet-client": Subject(KUBELET_CLIENT),
        "controller-manager": Subject("kube-controller-manager", ips=own, server=True, client=False),
        "scheduler": Subject("kube-scheduler", ips=own, server=True, client=False),
    }


def _users(layout: SiteLayout, pki: SitePki) -> dict[Path, tuple[str, Subject]]:
    """Kubeconfig path → the user's name in it, and whom its certificate names."""
    users = {
        layout.kubeconfig: ("admin", Subject("switchboard-admin", groups=(ADMIN_GROUP,))),
        layout.proxy_kubeconfig: ("proxy", Subject("system:kube-proxy")),
    }
    for name in ("controller-manager", "scheduler"):
        users[pki.kubeconfig(name)] = (name, Subject(f"system:kube-{name}"))
    for node in layout.nodes:
        subject = Subject(f"system:node:{node.name}", groups=("system:nodes",))
        users[node.kubeconfig] = (node.name, subject)
    return users


def kubeconfig_text(layout: SiteLayout, ca: bytes, cert: bytes, key: bytes, user: str) -> str:
    """A kubeconfig with everything in it; its one context is named as the site."""
    name = layout.name
    return yaml.safe_dump(
        {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [
                {
                    "name": name,
                    "cluster": {"server": layout.api_server, "certificate-authority-data": _b64(ca)},
                }
            ],
            "users": [
                {
                    "name": f"{name}-{user}",
                    "user": {"client-certificate-data": _b64(cert), "client-key-data": _b64(key)},
                }
            ],
            "contexts": [{"name": name, "context": {"cluster": name, "user": f"{name}-{user}"}}],
            "current-context": name,
        },
        sort_keys=False,
    )


def write_private(path: Path, data: bytes | str) -> None:
    """Write by rename, for the owner's eyes only."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.unlink(missing_ok=True)
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data.encode() if isinstance(data, str) else data)
        file.flush()
        os.fsync(file.fileno())  # a key that a power cut spoilt would make all that it signed worthless
    temporary.replace(path)


def is_good(
    cert: x509.Certificate, subject: Subject, ca: x509.Certificate, now: datetime, life: timedelta = LEAF_LIFE
) -> bool:
    """Does the certificate say just this, from this authority, and for a while yet?"""
    if not _fresh(cert, now) or cert.subject != _name(subject):
        return False
    try:
        cert.verify_directly_issued_by(ca)
    except (InvalidSignature, ValueError, TypeError):
        return False
    try:
        found = set(cert.extensions.get_extension_for_class(x509.SubjectAlternativeName).value)
    except x509.ExtensionNotFound:
        found = set()
    usage = cert.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    return found == set(_sans(subject)) and set(usage) == set(_purposes(subject))


def _fresh(cert: x509.Certificate, now: datetime) -> bool:
    return cert.not_valid_before_utc <= now and now + RENEW_BEFORE < cert.not_valid_after_utc


def _authority(layout: SiteLayout, name: str, common_name: str, now: datetime) -> Authority:
    pair = Pair(layout.pki / f"{name}.crt", layout.pki / f"{name}.key")
    loaded = _load(pair)
    if loaded is not None and _fresh(loaded[0], now):
        return Authority(*loaded)
    key = ec.generate_private_key(ec.SECP256R1())
    subject = _name(Subject(common_name))
    cert = (
        _builder(subject, key.public_key(), now, CA_LIFE)
        .issuer_name(subject)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage(signs_certs=True), critical=True)
        .sign(key, hashes.SHA256())
    )
    write_private(pair.key, _key_pem(key))
    write_private(pair.cert, cert.public_bytes(serialization.Encoding.PEM))
    return Authority(cert, key)


def _leaf(pair: Pair, ca: Authority, subject: Subject, now: datetime) -> None:
    loaded = _load(pair)
    if loaded is not None and is_good(loaded[0], subject, ca.cert, now):
        return
    cert, key = ca.issue(subject, now)
    # The key goes first: a certificate without its key is made anew, a key without its certificate is too.
    write_private(pair.key, key)
    write_private(pair.cert, cert)


def _user(layout: SiteLayout, ca: Authority, path: Path, user: str, subject: Subject, now: datetime) -> None:
    try:
        config = yaml.safe_load(path.read_text())
        raw = base64.b64decode(config["users"][0]["user"]["client-certificate-data"])
        key = base64.b64decode(config["users"][0]["user"]["client-key-data"])
        same = path.read_text() == kubeconfig_text(layout, ca.pem, raw, key, user)
        if same and is_good(x509.load_pem_x509_certificate(raw), subject, ca.cert, now):
            return
    except (OSError, KeyError, TypeError, IndexError, ValueError, yaml.YAMLError):
        pass  # missing or spoilt: made anew
    cert, key = ca.issue(subject, now)
    write_private(path, kubeconfig_text(layout, ca.pem, cert, key, user))


def _service_account_key(layout: SiteLayout) -> None:
    path = layout.pki / "service-account.key"
    public = layout.pki / "service-account.pub"
    try:
        key = serialization.load_pem_private_key(path.read_bytes(), None)
    except (OSError, ValueError):
        key = ec.generate_private_key(ec.SECP256R1())
        write_private(path, _key_pem(key))
        public.unlink(missing_ok=True)
    if not public.exists():
        write_private(
            public,
            key.public_key().public_bytes(
                serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
            ),
        )


def _load(pair: Pair) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey] | None:
    """The pair, or None where it is missing, spoilt, or the two don't belong together."""
    try:
        cert = x509.load_pem_x509_certificate(pair.cert.read_bytes())
        key = serialization.load_pem_private_key(pair.key.read_bytes(), None)
    except (OSError, ValueError, TypeError):
        return None
    if not isinstance(key, ec.EllipticCurvePrivateKey) or key.public_key() != cert.public_key():
        return None
    return cert, key


def _builder(
    subject: x509.Name, public_key: ec.EllipticCurvePublicKey, now: datetime, life: timedelta
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .public_key(public_key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - BACKDATE)
        .not_valid_after(now + life)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
    )


def _name(subject: Subject) -> x509.Name:
    groups = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, group) for group in subject.groups]
    return x509.Name([*groups, x509.NameAttribute(NameOID.COMMON_NAME, subject.common_name)])


def _sans(subject: Subject) -> list[x509.GeneralName]:
    return [*map(x509.DNSName, subject.dns), *map(x509.IPAddress, subject.ips)]


def _purposes(subject: Subject) -> list[x509.ObjectIdentifier]:
    purposes = [ExtendedKeyUsageOID.SERVER_AUTH] if subject.server else []
    return [*purposes, ExtendedKeyUsageOID.CLIENT_AUTH] if subject.client else purposes


def _key_usage(*, signs_certs: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        key_cert_sign=signs_certs,
        crl_sign=signs_certs,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _digest(paths: Iterable[Path]) -> str:
    digest = hashlib.sha256()
    for path in paths:
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]
