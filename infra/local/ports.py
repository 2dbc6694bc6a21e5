"""Somebody else's listeners on all addresses, which take ports from every pod and Service of the embedded cloud.

Its pods and Services have loopback addresses of their own but ports in common, on the machine's one network. Who
listens on 0.0.0.0:8080 is in the way of every gateway and model server: found here before anything is started, since
it would otherwise show as a pod that crashes and a Service that refuses.
"""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Sequence
from dataclasses import dataclass

import psutil

from infra.local import controlplane, processes
from infra.local.layout import API_PORT, KUBELET_PORT, SiteLayout
from infra.local.node import bind_watch
from infra.local.runtime.runtime import SHIM
from switchboard.errors import SwitchboardError

SHARED = (5000, 8080, 9090, 9093, 9902)
"""Ports that pods and Services of Switchboard's own components listen on, each at many addresses: MLflow, gateways and
model servers, Prometheus, Alertmanager, the gateways' statistics. (443, of the Service `kubernetes`, isn't among them:
pods speak to the API server itself.)"""


@dataclass(frozen=True)
class Taken:
    """Somebody else's listener where the cloud needs to listen: where and who in `words`; its pid where known."""

    words: str
    pid: int | None


_CONTROL_PLANE = (
    (controlplane.ETCD, controlplane.ETCD_PORT),
    (controlplane.ETCD, controlplane.ETCD_PEER_PORT),
    (controlplane.API_SERVER, API_PORT),
    (controlplane.CONTROLLER_MANAGER, controlplane.CONTROLLER_MANAGER_PORT),
    (controlplane.SCHEDULER, controlplane.SCHEDULER_PORT),
)


def mend(taken: Sequence[Taken]) -> str:
    """What to do about them."""
    pids = " ".join(str(pid) for pid in dict.fromkeys(each.pid for each in taken) if pid)
    return (
        f"stop it{f' (kill {pids})' if pids else ''}, or have it listen on one address, say 127.0.0.1: pods and"
        " Services of the embedded cloud need these ports at addresses of their own"
    )


def check(layout: SiteLayout, ports: tuple[int, ...] = SHARED) -> None:
    """See that no program has one of the ports at all addresses. A pod of this checkout doesn't count: it has a
    Warning Event of its own, and `up` must be able to replace it.

    Raises:
        SwitchboardError: names each such port, who holds it and what to do.
    """
    if found := shared(layout, ports):
        raise SwitchboardError("; ".join(each.words for each in found), mend(found))


def shared(layout: SiteLayout, ports: tuple[int, ...] = SHARED) -> list[Taken]:
    """Programs that have one of the ports at all addresses, but for this checkout's pods."""
    busy = sorted(set(bind_watch.read_listeners().values()) & set(ports))
    found = []
    for port in busy:
        if not _in_the_way(str(layout.proxy_ip), port):
            continue
        pid, who = processes.holder(str(layout.proxy_ip), port)
        if pid is None or not _is_in_a_pod(pid):
            found.append(Taken(f"port {port} of all addresses is in use by {who}", pid))
    return found


def own(layout: SiteLayout) -> list[Taken]:
    """Somebody else's listeners at the addresses of the site's control plane and node agents."""
    control_plane = str(layout.control_plane_ip)
    wanted = {
        **{(control_plane, port): name for name, port in _CONTROL_PLANE},
        **{(str(node.ip), KUBELET_PORT): f"node-{node.name}" for node in layout.nodes},
    }
    found = []
    for (host, port), name in wanted.items():
        record = processes.read(layout.run / f"{name}.json")
        if (record is not None and processes.alive(record)) or not _in_the_way(host, port):
            continue
        pid, who = processes.holder(host, port)
        found.append(Taken(f"{host}:{port}, where {name} is to listen, is in use by {who}", pid))
    return found


def _in_the_way(host: str, port: int) -> bool:
    """Whether the kernel refuses the address: a listener on [::] for IPv6 alone is in nobody's way."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # one in TIME_WAIT is free
        try:
            probe.bind((host, port))
        except OSError as error:
            return error.errno == errno.EADDRINUSE
    return False


def _is_in_a_pod(pid: int) -> bool:
    """Whether one of this checkout's container shims is above the process."""
    try:
        above = psutil.Process(pid).parents()
        return any(os.fspath(SHIM) in parent.cmdline() for parent in above)
    except psutil.Error:
        return False
