"""What the arms of a release get, as values: which release counts, how its shares are routed, what stays of arms."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.gateway import config, releases, routes
from serving.gateway.fleets import Fleet, Split, fleets
from serving.gateway.last_known import dump, load
from serving.gateway.model_servers import Server
from serving.gateway.releases import LINGER_S, Lingering, Release, arm_of, parse
from switchboard.api import model_server
from switchboard.api.model_release import Phase
from switchboard.api.model_server import Arm
from switchboard.envoy import Endpoint
from switchboard.kube import Object
from tests.serving.gateway.test_fleets import EDGE, OWN, ends, pod, settings


def release(**status: Any) -> Object:
    return {"metadata": {"name": "r"}, "status": {"service": "chat", "phase": "Canary", **status}}


@pytest.mark.parametrize(
    ("obj", "expected"),
    [
        pytest.param(release(weight=10, mirror=50), Release("chat", 10, 50), id="both"),
        pytest.param(release(), Release("chat"), id="nothing yet"),
        pytest.param(release(weight=100, phase="Promoted"), None, id="over, whatever its weight"),
        pytest.param(release(weight=100, phase="Warm"), Release("chat", 100), id="kept warm"),
        pytest.param(
            release(weight=7, phase="Later"), Release("chat", 7), id="a phase of a newer operator's"
        ),
        pytest.param(release(weight="10"), Release("chat"), id="no number"),
        pytest.param(release(weight=True, mirror=101), Release("chat"), id="no percent"),
        pytest.param(release(weight=-1), Release("chat"), id="less than nothing"),
        pytest.param(release(service=""), None, id="no service yet"),
        pytest.param(release(service=["chat"], phase=["Canary"]), None, id="no name"),
        pytest.param({"metadata": {"name": "r"}}, None, id="no status"),
        pytest.param({"status": "Canary"}, None, id="another status"),
    ],
)
def test_parse(obj: Object, expected: Release | None) -> None:
    assert parse(obj) == expected


@pytest.mark.parametrize("phase", Phase)
def test_which_phases_are_over(phase: Phase) -> None:
    assert (parse(release(weight=1, phase=str(phase))) is None) == phase.over


@pytest.mark.parametrize("arm", Arm)
def test_arms_are_named_as_the_api_names_them(arm: Arm) -> None:
    name = model_server.fleet_of("chat", arm)
    assert releases.fleet_of("chat", str(arm)) == name
    assert arm_of(name) == ("chat", str(arm))


@pytest.mark.parametrize("name", ["chat", "chat-candidate", "candidate", "_candidate", "chat_other", ""])
def test_what_is_no_arm(name: str) -> None:
    assert arm_of(name) is None


@pytest.mark.parametrize(
    ("objects", "expected"),
    [
        ([release(), release(weight=5)], [Release("chat", 5)]),
        ([release(weight=5), release(phase="RolledBack", weight=50)], [Release("chat", 5)]),
        ([release(mirror=100), release()], [Release("chat", 0, 100)]),
        (
            [release(weight=5), release(service="voice", weight=1)],
            [Release("chat", 5), Release("voice", 1)],
        ),
    ],
)
def test_one_release_for_each_service(objects: list[Object], expected: list[Release]) -> None:
    assert list(releases.releases(objects)) == expected
    assert list(releases.releases(reversed(objects))) == expected


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["service", "phase", "weight", "mirror"]), inner)
    ),
    max_leaves=10,
)


@given(st.lists(st.dictionaries(st.sampled_from(["status", "metadata"]), JSON), max_size=4))
def test_any_objects(objects: list[Object]) -> None:
    found = releases.releases(objects)
    assert all(0 <= one.weight <= 100 and 0 <= one.mirror <= 100 for one in found)
    assert load(json.dumps(dump(found)), Release) == found


def arm(ip: str, name: str = "candidate", **options: Any) -> Object:
    return pod(ip, server=f"chat_{name}", **options)


CANDIDATE_TOO = ("chat_candidate", 100)
ZERO = Server("chat", from_zero=True)


@pytest.mark.parametrize(
    ("pods", "shares", "servers", "split", "held"),
    [
        pytest.param([pod("1"), arm("2")], (10, 0), [], Split(10, 32), False, id="a share"),
        pytest.param(
            [pod("1"), arm("2"), arm("3")],
            (10, 0),
            [Server("chat_candidate", concurrency=4)],
            Split(10, 8),
            False,
            id="what the candidate takes",
        ),
        pytest.param(
            [pod("1"), arm("2", ready=False)],
            (100, 100),
            [],
            Split(),
            False,
            id="a candidate without endpoints",
        ),
        pytest.param([pod("1")], (100, 100), [], Split(), False, id="no candidate at all"),
        pytest.param([pod("1"), arm("2")], (0, 0), [], Split(0, 32), False, id="for testers only"),
        pytest.param(
            [pod("1"), arm("2"), arm("3", "baseline")],
            (0, 100),
            [],
            Split(0, 32, (CANDIDATE_TOO, ("chat_baseline", 100))),
            False,
            id="a shadow of both",
        ),
        pytest.param(
            [pod("1"), arm("2"), arm("3", "baseline", ready=False)],
            (0, 100),
            [],
            Split(0, 32, (CANDIDATE_TOO,)),
            False,
            id="a shadow of the one that is there",
        ),
        pytest.param(
            [arm("2")],
            (100, 0),
            [ZERO],
            Split(100, 32),
            False,
            id="the champion is at zero, the candidate answers",
        ),
        pytest.param([arm("2")], (5, 0), [ZERO], Split(5, 32), False, id="also what is the champion's"),
        pytest.param(
            [arm("2")], (0, 100), [ZERO], Split(0, 32, (CANDIDATE_TOO,)), True, id="but none who isn't to"
        ),
        pytest.param([arm("2", ready=False)], (100, 0), [ZERO], Split(), True, id="neither is there"),
        pytest.param([arm("2", **OWN), pod("1")], (10, 0), [], Split(), False, id="an arm is of the core"),
    ],
)
@pytest.mark.parametrize("tier", ["core", "edge"])
def test_what_a_release_gives(
    tier: Literal["core", "edge"],
    pods: list[Object],
    shares: tuple[int, int],
    servers: list[Server],
    split: Split,
    held: bool,
) -> None:
    made = fleets(
        pods, tier=tier, region="bj", known=(), servers=servers, releases=[Release("chat", *shares)]
    )
    chat = next(fleet for fleet in made if fleet.name == "chat")
    assert (chat.split, chat.held) == (split, held)
    assert all(fleet.own is None for fleet in made if fleet.arm is not None)


def test_an_arm_is_held_by_nobody() -> None:
    servers = [Server("chat_candidate", from_zero=True), EDGE]
    made = {fleet.name: fleet for fleet in fleets([], tier="core", region="bj", known=(), servers=servers)}
    assert set(made) == {"chat", "chat_candidate"}, "its service is known with it"
    assert not any(fleet.held for fleet in made.values())
    assert made["chat_candidate"].deserted and not made["chat"].deserted


WORLDS = st.builds(
    lambda champion, candidate, baseline, own, zero, weight, mirror: (
        [
            *(pod(f"1{i}") for i in range(champion)),
            *(arm(f"2{i}") for i in range(candidate)),
            *(arm(f"3{i}", "baseline") for i in range(baseline)),
            *(pod(f"4{i}", tier="edge", region="bj") for i in range(own)),
        ],
        [Server("chat", from_zero=zero)],
        [Release("chat", weight, mirror)],
    ),
    *(st.integers(0, 2) for _ in range(4)),
    st.booleans(),
    st.integers(0, 100),
    st.integers(0, 100),
)


def table(made: Any) -> list[dict[str, Any]]:
    (host,) = made["resources"][0]["virtual_hosts"]
    return list(host["routes"])


def targets(route: dict[str, Any]) -> list[tuple[str, int]]:
    """The clusters that a route leads to, and their shares."""
    to = route.get("route", {})
    if "cluster" in to:
        return [(to["cluster"], 100)]
    parts = to.get("weighted_clusters", {}).get("clusters", ())
    return [(part["name"], part["weight"]) for part in parts]


def counters(route: dict[str, Any]) -> Iterable[str]:
    for said in (route, *route.get("route", {}).get("weighted_clusters", {}).get("clusters", ())):
        for one in said.get("typed_per_filter_config", {}).values():
            yield one["stat_prefix"]


@given(WORLDS, st.sampled_from(["core", "edge"]))
def test_routes_of_any_release(
    world: tuple[list[Object], list[Server], list[Release]], tier: Literal["core", "edge"]
) -> None:
    pods, servers, given_releases = world
    made = fleets(pods, tier=tier, region="bj", known=(), servers=servers, releases=given_releases)
    chat = next(fleet for fleet in made if fleet.name == "chat")
    own = settings(Path(), GATEWAY_TIER=tier)
    clusters = {one["name"]: one for one in config.clusters(made, own)["resources"]}
    endpoints = {name: doc["resources"][0] for fleet in made for name, doc in config.endpoints(fleet).items()}

    def reaches(cluster: str) -> bool:
        """Some endpoint, by itself or by those that it is joined of."""
        joined = clusters[cluster].get("cluster_type", {}).get("typed_config", {}).get("clusters", [cluster])
        return any(endpoints[name]["endpoints"][0]["lb_endpoints"] for name in joined)

    for which, made_table in (("routes", routes.routes(made, own)), ("released", routes.released(made))):
        if which == "released" and not chat.from_zero:
            continue  # nothing comes that way
        served = [route for route in table(made_table) if "route" in route]
        assert {route["match"]["path_separated_prefix"] for route in served} == {"/v1/chat"}
        for route in served:
            shares = targets(route)
            assert sum(share for _, share in shares) == 100
            assert all(name in clusters for name, _ in shares)
            mirrored = [one["cluster"] for one in route["route"].get("request_mirror_policies", ())]
            assert all(name in clusters and reaches(name) for name in mirrored)
            if chat.held and which == "routes" and "headers" not in route["match"]:
                assert shares == [("chat@activator", 100)]
                continue
            assert route["route"]["host_rewrite_literal"] == "gateway"
            # Whoever can be reached is: nobody is led to an empty place while the other arm may answer.
            if chat.core or chat.own or chat.split.weight:
                assert all(reaches(name) for name, share in shares if share)
            assert bool(list(counters(route))) == (which == "routes")
            if which == "routes":
                assert len(list(counters(route))) == len(shares)
        assert "headers" not in served[-1]["match"], "the last one takes all"


@given(st.integers(0, 99), st.integers(1, 100), st.integers(0, 2**64 - 1))
def test_a_larger_weight_takes_nobody_from_the_candidate(less: int, more: int, hashed: int) -> None:
    """As Envoy reads the shares: a hash's rest of their sum is in the range of one of them, in their order."""
    less, more = sorted((less, more))

    def arm_at(weight: int) -> str:
        split = Split(weight, 32) if weight else Split(0, 32)
        made = routes.released([Fleet("chat", ends("1"), from_zero=True, split=split)])
        *_, route, _ = table(made)
        rest = hashed % 100
        for name, share in targets(route):
            if rest < share:
                return name
            rest -= share
        raise AssertionError("no arm")

    if arm_at(less) == "chat_candidate":
        assert arm_at(more) == "chat_candidate"


def test_a_weight_changes_the_route_table_alone(tmp_path: Path) -> None:
    def files(weight: int, mirror: int) -> dict[str, str]:
        made = fleets(
            [pod("1"), arm("2"), arm("3", "baseline")],
            tier="core",
            region="",
            known=(),
            releases=[Release("chat", weight, mirror)],
        )
        own = settings(tmp_path, GATEWAY_TIER="core")
        docs = {
            "clusters": config.clusters(made, own),
            "routes": routes.routes(made, own),
            "released": routes.released(made),
        } | {name: doc for fleet in made for name, doc in config.endpoints(fleet).items()}
        return {name: json.dumps(doc) for name, doc in docs.items()}

    before, after = files(5, 0), files(50, 100)
    assert {name for name in before if before[name] != after[name]} == {"routes"}


@pytest.mark.parametrize(
    ("tier", "behind"),
    [
        ("core", ["chat_candidate@core", "chat"]),
        ("edge", ["chat_candidate@core", "chat@core", "chat@edge"]),
    ],
)
def test_behind_a_candidate_is_its_champion(
    tmp_path: Path, tier: Literal["core", "edge"], behind: list[str]
) -> None:
    made = fleets([arm("1"), arm("2", "baseline")], tier=tier, region="bj", known=())
    resources = config.clusters(made, settings(tmp_path, GATEWAY_TIER=tier))["resources"]
    clusters = {one["name"]: one for one in resources}
    assert clusters["chat_candidate"]["cluster_type"]["typed_config"]["clusters"] == behind
    assert set(behind) | {"chat_baseline@core"} <= set(clusters)
    assert "chat_baseline" not in clusters, "it is mirrored to, and answers nobody"
    files = {name for fleet in made for name in config.endpoints(fleet)}
    assert files == {name for name, one in clusters.items() if one.get("type") == "EDS"}


def test_arms_linger() -> None:
    arms = Lingering(["chat_candidate"], 100.0)
    assert arms.look([], 101.0) == ({"chat_candidate"}, LINGER_S - 1), "as an earlier run has left it"
    assert arms.look(["chat_candidate"], 110.0) == (set(), None)
    assert arms.look(["chat_baseline"], 115.0) == ({"chat_candidate"}, LINGER_S - 5)
    assert arms.look([], 110.0 + LINGER_S) == ({"chat_baseline"}, 5.0)
    assert arms.look([], 115.0 + LINGER_S) == (set(), None)


def test_endpoints_of_both_arms_are_apart() -> None:
    made = {fleet.name: fleet for fleet in fleets([pod("1"), arm("2")], tier="core", region="", known=())}
    assert made["chat"].core == (Endpoint("1", 8080),)
    assert made["chat_candidate"].core == (Endpoint("2", 8080),)
