"""A Service is ready when

1. of type LoadBalancer: it has been given an address, and
2. with a selector: at least one ready endpoint stands behind it.

An ExternalName Service is ready at once.
"""

from __future__ import annotations

from infra.plugin.await_.rule import DONE, Related, Rule, Seen, Verdict, missing
from switchboard.kube import Kind, Object

ENDPOINT_SLICES = Kind("discovery.k8s.io/v1", "endpointslices", "EndpointSlice")


def check(live: Object, seen: Seen) -> Verdict:
    spec = live["spec"]
    if spec.get("type") == "ExternalName":
        return DONE
    ingress = (live.get("status", {}).get("loadBalancer") or {}).get("ingress")
    if spec.get("type") == "LoadBalancer" and not ingress:
        return missing("no load balancer address yet")
    if spec.get("selector") and not any(map(_has_ready, seen.get(ENDPOINT_SLICES.plural, ()))):
        return missing("no ready endpoint behind it")
    return DONE


def _has_ready(endpoint_slice: Object) -> bool:
    endpoints = endpoint_slice.get("endpoints") or []
    return any((endpoint.get("conditions") or {}).get("ready") is not False for endpoint in endpoints)


RULE = Rule(
    check,
    (
        Related(
            ENDPOINT_SLICES,
            lambda live: f"kubernetes.io/service-name={live['metadata']['name']}",
            lambda live: bool(live["spec"].get("selector")),
        ),
    ),
)
