"""What every embedded site has from its first minute: role bindings of its own parts and the default StorageClass.

Applied (server-side) at every start, so that a change here reaches existing sites. Least privilege: a rule is here
only because the Node authorizer and Kubernetes' own roles don't grant what the comment says is needed.
"""

from __future__ import annotations

from infra.local.pki import ADMIN_GROUP
from switchboard.kube import STORAGE_CLASSES, Kind, Kube, Object
from switchboard.labels import DOMAIN

FIELD_MANAGER = "switchboard-bootstrap"
STORAGE_CLASS = "local"
PROVISIONER = f"{DOMAIN}/local"

RBAC = "rbac.authorization.k8s.io"
CLUSTER_ROLES = Kind(f"{RBAC}/v1", "clusterroles", "ClusterRole", namespaced=False)
CLUSTER_ROLE_BINDINGS = Kind(f"{RBAC}/v1", "clusterrolebindings", "ClusterRoleBinding", namespaced=False)

_READ = ["get", "list", "watch"]


def objects() -> list[tuple[Kind, Object]]:
    """In an order in which they can be created."""
    return [
        (
            CLUSTER_ROLE_BINDINGS,
            _binding("switchboard:administrators", "cluster-admin", "Group", ADMIN_GROUP),
        ),
        (CLUSTER_ROLES, _role("switchboard:nodes", NODE_RULES)),
        (CLUSTER_ROLE_BINDINGS, _binding("switchboard:nodes", "switchboard:nodes", "Group", "system:nodes")),
        (CLUSTER_ROLES, _role("switchboard:service-proxy", PROXY_RULES)),
        (
            CLUSTER_ROLE_BINDINGS,
            _binding("switchboard:service-proxy", "switchboard:service-proxy", "User", "system:kube-proxy"),
        ),
        (STORAGE_CLASSES, _storage_class()),
    ]


NODE_RULES: list[Object] = [
    # Each node provisions the volumes of the claims that the scheduler gave it, and deletes those it provisioned;
    # shared ones any node.
    {"apiGroups": [""], "resources": ["persistentvolumes"], "verbs": [*_READ, "create", "patch", "delete"]},
    {"apiGroups": [""], "resources": ["persistentvolumeclaims"], "verbs": _READ},
    {"apiGroups": ["storage.k8s.io"], "resources": ["storageclasses"], "verbs": _READ},
    # Names in the pods' /etc/hosts: of Services, and of the pods of headless Services on any node.
    {"apiGroups": [""], "resources": ["services", "pods"], "verbs": _READ},
    {"apiGroups": [""], "resources": ["events"], "verbs": ["create", "patch", "update"]},
]

PROXY_RULES: list[Object] = [
    # Services are resolved from their selectors and the ready pods, since there are no EndpointSlices.
    {"apiGroups": [""], "resources": ["services", "pods", "nodes"], "verbs": _READ},
    # It is the load-balancer controller, too.
    {"apiGroups": [""], "resources": ["services/status"], "verbs": ["get", "patch", "update"]},
    {"apiGroups": [""], "resources": ["events"], "verbs": ["create", "patch", "update"]},
]


async def apply(kube: Kube) -> None:
    """Bring the site's objects to what they are here; `kube` must speak for `system:masters`."""
    for kind, body in objects():
        await kube.apply(kind, body, field_manager=FIELD_MANAGER)


def _role(name: str, rules: list[Object]) -> Object:
    return {"metadata": {"name": name}, "rules": rules}


def _binding(name: str, role: str, subject_kind: str, subject: str) -> Object:
    return {
        "metadata": {"name": name},
        "roleRef": {"apiGroup": RBAC, "kind": "ClusterRole", "name": role},
        "subjects": [{"apiGroup": RBAC, "kind": subject_kind, "name": subject}],
    }


def _storage_class() -> Object:
    return {
        "metadata": {
            "name": STORAGE_CLASS,
            "annotations": {"storageclass.kubernetes.io/is-default-class": "true"},
        },
        "provisioner": PROVISIONER,
        "volumeBindingMode": "WaitForFirstConsumer",
        "reclaimPolicy": "Delete",
        "allowVolumeExpansion": False,
    }
