"""The evidence of a release as one signed bundle: what was released, what both arms did, why it was decided so.

Canonical JSON, with the gate's results and the hashes of the model's files beside the release itself, and an Ed25519
signature (RFC 8032) by the site's key over exactly these bytes. The ledger has the bundle's SHA-256.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from switchboard.errors import SwitchboardError
from switchboard.kube import Object

SEED_BYTES = 32
_KEPT = ("name", "namespace", "uid", "creationTimestamp", "annotations")


@dataclass(frozen=True)
class Bundle:
    """The bytes that were signed, and the signature; without a key there is none."""

    content: bytes
    signature: bytes = b""
    key: str = ""
    """The public key, base64."""

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.content).hexdigest()

    def document(self) -> bytes:
        """The file: the bundle's text with its signature beside it."""
        made = {
            "bundle": self.content.decode(),
            "sha256": self.sha256,
            "signature": base64.b64encode(self.signature).decode(),
            "publicKey": self.key,
        }
        return (json.dumps(made, ensure_ascii=False, indent=1) + "\n").encode()


class Signer:
    """Signs with a site's key."""

    def __init__(self, seed: bytes) -> None:
        self._key = Ed25519PrivateKey.from_private_bytes(seed)

    @classmethod
    def from_file(cls, path: Path | None) -> Signer | None:
        """With the seed in a file (base64); None without one, for a site that signs nothing.

        Raises:
            SwitchboardError: it isn't a seed.
        """
        if path is None or not path.exists():
            return None
        try:
            return cls(base64.b64decode(path.read_text().strip(), validate=True))
        except (ValueError, OSError):
            raise SwitchboardError(f"the signing key {path} is not {SEED_BYTES} bytes in base64") from None

    @property
    def public(self) -> str:
        """The public key, base64."""
        raw = self._key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
        return base64.b64encode(raw).decode()

    def sign(self, content: bytes) -> bytes:
        return self._key.sign(content)


def bundle(
    release: Object, status: Mapping[str, Any], version: Mapping[str, Any], signer: Signer | None
) -> Bundle:
    """The bundle of a release with its status; `version` is what the registry says of the candidate."""
    meta = {key: release["metadata"][key] for key in _KEPT if key in release["metadata"]}
    made = {"release": {"metadata": meta, "spec": release["spec"], "status": status}, "version": version}
    content = json.dumps(made, ensure_ascii=False, sort_keys=True, separators=(",", ":")).encode()
    if signer is None:
        return Bundle(content)
    return Bundle(content, signer.sign(content), signer.public)


def verify(document: bytes, key: str | None = None) -> Mapping[str, Any]:
    """What is in a bundle's file, if its signature is good: by `key` (base64), else by the one that it names itself.

    Raises:
        SwitchboardError: it is no bundle, was changed, isn't signed, or is signed by another key.
    """
    try:
        made = json.loads(document)
        content, digest = str(made["bundle"]).encode(), str(made["sha256"])
        signature, own = base64.b64decode(made["signature"], validate=True), str(made["publicKey"])
        found: Mapping[str, Any] = json.loads(content)
    except (ValueError, KeyError, TypeError) as error:
        raise SwitchboardError(f"that is no bundle of evidence: {error}") from None
    if hashlib.sha256(content).hexdigest() != digest:
        raise SwitchboardError("the bundle was changed: it hasn't the SHA-256 that is written beside it")
    if not signature:
        raise SwitchboardError("the bundle isn't signed: its site had no key")
    if key is not None and key != own:
        raise SwitchboardError("the bundle is signed by another key than that")
    try:
        public = Ed25519PublicKey.from_public_bytes(base64.b64decode(own, validate=True))
        public.verify(signature, content)
    except (InvalidSignature, ValueError):
        raise SwitchboardError(
            "the bundle's signature isn't good: it was changed, or never signed by that key"
        ) from None
    return found
