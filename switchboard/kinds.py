"""Kubernetes resource types by name, with their URL paths: those that Switchboard's own parts speak of."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Kind:
    """A resource type: `Kind("apps/v1", "deployments", "Deployment")`."""

    api_version: str
    plural: str
    kind: str
    namespaced: bool = True

    def path(
        self, namespace: str | None = None, name: str | None = None, subresource: str | None = None
    ) -> str:
        """The URL path; without a namespace that of all namespaces (for lists of namespaced kinds)."""
        root = "/api/" if "/" not in self.api_version else "/apis/"
        parts = [root + self.api_version]
        if self.namespaced and namespace is not None:
            parts += ["namespaces", namespace]
        parts.append(self.plural)
        if name is not None:
            parts.append(name)
        if subresource is not None:
            parts.append(subresource)
        return "/".join(parts)


CONFIG_MAPS = Kind("v1", "configmaps", "ConfigMap")
EVENTS = Kind("v1", "events", "Event")
NAMESPACES = Kind("v1", "namespaces", "Namespace", namespaced=False)
NODES = Kind("v1", "nodes", "Node", namespaced=False)
PERSISTENT_VOLUMES = Kind("v1", "persistentvolumes", "PersistentVolume", namespaced=False)
PERSISTENT_VOLUME_CLAIMS = Kind("v1", "persistentvolumeclaims", "PersistentVolumeClaim")
PODS = Kind("v1", "pods", "Pod")
SECRETS = Kind("v1", "secrets", "Secret")
SERVICES = Kind("v1", "services", "Service")
SERVICE_ACCOUNTS = Kind("v1", "serviceaccounts", "ServiceAccount")
DEPLOYMENTS = Kind("apps/v1", "deployments", "Deployment")
DAEMON_SETS = Kind("apps/v1", "daemonsets", "DaemonSet")
REPLICA_SETS = Kind("apps/v1", "replicasets", "ReplicaSet")
STATEFUL_SETS = Kind("apps/v1", "statefulsets", "StatefulSet")
JOBS = Kind("batch/v1", "jobs", "Job")
LEASES = Kind("coordination.k8s.io/v1", "leases", "Lease")
CSI_NODES = Kind("storage.k8s.io/v1", "csinodes", "CSINode", namespaced=False)
STORAGE_CLASSES = Kind("storage.k8s.io/v1", "storageclasses", "StorageClass", namespaced=False)
POD_DISRUPTION_BUDGETS = Kind("policy/v1", "poddisruptionbudgets", "PodDisruptionBudget")
CUSTOM_RESOURCE_DEFINITIONS = Kind(
    "apiextensions.k8s.io/v1", "customresourcedefinitions", "CustomResourceDefinition", namespaced=False
)
MODEL_SERVERS = Kind("switchboard.dev/v1alpha1", "modelservers", "ModelServer")
MODEL_RELEASES = Kind("switchboard.dev/v1alpha1", "modelreleases", "ModelRelease")
"""These two here and not beside their schemas, for those that read them without pydantic (15 MB)."""
