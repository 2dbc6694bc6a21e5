"""What the API server says no with, in words for the user: one line that names the object, the reason and what to do.

The server's own words carry the field and the rule, so they stay; what Go prints around them goes.
"""

from __future__ import annotations

import base64
import json
import re
from datetime import UTC, datetime
from typing import Any

from infra.plugin.annotations import PATCH_FORCE
from infra.plugin.config import Config
from switchboard.errors import SwitchboardError
from switchboard.kube import ApiError, Credentials, Object, Unreachable

_TYPED = re.compile(
    r"^(?:request to convert CR|failed to create typed \w+ object|.*error validating data).*?\): \.?"
)
_INVALID = re.compile(r'^\S+ "[^"]*" is invalid: ')
_GO_VALUE = re.compile(r"&value\.valueUnstructured\{Value:(.*?)\}")
_GOT = re.compile(r"\bgot .*")
_GO_LIST = re.compile(r"got &\{\[.*\]\}")
_GO_MAP = re.compile(r"got &(?:\{map\[.*\]\}|map\[.*\])")


class Refused(Exception):
    """The API server said no; the message is for the user. `error` is what it said."""

    def __init__(self, message: str, error: ApiError) -> None:
        super().__init__(message)
        self.error = error


def conflicts(error: ApiError) -> dict[str, list[str]]:
    """The fields that other managers own, by manager."""
    found: dict[str, list[str]] = {}
    for cause in error.details.get("causes") or []:
        if cause.get("reason") == "FieldManagerConflict":
            quoted = re.search(r'conflict with "([^"]*)"', cause.get("message", ""))
            manager = quoted[1] if quoted else cause.get("message", "another manager")
            found.setdefault(manager, []).append(cause.get("field", "?").lstrip("."))
    return found


def explain(error: ApiError, obj: Object) -> str:
    """The server's refusal in words that say what to do."""
    if owners := conflicts(error):
        owned = "; ".join(f'"{manager}" manages {", ".join(fields)}' for manager, fields in owners.items())
        return (
            f"{name_of(obj)} conflicts with another field manager: {owned}. Leave these fields to it (remove them, "
            f'or `ignore_changes`), or take them over with the annotation {PATCH_FORCE}: "true"'
        )
    if error.status == 404 and error.details.get("kind") == "namespaces":
        return f"{name_of(obj)}: its namespace {error.details.get('name')} doesn't exist"
    return f"{name_of(obj)}: {plain(error.message, secret=obj.get('kind') == 'Secret') or error}"


def plain(message: str, *, secret: bool = False) -> str:
    """The server's message in one line, without what repeats the object or is Go's way to print a value.

    Of a Secret (`secret`) without the value itself.
    """
    text = " ".join(message.split())
    text = _INVALID.sub("", _TYPED.sub("", text))
    text = _GOT.sub("got something else", text) if secret else _GO_VALUE.sub(r"\1", text)
    return _GO_MAP.sub("got an object", _GO_LIST.sub("got a list", text))


def name_of(obj: Object) -> str:
    meta = obj.get("metadata") or {}
    name = f"{meta['namespace']}/{meta.get('name')}" if meta.get("namespace") else meta.get("name")
    return f"{obj.get('kind')} {name}"


def unauthorized(config: Config, now: datetime) -> str:
    """Why a 401, as far as the credential itself tells, and what to do."""
    try:
        credentials = config.credentials()
    except SwitchboardError as error:
        return str(error)
    why = lapse(credentials, now) or "it is expired, revoked or another cluster's"
    return (
        f"the API server {credentials.server} refused the credential of {config.whose()}: {why}. "
        "Renew it in the kubeconfig, then run this again: nothing was changed by what was refused"
    )


def lapse(credentials: Credentials, now: datetime) -> str | None:
    """What is over about a credential; None where nothing is, or it doesn't say."""
    try:
        token = credentials.bearer()
    except OSError as error:
        return f"its token can't be read: {error.strerror}"
    if token is not None:
        over, what = _expiry_of_token(token), "token"
    elif credentials.client_cert is not None:
        over, what = _expiry_of_certificate(credentials.client_cert), "certificate"
    else:
        return "it has neither token nor certificate"
    if over is None or over > now:
        return None
    return f"its {what} expired at {over:%Y-%m-%d %H:%M} UTC"


def _expiry_of_token(token: str) -> datetime | None:
    """The `exp` of a JSON web token; nothing is verified, since it is only told."""
    parts = token.split(".")
    try:
        claims: Any = json.loads(base64.urlsafe_b64decode(parts[1] + "=="))
        return datetime.fromtimestamp(claims["exp"], UTC)
    except (IndexError, KeyError, TypeError, ValueError, OverflowError, OSError):
        return None


def _expiry_of_certificate(pem: str) -> datetime | None:
    from cryptography import (
        x509,
    )  # costs more than the rest of the plugin's imports, and only a refusal needs it

    try:
        return x509.load_pem_x509_certificate(pem.encode()).not_valid_after_utc
    except ValueError:
        return None


def unreachable(error: Unreachable, config: Config | None) -> str:
    """Why there was no answer, without the HTTP client's own words where the system has better ones."""
    cause = error.__cause__
    why = getattr(cause, "certificate_error", None) or getattr(cause, "os_error", None)
    if isinstance(why, OSError) and getattr(why, "verify_message", None):
        reason = f"its certificate isn't trusted: {why.verify_message}"  # type: ignore[attr-defined]
    elif isinstance(why, OSError) and why.strerror and "Connect call failed" not in why.strerror:
        reason = why.strerror
    else:
        reason = "connection refused" if isinstance(why, ConnectionRefusedError) else str(error)
    server = config.server() if config is not None else None
    if reason == str(error) or server is None:
        return f"the Kubernetes API server can't be reached: {error}"
    return f"the Kubernetes API server of {config.whose()} can't be reached: {server}: {reason}"  # type: ignore[union-attr]
