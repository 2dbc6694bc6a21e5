"""A pod's `/etc/hosts`: its own name, and the names of Services, in place of a DNS server.

Pure but for `rewrite`, which keeps the file's inode: the file is bound into the containers, and a rename would leave
them with the old one.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from pathlib import Path

from infra.local.layout import CLUSTER_DOMAIN
from infra.local.node import podspec
from switchboard.kube import Object

_HEAD = "# Kubernetes-managed hosts file.\n127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n"


def _service_names(service: Object) -> list[str]:
    name, namespace = service["metadata"]["name"], service["metadata"]["namespace"]
    base = f"{name}.{namespace}"
    return [base, f"{base}.svc", f"{base}.svc.{CLUSTER_DOMAIN}"]


def _is_address(text: str | None) -> bool:
    try:
        ipaddress.ip_address(text or "")
    except ValueError:
        return False
    return True


def entries(services: Iterable[Object], pods: Iterable[Object]) -> dict[str, str]:
    """Each full name (`<service>.<namespace>…`, `<host>.<subdomain>.<namespace>.svc.…`) and its address.

    A headless Service's own name is the address of one of its ready pods; an ExternalName is followed where it is an
    address or a name of these.
    """
    found: dict[str, str] = {}
    aliases: list[tuple[list[str], str]] = []
    headless: dict[tuple[str, str], Object] = {}
    for service in services:
        spec, meta = service["spec"], service["metadata"]
        if spec.get("type") == "ExternalName":
            aliases.append((_service_names(service), spec.get("externalName", "").rstrip(".")))
        elif _is_address(spec.get("clusterIP")):
            found |= dict.fromkeys(_service_names(service), spec["clusterIP"])
        elif spec.get("clusterIP") == "None":
            headless[meta["namespace"], meta["name"]] = service
    if headless:
        _headless(headless, list(pods), found)
    for _ in range(len(aliases)):  # an alias may name another alias
        for names, target in aliases:
            address = target if _is_address(target) else found.get(target)
            if address:
                found |= dict.fromkeys(names, address)
    return found


def _headless(headless: dict[tuple[str, str], Object], pods: list[Object], found: dict[str, str]) -> None:
    for pod in sorted(pods, key=lambda p: (podspec.namespace(p), podspec.name(p))):
        status = pod.get("status") or {}
        ip = status.get("podIP")
        if not ip or status.get("phase") in podspec.FINISHED:
            continue
        ready = any(c["type"] == "Ready" and c["status"] == "True" for c in status.get("conditions") or [])
        labels = pod["metadata"].get("labels") or {}
        for (namespace, name), service in headless.items():
            selector = service["spec"].get("selector") or {}
            if namespace != podspec.namespace(pod) or not selector or not selector.items() <= labels.items():
                continue
            if not (ready or service["spec"].get("publishNotReadyAddresses")):
                continue
            for own in _service_names(service):
                found.setdefault(own, ip)
                if pod["spec"].get("subdomain") == name:
                    found[f"{podspec.hostname(pod)}.{own}"] = ip


def render(pod: Object, pod_ip: str, names: dict[str, str]) -> str:
    """The whole file for a pod; Services of its own namespace have their short names too."""
    own = podspec.hostname(pod)
    full = podspec.full_hostname(pod, CLUSTER_DOMAIN)
    lines = [_HEAD, f"{pod_ip}\t{f'{full} ' if full else ''}{own}\n"]
    for alias in pod["spec"].get("hostAliases") or []:
        lines.append(f"{alias['ip']}\t{' '.join(alias.get('hostnames') or [])}\n")
    by_address: dict[str, list[str]] = {}
    suffix = f".{podspec.namespace(pod)}"
    for name, address in sorted(names.items()):
        known = by_address.setdefault(address, [])
        known.append(name)
        if name.endswith(suffix) and name != full:
            known.append(name.removesuffix(suffix))
    for address, all_names in sorted(by_address.items()):
        lines.append(f"{address}\t{' '.join(all_names)}\n")
    return "".join(lines)


def rewrite(path: Path, text: str) -> bool:
    """Write the file in place if it differs; True where it did.

    Readers may see a cut file for an instant: the new text is written first and the rest cut off after it, so a file
    that only grows, the usual case, is never shorter than before.
    """
    data = text.encode()
    try:
        if path.read_bytes() == data:
            return False
        with path.open("r+b") as file:
            file.write(data)
            file.truncate()
    except FileNotFoundError:
        path.write_bytes(data)
        path.chmod(0o644)
    return True
