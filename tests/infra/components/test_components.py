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
from infra.components.edge import EdgeArgs, EdgeLocation
from infra.components.gateway import Gateway, GatewayArgs
from infra.components.model_server import ModelServerArgs, ModelServerSet, Placement
from infra.components.network import NetworkPolicies
from infra.components.pod_reader import PodReader
from infra.components.prometheus import Prometheus, PrometheusArgs
from infra.components.site import SiteNamespace
from switchboard import labels
from switchboard.data import DataClass
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
        identity = PodReader(namespace, "gateway", "gateway")
        return {"url": Gateway(namespace, gateway_args(place, *servers), identity).url}

    return build("public", make)


def model_server(place: Placement = CORE, **changes: Any) -> Built:
    def make(namespace: SiteNamespace, stack: config.Stack) -> dict[str, pulumi.Output[str]]:
        return {"workload": ModelServerSet(namespace, server_args(place, **changes)).workload}

    return build("public", make)


def edge() -> Built:
    def make(namespace: SiteNamespace, stack: config.Stack) -> dict[str, pulumi.Output[str]]:
        args = EdgeArgs("cn-beijing", gateway_args(EDGE), [server_args(EDGE)])
        return {"url": EdgeLocation(namespace, args, PodReader(namespace, "gateway", "gateway")).url}

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
            {"workload": "chat"},
            {
                "StatefulSet": {"chat"},
                "Service": {"chat"},
                "PodDisruptionBudget": {"chat"},
                "ServiceAccount": {"chat"},
            },
        ),
        (
            edge,
            {"url": f"http://{ADDRESS}:8080"},
            {
                "Deployment": {"gw"},
                "StatefulSet": {"chat-cn-beijing"},
                "Service": {"gw", "chat-cn-beijing"},
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
    assert containers(model_server(), "StatefulSet", "chat")["chat"]["image"] == "chat:3"


def test_prometheus_is_told_of_alertmanager_and_the_other_sites() -> None:
    text = prometheus().objects["ConfigMap", "private-prometheus-0a1b2c3d"]["data"]["prometheus.yml"]
    written = yaml.safe_load(text)
    assert written["alerting"]["alertmanagers"][0]["static_configs"] == [{"targets": ["am:9093"]}]
    (federate,) = [one for one in written["scrape_configs"] if one["job_name"] == "federate"]
    assert federate["static_configs"] == [{"targets": ["south:9090"], "labels": {"federated_from": "south"}}]


@pytest.mark.parametrize(("place", "budget"), [(CORE, True), (EDGE, False)], ids=["core", "edge"])
def test_a_single_replica_has_no_budget(place: Placement, budget: bool) -> None:
    assert ("PodDisruptionBudget" in gateway(place).kinds()) is budget
    assert ("PodDisruptionBudget" in model_server(place).kinds()) is budget


@pytest.mark.parametrize(("replicas", "names"), [(1, set()), (2, {"x"})])
def test_a_budget_begins_with_two(replicas: int, names: set[str]) -> None:
    def make(namespace: SiteNamespace, stack: config.Stack) -> dict[str, pulumi.Output[str]]:
        disruption_budget(namespace, "x", {"app": "x"}, replicas, parent=namespace)
        return {}

    assert build("public", make).kinds().get("PodDisruptionBudget", set()) == names


def test_a_model_server_is_as_its_configuration_says() -> None:
    resources = config.Resources(cpu="1", cpuLimit="3", memory="1Gi", memoryLimit="2Gi")
    built = model_server(max_concurrency=7, resources=resources)
    chat = containers(built, "StatefulSet", "chat")["chat"]
    env = {entry["name"]: entry.get("value") for entry in chat["env"]}
    assert env["MAX_CONCURRENCY"] == "7"
    assert env["MLFLOW_TRACKING_URI"] == "http://mlflow:5000"
    assert chat["resources"]["requests"] == {"cpu": "1", "memory": "1Gi", "ephemeral-storage": "320Mi"}
    assert chat["resources"]["limits"] == {"cpu": "3", "memory": "2Gi", "ephemeral-storage": "320Mi"}
    spec = built.objects["StatefulSet", "chat"]["spec"]
    assert spec["replicas"] == 3
    assert spec["volumeClaimTemplates"][0]["spec"]["storageClassName"] == "fast"


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
    meta = built.objects["StatefulSet", "chat"]["metadata"]
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
