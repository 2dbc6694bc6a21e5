"""Each component alone: its arguments reach its objects, and its outputs are what its docstring promises."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pulumi
import pytest
import yaml

from infra import config
from infra.components import _data
from infra.components.account import account
from infra.components.alertmanager import Alertmanager, AlertmanagerArgs
from infra.components.budget import disruption_budget
from infra.components.definitions import definitions
from infra.components.edge import EdgeArgs, EdgeLocation
from infra.components.gateway import Gateway, GatewayArgs
from infra.components.model_server import ModelServerArgs, ModelServerSet, Placement, wait_for
from infra.components.network import NetworkPolicies
from infra.components.operator import RIGHTS, Operator, OperatorArgs
from infra.components.pod_reader import PodReader
from infra.components.prometheus import Prometheus, PrometheusArgs
from infra.components.site import SiteNamespace
from infra.made import manifests
from switchboard import labels
from switchboard.api.model_server import Capacity
from switchboard.api.scaling import Pause, Scaling
from switchboard.data import DataClass
from switchboard.releases import ReleasePolicy
from tests.infra.components.building import ADDRESS, Built, build
from tests.infra.components.rendered import stack_of

CORE = Placement("core", "cn-shenzhen", 3)
EDGE = Placement("edge", "cn-beijing", 1)


def gateway_args(place: Placement, *servers: config.ModelServer) -> GatewayArgs:
    return GatewayArgs("gw", place, "edge", "envoy:1", "agent:2", servers or stack_of("local").model_servers)


def server_args(place: Placement, **changes: Any) -> ModelServerArgs:
    server = stack_of("local").model_servers[0]
    return ModelServerArgs(server.model_copy(update=changes), place, "chat:3", "http://mlflow:5000", "fast")


def alertmanager() -> Built:
    def make(namespace: SiteNamespace, stack: config.Stack) -> dict[str, pulumi.Output[str]]:
        return {"address": Alertmanager(namespace, AlertmanagerArgs("am:1")).address}

    return build("private", make)


def prometheus() -> Built:
    def make(namespace: SiteNamespace, stack: config.Stack) -> dict[str, pulumi.Output[str]]:
        args = PrometheusArgs("prom:1", "am:9093", {"south": pulumi.Output.from_input("south:9090")})
        made = Prometheus(namespace, args)
        return {"address": made.address, "url": made.url}

    return build("private", make)


def gateway(place: Placement = CORE, *servers: config.ModelServer) -> Built:
    def make(namespace: SiteNamespace, stack: config.Stack) -> dict[str, pulumi.Output[str]]:
        identity = PodReader(namespace, "gateway", "gateway", model_servers=True)
        return {"url": Gateway(namespace, gateway_args(place, *servers), identity).url}

    return build("public", make)


def model_server(place: Placement = CORE, **changes: Any) -> Built:
    def make(namespace: SiteNamespace, stack: config.Stack) -> dict[str, pulumi.Output[str]]:
        return {"object": ModelServerSet(namespace, server_args(place, **changes)).object}

    return build("public", make)


def operator() -> Built:
    def make(namespace: SiteNamespace, stack: config.Stack) -> dict[str, pulumi.Output[str]]:
        args = OperatorArgs("op:1", "http://mlflow:5000", "mlflow-release", ReleasePolicy(gate=True))
        made = Operator(namespace, args, definitions=definitions(namespace))
        return {"deployment": made.deployment.metadata["name"]}

    return build("public", make)


def edge() -> Built:
    def make(namespace: SiteNamespace, stack: config.Stack) -> dict[str, pulumi.Output[str]]:
        args = EdgeArgs("cn-beijing", gateway_args(EDGE), [server_args(EDGE)])
        return {
            "url": EdgeLocation(
                namespace, args, PodReader(namespace, "gateway", "gateway", model_servers=True)
            ).url
        }

    return build("public", make)


def reader() -> Built:
    def make(namespace: SiteNamespace, stack: config.Stack) -> dict[str, pulumi.Output[str]]:
        return {"account": PodReader(namespace, "watcher", "monitoring").account}

    return build("public", make)


def alone() -> Built:
    def make(namespace: SiteNamespace, stack: config.Stack) -> dict[str, pulumi.Output[str]]:
        return {"account": account(namespace, "quiet", "training", parent=namespace)}

    return build("private", make)


def network() -> Built:
    def make(namespace: SiteNamespace, stack: config.Stack) -> dict[str, pulumi.Output[Any]]:
        return {"policies": pulumi.Output.from_input(list(NetworkPolicies(namespace, stack).policies))}

    return build("public", make)


@pytest.mark.parametrize(
    ("made", "outputs", "kinds"),
    [
        (
            alertmanager,
            {"address": f"{ADDRESS}:9093"},
            {
                "Deployment": {"alertmanager"},
                "Service": {"alertmanager"},
                "ServiceAccount": {"alertmanager"},
                "ConfigMap": {"alertmanager-0a1b2c3d"},
            },
        ),
        (
            prometheus,
            {"address": f"{ADDRESS}:9090", "url": f"http://{ADDRESS}:9090"},
            {
                "Deployment": {"prometheus"},
                "Service": {"prometheus"},
                "ServiceAccount": {"prometheus"},
                "Role": {"prometheus"},
                "RoleBinding": {"prometheus"},
                "ConfigMap": {"private-prometheus-0a1b2c3d"},
            },
        ),
        (
            gateway,
            {"url": f"http://{ADDRESS}:8080"},
            {
                "Deployment": {"gw"},
                "Service": {"gw"},
                "PodDisruptionBudget": {"gw"},
                "ServiceAccount": {"gateway"},
                "Role": {"gateway"},
                "RoleBinding": {"gateway"},
            },
        ),
        (
            model_server,
            {"object": "chat"},
            {"ModelServer": {"chat"}, "ServiceAccount": {"chat"}},
        ),
        (
            operator,
            {"deployment": "operator"},
            {
                "CustomResourceDefinition": {"modelreleases.switchboard.dev", "modelservers.switchboard.dev"},
                "Deployment": {"operator"},
                "PodDisruptionBudget": {"operator"},
                "ServiceAccount": {"operator"},
                "Role": {"operator"},
                "RoleBinding": {"operator"},
            },
        ),
        (
            edge,
            {"url": f"http://{ADDRESS}:8080"},
            {
                "Deployment": {"gw"},
                "ModelServer": {"chat-cn-beijing"},
                "Service": {"gw"},
                "ServiceAccount": {"gateway", "chat-cn-beijing"},
                "Role": {"gateway"},
                "RoleBinding": {"gateway"},
            },
        ),
        (
            reader,
            {"account": "watcher"},
            {"ServiceAccount": {"watcher"}, "Role": {"watcher"}, "RoleBinding": {"watcher"}},
        ),
        (alone, {"account": "quiet"}, {"ServiceAccount": {"quiet"}}),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_outputs_and_objects(made: Any, outputs: dict[str, str], kinds: dict[str, set[str]]) -> None:
    built = made()
    assert built.outputs == outputs
    assert built.kinds() == kinds


def containers(built: Built, kind: str, name: str) -> dict[str, dict[str, Any]]:
    spec = built.objects[kind, name]["spec"]["template"]["spec"]
    return {one["name"]: one for one in [*spec["containers"], *spec.get("initContainers", [])]}


def test_network_policies_put_out_their_names() -> None:
    built = network()
    assert set(built.outputs["policies"]) == built.kinds()["NetworkPolicy"]
    assert {"default-deny", "dns", "gateway", "edge-cn-hongkong-gateway"} <= set(built.outputs["policies"])
    deny = built.objects["NetworkPolicy", "default-deny"]
    assert deny["spec"] == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    for (kind, _), policy in built.objects.items():
        if kind == "NetworkPolicy":
            assert policy["metadata"]["annotations"]["switchboard.dev/why"]


def test_images_are_those_of_the_arguments() -> None:
    assert containers(alertmanager(), "Deployment", "alertmanager")["alertmanager"]["image"] == "am:1"
    assert containers(prometheus(), "Deployment", "prometheus")["prometheus"]["image"] == "prom:1"
    found = containers(gateway(), "Deployment", "gw")
    assert {name: one["image"] for name, one in found.items()} == {
        "envoy": "envoy:1",
        "agent": "agent:2",
        "init": "agent:2",
    }
    assert containers(operator(), "Deployment", "operator")["operator"]["image"] == "op:1"
    assert model_server().objects["ModelServer", "chat"]["spec"]["image"] == "chat:3"


def test_prometheus_is_told_of_alertmanager_and_the_other_sites() -> None:
    text = prometheus().objects["ConfigMap", "private-prometheus-0a1b2c3d"]["data"]["prometheus.yml"]
    written = yaml.safe_load(text)
    assert written["alerting"]["alertmanagers"][0]["static_configs"] == [{"targets": ["am:9093"]}]
    (federate,) = [one for one in written["scrape_configs"] if one["job_name"] == "federate"]
    assert federate["static_configs"] == [{"targets": ["south:9090"], "labels": {"federated_from": "south"}}]


@pytest.mark.parametrize(("place", "budget"), [(CORE, True), (EDGE, False)], ids=["core", "edge"])
def test_a_single_replica_has_no_budget(place: Placement, budget: bool) -> None:
    assert ("PodDisruptionBudget" in gateway(place).kinds()) is budget


@pytest.mark.parametrize(("replicas", "names"), [(1, set()), (2, {"x"})])
def test_a_budget_begins_with_two(replicas: int, names: set[str]) -> None:
    def make(namespace: SiteNamespace, stack: config.Stack) -> dict[str, pulumi.Output[str]]:
        disruption_budget(namespace, "x", {"app": "x"}, replicas, parent=namespace)
        return {}

    assert build("public", make).kinds().get("PodDisruptionBudget", set()) == names


def test_a_model_server_is_as_its_configuration_says() -> None:
    built = model_server(
        capacity=Capacity(start_seconds=20),
        max_concurrency=7,
        resources=config.Resources(cpu="1", cpu_limit="3", memory="1Gi", memory_limit="2Gi"),
        replicas=3,
        scaling=Scaling(min_replicas=2, max_replicas=9, pause=Pause(down=True)),
    )
    assert built.objects["ModelServer", "chat"]["spec"] == {
        "model": {"name": "chat-intent", "alias": "champion", "registry": "http://mlflow:5000"},
        "service": "chat",
        "image": "chat:3",
        "replicas": 3,
        "capacity": {"concurrency": 7, "startSeconds": 20},
        "resources": {"cpu": "1", "cpuLimit": "3", "memory": "1Gi", "memoryLimit": "2Gi"},
        "cache": {"storageClass": "fast"},
        "serviceAccountName": "chat",
        "dataRegions": ["cn-shenzhen", "cn-beijing", "cn-hongkong"],
        "scaling": {"minReplicas": 2, "maxReplicas": 9, "pause": {"down": True}},
    }


def test_what_the_operator_will_run_of_it_is_as_its_configuration_says_too() -> None:
    built = model_server(EDGE, resources=config.Resources(cpu="1", memory="1Gi", memory_limit="2Gi"))
    deployment, claim, budget = manifests(built.objects["ModelServer", "chat-cn-beijing"])
    (chat,) = deployment["spec"]["template"]["spec"]["containers"]
    env = {entry["name"]: entry.get("value") for entry in chat["env"]}
    assert (env["MODEL_URI"], env["MLFLOW_TRACKING_URI"]) == (
        "models:/chat-intent@champion",
        "http://mlflow:5000",
    )
    assert (env["SERVICE_TIER"], chat["command"]) == ("edge", ["python", "-m", "serving.chat"])
    assert chat["resources"]["requests"] == {"cpu": "1", "memory": "1Gi", "ephemeral-storage": "320Mi"}
    assert chat["resources"]["limits"] == {"cpu": "4", "memory": "2Gi", "ephemeral-storage": "320Mi"}
    assert (deployment["spec"]["replicas"], claim["spec"]["storageClassName"]) == (1, "fast")
    assert claim["spec"]["accessModes"] == ["ReadWriteOnce"]
    for made in (deployment, claim, budget):
        assert not [key for key in made["metadata"].get("annotations", {}) if key.startswith("pulumi.com/")]


@pytest.mark.parametrize(("start_s", "wait_s"), [(1, 600), (75, 600), (100, 800), (420, 3360)])
def test_up_waits_for_as_long_as_a_rollout_takes(start_s: int, wait_s: int) -> None:
    spec = server_args(CORE, capacity=Capacity(start_seconds=start_s)).spec
    assert wait_for(spec) == wait_s


def test_why_a_model_server_may_be_away_is_said_on_the_object() -> None:
    annotation = "policy.switchboard.dev/spare-replica"
    for place, said in ((CORE, "nobody asks it at night"), (EDGE, None)):
        built = model_server(place, availability_exception="nobody asks it at night")
        ((_, found),) = [item for item in built.objects.items() if item[0][0] == "ModelServer"]
        assert found["metadata"]["annotations"].get(annotation) == said


def test_the_operator_may_delete_arms_alone_and_touches_one_lease() -> None:
    for rule in RIGHTS:
        assert "deletecollection" not in rule["verbs"]
        assert "delete" not in rule["verbs"] or rule["resources"] == ["modelservers"]
        if "leases" in rule["resources"] and set(rule["verbs"]) != {"create"}:
            assert rule["resourceNames"] == ["switchboard-operator"]
    rules = operator().objects["Role", "operator"]["rules"]
    assert [{key: list(value) for key, value in rule.items()} for rule in RIGHTS] == rules


def test_the_operator_is_told_of_its_site_s_prometheus() -> None:
    env = containers(operator(), "Deployment", "operator")["operator"]["env"]
    assert {"name": "PROMETHEUS_URL", "value": "http://prometheus.switchboard-serving:9090"} in env


def test_a_model_servers_data_is_told_and_its_gateways_too() -> None:
    stack = stack_of("local")
    one = stack.model_servers[0].model_copy(
        update={"data_class": DataClass.CUSTOMER, "data_regions": ("cn-shenzhen", "cn-beijing")}
    )
    other = one.model_copy(update={"data_regions": ("cn-shenzhen", "cn-hongkong")})
    harmless = one.model_copy(update={"data_class": DataClass.PUBLIC, "data_regions": ()})
    for servers, regions in (
        ([one], "cn-beijing,cn-shenzhen"),
        ([one, other, harmless], "cn-shenzhen"),
        ([harmless], None),
    ):
        meta = gateway(CORE, *servers).objects["Deployment", "gw"]["spec"]["template"]["metadata"]
        assert meta["labels"][labels.DATA_CLASS] == ("public" if regions is None else "customer")
        assert meta["annotations"].get(labels.DATA_REGIONS) == regions
    built = model_server(data_class=DataClass.CUSTOMER, data_regions=("cn-shenzhen",))
    meta = built.objects["ModelServer", "chat"]["metadata"]
    assert meta["labels"][labels.DATA_CLASS] == "customer"
    assert meta["annotations"][labels.DATA_REGIONS] == "cn-shenzhen"


@pytest.mark.parametrize(
    ("several", "expected"),
    [
        ([], _data.Data(DataClass.PUBLIC)),
        ([_data.INTERNAL], _data.INTERNAL),
        (
            [
                _data.Data(DataClass.RESTRICTED, frozenset("ab")),
                _data.Data(DataClass.CUSTOMER, frozenset("bc")),
            ],
            _data.Data(DataClass.RESTRICTED, frozenset("b")),
        ),
        (
            [_data.Data(DataClass.CUSTOMER, frozenset("a")), _data.Data(DataClass.CUSTOMER, frozenset("b"))],
            _data.Data(DataClass.CUSTOMER, frozenset()),
        ),
    ],
)
def test_data_that_is_joined(several: list[_data.Data], expected: _data.Data) -> None:
    assert _data.joined(several) == expected


def test_arguments_are_values() -> None:
    args = gateway_args(CORE)
    assert args == replace(args)
    with pytest.raises(AttributeError):
        args.name = "other"  # type: ignore[misc]
