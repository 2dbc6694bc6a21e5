"""The namespaces that a stack has in its sites.

Apart from the components, whose imports cost a second: whoever only looks at a site needs the names alone.
"""

from __future__ import annotations

from typing import Literal

CORE_NAMESPACE = "switchboard-core"
"""Of a private site: MLflow, Alertmanager, the Prometheus that federates, training."""

SERVING_NAMESPACE = "switchboard-serving"
"""Of a public site: gateways, model servers, the site's Prometheus."""


def of_role(role: Literal["private", "public"]) -> str:
    """The namespace of a site with that role."""
    return CORE_NAMESPACE if role == "private" else SERVING_NAMESPACE
