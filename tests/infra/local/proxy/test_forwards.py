from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra.local.proxy import config
from infra.local.proxy.forwards import (
    Check,
    Forward,
    forwards,
    ignored_ports,
    load_balancer_status,
)
from switchboard import labels
from switchboard.envoy import Endpoint
from switchboard.kube import Object

API = Endpoint("127.35.0.1", 6443)


def service(name: str = "web", namespace: str = "a", **spec: Any) -> Object:
    return {
        "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "type": "ClusterIP",
            "clusterIP": "127.135.0.9",
            "clusterIPs": ["127.135.0.9"],
            "selector": {"app": "web"},
            "ports": [{"port": 80, "targetPort": 8080}],
            **spec,
        },
    }


def pod(
    ip: str | None = "127.35.1.1",
    *,
    ready: bool = True,
    terminating: bool = False,
    namespace: str = "a",
    labels: dict[str, str] | None = None,
    phase: str = "Running",
    port: int = 8080,
    **spec: Any,
) -> Object:
    meta: Object = {
        "name": f"p-{ip}",
        "namespace": namespace,
        "labels": {"app": "web"} if labels is None else labels,
    }
    if terminating:
        meta["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    status: Object = {"phase": phase, "conditions": [{"type": "Ready", "status": str(ready)}]}
    if ip is not None:
        status["podIP"] = ip
    containers = [{"name": "c", "ports": [{"name": "http", "containerPort": port}]}]
    return {"metadata": meta, "spec": {"containers": containers, **spec}, "status": status}


def ends(service: Object, *pods: Object) -> list[str]:
    (forward,) = forwards([service], pods, API)
    return [f"{one.ip}:{one.port}" for one in forward.endpoints]


NAMED = [{"port": 80, "targetPort": "http"}]


@pytest.mark.parametrize(
    ("made", "pods", "expected"),
    [
        pytest.param(service(), [pod()], ["127.35.1.1:8080"], id="ready"),
        pytest.param(service(), [pod(ready=False)], [], id="not ready"),
        pytest.param(service(), [pod(terminating=True)], [], id="terminating"),
        pytest.param(service(), [pod(None)], [], id="no address yet"),
        pytest.param(service(), [pod(phase="Failed")], [], id="failed pods keep their address"),
        pytest.param(service(), [pod(namespace="b")], [], id="other namespace"),
        pytest.param(service(), [pod(labels={"app": "x"})], [], id="other labels"),
        pytest.param(service(selector=None), [pod(labels={})], [], id="no selector selects nothing"),
        pytest.param(service(ports=[{"port": 80}]), [pod()], ["127.35.1.1:80"], id="target is the port"),
        pytest.param(
            service(ports=NAMED),
            [pod(port=9000), pod("127.35.1.2", port=9001)],
            ["127.35.1.1:9000", "127.35.1.2:9001"],
            id="a name is looked up in each pod",
        ),
        pytest.param(
            service(ports=[{"port": 80, "targetPort": "grpc"}]), [pod()], [], id="no port of that name"
        ),
        pytest.param(
            service(ports=[{"port": 80, "targetPort": "side"}]),
            [
                pod(
                    initContainers=[
                        {
                            "name": "s",
                            "restartPolicy": "Always",
                            "ports": [{"name": "side", "containerPort": 7}],
                        }
                    ]
                )
            ],
            ["127.35.1.1:7"],
            id="named port of a sidecar",
        ),
        pytest.param(
            service(publishNotReadyAddresses=True),
            [pod(ready=False), pod("127.35.1.2", terminating=True), pod(None)],
            ["127.35.1.1:8080", "127.35.1.2:8080"],
            id="publishNotReadyAddresses",
        ),
    ],
)
def test_endpoints(made: Object, pods: list[Object], expected: list[str]) -> None:
    assert ends(made, *pods) == expected


@pytest.mark.parametrize(
    "made",
    [
        pytest.param(service(clusterIP="None", clusterIPs=["None"]), id="headless"),
        pytest.param(service(type="ExternalName", clusterIP=None, clusterIPs=None), id="external name"),
        pytest.param(service(clusterIP="", clusterIPs=None), id="no address yet"),
        pytest.param(service(ports=[{"port": 53, "protocol": "UDP"}]), id="udp"),
    ],
)
def test_nothing_to_forward(made: Object) -> None:
    assert forwards([made], [pod()], API) == ()


def test_udp_is_named() -> None:
    assert ignored_ports([service(ports=[{"port": 53, "protocol": "UDP"}, {"port": 80}])]) == (
        "a/web:53/UDP",
    )


def test_the_kubernetes_service_leads_to_the_api_server() -> None:
    made = service("kubernetes", "default", selector=None, ports=[{"port": 443, "targetPort": 6443}])
    (forward,) = forwards([made], [], API)
    assert (forward.name, forward.port, forward.endpoints) == ("default/kubernetes:443", 443, (API,))


VIP = [{"ip": "127.135.0.9", "ipMode": "VIP"}]


@pytest.mark.parametrize(
    ("made", "ingress", "expected"),
    [
        pytest.param(service(type="LoadBalancer"), None, VIP, id="gets its address"),
        pytest.param(service(type="LoadBalancer"), VIP, None, id="has it"),
        pytest.param(service(type="LoadBalancer"), [{"ip": "1.2.3.4"}], VIP, id="has another's"),
        pytest.param(service(type="LoadBalancer", loadBalancerClass="x/y"), None, None, id="another class"),
        pytest.param(service(), None, None, id="isn't one"),
        pytest.param(service(), VIP, [], id="is one no more"),
    ],
)
def test_load_balancer_status(made: Object, ingress: Any, expected: Any) -> None:
    made["status"] = {"loadBalancer": {"ingress": ingress} if ingress else {}}
    patch = load_balancer_status(made)
    assert (patch and patch["status"]["loadBalancer"]["ingress"]) == expected


LIVES = {"httpGet": {"path": "/livez", "port": "stats"}}
OTHER = {"httpGet": {"path": "/healthz", "port": "stats"}}


def probed(ip: str, probe: Object | None) -> Object:
    made = pod(ip)
    made["spec"]["containers"] = [
        {"name": "aside", "livenessProbe": {"httpGet": {"path": "/no", "port": 1}}},
        {
            "name": "c",
            "ports": [{"name": "http", "containerPort": 8080}, {"name": "stats", "containerPort": 9902}],
            **({"livenessProbe": probe} if probe else {}),
        },
    ]
    return made


@pytest.mark.parametrize(
    ("kind", "probes", "refuses", "expected"),
    [
        pytest.param("LoadBalancer", [LIVES, LIVES], False, Check("/livez", 9902), id="two alike"),
        pytest.param("LoadBalancer", [LIVES], False, None, id="there is no other to be sent to"),
        pytest.param("LoadBalancer", [LIVES], True, Check("/livez", 9902), id="one, and there is elsewhere"),
        pytest.param("ClusterIP", [LIVES], True, None, id="one of no load balancer"),
        pytest.param("LoadBalancer", [LIVES, OTHER], False, None, id="two kinds of pods"),
        pytest.param("LoadBalancer", [LIVES, None], False, None, id="one without"),
        pytest.param("LoadBalancer", [None, None], False, None, id="none has one"),
        pytest.param("ClusterIP", [LIVES, LIVES], False, None, id="no load balancer"),
        pytest.param(
            "LoadBalancer",
            [{"httpGet": {"port": 81}}, {"httpGet": {"port": 81}}],
            False,
            Check("/", 81),
            id="number",
        ),
        pytest.param(
            "LoadBalancer",
            [{"httpGet": {"port": 81, "scheme": "HTTPS"}}] * 2,
            False,
            None,
            id="another scheme",
        ),
        pytest.param("LoadBalancer", [{"tcpSocket": {"port": 81}}] * 2, False, None, id="no HTTP"),
    ],
)
def test_a_load_balancer_asks_by_the_liveness_probe(
    kind: str, probes: list[Object | None], refuses: bool, expected: Check | None
) -> None:
    there = [probed(f"127.35.1.{number}", probe) for number, probe in enumerate(probes, 1)]
    made = service(type=kind, ports=NAMED)
    made["metadata"]["annotations"] = {labels.REFUSES: "true"} if refuses else {}
    (forward,) = forwards([made], there, API)
    assert forward.check == expected
    (cluster,) = config.clusters([forward])["resources"]
    assert ("common_lb_config" in cluster) == (refuses and expected is not None)
    assert ("health_checks" in cluster) == (expected is not None)
    ends_ = [one["endpoint"] for one in cluster["load_assignment"]["endpoints"][0]["lb_endpoints"]]
    if expected is not None:
        assert [one["health_check_config"] for one in ends_] == [{"port_value": expected.port}] * len(ends_)
    else:
        assert all("health_check_config" not in one for one in ends_)


@given(st.permutations([pod(f"127.35.1.{i}", ready=i % 3 > 0) for i in range(1, 8)]))
def test_order_of_events_does_not_matter(pods: list[Object]) -> None:
    """Else every watch event would rewrite the files."""
    one = forwards([service(), service("b")], pods, API)
    assert config.clusters(one) == config.clusters(
        forwards([service("b"), service()], sorted(pods, key=lambda p: p["metadata"]["name"]), API)
    )


@given(st.lists(st.builds(Endpoint, st.ip_addresses(v=4).map(str), st.integers(1, 65535)), max_size=4))
def test_a_port_listens_when_and_only_when_something_is_behind_it(endpoints: list[Endpoint]) -> None:
    forward = Forward("a/b:1", "127.135.0.1", 1, tuple(endpoints))
    assert len(config.clusters([forward])["resources"]) == 1
    assert bool(config.listeners([forward])["resources"]) == bool(endpoints)
