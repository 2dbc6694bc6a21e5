"""Envoy's route tables for a gateway, and what of a request is tried again: pure functions from the fleets.

A request goes to its model server's cluster, or, where that has no endpoint and gets one on demand, to the agent, which
holds it (`activator`) and gives it back by the table `released`, in which all routes lead to the model servers.

While a release is under way, a part of the requests goes to its candidate: a session by its hash, so that it stays with
its arm, and a larger part takes no session away from the candidate. Who names an arm (`ARM`) gets that one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace

from serving.gateway.fleets import Fleet, Split
from serving.gateway.listeners import OPS_ROUTES, RELEASED, ROUTES, counted, percent
from serving.gateway.releases import CANDIDATE, fleet_of
from serving.gateway.settings import Settings
from switchboard import envoy
from switchboard.envoy import Config

ADMIN = "_admin"
"""The cluster of Envoy's own admin socket; no label value, so no model server, can have this name."""

ARM = "x-switchboard-arm"
"""A header of testers': `candidate` or `champion`."""
CHAMPION = "champion"

HOST = "gateway"
"""What replicas see as the host, whatever a customer says: by its `-shadow` (Envoy's) they know a mirrored request."""

TIMEOUT_S = 10.0
TRY_TIMEOUT_S = 3.0


_Count = Callable[[str], Config]
"""What a route says so that its requests are counted for a fleet."""


def activator_of(name: str) -> str:
    """The cluster that leads a model server's requests to the agent."""
    return f"{name}@activator"


def pool_of(name: str) -> str:
    """The cluster of a fleet's endpoints in the core, where the fleet's own name is that of a joined one."""
    return f"{name}@core"


def routes(fleets: Iterable[Fleet], settings: Settings) -> Config:
    def count(name: str) -> Config:
        return {"typed_per_filter_config": counted(name)}

    served = [
        route
        for fleet in fleets
        for route in _routes(fleet, count, _held(fleet, settings) if fleet.held else None)
    ]
    return _table(ROUTES, [*served, _answer({"prefix": "/"}, 404)])


def released(fleets: Iterable[Fleet]) -> Config:
    """What was held was counted then."""
    served = [route for fleet in fleets for route in _routes(once_held(fleet), lambda _: {}, None)]
    return _table(RELEASED, [*served, _answer({"prefix": "/"}, 503)])


def once_held(fleet: Fleet) -> Fleet:
    """As what has been held sees it: where nothing is, a release's weight needn't be known, nor changed."""
    return fleet if fleet.from_zero else replace(fleet, split=Split())


def shape(fleet: Fleet) -> tuple[object, ...]:
    """All that a fleet's routes depend on, but for whether its requests are held."""
    split = fleet.split
    return (
        *(fleet.name, fleet.own is None, fleet.moved, fleet.hedged and fleet.hedge_s),
        *(split.weight, split.candidate > 0, split.mirrors),
    )


def none_yet(table: str) -> Config:
    """Before the agent knows any pod: try again, rather than that there is no such service."""
    return _table(table, [_answer({"prefix": "/"}, 503)])


def ops(*, ready: bool) -> Config:
    """Of the probes' port. Envoy's own readiness counts once the agent has told it where to send requests."""
    readiness = [
        {"match": {"path": path}, "route": {"cluster": ADMIN, "prefix_rewrite": "/ready"}}
        if ready
        else _answer({"path": path}, 503)
        for path in ("/ready", "/readyz")
    ]
    statistics = {"match": {"path": "/stats/prometheus"}, "route": {"cluster": ADMIN}}
    return _table(
        OPS_ROUTES, [*readiness, statistics, _answer({"path": "/livez"}, 200), _answer({"prefix": "/"}, 404)]
    )


def _routes(fleet: Fleet, count: _Count, held: Config | None) -> Iterator[Config]:
    """A service's routes, the first that fits counts; an arm has none of its own."""
    if fleet.arm is not None:
        return
    split, candidate = fleet.split, fleet_of(fleet.name, CANDIDATE)
    path: Config = {"path_separated_prefix": f"/v1/{fleet.name}"}
    tested = _served(fleet)
    served = {**tested, **_mirrored(fleet)}
    if split.candidate:
        yield {
            "match": {**path, "headers": [_names_arm(CANDIDATE)]},
            "route": {**tested, "cluster": candidate},
            **count(candidate),
        }
    if split.weight:
        champion = candidate if fleet.moved else fleet.name
        yield {
            "match": {**path, "headers": [_names_arm(CHAMPION)]},
            "route": {**served, "cluster": champion},
            **count(fleet.name),
        }
        # The candidate first: its range of hashes begins at 0, and a larger one has all that a smaller one had. What
        # is the champion's is counted for it even where the candidate answers: it is what starts a replica for it.
        parts = [
            {"name": candidate, "weight": split.weight, **count(candidate)},
            {"name": champion, "weight": 100 - split.weight, **count(fleet.name)},
        ]
        yield {
            "match": path,
            "route": {**served, "weighted_clusters": {"clusters": parts, "use_hash_policy": True}},
        }
        return
    plain = {**served, "cluster": fleet.name, **_hedged(fleet)}
    yield {"match": path, "route": held or plain, **count(fleet.name)}


def _names_arm(arm: str) -> Config:
    return {"name": ARM, "string_match": {"exact": arm}}


def _mirrored(fleet: Fleet) -> Config:
    """Of these Envoy neither waits for the answers nor counts the requests as customers'; both arms get the same."""
    policies = [
        {"cluster": pool_of(name), "runtime_fraction": percent(share)} for name, share in fleet.split.mirrors
    ]
    return {"request_mirror_policies": policies} if policies else {}


def _table(name: str, table: list[Config]) -> Config:
    hosts = [{"name": name, "domains": ["*"], "routes": table}]
    return envoy.resources("RouteConfiguration", [{"name": name, "virtual_hosts": hosts}])


def _answer(match: Config, status: int) -> Config:
    return {"match": match, "direct_response": {"status": status}}


def _served(fleet: Fleet) -> Config:
    return {
        "timeout": envoy.seconds(TIMEOUT_S),
        "retry_policy": _retries(fleet),
        "hash_policy": [{"header": {"header_name": "x-session-id"}}],
        "host_rewrite_literal": HOST,
    }


def _hedged(fleet: Fleet) -> Config:
    """A slow try goes on beside the next one, and the first answer counts: so a replica that hangs, or has no processor
    time, costs its customers that long and no more.

    Not while a release divides the requests: a try beside another would count as one that its arm has failed.
    """
    if not fleet.hedged:
        return {}
    return {
        "hedge_policy": {"hedge_on_per_try_timeout": True},
        "retry_policy": {**_retries(fleet), "per_try_timeout": envoy.seconds(fleet.hedge_s)},
    }


def _retries(fleet: Fleet) -> Config:
    return retries(update_frequency=None if fleet.own is None else 2)


def _held(fleet: Fleet, settings: Settings) -> Config:
    """The agent answers in any case, and before this gives up. One that starts anew is waited for: tries are 1 s apart
    on average, by Envoy's jitter, and there are enough of them for all the time."""
    longest_s = settings.hold_s + TIMEOUT_S
    return {
        "cluster": activator_of(fleet.name),
        "timeout": envoy.seconds(longest_s + 5),
        "idle_timeout": envoy.seconds(longest_s + 10),
        "retry_policy": {
            "retry_on": "connect-failure,refused-stream,reset",
            "num_retries": math.ceil(longest_s) + 10,
            "retry_back_off": {"base_interval": "0.1s", "max_interval": "2s"},
        },
    }


def retries(*, update_frequency: int | None) -> Config:
    """Up to three more tries, each on a replica that was not tried yet; where clusters are joined, after so many tries
    each on the next one's: at an edge the last two on its own replicas, with a candidate all but the first elsewhere.

    Also after a connection was reset with the request sent, when the replica may have answered it already: a request
    to a model changes nothing, and where a turn must be answered once, the server sees to it by `Idempotency-Key`.
    A 503 is a replica that is full or draining, and asks for another one.
    """
    policy: Config = {
        "retry_on": "connect-failure,refused-stream,reset,gateway-error",
        "num_retries": 3,
        "per_try_timeout": envoy.seconds(TRY_TIMEOUT_S),
        "retry_back_off": {"base_interval": "0.005s", "max_interval": "0.1s"},
        "retry_host_predicate": [
            envoy.extension("envoy.retry_host_predicates.previous_hosts", "PreviousHostsPredicate")
        ],
        # On a hash ring the next position may be the same replica's again, so that many looks are needed.
        "host_selection_retry_max_attempts": 32,
    }
    if update_frequency is not None:
        policy["retry_priority"] = envoy.extension(
            "envoy.retry_priorities.previous_priorities",
            "PreviousPriorities",
            update_frequency=update_frequency,
        )
    return policy
