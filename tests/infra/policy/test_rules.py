"""Each rule: what it refuses and what it lets pass, as tables of cases."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra.policy.manifest import UNKNOWN
from infra.policy.rules import RECOVERY_EXCEPTION as RECOVERY
from infra.policy.rules import RULES, sites_of, violations
from infra.policy.servers import SPARE_EXCEPTION
from infra.policy.subject import Site, Subject
from switchboard import labels
from tests.infra.policy.manifests import (
    DIGEST,
    MISSING,
    SITES,
    both,
    broken,
    claims,
    deployment,
    edge_server,
    held,
    server,
    simple,
    spread,
)

RULE = [{"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]}]
CUSTOMER = {labels.DATA_CLASS: "customer"}


def stateful(replicas: int, over: str = labels.HOSTNAME, **annotations: Any) -> dict[str, Any]:
    """A StatefulSet of so many replicas, spread over what that label tells apart."""
    found = spread(deployment(m__annotations=annotations), replicas, topologyKey=over)
    return found | {"kind": "StatefulSet"}


PASSES = {
    "a StatefulSet whose replicas are apart": (stateful(2), "public"),
    "one that says why it may wait": (stateful(1, **{RECOVERY: "reports may wait for a person"}), "public"),
    "one that will say so": (stateful(1, **{RECOVERY: UNKNOWN}), "public"),
    "a careful workload": (deployment(), "public"),
    "a model server": (server(), "public"),
    "one of an edge, alone on its node": (edge_server(), "public"),
    "one that is slow to start, and has another": (server(capacity={"startSeconds": 420}), "public"),
    "one that says why it may be away": (
        server(
            scaling__minReplicas=0,
            capacity={"startSeconds": 30},
            m__annotations={SPARE_EXCEPTION: "nobody asks it at night"},
        ),
        "public",
    ),
    "a model server that will say so": (
        server(
            scaling__minReplicas=1, capacity={"startSeconds": 30}, m__annotations={SPARE_EXCEPTION: UNKNOWN}
        ),
        "public",
    ),
    "a number that a person keeps": (
        server(replicas=2, scaling={"minReplicas": 0, "maxReplicas": 4, "mode": "paused"}),
        "public",
    ),
    "a registry that isn't known yet": (server(model__registry=UNKNOWN), "public"),
    "a model server's image that isn't known yet": (server(image=UNKNOWN), "public"),
    "a model server's label that isn't known yet": (
        server(m__labels={labels.DATA_CLASS: UNKNOWN, labels.REGION: "cn-shenzhen"}),
        "public",
    ),
    "restricted data in a private site": (both("restricted", "cn-shanghai", region="cn-shanghai"), "private"),
    "customers' data in its region": (both("customer", "cn-shenzhen, cn-beijing"), "public"),
    "an edge in a region of its own": (
        held(both("customer", "cn-beijing", region="cn-beijing"), "cn-beijing"),
        "public",
    ),
    "an edge by its nodeSelector": (
        deployment(
            t__labels={labels.DATA_CLASS: "customer", labels.REGION: "cn-beijing"},
            t__annotations={labels.DATA_REGIONS: "cn-beijing"},
            pod__nodeSelector={labels.REGION: "cn-beijing"},
        ),
        "public",
    ),
    "regions that aren't known yet": (held(both("customer", "cn-beijing"), UNKNOWN), "public"),
    "a claim in its region": (claims("cn-shenzhen"), "public"),
    "a claim of its workload's class": (claims(data=None), "public"),
    "a limit as a number": (deployment(c__resources={"limits": {"cpu": 0.5, "memory": 2**30}}), "public"),
    "an aggregationRule that isn't known yet": (simple("ClusterRole", aggregationRule=UNKNOWN), "public"),
    "a class that isn't known yet": (both(UNKNOWN), "public"),
    "a kind that holds no data": (simple("Service"), "public"),
    "a ConfigMap of configuration": (simple("ConfigMap", labels={labels.DATA_CLASS: "internal"}), "public"),
    "a namespace in its site's region": (
        simple("Namespace", labels={labels.REGION: "cn-shenzhen"}),
        "public",
    ),
    "runAsNonRoot of the container alone": (
        deployment(pod__securityContext={}, c__securityContext__runAsNonRoot=True),
        "public",
    ),
    "user that isn't known yet": (deployment(pod__securityContext=UNKNOWN), "public"),
    "container security that isn't known yet": (deployment(c__securityContext=UNKNOWN), "public"),
    "limits of the whole pod": (
        deployment(c__resources={}, pod__resources={"limits": {"cpu": "1", "memory": "1Gi"}}),
        "public",
    ),
    "limits that aren't known yet": (deployment(c__resources={"limits": UNKNOWN}), "public"),
    "an ephemeral container without limits": (
        deployment(
            pod__ephemeralContainers=[
                {"name": "d", "image": DIGEST, "securityContext": {"allowPrivilegeEscalation": False}}
            ]
        ),
        "public",
    ),
    "a tag in the embedded cloud": (deployment(c__image="chat:1.0"), "embedded"),
    "an image that isn't known yet": (deployment(c__image=UNKNOWN), "public"),
    "a narrow role": (simple("Role", rules=RULE), "public"),
    "rules that aren't known yet": (simple("ClusterRole", rules=UNKNOWN), "public"),
    "a binding to a role of its own": (simple("RoleBinding", roleRef={"name": "gateway"}), "public"),
    "a spec that isn't known yet": (
        {
            **deployment(),
            "spec": UNKNOWN,
            "metadata": {"name": "x", "labels": {labels.DATA_CLASS: "internal"}},
        },
        "public",
    ),
}


@pytest.mark.parametrize("case", PASSES)
def test_what_passes(case: str) -> None:
    manifest, site = PASSES[case]
    if site == "private":
        assert manifest["kind"] != "ModelServer"
        for part in (manifest["metadata"], manifest["spec"]["template"]["metadata"]):
            part["labels"][labels.SITE_ROLE] = "private"
    assert broken(manifest, site) == {}


NO_LIMITS: tuple[Any, ...] = ("0m", "0Mi", "0.0", 0.0, "-1", "0e3", False, "much", {})
AGGREGATIONS: tuple[Any, ...] = ({}, {"clusterRoleSelectors": [{}]})

REFUSED: list[tuple[str, dict[str, Any], str | None, str]] = [
    (
        "private-data",
        both("restricted", "cn-shenzhen"),
        "public",
        "must stay in private sites, and its site is public",
    ),
    *(
        ("private-data", manifest, site, f"its provider {site or '(none)'} is no site of the stack file")
        for site in (None, "default_4_34_2")
        for manifest in (both("restricted", "cn-shenzhen"), simple("Service"), simple("CronTab"))
    ),
    (
        "private-data",
        deployment(
            t__labels={labels.DATA_CLASS: "restricted"}, t__annotations={labels.DATA_REGIONS: "cn-shenzhen"}
        ),
        "public",
        "its pod template holds restricted",
    ),
    (
        "private-data",
        deployment(m__labels=MISSING, t__labels=MISSING),
        "public",
        "doesn't say of which class",
    ),
    ("private-data", simple("Secret"), "private", "doesn't say of which class"),
    ("private-data", simple("PersistentVolumeClaim"), "private", "doesn't say of which class"),
    ("private-data", both("secret"), "public", "'secret', which isn't one"),
    (
        "private-data",
        simple("ConfigMap", labels={labels.DATA_CLASS: "internal", labels.SITE_ROLE: "private"}),
        "public",
        "says private, but the stack file makes the site public",
    ),
    (
        "private-data",
        {
            **simple("StatefulSet", labels={labels.DATA_CLASS: "internal"}),
            "spec": {
                "volumeClaimTemplates": [
                    {"metadata": {"name": "words", "labels": {labels.DATA_CLASS: "restricted"}}}
                ]
            },
        },
        "public",
        "its claim template words holds restricted",
    ),
    (
        "data-region",
        both("customer", "cn-beijing"),
        "public",
        "may be in cn-beijing only, and is in cn-shenzhen",
    ),
    ("data-region", both("customer"), "public", "doesn't say in which regions it may be"),
    ("data-region", both("customer", " , "), "public", "doesn't say in which regions it may be"),
    (
        "data-region",
        {
            **simple("ConfigMap"),
            "metadata": {"labels": CUSTOMER, "annotations": {labels.DATA_REGIONS: "cn-beijing"}},
        },
        "public",
        "is in cn-shenzhen",
    ),
    (
        "data-region",
        both("customer", "cn-beijing", region="cn-beijing"),
        "public",
        "label says that they run in cn-beijing, and they run in cn-shenzhen",
    ),
    (
        "data-region",
        both("customer", "cn-beijing", region="cn-beijing"),
        "public",
        "may be in cn-beijing only, and is in cn-shenzhen",
    ),
    (
        "data-region",
        held(both("customer", "cn-shenzhen", region=None), "cn-shenzhen", "cn-beijing", alternatives=2),
        "public",
        "may be in cn-shenzhen only, and is in cn-beijing",
    ),
    ("data-region", claims("cn-beijing"), "public", "its claim template words holds customer data that may"),
    ("data-region", claims(), "public", "its claim template words holds customer data and doesn't say"),
    (
        "data-region",
        simple("Namespace", labels={labels.REGION: "mars"}),
        "public",
        "its site is in cn-shenzhen",
    ),
    ("container-user", deployment(pod__securityContext=MISSING), "public", "container app may run as root"),
    ("container-user", deployment(c__securityContext__runAsNonRoot=False), "public", "may run as root"),
    ("container-user", deployment(c__securityContext__runAsUser=0), "public", "runs as user 0"),
    ("container-user", deployment(pod__securityContext__runAsUser=0), "public", "runs as user 0"),
    ("container-user", deployment(c__securityContext__privileged=True), "public", "is privileged"),
    ("container-user", deployment(c__securityContext=MISSING), "public", "may gain privileges"),
    (
        "container-user",
        deployment(
            pod__initContainers=[{"name": "i", "image": DIGEST, "securityContext": {"runAsNonRoot": False}}]
        ),
        "public",
        "init container i may run as root",
    ),
    (
        "container-user",
        deployment(
            pod__ephemeralContainers=[{"name": "d", "image": DIGEST, "securityContext": {"runAsUser": 0}}]
        ),
        "public",
        "ephemeral container d runs as user 0",
    ),
    ("container-limits", deployment(c__resources__limits={"cpu": "1"}), "public", "no limit of memory"),
    ("container-limits", deployment(c__resources=MISSING), "public", "no limit of cpu and memory"),
    (
        "container-limits",
        deployment(c__resources__limits={"cpu": "0", "memory": "1Gi"}),
        "public",
        "no limit of cpu",
    ),
    *(
        (
            "container-limits",
            deployment(c__resources__limits={"cpu": none, "memory": "1Gi"}),
            "public",
            "of cpu",
        )
        for none in NO_LIMITS
    ),
    (
        "container-limits",
        deployment(c__resources__limits={"cpu": "1", "memory": "0Mi"}),
        "public",
        "of memory",
    ),
    (
        "container-limits",
        deployment(pod__initContainers=[{"name": "i", "image": DIGEST}]),
        "public",
        "init container i has no limit",
    ),
    ("image-digest", deployment(c__image="chat:1.0"), "public", "has the image chat:1.0"),
    ("image-digest", deployment(c__image="chat:1.0"), None, "has the image chat:1.0"),
    ("image-digest", deployment(c__image="chat@sha256:0123"), "public", "has the image"),
    ("image-digest", deployment(c__image=MISSING), "public", "has the image None"),
    (
        "image-digest",
        deployment(pod__volumes=[{"name": "model", "image": {"reference": "m:1"}}]),
        "public",
        "volume model has the image m:1",
    ),
    (
        "rbac-wildcards",
        simple("Role", rules=[{**RULE[0], "verbs": ["get", "*"]}]),
        "public",
        "rules[0].verbs",
    ),
    (
        "rbac-wildcards",
        simple("Role", rules=[*RULE, {**RULE[0], "resources": ["*"]}]),
        "public",
        "rules[1].resources",
    ),
    ("rbac-wildcards", simple("Role", rules=[{**RULE[0], "resources": ["*/scale"]}]), "public", "'*/scale'"),
    ("rbac-wildcards", simple("ClusterRole", rules=[{**RULE[0], "apiGroups": ["*"]}]), "public", "apiGroups"),
    (
        "rbac-wildcards",
        simple("ClusterRole", rules=[{"nonResourceURLs": ["/metrics/*"], "verbs": ["get"]}]),
        "public",
        "'/metrics/*'",
    ),
    *(
        ("rbac-wildcards", simple("ClusterRole", aggregationRule=rule), "public", "aggregationRule")
        for rule in AGGREGATIONS
    ),
    *(
        ("rbac-wildcards", simple("Role", rules=[{**RULE[0], "verbs": ["get", verb]}]), "public", verb)
        for verb in ("escalate", "bind", "impersonate")
    ),
    (
        "rbac-wildcards",
        simple("ClusterRoleBinding", roleRef={"kind": "ClusterRole", "name": "cluster-admin"}),
        "public",
        "binds to cluster-admin",
    ),
    (
        "recovery-budget",
        deployment(pod__tolerations=MISSING),
        "public",
        "350 s (node grace 50 + toleration 300)",
    ),
    ("recovery-budget", stateful(1), "public", "before a person acts, and it has no other replica"),
    ("recovery-budget", stateful(1, **{RECOVERY: " "}), "public", "and it has no other replica"),
    ("recovery-budget", stateful(2, over="rack"), "public", "aren't spread over nodes or zones"),
    # Only what isn't back by itself may be excepted, not what takes too long.
    (
        "recovery-budget",
        deployment(pod__tolerations=MISSING, m__annotations={RECOVERY: "it is only for reports"}),
        "public",
        "350 s (node grace 50 + toleration 300)",
    ),
    # What the operator makes of a ModelServer is judged as if it were declared.
    ("image-digest", server(image="chat:1.0"), "public", "container chat has the image chat:1.0"),
    (
        "data-region",
        server(dataRegions=["cn-beijing"]),
        "public",
        "may be in cn-beijing only, and is in cn-shenzhen",
    ),
    (
        "data-region",
        edge_server("cn-hongkong"),
        "public",
        "may be in cn-beijing, cn-shenzhen only, and is in cn-hongkong",
    ),
    (
        "private-data",
        server(dataClass="restricted"),
        "public",
        "holds restricted data, which must stay in private sites",
    ),
    (
        "private-data",
        server(m__labels={labels.SITE_ROLE: "private", labels.DATA_CLASS: "customer"}),
        "public",
        "says private, but the stack file makes the site public",
    ),
    ("private-data", server(), None, "its provider (none) is no site"),
    (
        "recovery-budget",
        server(scaling__minReplicas=1),
        "public",
        "320 s (node grace 50 + toleration 30 + startup 240)",
    ),
    ("recovery-budget", edge_server(capacity={"startSeconds": 90}), "public", "360 s (startup 360)"),
    ("model-server", server(scaling__minReplicas=7), "public", "spec.scaling: minReplicas 7 is more than"),
    ("model-server", server(model=MISSING), "public", "spec.model: Field required"),
    ("model-server", server(colour="red"), "public", "spec.colour: Extra inputs"),
    ("model-server", server(scaling__maxReplicas="many"), "public", "spec.scaling.maxReplicas"),
    (
        "model-server",
        server(m__labels={labels.DATA_CLASS: "internal"}),
        "public",
        "its label says that its data is internal, its spec says customer",
    ),
    ("model-server", server(m__labels={}), "public", "its data is (nothing), its spec says customer"),
    ("spare-replica", server(scaling__minReplicas=1), "public", "it may come to have one replica"),
    ("spare-replica", server(scaling={"maxReplicas": 6}), "public", "it may come to have one replica"),
    ("spare-replica", server(scaling__minReplicas=0), "public", "it may come to have no replica"),
    (
        "spare-replica",
        server(replicas=1, scaling__mode="shadow"),
        "public",
        "it may come to have one replica",
    ),
    (
        "spare-replica",
        server(scaling__minReplicas=1, m__annotations={SPARE_EXCEPTION: " "}),
        "public",
        "it may come to have one replica",
    ),
]


@pytest.mark.parametrize(("rule", "manifest", "site", "reason"), REFUSED)
def test_what_is_refused(rule: str, manifest: dict[str, Any], site: str | None, reason: str) -> None:
    found = broken(manifest, site)
    assert any(reason in text for text in found.get(rule, [])), found


def test_every_rule_has_cases() -> None:
    assert {rule for rule, *_ in REFUSED} == set(RULES)


def test_a_violation_names_resource_reason_and_mend() -> None:
    (found,) = violations([Subject(deployment(c__image="chat:1.0"), "public", SITES)])
    assert str(found).startswith(
        "Deployment serving/chat of site public: container app has the image chat:1.0"
    )
    assert "\n  → name it by its digest" in str(found)


def test_a_fault_of_what_the_operator_makes_names_the_model_server() -> None:
    (found,) = violations([Subject(server(image="chat:1.0"), "public", SITES)])
    assert str(found).startswith(
        "ModelServer serving/chat of site public, its Deployment: container chat has the image chat:1.0"
    )


def test_a_model_server_of_no_site_is_refused_once() -> None:
    assert len(broken(server(), None)["private-data"]) == 1


@pytest.mark.parametrize("whole", [server(model__registry="http://mlflow:5000", replicas=2), edge_server()])
def test_nothing_of_a_model_server_that_is_not_known_yet_breaks_a_rule(whole: dict[str, Any]) -> None:
    paths = [path for path in _paths(whole) if path not in (("kind",), ("apiVersion",))]
    assert len(paths) > 15
    for path in paths:
        assert broken(_with(whole, path, UNKNOWN)) == {}, path


@given(st.data())
def test_a_model_server_of_any_shape_is_judged_without_a_traceback(data: st.DataObject) -> None:
    path = data.draw(st.sampled_from(_paths(server())))
    broken(_with(server(), path, data.draw(JSON)))


def test_one_fault_of_an_object_and_its_pods_is_said_once() -> None:
    assert len(broken(both("restricted", "cn-shenzhen"))["private-data"]) == 1


def _paths(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path] * bool(path) + [found for key, item in inner for found in _paths(item, (*path, key))]


@pytest.mark.parametrize("region", ["cn-shenzhen", "cn-beijing"])
@pytest.mark.parametrize("kind", ["Deployment", "StatefulSet"])
def test_no_value_that_is_not_known_yet_breaks_a_rule(kind: str, region: str) -> None:
    whole = spread(held(both("customer", region, region), region)) | {"kind": kind}
    whole["spec"]["volumeClaimTemplates"] = claims(region)["spec"]["volumeClaimTemplates"]
    paths = [path for path in _paths(whole) if path != ("kind",)]
    assert len(paths) > 30
    for path in paths:
        assert broken(_with(whole, path, UNKNOWN)) == {}, path


def _with(manifest: dict[str, Any], path: tuple[Any, ...], value: Any) -> dict[str, Any]:
    changed = copy.deepcopy(manifest)
    *way, last = path
    at: Any = changed
    for key in way:
        at = at[key]
    at[last] = value
    return changed


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-1, 400) | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=4,
)


@given(st.data())
def test_a_value_of_any_shape_is_judged_without_a_traceback(data: st.DataObject) -> None:
    """The API server says that it is malformed; the rules must not fall over it before."""
    path = data.draw(st.sampled_from(_paths(deployment())))
    broken(_with(deployment(), path, data.draw(JSON)))


def test_the_sites_of_a_stack_file() -> None:
    document = [
        {"name": "a", "role": "private", "region": "x", "embedded": {"nodes": []}},
        {"name": "b", "role": "public", "region": "y", "cluster": {"context": "c"}},
        "nonsense",
    ]
    assert sites_of(document) == {"a": Site("private", "x", embedded=True), "b": Site("public", "y")}
    assert sites_of(None) == {}
