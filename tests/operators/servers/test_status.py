"""What is said of a ModelServer: each condition with its status and reason, and nothing new while nothing changes."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from operators.facts import Deployment, Pod, Trouble
from operators.scaling.values import Move
from operators.servers import status as said
from operators.servers.server import Server, Step
from operators.signals.values import Seen, Traffic
from switchboard.api.conditions import Condition
from switchboard.api.model_server import LastDecision, Status
from switchboard.api.scaling import MOST_REPLICAS
from tests.operators.servers.build import (
    AT,
    NOW,
    ROLLING,
    UNMEASURED,
    asks,
    decided,
    deployment,
    pod,
    pods,
    seen,
    server,
    traffic,
)


def told(
    one: Server,
    found: Traffic | None = None,
    there: Deployment | None = None,
    replicas: list[Pod] | None = None,
    *,
    step: Step | None = None,
    source: Any = "prometheus",
    whole: bool = True,
    now: float = NOW,
) -> Status:
    traffic = found if found is not None else asks(3)
    view: Seen = seen(traffic, source=source)
    return said.status(one, step, there, replicas or [], view, traffic, now, whole=whole)


def condition(status: Status, kind: str) -> Condition:
    return next(one for one in status.conditions if one.type == kind)


def three(one: Server | None = None, *, wanted: int = 3) -> Server:
    made = one or server()
    made.target = made.told = wanted
    return made


BACK_OFF = Trouble("ReplicasFailing", "back-off restarting failed container")
NO_IMAGE = Trouble("ImagePullFailed", "no such image")
SLOW = pod("slow", ready=False, age=600.0)
READY: list[Any] = [
    pytest.param(None, [], "False", "ReplicasStarting", "is being made", id="no Deployment yet"),
    pytest.param(deployment(3), pods(3), "True", "ReplicasReady", "", id="all serve"),
    pytest.param(
        deployment(3, total=1),
        pods(1),
        "True",
        "ReplicasReady",
        "",
        id="one serves: the least that there may be",
    ),
    pytest.param(
        deployment(3, total=0), [], "False", "ReplicasStarting", "fewer than 1 replicas", id="none yet"
    ),
    pytest.param(
        deployment(3, total=1),
        [pod("a", ready=False, age=5.0)],
        "False",
        "ReplicasStarting",
        "fewer than 1",
        id="one starts",
    ),
    pytest.param(
        deployment(3), [SLOW], "False", "ReplicasNotReady", "doesn't get ready", id="one starts for too long"
    ),
    pytest.param(
        deployment(3),
        [pod("a", ready=False, trouble=NO_IMAGE)],
        "False",
        "ImagePullFailed",
        "no such image",
        id="no image",
    ),
    pytest.param(
        deployment(3),
        [pod("a", ready=False, trouble=NO_IMAGE), *pods(2, first=5, ready=False, trouble=BACK_OFF)],
        "False",
        "ReplicasFailing",
        "back-off",
        id="what most have",
    ),
    pytest.param(
        deployment(3),
        [*pods(2), pod("a", ready=False, trouble=BACK_OFF)],
        "True",
        "ReplicasReady",
        "ReplicasFailing: back-off",
        id="one fails, the others serve",
    ),
    pytest.param(
        deployment(3, total=0, failure='pods "x" is forbidden: exceeded quota: q'),
        [],
        "False",
        "QuotaExceeded",
        "exceeded quota",
        id="a quota",
    ),
    pytest.param(
        deployment(3, total=0, failure="violates PodSecurity"),
        [],
        "False",
        "ReplicasRefused",
        "PodSecurity",
        id="refused",
    ),
    pytest.param(
        deployment(3, total=2, failure="exceeded quota"),
        pods(2),
        "True",
        "ReplicasReady",
        "QuotaExceeded: exceeded quota",
        id="a quota, and some serve",
    ),
    pytest.param(
        deployment(3, total=4, updated=1),
        pods(4),
        "False",
        "RollingOut",
        "the old ones serve",
        id="a rollout is under way",
    ),
    pytest.param(
        deployment(3, total=4, updated=1),
        [*pods(3), pod("new", ready=False, trouble=NO_IMAGE)],
        "False",
        "ImagePullFailed",
        "no such image",
        id="a rollout to an image that isn't there",
    ),
    pytest.param(
        deployment(3, total=4, updated=1, stuck=True),
        [*pods(3), pod("new", ready=False, age=60.0)],
        "False",
        "RolloutStuck",
        "hasn't become ready in its time",
        id="a rollout that gets nowhere",
    ),
]


@pytest.mark.parametrize(("there", "replicas", "flag", "reason", "words"), READY)
def test_ready(there: Deployment | None, replicas: list[Pod], flag: str, reason: str, words: str) -> None:
    found = condition(told(three(), there=there, replicas=replicas), "Ready")
    assert (found.status, found.reason) == (flag, reason)
    assert words in found.message
    assert (found.observed_generation, found.last_transition_time) == (3, AT)


def test_ready_as_a_bound_says() -> None:
    """With fewer than the least that a person asked for it isn't."""
    one = three(server(scaling={"minReplicas": 3}))
    assert condition(told(one, there=deployment(3, total=2), replicas=pods(2)), "Ready").status == "False"
    assert condition(told(one, there=deployment(3), replicas=pods(3)), "Ready").status == "True"


def test_none_are_wanted_and_none_are_there() -> None:
    one = three(wanted=0)
    found = condition(told(one, there=deployment(0)), "Ready")
    assert (found.status, found.reason) == ("True", "ScaledToZero")
    one.target = 1  # the first request is there
    assert condition(told(one, there=deployment(0)), "Ready").reason == "ReplicasStarting"


def test_a_template_that_its_controller_has_not_seen() -> None:
    one = three()
    one.template_generation = 5
    assert condition(told(one, there=deployment(3), replicas=pods(3)), "Ready").reason == "RollingOut"


def test_before_anything_is_made_a_refusal_is_why() -> None:
    one = three()
    one.refused = "spec.template: too long"
    found = told(one)
    assert (condition(found, "Ready").reason, condition(found, "Ready").message) == ("Refused", one.refused)
    assert condition(found, "AbleToScale").reason == "Refused"
    assert condition(told(one, there=deployment(3), replicas=pods(3)), "Ready").status == "True"


def test_a_spec_that_can_not_be_read() -> None:
    one = three()
    one.spec, one.problem = None, "spec.scaling.maxReplicas: Field required"
    found = told(one, traffic(None))
    assert (condition(found, "Ready").reason, condition(found, "Ready").message) == (
        "InvalidSpec",
        one.problem,
    )
    assert condition(found, "AbleToScale").reason == "InvalidSpec"
    assert (found.mode, found.selector, found.replicas) == (None, None, 0)


def test_a_spec_that_can_not_be_read_beside_one_that_can() -> None:
    """The one before is in force: what serves is ready, and why nothing follows the new one is said."""
    one = three()
    one.problem = "spec.scaling.maxReplicas: Field required"
    found = told(one, there=deployment(3), replicas=pods(3))
    assert condition(found, "Ready").status == "True"
    assert (condition(found, "AbleToScale").reason, condition(found, "AbleToScale").message) == (
        "InvalidSpec",
        one.problem,
    )


@pytest.mark.parametrize(
    ("values", "found", "source", "whole", "flag", "reason"),
    [
        pytest.param({}, asks(3), "prometheus", True, "True", "PrometheusAnswers", id="all is known"),
        pytest.param({}, asks(3), "gateways", True, "True", "GatewaysAnswer", id="by the gateways"),
        pytest.param({}, asks(3), "prometheus", False, "True", "SeenInPart", id="a gateway is missing"),
        pytest.param({}, asks(3), "gateways", False, "True", "SeenInPart", id="a gateway doesn't answer"),
        pytest.param({}, traffic(None), "prometheus", True, "False", "NoSignals", id="it has no series"),
        pytest.param({}, traffic(None), "nobody", False, "False", "NoSignals", id="nobody answers"),
        pytest.param(
            {"scaling": {"mode": "paused"}}, asks(3), "prometheus", True, "False", "Paused", id="paused"
        ),
        pytest.param(
            {"scaling": {"mode": "shadow"}},
            asks(3),
            "prometheus",
            True,
            "True",
            "PrometheusAnswers",
            id="shadow",
        ),
    ],
)
def test_scaling_active(
    values: Any, found: Traffic, source: str, whole: bool, flag: str, reason: str
) -> None:
    made = condition(
        told(three(server(**values)), found, deployment(3), pods(3), source=source, whole=whole),
        "ScalingActive",
    )
    assert (made.status, made.reason) == (flag, reason)


def test_who_answers_is_said_when_it_lasts() -> None:
    """A Prometheus that misses every other tick has no status written at each."""
    one = three()
    one.status = told(one, asks(3), deployment(3), pods(3), source="prometheus")

    def reason(source: str, after_s: float) -> str:
        made = told(one, asks(3), deployment(3), pods(3), source=source, now=NOW + after_s)
        one.status = made
        return condition(made, "ScalingActive").reason

    sources = ["gateways", "prometheus"] * 5
    assert {reason(source, 2.0 * tick) for tick, source in enumerate(sources)} == {"PrometheusAnswers"}
    found = [reason("gateways", 30 + 2.0 * tick) for tick in range(4)]
    assert found == ["PrometheusAnswers"] * 3 + ["GatewaysAnswer"]
    assert reason("prometheus", 38) == "GatewaysAnswer"
    assert reason("prometheus", 38 + said.MISSED_S) == "PrometheusAnswers"


def test_able_to_scale() -> None:
    def able(one: Server, there: Deployment, step: Step | None = None) -> tuple[str, str]:
        found = condition(told(one, there=there, replicas=pods(6), step=step), "AbleToScale")
        return found.status, found.reason

    assert able(three(), deployment(3)) == ("True", "Succeeded")
    one = server()
    assert able(one, deployment(6, **ROLLING), decided(one, asks(3), deployment(6, **ROLLING), pods(7))) == (
        "False",
        "RollingOut",
    )
    assert able(three(), deployment(3, failure="exceeded quota")) == ("False", "ReplicasRefused")
    assert able(three(server(scaling={"mode": "shadow"})), deployment(3)) == ("False", "Shadow")


@pytest.mark.parametrize(
    ("needed", "scaling", "flag", "reason", "words"),
    [
        pytest.param(5, {}, "False", "WithinBounds", "", id="between them"),
        pytest.param(9, {"maxReplicas": 7}, "True", "TooManyReplicas", "maxReplicas is 7", id="above"),
        pytest.param(1, {"minReplicas": 3}, "True", "TooFewReplicas", "minReplicas is 3", id="below"),
    ],
)
def test_scaling_limited(needed: float, scaling: dict[str, int], flag: str, reason: str, words: str) -> None:
    one = server(scaling=scaling)
    made = decided(one, asks(needed), deployment(5), pods(5))
    found = condition(told(one, asks(needed), deployment(5), pods(5), step=made), "ScalingLimited")
    assert (found.status, found.reason, found.message) == (flag, reason, words)
    assert condition(told(server()), "ScalingLimited").status == "False"  # nothing was decided yet


def test_counts_and_names() -> None:
    one = three()
    one.applied = "0123456789abcdef"
    found = told(one, there=deployment(3), replicas=[*pods(2), pod("a", ready=False)])
    assert (found.replicas, found.ready_replicas, found.desired_replicas) == (3, 2, 3)
    assert (found.revision, found.observed_generation, found.mode) == ("0123456789abcdef", 3, "active")
    assert found.selector is not None
    assert "app.kubernetes.io/name=chat" in found.selector.split(",")


def test_what_is_not_known_yet_is_as_it_was() -> None:
    """A new leader has decided nothing yet."""
    one = server()
    one.status = Status(desired_replicas=7, revision="before", load="50%")
    found = told(one, traffic(None), deployment(3), pods(3))
    assert (found.desired_replicas, found.revision, found.load) == (7, "before", "50%")


def test_there_may_be_more_than_there_may_be() -> None:
    """A person may scale a Deployment to whatever: the status is one that the API server takes."""
    one = server()
    crowd = [pods(1)[0]] * (MOST_REPLICAS + 5)
    made = decided(one, asks(3), deployment(50_000), crowd)
    found = told(one, asks(3), deployment(50_000), crowd, step=made)
    assert (found.replicas, found.ready_replicas) == (MOST_REPLICAS, MOST_REPLICAS)
    assert 0 <= found.desired_replicas <= MOST_REPLICAS
    assert 0 <= made.decision.current <= MOST_REPLICAS


class TestLoad:
    """In tenths; it would change at each tick, so it is said when it has changed by one, and not too often."""

    def say(self, one: Server, rate: float | None, now: float = NOW, **values: Any) -> str | None:
        made = told(one, traffic(rate, **values), deployment(2), pods(2), now=now)
        one.status = made
        return made.load

    def test_of_requests(self) -> None:
        one = three(server(capacity={"requestsPerSecond": 10}))
        assert self.say(one, 9.0) == "40%"  # of 20/s
        assert self.say(one, 14.0, NOW + 2) == "40%"  # not yet
        assert self.say(one, 14.0, NOW + 40) == "70%"
        assert self.say(one, 15.5, NOW + 80) == "70%"  # hardly another
        assert self.say(one, None, NOW + 120) == "70%"  # not known

    def test_it_is_said_again_where_it_was_not_written(self) -> None:
        one = three(server(capacity={"requestsPerSecond": 10}))
        one.status = Status(load="40%")
        for now in (
            NOW,
            NOW,
            NOW + 2,
        ):  # the same tick is computed once more when it is written, and that may fail
            assert told(one, traffic(14.0), deployment(2), pods(2), now=now).load == "70%"

    def test_of_requests_in_them(self) -> None:
        one = three(server(**UNMEASURED))
        assert self.say(one, 9.0, in_service=2.0) == "20%"  # of 8
        assert self.say(three(server(**UNMEASURED)), 9.0) is None

    def test_of_nothing_that_serves(self) -> None:
        assert told(three(), traffic(5.0), deployment(2), pods(2, ready=False)).load is None

    @pytest.mark.parametrize("before", ["high", "", "%"])
    def test_what_another_wrote(self, before: str) -> None:
        one = three(server(capacity={"requestsPerSecond": 10}))
        one.status = Status(load=before)
        assert self.say(one, 9.0) == "40%"

    def test_a_clock_that_was_set_back(self) -> None:
        one = three(server(capacity={"requestsPerSecond": 10}))
        self.say(one, 9.0)
        assert self.say(one, 14.0, NOW - 7200) == "70%"


@pytest.mark.parametrize(("there", "replicas", "flag", "reason", "words"), READY)
def test_what_has_not_changed_is_equal(
    there: Deployment | None, replicas: list[Pod], flag: str, reason: str, words: str
) -> None:
    """So nothing is written: not later, not for other numbers of the same meaning, not by what the API server has."""
    one = three()
    one.status = first = told(one, asks(3), there, replicas)
    again = told(one, asks(3.1), there, [dataclasses.replace(each) for each in replicas], now=NOW + 10)
    assert again == first
    read = Status.model_validate(first.model_dump(mode="json", by_alias=True, exclude_none=True))
    assert read == first
    one.status = read
    assert told(one, asks(2.9), there, replicas, now=NOW + 12) == first


def test_times_are_those_of_changes() -> None:
    one = three()
    one.status = told(one, there=deployment(3, total=0))
    one.status = told(one, there=deployment(3), replicas=pods(3), now=NOW + 60)
    found = condition(one.status, "Ready")
    assert (found.status, found.last_transition_time.timestamp()) == ("True", NOW + 60)
    assert condition(one.status, "ScalingActive").last_transition_time.timestamp() == NOW


def test_conditions_of_others_stay() -> None:
    one = three()
    other = Condition(type="Audited", status="True", reason="Fine", last_transition_time=AT)
    one.status = Status(conditions=(other,))
    assert other in told(one, there=deployment(3), replicas=pods(3)).conditions


WORDS = st.text(max_size=2000)


@settings(max_examples=60)
@given(
    problem=st.one_of(st.none(), WORDS),
    refused=st.one_of(st.none(), WORDS),
    failure=st.one_of(st.none(), WORDS),
    why=WORDS,
    rate=st.one_of(st.none(), st.floats(0, 1e9)),
    in_service=st.one_of(st.none(), st.floats(0, 1e9)),
    target=st.one_of(st.none(), st.integers(0, MOST_REPLICAS)),
    there=st.booleans(),
    now=st.floats(0, 4e9),
)
def test_whatever_happens_it_can_be_said(
    problem: str | None,
    refused: str | None,
    failure: str | None,
    why: str,
    rate: float | None,
    in_service: float | None,
    target: int | None,
    there: bool,
    now: float,
) -> None:
    one = server(**UNMEASURED)
    made = decided(one, asks(3), deployment(5), pods(5))
    move = Move("bounds", 5, 4, why)
    made = dataclasses.replace(made, decision=dataclasses.replace(made.decision, moves=(move,)))
    one.problem, one.refused, one.target = problem, refused, target
    sentence = made.decision.sentence()[:1024]
    one.changes.extend([LastDecision(at=AT, before=5, wanted=4, sentence=sentence)] * 15)
    found = told(
        one,
        Traffic(rate=rate, in_service=in_service),
        deployment(5, failure=failure) if there else None,
        pods(5),
        step=made,
        now=now,
    )
    assert Status.model_validate(found.model_dump(mode="json", by_alias=True, exclude_none=True)) == found
    assert {each.type for each in found.conditions} == {
        "Ready",
        "ScalingActive",
        "AbleToScale",
        "ScalingLimited",
    }
    assert all(len(each.message) <= 1000 for each in found.conditions)
    assert found.load is None or math.isfinite(float(found.load.rstrip("%")))
