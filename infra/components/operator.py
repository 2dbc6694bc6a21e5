"""The operator of a serving site: what makes Deployments of its ModelServers and keeps them sized to their traffic.

Two replicas, of which one leads by a Lease. Its rights are those of its namespace that it needs, each by name where
RBAC can do that; of what it makes it may delete the arms of releases alone, as the rest is the garbage collector's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pulumi
from pulumi_kubernetes.apps.v1 import (
    Deployment,
    DeploymentSpecArgs,
    DeploymentStrategyArgs,
    RollingUpdateDeploymentArgs,
)
from pulumi_kubernetes.core.v1 import ContainerArgs, ContainerPortArgs, PodTemplateSpecArgs, VolumeMountArgs
from pulumi_kubernetes.meta.v1 import LabelSelectorArgs
from pulumi_kubernetes.rbac.v1 import PolicyRuleArgs, Role, RoleBinding, RoleRefArgs, SubjectArgs

from infra.components import _data, _pod, prometheus
from infra.components.account import account
from infra.components.budget import disruption_budget
from infra.components.mlflow import CLIENT_ENVIRONMENT
from infra.components.site import SiteNamespace
from switchboard.labels import DOMAIN
from switchboard.registry_users import FOLDER, FOLDER_VARIABLE, SIGNING_SEED
from switchboard.releases import ReleasePolicy

NAME = "operator"
PORT = 8080
REPLICAS = 2
LEASE = "switchboard-operator"

_READ, _MAKE = ("get", "list", "watch"), ("get", "list", "watch", "create", "patch")
RIGHTS: tuple[dict[str, Sequence[str]], ...] = (
    # It makes and removes those that are the arms of a release.
    {"apiGroups": [DOMAIN], "resources": ["modelservers"], "verbs": [*_MAKE, "delete"]},
    {"apiGroups": [DOMAIN], "resources": ["modelreleases"], "verbs": [*_READ, "patch"]},
    {"apiGroups": [DOMAIN], "resources": ["modelservers/status", "modelreleases/status"], "verbs": ["patch"]},
    # Where the admission plugin OwnerReferencesPermissionEnforcement is on, this is what lets it own objects so that
    # their owner's deletion waits for them.
    {
        "apiGroups": [DOMAIN],
        "resources": ["modelservers/finalizers", "modelreleases/finalizers"],
        "verbs": ["update"],
    },
    {"apiGroups": ["apps"], "resources": ["deployments"], "verbs": _MAKE},
    {"apiGroups": ["policy"], "resources": ["poddisruptionbudgets"], "verbs": _MAKE},
    {"apiGroups": [""], "resources": ["persistentvolumeclaims"], "verbs": _MAKE},
    # Which replicas are to go is said by annotations on them.
    {"apiGroups": [""], "resources": ["pods"], "verbs": [*_READ, "patch"]},
    {"apiGroups": [""], "resources": ["events"], "verbs": ["create", "patch"]},
    {"apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "verbs": ["create"]},
    {
        "apiGroups": ["coordination.k8s.io"],
        "resources": ["leases"],
        "resourceNames": [LEASE],
        "verbs": ["get", "update", "patch"],
    },
)
"""Who applies a stack needs all of them: nobody may grant what they haven't themselves."""

_EXCEPTIONS = {"CKV_K8S_38": "it makes what runs of ModelServers by the token, in its namespace and no other"}
"""From checkov's checks, which are on the object for whoever looks at it there."""


@dataclass(frozen=True)
class OperatorArgs:
    """The image that it runs, MLflow's address, the Secret of the user that it is there, what is asked of releases."""

    image: str
    mlflow_url: pulumi.Input[str]
    user: pulumi.Input[str]
    releases: ReleasePolicy


class Operator(pulumi.ComponentResource):
    """The operator of a namespace; `definitions` are those of the custom resources that it looks after.

    Outputs: `deployment`, which ModelServers depend on: with it there is somebody to make something of them, and they
    are gone before it is.
    """

    deployment: Deployment

    def __init__(
        self, namespace: SiteNamespace, args: OperatorArgs, *, definitions: Sequence[pulumi.Resource] = ()
    ) -> None:
        unique = f"{namespace.site.name}-{NAME}"
        super().__init__("switchboard:infra:Operator", unique, None, pulumi.ResourceOptions(parent=namespace))
        match = _pod.names(NAME, NAME)
        identity, binding = self._identity(namespace, unique)
        self.deployment = Deployment(
            unique,
            metadata=_data.workload_meta(namespace, NAME, match, _data.INTERNAL, checkov=_EXCEPTIONS),
            spec=DeploymentSpecArgs(
                replicas=REPLICAS,
                selector=LabelSelectorArgs(match_labels=match),
                strategy=DeploymentStrategyArgs(
                    type="RollingUpdate",
                    rolling_update=RollingUpdateDeploymentArgs(max_surge=1, max_unavailable=0),
                ),
                template=PodTemplateSpecArgs(
                    metadata=_data.pod_meta(namespace, match, _data.INTERNAL, annotations=_pod.scraped(PORT)),
                    spec=_pod.pod(
                        identity,
                        [_container(args, f"http://prometheus.{namespace.name}:{prometheus.PORT}")],
                        # Replicas are looked after by a site that can't read it, too.
                        volumes=[
                            _pod.scratch("tmp", "64Mi"),
                            _pod.secret_volume("mlflow-user", args.user, optional=True),
                        ],
                        token=True,
                        topology_spread_constraints=_pod.spread(match, bound=False),
                    ),
                ),
            ),
            opts=namespace.child(self, depends_on=[binding, *definitions]),
        )
        disruption_budget(namespace, NAME, match, REPLICAS, parent=self)
        self.register_outputs({"deployment": self.deployment.metadata["name"]})

    def _identity(self, namespace: SiteNamespace, unique: str) -> tuple[pulumi.Output[str], RoleBinding]:
        """A service account with RIGHTS."""
        match = _pod.names(NAME, NAME)
        name = account(namespace, NAME, NAME, parent=self)
        role = Role(
            unique,
            metadata=namespace.meta(NAME, match),
            rules=[
                PolicyRuleArgs(
                    api_groups=rule["apiGroups"],
                    resources=rule["resources"],
                    resource_names=rule.get("resourceNames"),
                    verbs=list(rule["verbs"]),
                )
                for rule in RIGHTS
            ],
            opts=namespace.child(self),
        )
        binding = RoleBinding(
            unique,
            metadata=namespace.meta(NAME, match),
            role_ref=RoleRefArgs(
                api_group="rbac.authorization.k8s.io", kind="Role", name=role.metadata["name"]
            ),
            subjects=[SubjectArgs(kind="ServiceAccount", name=name, namespace=namespace.name)],
            opts=namespace.child(self),
        )
        return name, binding


def _container(args: OperatorArgs, prometheus_url: str) -> ContainerArgs:
    policy = args.releases.model_dump_json(by_alias=True, exclude_defaults=True)
    return _pod.container(
        NAME,
        args.image,
        command=["python", "-m", "operators"],
        env={
            "HOME": "/tmp",
            "PROMETHEUS_URL": prometheus_url,
            "MLFLOW_TRACKING_URI": args.mlflow_url,
            FOLDER_VARIABLE: FOLDER,
            "SIGNING_KEY": f"{FOLDER}/{SIGNING_SEED}",
            "RELEASE_POLICY": policy,
            **CLIENT_ENVIRONMENT,
        },
        ports=[ContainerPortArgs(name="http", container_port=PORT)],
        startup_probe=_pod.probe("/readyz", "http", period_s=1, failures=120),
        readiness_probe=_pod.probe("/readyz", "http", period_s=2, failures=2),
        liveness_probe=_pod.probe("/livez", "http", period_s=10, failures=6, timeout_s=5),
        resources=_pod.resources("100m", "256Mi", "768Mi", scratch="64Mi"),
        mounts=[
            VolumeMountArgs(name="tmp", mount_path="/tmp"),
            VolumeMountArgs(name="mlflow-user", mount_path=FOLDER, read_only=True),
        ],
    )
