"""Which API resource a Pulumi type token stands for.

The built-in kinds are a table, so that a stack of built-in objects is checked and compared without asking any API
server; custom kinds are looked up by `infra.plugin.discovery`.
"""

from __future__ import annotations

from dataclasses import dataclass

from switchboard.kube import Kind

_NAMESPACED = {
    "v1": "ConfigMap Endpoints Event LimitRange PersistentVolumeClaim Pod PodTemplate ReplicationController "
    "ResourceQuota Secret Service ServiceAccount",
    "apps/v1": "ControllerRevision DaemonSet Deployment ReplicaSet StatefulSet",
    "autoscaling/v1": "HorizontalPodAutoscaler",
    "autoscaling/v2": "HorizontalPodAutoscaler",
    "batch/v1": "CronJob Job",
    "coordination.k8s.io/v1": "Lease",
    "discovery.k8s.io/v1": "EndpointSlice",
    "events.k8s.io/v1": "Event",
    "networking.k8s.io/v1": "Ingress NetworkPolicy",
    "policy/v1": "PodDisruptionBudget",
    "rbac.authorization.k8s.io/v1": "Role RoleBinding",
    "storage.k8s.io/v1": "CSIStorageCapacity",
}
_CLUSTER_WIDE = {
    "v1": "Namespace Node PersistentVolume",
    "admissionregistration.k8s.io/v1": "MutatingWebhookConfiguration ValidatingAdmissionPolicy "
    "ValidatingAdmissionPolicyBinding ValidatingWebhookConfiguration",
    "apiextensions.k8s.io/v1": "CustomResourceDefinition",
    "apiregistration.k8s.io/v1": "APIService",
    "certificates.k8s.io/v1": "CertificateSigningRequest",
    "flowcontrol.apiserver.k8s.io/v1": "FlowSchema PriorityLevelConfiguration",
    "networking.k8s.io/v1": "IngressClass",
    "node.k8s.io/v1": "RuntimeClass",
    "rbac.authorization.k8s.io/v1": "ClusterRole ClusterRoleBinding",
    "scheduling.k8s.io/v1": "PriorityClass",
    "storage.k8s.io/v1": "CSIDriver CSINode StorageClass VolumeAttachment",
}


def _plural(kind: str) -> str:
    name = kind.lower()
    if name == "endpoints":
        return name
    if name.endswith("s"):
        return name + "es"
    return name[:-1] + "ies" if name.endswith("y") else name + "s"


BUILT_IN: dict[tuple[str, str], Kind] = {
    (version, kind): Kind(version, _plural(kind), kind, namespaced)
    for table, namespaced in ((_NAMESPACED, True), (_CLUSTER_WIDE, False))
    for version, kinds in table.items()
    for kind in kinds.split()
}
"""Built-in kinds by API version and kind."""

CRD = BUILT_IN["apiextensions.k8s.io/v1", "CustomResourceDefinition"]


class Unsupported(ValueError):
    """A type that this plugin doesn't do; the message says what to use."""


@dataclass(frozen=True)
class TypeToken:
    """`kubernetes:apps/v1:Deployment`, taken apart. `patch` is set for the `…Patch` types."""

    api_version: str
    kind: str
    patch: bool = False


def parse_token(token: str, declared_kind: str | None = None) -> TypeToken:
    """The API version and kind in a type token; `declared_kind` is what the properties say, where they do.

    Raises:
        Unsupported: for lists, Helm releases, Kustomize directories and what is no Kubernetes type.
    """
    package, _, rest = token.partition(":")
    module, _, kind = rest.rpartition(":")
    if package != "kubernetes" or not module or not kind:
        raise Unsupported(f"{token} is not a type of the package kubernetes")
    if module.startswith(("helm.sh/", "kustomize/", "yaml/")):
        raise Unsupported(
            f"{token} needs the official Kubernetes plugin; this stand-in does single objects: render the chart or "
            "directory to YAML and declare its objects"
        )
    api_version = module.removeprefix("core/")
    if (api_version, kind) in BUILT_IN:
        return TypeToken(api_version, kind)
    if kind.endswith("List") and (api_version, kind.removesuffix("List")) in BUILT_IN:
        raise Unsupported(f"{token} is a list; declare its items as resources of their own")
    patched = kind.removesuffix("Patch")
    if patched != kind and (declared_kind == patched or (api_version, patched) in BUILT_IN):
        return TypeToken(api_version, patched, patch=True)
    return TypeToken(api_version, kind)


def type_of_urn(urn: str) -> str:
    """The type token of the resource itself (the last of the chain of parents' types) in `urn`."""
    return urn.split("::")[2].rpartition("$")[2]


def name_of_urn(urn: str) -> str:
    """The resource's logical name in `urn`."""
    return urn.split("::", 3)[3]
