"""Somebody else's listeners on all addresses, which take ports from every pod and Service of the embedded cloud.

Its pods and Services have loopback addresses of their own but ports in common, on the machine's one network. Who
listens on 0.0.0.0:8080 is in the way of every gateway and model server: found here before anything is started, since
it would otherwise show as a pod that crashes and a Service that refuses.
"""

from __future__ import annotations

import errno
import os
import socket

import psutil

from infra.local import processes
from infra.local.layout import SiteLayout
from infra.local.node import bind_watch
from infra.local.runtime.runtime import SHIM
from switchboard.errors import SwitchboardError

SHARED = (5000, 8080, 9090, 9093, 9902)
"""Ports that pods and Services of Switchboard's own components listen on, each at many addresses: MLflow, gateways and
model servers, Prometheus, Alertmanager, the gateways' statistics. (443, of the Service `kubernetes`, isn't among them:
pods speak to the API server itself.)"""


def check(layout: SiteLayout, ports: tuple[int, ...] = SHARED) -> None:
    """See that no program has one of the ports at all addresses. A pod of this checkout doesn't count: it has a
    Warning Event of its own, and `up` must be able to replace it.

    Raises:
        SwitchboardError: names each such port, who holds it and what to do.
    """
    busy = sorted(set(bind_watch.read_listeners().values()) & set(ports))
    found = []
    for port in busy:
        if not _in_the_way(str(layout.proxy_ip), port):
            continue
        pid, who = processes.holder(str(layout.proxy_ip), port)
        if pid is None or not _is_in_a_pod(pid):
            found.append((port, pid, who))
    if found:
        pids = " ".join(str(pid) for pid in dict.fromkeys(pid for _, pid, _ in found) if pid)
        raise SwitchboardError(
            "; ".join(f"port {port} of all addresses is in use by {who}" for port, _, who in found),
            f"stop it{f' (kill {pids})' if pids else ''}, or have it listen on one address, say 127.0.0.1: pods and"
            " Services of the embedded cloud need these ports at addresses of their own",
        )


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
