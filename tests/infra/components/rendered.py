"""A stack as the program declares it, arranged for questions: which pods are in a site, who is behind an address."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from infra import config
from infra.declared import ADDRESS_LATER, Declared, declare
from infra.netpol import Pod
from switchboard.paths import ROOT

Object = dict[str, Any]
WORKLOADS = ("Deployment", "StatefulSet", "DaemonSet", "Job")
STACKS = tuple(name for name in ("local", "staging", "production") if (ROOT / f"Pulumi.{name}.yaml").exists())
_HOSTNAME = "external-dns.alpha.kubernetes.io/hostname"


@functools.cache
def stack_of(name: str) -> config.Stack:
    return config.load(name)


@functools.cache
def declared(name: str) -> tuple[Declared, ...]:
    """All objects of that stack of the checkout."""
    return tuple(declare(stack_of(name), name=name))


@functools.cache
def running(name: str) -> tuple[Declared, ...]:
    """All objects that there will be: those of the stack, and what the operator makes of its ModelServers."""
    return tuple(every for one in declared(name) for every in (one, *one.becomes()))


@dataclass(frozen=True)
class Workload:
    """A workload of a site, and a pod of it, at an address that is in none of the stack's networks."""

    site: str
    kind: str
    manifest: Object
    pod: Pod

    @property
    def name(self) -> str:
        return str(self.manifest["metadata"]["name"])

    @property
    def spec(self) -> Object:
        """Of its pods."""
        spec: Object = self.manifest["spec"]["template"]["spec"]
        return spec

    @property
    def meta(self) -> Object:
        """Of its pods."""
        meta: Object = self.manifest["spec"]["template"]["metadata"]
        return meta

    @property
    def containers(self) -> list[Object]:
        """All of them, those for the start too."""
        return [*self.spec["containers"], *(self.spec.get("initContainers") or [])]

    def __str__(self) -> str:
        return f"{self.site}/{self.kind}/{self.name}"


def objects(stack: str, kind: str, site: str | None = None) -> list[Object]:
    """The manifests of that kind, of one site or of all, those that the operator makes too."""
    return [one.revealed() for one in running(stack) if one.kind == kind and site in (None, one.site)]


def workloads(stack: str) -> list[Workload]:
    found = []
    for number, one in enumerate(running(stack), start=1):
        if one.kind in WORKLOADS:
            manifest = one.revealed()
            pod = Pod.of(manifest, ip=f"203.0.113.{number}")
            found.append(Workload(one.site, one.kind, manifest, pod))
    return found


def told(stack: str, workload: Workload) -> Iterator[tuple[str, str, int]]:
    """Every address of a load balancer that a workload is told, in its manifest or in a ConfigMap that it mounts:
    (the Service's site, its name, the port)."""
    mounted = {
        volume["configMap"]["name"] for volume in workload.spec.get("volumes") or () if "configMap" in volume
    }
    text = repr(workload.manifest) + "".join(
        repr(found)
        for found in objects(stack, "ConfigMap", workload.site)
        if found["metadata"]["name"] in mounted
    )
    for one in declared(stack):
        if one.kind != "Service" or one.manifest["spec"].get("type") != "LoadBalancer":  # type: ignore[union-attr]
            continue
        names = (one.revealed()["metadata"].get("annotations") or {}).get(_HOSTNAME)
        address = names or f"{one.name}.{one.site}.{ADDRESS_LATER}"
        for port in set(re.findall(rf"(?<![\w.-]){re.escape(address)}:(\d+)", text)):
            yield one.site, one.name, int(port)


def behind(stack: str, site: str, service: str, port: int) -> list[tuple[Workload, int]]:
    """The workloads whose pods are behind a port of a Service, and those pods' port."""
    (found,) = [one for one in objects(stack, "Service", site) if one["metadata"]["name"] == service]
    (entry,) = [one for one in found["spec"]["ports"] if one["port"] == port]
    target, selector = entry.get("targetPort", port), found["spec"]["selector"].items()
    return [
        (one, one.pod.ports["TCP", target] if isinstance(target, str) else target)
        for one in workloads(stack)
        if one.site == site and selector <= one.pod.labels.items() and one.kind != "Job"
    ]
