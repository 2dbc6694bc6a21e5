"""A site's namespace: its labels on everything, and the addresses of what is reached from outside."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pulumi
import pytest

from infra import config
from infra.components.site import HOSTNAME, SiteNamespace, access
from infra.config import Cluster, Site
from switchboard import labels
from tests.infra.components.building import ADDRESS, Built, build
from tests.infra.components.rendered import declared, stack_of


def balanced(domain: str | None) -> Built:
    def make(namespace: SiteNamespace, stack: config.Stack) -> dict[str, pulumi.Output[Any]]:
        namespace.domain = domain
        match = {"app": "x"}
        _, address = namespace.load_balancer(
            namespace, "mlflow", selector=match, port=5000, target="http", endpoint="mlflow"
        )
        return {"address": address}

    return build("private", make)


def test_without_a_domain_the_address_is_the_load_balancers() -> None:
    built = balanced(None)
    assert built.outputs == {"address": f"{ADDRESS}:5000"}
    assert HOSTNAME not in built.objects["Service", "mlflow"]["metadata"]["annotations"]


def test_with_a_domain_the_address_is_a_name_that_external_dns_keeps() -> None:
    built = balanced("bank.example")
    assert built.outputs == {"address": "mlflow.private.bank.example:5000"}
    annotations = built.objects["Service", "mlflow"]["metadata"]["annotations"]
    assert annotations[HOSTNAME] == "mlflow.private.bank.example"
    assert "jsonpath" in annotations["pulumi.com/waitFor"], "up still waits for the load balancer"


@pytest.mark.parametrize("stack", ["local", "staging", "production"])
def test_every_object_says_whose_it_is(stack: str) -> None:
    roles = {site.name: site.role for site in stack_of(stack).sites}
    for one in declared(stack):
        have = one.revealed()["metadata"]["labels"]
        assert (have[labels.SITE], have[labels.SITE_ROLE]) == (one.site, roles[one.site]), one.name
        if one.kind == "Namespace":
            assert have[labels.REGION] == stack_of(stack).site(one.site).region


@pytest.mark.parametrize(
    ("cluster", "found"),
    [
        (Cluster(context="bank"), (None, "bank")),
        (Cluster(context="bank", kubeconfig=Path("/etc/kube")), ("/etc/kube", "bank")),
        (Cluster(context="bank", kubeconfig=Path("~/kube")), (str(Path.home() / "kube"), "bank")),
    ],
)
def test_how_an_existing_cluster_is_reached(cluster: Cluster, found: tuple[str | None, str]) -> None:
    site = Site(name="private", role="private", region="r", cluster=cluster)
    assert access(site, Path("/state")) == found


def test_an_embedded_site_is_reached_by_its_own_kubeconfig() -> None:
    kubeconfig, context = access(stack_of("local").private, Path("/state"))
    assert (kubeconfig, context) == ("/state/sites/private/kubeconfig", "private")
