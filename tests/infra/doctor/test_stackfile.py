"""A stack file's checks, on the committed stacks and on what may be wrong with them."""

from __future__ import annotations

from typing import Any

import pytest

from infra import config
from infra.config import Cluster
from infra.doctor import stackfile
from infra.doctor.report import Finding, Verdict
from switchboard.errors import SwitchboardError

DIGEST = "registry.bank.example/x@sha256:" + 64 * "0"
ID = "11111111-1111-4111-8111-111111111111"


def _by_check(stack: config.Stack | SwitchboardError) -> dict[str, Finding]:
    return {each.check.removeprefix("stack/"): each for each in stackfile.judge("x", stack)}


def _clusters(**changes: Any) -> config.Stack:
    """The local stack's twin on existing clusters, all as it should be but for the changes."""
    local = config.load("local")
    cluster = Cluster(context="bank", id=ID)
    sites = tuple(site.model_copy(update={"embedded": None, "cluster": cluster}) for site in local.sites)
    images = local.images.model_copy(
        update=dict.fromkeys(("switchboard", "envoy", "prometheus", "alertmanager"), DIGEST)
    )
    return local.model_copy(update={"sites": sites, "images": images, **changes})


def test_the_local_stack_is_well() -> None:
    found = _by_check(config.load("local"))
    assert {each.status for each in found.values()} == {Verdict.OK, Verdict.SKIPPED}
    assert found["file"].status is Verdict.OK


def test_a_stack_of_clusters_is_well() -> None:
    found = _by_check(_clusters())
    assert {name: each.status for name, each in found.items() if name != "secrets"} == dict.fromkeys(
        ["file", "images", "cluster ids"], Verdict.OK
    )


def test_a_stack_file_that_is_wrong_is_one_finding() -> None:
    found = _by_check(SwitchboardError("Pulumi.x.yaml: unknown key\nswitchboard:nodes", "correct it"))
    assert set(found) == {"file"}
    assert found["file"].status is Verdict.FAILED
    assert found["file"].what == "Pulumi.x.yaml: unknown key switchboard:nodes"
    assert found["file"].mend == "correct it"


def test_images_without_a_digest() -> None:
    images = _clusters().images.model_copy(
        update={"envoy": "envoyproxy/envoy:v1", "overrides": {"chat": "x:1"}}
    )
    found = _by_check(_clusters(images=images))["images"]
    assert found.status is Verdict.FAILED
    assert "envoy (envoyproxy/envoy:v1), overrides.chat (x:1)" in found.what


def test_a_cluster_that_is_not_known_by_its_id() -> None:
    sites = (
        tuple(site.model_copy(update={"cluster": Cluster(context="bank")}) for site in _clusters().sites[:1])
        + _clusters().sites[1:]
    )
    found = _by_check(_clusters(sites=sites))["cluster ids"]
    assert found.status is Verdict.WARNING
    assert "without `id`: private; " in found.what
    assert found.mend and "-- preview` names the command" in found.mend


@pytest.mark.parametrize(("set_", "status"), [((), "failed"), (tuple(config.SECRETS), "ok")])
def test_secrets(monkeypatch: pytest.MonkeyPatch, set_: tuple[str, ...], status: str) -> None:
    monkeypatch.setattr(config.Stack, "secrets_needed", property(lambda _: tuple(config.SECRETS)))
    found = _by_check(_clusters(secrets_set=frozenset(set_)))["secrets"]
    assert found.status == status
    if status == "failed":
        assert found.mend and found.mend.count("pulumi config set --secret") == len(config.SECRETS)
