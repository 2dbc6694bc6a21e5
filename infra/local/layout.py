"""The plan of an embedded site: which address and which path each of its parts has.

All of it follows from the site's two loopback ranges and its place below the state folder, so every part computes
it alone and agrees. Of `network` (say 127.21.0.0/16):

    127.21.0.1         control plane: API server :6443, etcd :2379/:2380, controller manager :10257, scheduler :10259
    127.21.0.2         the Service proxy's own port
    127.21.0.(10+i)    node i (from 1): its agent's kubelet API :10250
    127.21.i.0/24      the pods of node i

and of `services` (127.96.0.0/16): 127.96.0.1:443 is the Service `kubernetes`.
"""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

from infra.config import Embedded, Node, Site

API_PORT = 6443
KUBELET_PORT = 10250
CLUSTER_DOMAIN = "cluster.local"


@dataclass(frozen=True)
class NodeLayout:
    """One node's name, addresses and folder."""

    node: Node
    index: int
    site: str
    region: str
    ip: IPv4Address
    pod_cidr: IPv4Network
    directory: Path

    @property
    def name(self) -> str:
        return self.node.name

    @property
    def kubeconfig(self) -> Path:
        """The node agent's own credential (user `system:node:<name>`, group `system:nodes`)."""
        return self.directory / "kubeconfig"

    @property
    def serving_cert(self) -> Path:
        """The agent's kubelet API certificate, signed by the site's CA; its key is beside it."""
        return self.directory / "kubelet.crt"

    @property
    def serving_key(self) -> Path:
        return self.directory / "kubelet.key"

    @property
    def log(self) -> Path:
        return self.directory / "agent.log"

    @property
    def pods_dir(self) -> Path:
        """Volumes, logs and checkpoints of the node's pods."""
        return self.directory / "pods"

    @property
    def volumes_dir(self) -> Path:
        """Persistent volumes that the node's agent provisioned; they outlive pods, agents and restarts."""
        return self.directory / "volumes"


@dataclass(frozen=True)
class SiteLayout:
    """One embedded site's addresses and paths; `state` is the stack's state folder."""

    site: Site
    state: Path

    @property
    def embedded(self) -> Embedded:
        if self.site.embedded is None:
            raise ValueError(f"site {self.site.name} is not embedded")
        return self.site.embedded

    @property
    def name(self) -> str:
        return self.site.name

    @property
    def directory(self) -> Path:
        return self.state / "sites" / self.site.name

    @property
    def control_plane_ip(self) -> IPv4Address:
        return self.embedded.network.network_address + 1

    @property
    def proxy_ip(self) -> IPv4Address:
        return self.embedded.network.network_address + 2

    @property
    def api_server(self) -> str:
        return f"https://{self.control_plane_ip}:{API_PORT}"

    @property
    def kubernetes_service_ip(self) -> IPv4Address:
        """The ClusterIP of the Service `kubernetes` in `default`."""
        return self.embedded.services.network_address + 1

    @property
    def pki(self) -> Path:
        """Keys and certificates (0700)."""
        return self.directory / "pki"

    @property
    def ca_cert(self) -> Path:
        return self.pki / "ca.crt"

    @property
    def kubeconfig(self) -> Path:
        """The administrator's kubeconfig, with one context named as the site."""
        return self.directory / "kubeconfig"

    @property
    def proxy_dir(self) -> Path:
        return self.directory / "proxy"

    @property
    def proxy_kubeconfig(self) -> Path:
        """The Service proxy's own credential (user `system:kube-proxy`)."""
        return self.proxy_dir / "kubeconfig"

    @property
    def logs(self) -> Path:
        return self.directory / "logs"

    @property
    def run(self) -> Path:
        """Process records (see `infra.local.processes`)."""
        return self.directory / "run"

    @property
    def volumes_dir(self) -> Path:
        """Persistent volumes that pods of all nodes may have at once: what a file server would keep."""
        return self.directory / "volumes"

    @property
    def nodes(self) -> tuple[NodeLayout, ...]:
        base = self.embedded.network.network_address
        return tuple(
            NodeLayout(
                node=node,
                index=index,
                site=self.site.name,
                region=node.region or self.site.region,
                ip=base + 10 + index,
                pod_cidr=IPv4Network((base + 256 * index, 24)),
                directory=self.directory / "nodes" / node.name,
            )
            for index, node in enumerate(self.embedded.nodes, start=1)
        )

    def node(self, name: str) -> NodeLayout:
        return next(node for node in self.nodes if node.name == name)
