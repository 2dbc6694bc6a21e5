"""What holds for every pod of every stack, by what the program declares."""

from __future__ import annotations

from collections import Counter

import pytest

from infra.netpol import selects
from switchboard import labels, podspec, quantities
from switchboard.data import DataClass, parse_regions
from tests.infra.components.rendered import STACKS, Workload, objects, stack_of, workloads

EVERY = [pytest.param(stack, one, id=f"{stack}/{one}") for stack in STACKS for one in workloads(stack)]
READS, WRITES = {"get", "list", "watch"}, {"create", "patch", "update"}
RECOVERY_S = 300
NODE_GIVEN_UP_S = 50
"""The controller manager's `--node-monitor-grace-period`."""


@pytest.mark.parametrize(("stack", "one"), EVERY)
def test_has_a_service_account_of_its_component(stack: str, one: Workload) -> None:
    name = one.spec["serviceAccountName"]
    (account,) = [
        found for found in objects(stack, "ServiceAccount", one.site) if found["metadata"]["name"] == name
    ]
    assert account["automountServiceAccountToken"] is False
    assert account["metadata"]["namespace"] == one.manifest["metadata"]["namespace"]
    component = "app.kubernetes.io/component"
    assert account["metadata"]["labels"][component] == one.pod.labels[component]


@pytest.mark.parametrize(("stack", "one"), EVERY)
def test_has_a_token_only_where_its_account_has_rights(stack: str, one: Workload) -> None:
    bound = {
        subject["name"]
        for binding in objects(stack, "RoleBinding", one.site)
        for subject in binding["subjects"]
    }
    assert one.spec["automountServiceAccountToken"] is (one.spec["serviceAccountName"] in bound)


@pytest.mark.parametrize("stack", STACKS)
def test_rights_are_to_read_what_is_followed_and_the_operators_to_make_it(stack: str) -> None:
    assert objects(stack, "ClusterRole") == objects(stack, "ClusterRoleBinding") == []
    roles = objects(stack, "Role")
    assert {role["metadata"]["name"] for role in roles} == {"operator", "gateway", "prometheus"}
    for role in roles:
        rights = {
            (group, resource, verb)
            for rule in role["rules"]
            for group in rule["apiGroups"]
            for resource in rule["resources"]
            for verb in rule["verbs"]
        }
        if role["metadata"]["name"] == "operator":
            arms = ("switchboard.dev", "modelservers", "delete")  # those of releases, once they are over
            assert {verb for *_, verb in rights - {arms}} <= WRITES | READS
            continue
        followed = {("", "pods")}
        if role["metadata"]["name"] == "gateway":
            followed |= {("switchboard.dev", kind) for kind in ("modelservers", "modelreleases")}
        assert rights == {(*each, verb) for each in followed for verb in READS}


@pytest.mark.parametrize(("stack", "one"), EVERY)
def test_leaves_a_lost_node_in_time(stack: str, one: Workload) -> None:
    tolerations = {entry["key"]: entry for entry in one.spec["tolerations"]}
    assert set(tolerations) == {"node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"}
    edge = one.pod.labels.get(labels.TIER) == "edge"
    for entry in tolerations.values():
        assert (entry["operator"], entry["effect"]) == ("Exists", "NoExecute")
        if edge:  # it has nowhere else to go, and goes on where it is
            assert "tolerationSeconds" not in entry
        else:
            starts = [probe_s(container.get("startupProbe")) for container in one.containers]
            assert NODE_GIVEN_UP_S + entry["tolerationSeconds"] + max(starts) < RECOVERY_S


def probe_s(probe: dict[str, int] | None) -> int:
    return 0 if probe is None else probe["periodSeconds"] * probe["failureThreshold"]


@pytest.mark.parametrize(("stack", "one"), EVERY)
def test_runs_where_it_belongs(stack: str, one: Workload) -> None:
    rules = one.spec["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
    (term,) = rules["nodeSelectorTerms"]
    region = one.pod.labels[labels.REGION]

    def fits(**node: str) -> bool:
        found = {"tier": labels.TIER, "region": labels.REGION}
        return selects(term, {found[key]: value for key, value in node.items()})

    if one.pod.labels.get(labels.TIER) == "edge":
        assert fits(tier="edge", region=region)
        assert not fits(tier="edge", region="elsewhere")
        assert not fits(tier="core", region=region)
    else:
        assert region == stack_of(stack).site(one.site).region
        assert fits() and fits(tier="core")
        assert not fits(tier="edge", region=region)


@pytest.mark.parametrize(("stack", "one"), EVERY)
def test_says_what_data_it_sees_and_where_it_runs(stack: str, one: Workload) -> None:
    site = stack_of(stack).site(one.site)
    for meta in (one.manifest["metadata"], one.meta):
        said = meta["labels"]
        assert (said[labels.SITE], said[labels.SITE_ROLE]) == (site.name, site.role)
        data = DataClass(said[labels.DATA_CLASS])
        regions = parse_regions((meta.get("annotations") or {}).get(labels.DATA_REGIONS, ""))
        assert bool(regions) is data.bound_to_regions
        assert not regions or one.pod.labels[labels.REGION] in regions
        assert not (data.must_stay_private and site.role == "public")


@pytest.mark.parametrize(("stack", "one"), EVERY)
def test_has_requests_and_limits_that_fit(stack: str, one: Workload) -> None:
    written = {
        volume["name"]: quantities.parse(volume["emptyDir"]["sizeLimit"])
        for volume in one.spec["volumes"]
        if "emptyDir" in volume and volume["emptyDir"].get("medium") != "Memory"
    }
    disk = {}
    for container in one.containers:
        asks, may = container["resources"]["requests"], container["resources"]["limits"]
        assert set(asks) == set(may) == {"cpu", "memory", "ephemeral-storage"}
        for key in asks:
            assert quantities.parse(asks[key]) <= quantities.parse(may[key]), key
        stated = [
            server.resources.cpu_limit
            for server in stack_of(stack).model_servers
            if server.name == one.pod.labels.get(labels.MODEL_SERVER) and container["name"] == "chat"
        ]
        if any(stated):
            assert stated == [may["cpu"]]
        else:
            felt = max(2, 2 * quantities.parse(asks["cpu"]))
            assert quantities.parse(may["cpu"]) >= felt, "no bound to be felt"
        mounts = {mount["name"] for mount in container["volumeMounts"]}
        disk[container["name"]] = quantities.parse(may["ephemeral-storage"])
        logs = quantities.parse(f"{podspec.LOGS_MI}Mi")
        assert disk[container["name"]] >= logs + sum(written[name] for name in mounts & set(written))
        for name in mounts & set(written):
            assert written[name] > 0


@pytest.mark.parametrize(("stack", "one"), EVERY)
def test_starts_again_without_a_registry_and_knows_no_neighbours(stack: str, one: Workload) -> None:
    assert one.spec["enableServiceLinks"] is False
    for container in one.containers:
        assert container["imagePullPolicy"] == "IfNotPresent"


@pytest.mark.parametrize(("stack", "one"), EVERY)
def test_is_asked_two_questions_by_its_probes(stack: str, one: Workload) -> None:
    if one.kind == "Job":
        assert all("livenessProbe" not in container for container in one.containers)
        return
    ready = [container for container in one.spec["containers"] if "readinessProbe" in container]
    assert ready
    for container in ready:
        ask, live = container["readinessProbe"], container["livenessProbe"]
        assert ask["httpGet"] != live["httpGet"], "busy is no reason to be killed"
        patience = live["periodSeconds"] * live["failureThreshold"]
        assert patience >= 2 * ask["periodSeconds"] * ask["failureThreshold"]
        assert container["startupProbe"]["httpGet"] == ask["httpGet"]


def serves(one: Workload) -> bool:
    """Whether it is a model server's, which the operator made."""
    return one.pod.labels["app.kubernetes.io/component"] == "model-server"


@pytest.mark.parametrize("stack", STACKS)
def test_a_drain_takes_one_of_several_and_is_never_blocked(stack: str) -> None:
    budgets: Counter[str] = Counter()
    for budget in objects(stack, "PodDisruptionBudget"):
        spec, site = budget["spec"], budget["metadata"]["labels"][labels.SITE]
        assert spec["unhealthyPodEvictionPolicy"] == "AlwaysAllow"
        (found,) = [
            one
            for one in workloads(stack)
            if one.site == site and selects(spec["selector"], one.pod.labels) and one.kind != "Job"
        ]
        # Of as many as come and go with the traffic a tenth, rounded up.
        assert spec["maxUnavailable"] == ("10%" if serves(found) else 1)
        budgets[str(found)] += 1
    several = {
        str(one)
        for one in workloads(stack)
        if one.kind != "Job" and (one.manifest["spec"].get("replicas", 1) > 1 or serves(one))
    }
    assert budgets == dict.fromkeys(several, 1)


@pytest.mark.parametrize(("stack", "one"), EVERY)
def test_replicas_are_spread(stack: str, one: Workload) -> None:
    if one.kind == "Job" or one.manifest["spec"].get("replicas", 1) < 2:
        return
    spread = {entry["topologyKey"]: entry for entry in one.spec["topologySpreadConstraints"]}
    assert set(spread) == {labels.ZONE, labels.HOSTNAME}
    for entry in spread.values():
        assert entry["maxSkew"] == 1
        assert entry["nodeTaintsPolicy"] == "Honor", "a lost node's place may be taken elsewhere"
        assert selects(entry["labelSelector"], one.pod.labels)
    assert spread[labels.ZONE]["whenUnsatisfiable"] == "ScheduleAnyway"
    strict = "ScheduleAnyway" if serves(one) else "DoNotSchedule"
    assert spread[labels.HOSTNAME]["whenUnsatisfiable"] == strict


@pytest.mark.parametrize(
    ("request_", "limit"),
    [("50m", "2"), ("250m", "2"), ("500m", "2"), ("501m", "3"), ("1", "4"), ("2500m", "10")],
)
def test_the_usual_cpu_limit(request_: str, limit: str) -> None:
    assert podspec.usual_cpu_limit(request_) == limit
