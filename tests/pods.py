"""Pods and Services in a real API server without nodes: made, and their status written as a node agent would."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

from switchboard.kube import NAMESPACES, PODS, SERVICE_ACCOUNTS, SERVICES, Kube, Object


async def until(condition: Callable[[], Any], timeout_s: float = 120.0, what: str = "") -> Any:
    """Wait until `condition()` (or what it awaits) is true, and return it.

    Where all is well a long time costs nothing, and a busy machine may need it.
    """
    value: Any = None
    try:
        async with asyncio.timeout(timeout_s) as limit:
            while True:
                found = condition()
                value = await found if asyncio.iscoroutine(found) else found
                if value:
                    return value
                await asyncio.sleep(0.02)
    except TimeoutError:
        if not limit.expired():
            raise  # the condition's own
        raise AssertionError(f"not in {timeout_s} s: {what or condition}; last {value!r}") from None


async def namespace(kube: Kube, name: str) -> str:
    """A namespace that is ready for pods."""
    await kube.create(NAMESPACES, {"metadata": {"name": name}})
    await until(lambda: kube.get_or_none(SERVICE_ACCOUNTS, "default", name), what="service account")
    return name


async def pod(
    kube: Kube,
    space: str,
    name: str,
    *,
    ip: str,
    labels: Mapping[str, str],
    ports: Mapping[str, int],
    ready: bool = True,
    **container: Any,
) -> Object:
    """A pod that nobody schedules or runs, running and ready by its status. It is terminating until it is `gone`."""
    await kube.create(
        PODS,
        {
            "metadata": {
                "name": name,
                "namespace": space,
                "labels": dict(labels),
                "finalizers": ["switchboard.dev/test"],
            },
            "spec": {
                "schedulerName": "nobody",
                "automountServiceAccountToken": False,
                "containers": [
                    {
                        "name": "main",
                        "image": "none",
                        "ports": [{"name": key, "containerPort": port} for key, port in ports.items()],
                        **container,
                    }
                ],
            },
        },
    )
    return await set_ready(kube, space, name, ready, ip=ip)


async def gone(kube: Kube, space: str, name: str) -> None:
    """End a pod, terminating already or not."""
    await kube.delete(PODS, name, space)
    await kube.patch(PODS, name, {"metadata": {"finalizers": None}}, space)


async def set_ready(kube: Kube, space: str, name: str, ready: bool, *, ip: str | None = None) -> Object:
    status: Object = {
        "phase": "Running",
        "conditions": [{"type": "Ready", "status": str(ready)}],
    }
    if ip is not None:
        status |= {"podIP": ip, "podIPs": [{"ip": ip}]}
    return await kube.patch(
        PODS, name, {"status": status}, space, patch_type="strategic", subresource="status"
    )


async def service(
    kube: Kube,
    space: str,
    name: str,
    *,
    selector: Mapping[str, str],
    port: int,
    target: int | str,
    annotations: Mapping[str, str] | None = None,
    **spec: Any,
) -> str:
    """A Service; its ClusterIP."""
    made = await kube.create(
        SERVICES,
        {
            "metadata": {"name": name, "namespace": space, "annotations": dict(annotations or {})},
            "spec": {
                "selector": dict(selector),
                "ports": [{"name": "http", "port": port, "targetPort": target}],
                **spec,
            },
        },
    )
    return str(made["spec"]["clusterIP"])
