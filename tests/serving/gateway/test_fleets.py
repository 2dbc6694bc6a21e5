from __future__ import annotations

import json
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra.local.toolchain import locate
from serving.gateway import agent, config, routes
from serving.gateway.fleets import Fleet, Split, fleets
from serving.gateway.model_servers import Server
from serving.gateway.settings import Settings
from switchboard import labels
from switchboard.envoy import Endpoint
from switchboard.errors import SwitchboardError
from switchboard.kube import Object


def pod(
    ip: str,
    *,
    server: str | None = "chat",
    tier: str | None = "core",
    region: str | None = None,
    ready: bool = True,
    terminating: bool = False,
    draining: bool = False,
    port: str = "http",
) -> Object:
    marks = {labels.MODEL_SERVER: server, labels.TIER: tier, labels.REGION: region}
    meta: Object = {"name": ip, "namespace": "n", "labels": {k: v for k, v in marks.items() if v}}
    if terminating:
        meta["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    if draining:
        meta["annotations"] = {labels.DRAINING: "2026-01-01T00:00:00Z"}
    return {
        "metadata": meta,
        "spec": {"containers": [{"name": "c", "ports": [{"name": port, "containerPort": 8080}]}]},
        "status": {
            "phase": "Running",
            "podIP": ip,
            "conditions": [{"type": "Ready", "status": str(ready)}],
        },
    }


def ends(*ips: str) -> tuple[Endpoint, ...]:
    return tuple(Endpoint(ip, 8080) for ip in ips)


OWN, FOREIGN = {"tier": "edge", "region": "bj"}, {"tier": "edge", "region": "hk"}


@pytest.mark.parametrize(
    ("tier", "pods", "expected"),
    [
        pytest.param("core", [pod("1"), pod("2")], [Fleet("chat", ends("1", "2"))], id="core"),
        pytest.param("core", [pod("1", tier=None)], [Fleet("chat", ends("1"))], id="no tier is core"),
        pytest.param("core", [pod("1", **OWN)], [Fleet("chat")], id="a core uses no edge's"),
        pytest.param(
            "edge",
            [pod("1"), pod("2", **OWN), pod("3", **FOREIGN)],
            [Fleet("chat", ends("1"), ends("2"))],
            id="an edge has the core's, then its own, never another's",
        ),
        pytest.param("edge", [], [], id="nothing"),
        pytest.param("core", [pod("1", server=None)], [], id="no model server"),
        pytest.param("core", [pod("1", ready=False)], [Fleet("chat")], id="not ready: known, no endpoint"),
        pytest.param("core", [pod("1", terminating=True)], [Fleet("chat")], id="terminating leaves at once"),
        pytest.param(
            "core",
            [pod("1"), pod("2", draining=True)],
            [Fleet("chat", ends("1"))],
            id="one that is to go leaves",
        ),
        pytest.param(
            "core",
            [pod("1", draining=True), pod("2", draining=True), pod("3", ready=False)],
            [Fleet("chat", ends("1", "2"))],
            id="but not all of them",
        ),
        pytest.param(
            "edge",
            [pod("1", draining=True), pod("2", **OWN), pod("3", draining=True, **OWN)],
            [Fleet("chat", ends("1"), ends("2"))],
            id="each place for itself",
        ),
        pytest.param(
            "core",
            [pod("1"), pod("2", draining=True, server="voice")],
            [Fleet("chat", ends("1")), Fleet("voice", ends("2"))],
            id="each server for itself",
        ),
        pytest.param("core", [pod("1", port="grpc")], [Fleet("chat")], id="no port named http"),
        pytest.param(
            "core",
            [pod("1", server="voice"), pod("2")],
            [Fleet("chat", ends("2")), Fleet("voice", ends("1"))],
            id="by name",
        ),
    ],
)
def test_fleets(tier: Literal["core", "edge"], pods: list[Object], expected: list[Fleet]) -> None:
    assert list(fleets(pods, tier=tier, region="bj", known=())) == expected


CORE = Server("chat", concurrency=8, from_zero=True)
EDGE = Server("chat", "edge", "bj", concurrency=2)


@pytest.mark.parametrize(
    ("tier", "pods", "servers", "held", "slots"),
    [
        pytest.param("core", [], [CORE], True, 0, id="none yet"),
        pytest.param("core", [pod("1", ready=False)], [CORE], True, 0, id="none ready"),
        pytest.param("core", [pod("1"), pod("2")], [CORE], False, 16, id="two"),
        pytest.param("core", [pod("1", draining=True)], [CORE], False, 8, id="the last one is to go"),
        pytest.param("core", [pod("1", ready=False)], [], False, 0, id="unknown"),
        pytest.param("core", [pod("1")], [], False, 32, id="unknown, with a replica"),
        pytest.param("core", [], [Server("chat")], False, 0, id="keeps one, which is away"),
        pytest.param("core", [], [CORE, Server("chat", concurrency=4)], True, 0, id="one of two"),
        pytest.param("core", [pod("1", **OWN)], [CORE], True, 0, id="an edge's is no use"),
        pytest.param("edge", [], [CORE, EDGE], True, 0, id="an edge without any"),
        pytest.param("edge", [pod("1", **OWN)], [CORE, EDGE], False, 2, id="an edge with its own"),
        pytest.param("edge", [pod("1"), pod("2", **OWN)], [CORE, EDGE], False, 8, id="an edge with both"),
        pytest.param("edge", [], [EDGE], False, 0, id="an edge's that keeps one"),
    ],
)
def test_who_is_waited_for(
    tier: Literal["core", "edge"], pods: list[Object], servers: list[Server], held: bool, slots: int
) -> None:
    (fleet,) = fleets(pods, tier=tier, region="bj", known=(), servers=servers)
    assert (fleet.held, fleet.slots) == (held, slots)


def test_of_others_nothing_is_known() -> None:
    assert fleets([], tier="core", region="", known=(), servers=[EDGE]) == ()
    assert fleets([], tier="edge", region="hk", known=(), servers=[EDGE]) == ()


def test_a_server_once_known_stays() -> None:
    assert fleets([], tier="core", region="", known=["voice"]) == (Fleet("voice"),)


@given(st.permutations([pod(str(i), **(OWN if i % 2 else {})) for i in range(6)]))
def test_order_of_pods_does_not_matter(pods: list[Object]) -> None:
    made = fleets(pods, tier="edge", region="bj", known=())
    assert made == (Fleet("chat", ends("0", "2", "4"), ends("1", "3", "5")),)


ENVIRON = {
    "POD_IP": "127.35.0.2",
    "POD_NAME": "g",
    "POD_NAMESPACE": "n",
    "GATEWAY_TIER": "edge",
    "GATEWAY_REGION": "bj",
}


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"POD_IP": ""}, "POD_IP"),
        ({"GATEWAY_TIER": "middle"}, "GATEWAY_TIER"),
        ({"GATEWAY_REGION": ""}, "GATEWAY_REGION"),
        ({"HOLD_S": "0"}, "HOLD_S"),
        ({"HOLD_S": "nan"}, "HOLD_S"),
        ({"HOLD_REQUESTS": "many"}, "HOLD_REQUESTS"),
    ],
)
def test_a_wrong_environment_is_named(change: dict[str, str], named: str) -> None:
    with pytest.raises(SwitchboardError, match=named):
        Settings.from_environ(ENVIRON | change)


def settings(directory: Path, **change: str) -> Settings:
    return Settings.from_environ(ENVIRON | change | {"CONFIG_DIR": str(directory)})


@pytest.mark.parametrize("tier", ["core", "edge"])
def test_envoy_accepts_the_bootstrap(tmp_path: Path, tier: str) -> None:
    made = settings(tmp_path, GATEWAY_TIER=tier)
    agent.init(made)
    binary = str(locate(["envoy"]).path("envoy"))
    done = subprocess.run(
        [binary, "--mode", "validate", "--disable-hot-restart", "-c", str(made.bootstrap)],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr


def test_init_keeps_what_an_earlier_run_knew(tmp_path: Path) -> None:
    made = settings(tmp_path, MODEL_SERVERS="chat,voice")
    agent.init(made)
    made.clusters.write_text("known")
    made.endpoints("other").write_text("{}")
    made.endpoints("other@edge").write_text("{}")
    agent.init(made)
    assert made.clusters.read_text() == "known"
    assert made.known_servers() == {"chat", "voice", "other"}


def test_routes_lead_to_clusters_that_are_there(tmp_path: Path) -> None:
    both = (Fleet("chat", ends("1"), ends("2")), Fleet("chat-2", ends("1")), Fleet("rare", from_zero=True))
    clusters = {one["name"]: one for one in config.clusters(both, settings(tmp_path))["resources"]}
    (table,) = routes.routes(both, settings(tmp_path))["resources"][0]["virtual_hosts"]
    used = {one["route"]["cluster"] for one in table["routes"] if "route" in one}
    assert used <= clusters.keys()
    assert used == {"chat", "chat-2", "rare@activator"}
    (table,) = routes.released(both)["resources"][0]["virtual_hosts"]
    assert [one["route"]["cluster"] for one in table["routes"][:-1]] == ["chat", "chat-2", "rare"], "no loop"
    joined = clusters["chat"]["cluster_type"]["typed_config"]["clusters"]
    assert joined == ["chat@core", "chat@edge"]
    files = {name for fleet in both for name in config.endpoints(fleet)}
    assert files == clusters.keys() - {"chat", "rare@activator"}


def test_an_endpoint_that_comes_changes_its_own_file_only(tmp_path: Path) -> None:
    def files(*core: str) -> dict[str, Any]:
        now = (Fleet("chat", ends(*core)), Fleet("voice", ends("9")))
        rest = {
            "clusters": config.clusters(now, settings(tmp_path)),
            "routes": routes.routes(now, settings(tmp_path)),
        }
        return rest | {name: doc for fleet in now for name, doc in config.endpoints(fleet).items()}

    before, after = files("1"), files("1", "2")
    assert {name for name in before if json.dumps(before[name]) != json.dumps(after[name])} == {"chat"}


HEDGED = Server("chat", concurrency=8, hedge_s=0.2)


@pytest.mark.parametrize(
    ("servers", "expected"),
    [
        pytest.param([], (0.0, 32), id="nobody says"),
        pytest.param([HEDGED], (0.2, 8), id="one says"),
        pytest.param([Server("chat", concurrency=8), EDGE], (0.0, 8), id="none wants it"),
        pytest.param(
            [HEDGED, Server("chat", "edge", "bj", hedge_s=0.1)], (0.1, 32), id="the sooner, and the most"
        ),
        pytest.param(
            [HEDGED, Server("chat", "edge", "hk", 99, hedge_s=0.1)], (0.2, 8), id="not another edge's"
        ),
    ],
)
def test_when_and_how_often_is_tried_again(servers: list[Server], expected: tuple[float, int]) -> None:
    (fleet,) = fleets([pod("1"), pod("2", **OWN)], tier="edge", region="bj", known=(), servers=servers)
    assert (fleet.hedge_s, fleet.most_at_once) == expected
    (alone,) = fleets([pod("2", **OWN)], tier="edge", region="bj", known=(), servers=servers)
    assert alone.most_at_once == fleet.most_at_once, "an end of the core changes no cluster"


def test_retries_are_bounded_by_what_a_lost_replica_had(tmp_path: Path) -> None:
    fleet = Fleet("chat", ends("1"), ends("2"), most_at_once=8)
    for cluster in config.clusters([fleet], settings(tmp_path))["resources"]:
        (bounds,) = cluster["circuit_breakers"]["thresholds"]
        assert bounds["retry_budget"] == {"budget_percent": {"value": 25}, "min_retry_concurrency": 8}
    assert config.shape(fleet) != config.shape(replace(fleet, most_at_once=9)), "its clusters are made anew"
    arm = Fleet("chat_candidate", ends("1"), most_at_once=8)
    assert config.shape(arm) == config.shape(replace(arm, core=(), most_at_once=32)), (
        "not of one that lingers"
    )


def test_what_may_be_under_way() -> None:
    made = [
        Fleet("chat", ends("1", "2"), most_at_once=20),
        Fleet("chat_candidate", ends("3"), most_at_once=20),
        Fleet("none"),
        Fleet("small", ends("4"), most_at_once=1),
        Fleet("edge", ends("1"), ends("2")),
    ]
    (runtime,) = config.bounds(made)["resources"]
    names = {"chat": 160, "chat_candidate@core": 80, "small": 64}
    assert runtime["layer"] == {
        f"circuit_breakers.{name}.default.max_requests": most for name, most in names.items()
    }


@pytest.mark.parametrize("own", [None, ends("2")], ids=["core", "edge"])
def test_a_try_has_another_beside_it_where_that_is_wanted(
    tmp_path: Path, own: tuple[Endpoint, ...] | None
) -> None:
    def last(fleet: Fleet) -> dict[str, Any]:
        (table,) = routes.routes([fleet], settings(tmp_path))["resources"][0]["virtual_hosts"]
        found: dict[str, Any] = table["routes"][-2]["route"]
        return found

    fleet = Fleet("chat", ends("1", "3") if own is None else ends("1"), own, hedge_s=0.2)
    plain, hedged = last(replace(fleet, hedge_s=0.0)), last(fleet)
    assert "hedge_policy" not in plain
    assert hedged["hedge_policy"] == {"hedge_on_per_try_timeout": True}
    assert hedged["retry_policy"] == {**plain["retry_policy"], "per_try_timeout": "0.2s"}
    assert routes.shape(fleet) != routes.shape(replace(fleet, hedge_s=0.0))
    divided = last(replace(fleet, split=Split(weight=10, candidate=8)))
    assert "hedge_policy" not in divided
    alone = replace(fleet, core=ends("1"), own=None if own is None else ())
    assert "hedge_policy" not in last(alone), "there is no other"
    assert routes.shape(alone) != routes.shape(fleet)
