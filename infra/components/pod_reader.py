"""An identity that may read the pods of its namespace, at most ModelServers and their releases: for who finds pods by
their labels."""

from __future__ import annotations

import pulumi
from pulumi_kubernetes.rbac.v1 import PolicyRuleArgs, Role, RoleBinding, RoleRefArgs, SubjectArgs

from infra.components import _pod
from infra.components.account import account
from infra.components.site import SiteNamespace
from switchboard import labels
from switchboard.kinds import MODEL_RELEASES, MODEL_SERVERS

_READ = ["get", "list", "watch"]


class PodReader(pulumi.ComponentResource):
    """A service account `name` with its role; one that reads `model_servers` too sees which of them may have no pod,
    and which part of their requests a release gives to its candidate.

    Outputs: `account` (its name); a pod that uses it depends on `binding`, and asks for its token.
    """

    def __init__(
        self, namespace: SiteNamespace, name: str, component: str, *, model_servers: bool = False
    ) -> None:
        unique = f"{namespace.site.name}-{name}"
        super().__init__(
            "switchboard:infra:PodReader", unique, None, pulumi.ResourceOptions(parent=namespace)
        )
        match = _pod.names(name, component)
        self.account = account(namespace, name, component, parent=self)
        rules = [PolicyRuleArgs(api_groups=[""], resources=["pods"], verbs=_READ)]
        if model_servers:
            kinds = [kind.plural for kind in (MODEL_SERVERS, MODEL_RELEASES)]
            rules.append(PolicyRuleArgs(api_groups=[labels.DOMAIN], resources=kinds, verbs=_READ))
        role = Role(
            unique,
            metadata=namespace.meta(name, match),
            rules=rules,
            opts=namespace.child(self),
        )
        self.binding = RoleBinding(
            unique,
            metadata=namespace.meta(name, match),
            role_ref=RoleRefArgs(api_group="rbac.authorization.k8s.io", kind="Role", name=role.metadata.name),
            subjects=[SubjectArgs(kind="ServiceAccount", name=self.account, namespace=namespace.name)],
            opts=namespace.child(self),
        )
        self.register_outputs({"account": self.account})
