"""Service account tokens of pods: requested for the pod alone, and anew when four fifths of their life are over.

When a token was issued and when it ends is read from the token itself, so nothing has to be remembered.
"""

from __future__ import annotations

import base64
import json
from typing import Any

from infra.local.node import podspec
from infra.local.node.volumes import TokenRequest
from switchboard.kube import SERVICE_ACCOUNTS, Kube, Object

_REFRESH_AT = 0.8
_OLDEST_S = 24 * 3600.0
_LEEWAY_S = 60.0


def claims(token: str) -> dict[str, Any]:
    """The claims of a token, unverified (it is our own); empty where it isn't one."""
    try:
        body = token.split(".")[1]
        found = json.loads(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)))
        return found if isinstance(found, dict) else {}
    except (IndexError, ValueError):
        return {}


def is_fresh(token: str, pod_uid: str, now: float) -> bool:
    """Whether a token is this pod's and young enough to be kept.

    One from the future (the clock was put back) isn't: the API server wouldn't take it yet.
    """
    found = claims(token)
    issued, expires = found.get("iat"), found.get("exp")
    if not issued or not expires:
        return False
    bound = (found.get("kubernetes.io") or {}).get("pod", {}).get("uid")
    return bound == pod_uid and issued - _LEEWAY_S <= now < min(
        issued + _REFRESH_AT * (expires - issued), issued + _OLDEST_S
    )


async def request(kube: Kube, pod: Object, wanted: TokenRequest) -> str:
    """A new token for the pod's service account, bound to the pod. Raises ApiError, Unreachable."""
    spec: Object = {
        "expirationSeconds": wanted.lifetime_s,
        "boundObjectRef": {
            "apiVersion": "v1",
            "kind": "Pod",
            "name": podspec.name(pod),
            "uid": podspec.uid(pod),
        },
    }
    if wanted.audience:
        spec["audiences"] = [wanted.audience]
    answer = await kube.create(
        SERVICE_ACCOUNTS,
        {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec},
        podspec.namespace(pod),
        name=pod["spec"].get("serviceAccountName") or "default",
        subresource="token",
    )
    return str(answer["status"]["token"])
