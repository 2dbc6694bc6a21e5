"""What is compared of a release, from the answers of a Prometheus that holds a made-up history."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import pytest

from operators.canary.judge import judge
from operators.canary.values import Count, Standing, Verdict
from operators.releases.answers import NOTHING, Joined
from operators.releases.comparing import BEFORE_S, Comparing, Stretch, metrics_of, stretches
from operators.releases.machine import compared_of
from switchboard.api.model_release import (
    Compared,
    Kind,
    Margin,
    MetricName,
    Phase,
    Shadow,
    Spec,
    Status,
    Turn,
)

NOW = 1_790_000_000.0
SPEC = Spec(server="chat", version=8)
WARM = {"old-1": 0.0, "old-2": 0.0, "new-1": 0.0, "base-1": 0.0}


def at(seconds: float) -> datetime:
    return datetime.fromtimestamp(NOW + seconds, UTC)


def status(*turns: tuple[Phase, float]) -> Status:
    return Status(
        service="chat",
        started_at=at(0),
        turns=tuple(Turn(at=at(when), phase=phase, sentence="so") for phase, when in turns),
    )


CANARY = status((Phase.PREPARING, 0), (Phase.SHADOW, 20), (Phase.CANARY, 50))


@dataclass
class History:
    """Pods that are asked `rps` each and fail `errors` of that, from long ago on."""

    rps: float = 20.0
    errors: dict[str, float] = field(default_factory=dict)
    down: tuple[float, float] = (0.0, 0.0)
    """Between these times no question is answered."""
    now: float = NOW
    asked: list[tuple[str, float, float]] = field(default_factory=list)

    async def ask(self, text: str, start: float, end: float, step: int) -> list[dict[str, Any]] | str:
        if self.down[0] <= self.now < self.down[1]:
            return "Prometheus: connection refused"
        self.asked.append((text, start, end))
        shadow = 'traffic="shadow"' in text
        fleets = (
            {"base-1": "chat_baseline", "new-1": "chat_candidate"}
            if shadow
            else {
                "old-1": "chat",
                "old-2": "chat",
                "new-1": "chat_candidate",
            }
        )
        found = []
        for pod, fleet in fleets.items():
            if fleet not in text:
                continue
            rate = self.rps * self.errors.get(pod, 0.001)
            signals = {"requests": self.rps, "failed": rate, "slow": 0.02, "handoff": 0.4, "fallback": 0.0}
            signals |= {"started": 0.0, "memory": 0.0}
            times = [one for one in range(int(start), int(end) + 1, step) if one <= self.now]
            for signal, per_s in signals.items():
                labels = {"signal": signal, "model_server": fleet, "pod": pod}
                found.append({"metric": labels, "values": _counted(times, per_s)})
            if not shadow:  # of whose requests gateways know; one asks each replica
                labels = {"signal": "arrived", "envoy_local_http_ratelimit_prefix": fleet, "pod": f"of-{pod}"}
                found.append({"metric": labels, "values": _counted(times, self.rps)})
                labels = {"signal": "refused", "envoy_cluster_name": fleet, "pod": f"of-{pod}"}
                found.append({"metric": labels, "values": _counted(times, rate)})
        return found


def _counted(times: list[int], per_s: float) -> list[list[Any]]:
    return [[one, str(float(int((one - NOW + 10_000) * per_s)))] for one in times]


def test_stretches_follow_the_turns() -> None:
    assert stretches(Status()) == ()
    before = Stretch(NOW - BEFORE_S, NOW, "", "chat")
    assert stretches(status((Phase.PREPARING, 0))) == (before,)
    assert stretches(CANARY) == (
        before,
        Stretch(NOW + 20, NOW + 50, "chat_candidate", "chat_baseline", shadow=True),
        Stretch(NOW + 50, None, "chat_candidate", "chat"),
    )
    over = status((Phase.SHADOW, 20), (Phase.CANARY, 50), (Phase.CANARY, 110), (Phase.WARM, 170))
    assert stretches(over)[-1] == Stretch(NOW + 50, NOW + 170, "chat_candidate", "chat")
    stopped = status((Phase.SHADOW, 20), (Phase.ROLLED_BACK, 40))
    assert stretches(stopped)[-1] == Stretch(
        NOW + 20, NOW + 40, "chat_candidate", "chat_baseline", shadow=True
    )


async def test_looking_often_is_looking_once() -> None:
    """Whoever takes over in the middle comes to the same, from the same Prometheus."""
    history = History(errors={"new-1": 0.004})
    often, once = Comparing(SPEC), Comparing(SPEC)
    for seconds in range(0, 400, 7):
        history.now = NOW + seconds
        assert await often.go_on(history.ask, CANARY, WARM, history.now) is None
    assert await once.go_on(history.ask, CANARY, WARM, history.now) is None
    assert once.judgement == often.judgement
    assert once.judgement is not None
    assert once.judgement.seconds == pytest.approx(20 + 330, abs=20), "the shadow's and the customers'"


async def test_harm_is_seen() -> None:
    history = History(errors={"new-1": 0.08})
    comparing = Comparing(SPEC)
    history.now = NOW + 120
    await comparing.go_on(history.ask, CANARY, WARM, history.now)
    assert comparing.judgement is not None
    assert comparing.judgement.verdict is Verdict.ABORT
    assert "requests failed" in comparing.judgement.sentence


async def test_a_prometheus_that_is_away_costs_time_and_no_verdict() -> None:
    history = History(down=(NOW + 60, NOW + 200))
    comparing = Comparing(SPEC)
    for seconds in range(0, 300, 10):
        history.now = NOW + seconds
        problem = await comparing.go_on(history.ask, CANARY, WARM, history.now)
        assert (problem is not None) == (60 <= seconds < 200)
        assert comparing.judgement is not None
        assert comparing.judgement.verdict is Verdict.CONTINUE
    whole = Comparing(SPEC)
    await whole.go_on(history.ask, CANARY, WARM, history.now)
    assert comparing.judgement == whole.judgement, "what was missed is asked for later"


async def test_no_data_is_no_verdict() -> None:
    async def nothing(*_: Any) -> list[dict[str, Any]]:
        return []

    comparing = Comparing(SPEC)
    assert await comparing.go_on(nothing, CANARY, WARM, NOW + 600) is None
    assert comparing.judgement is not None
    assert comparing.judgement.verdict is Verdict.CONTINUE
    assert {one.standing for one in comparing.judgement.findings} == {Standing.UNKNOWN}


async def test_a_long_release_is_asked_for_in_parts() -> None:
    history = History(now=NOW + 90_000)
    comparing = Comparing(SPEC)
    assert await comparing.go_on(history.ask, CANARY, WARM, history.now) is None
    assert max(end - start for _, start, end in history.asked) <= 3600
    assert comparing.comparison.seconds > 89_000


async def test_what_is_known_before_a_release() -> None:
    history, comparing = History(down=(NOW, NOW + 5)), Comparing(SPEC)
    assert await comparing.see(history.ask, "chat", NOW) == "Prometheus: connection refused"
    assert comparing.unseen is None
    history.down = (0.0, 0.0)
    assert await comparing.see(history.ask, "chat", NOW) is None
    assert comparing.unseen == ()
    assert await comparing.see(history.ask, "voice", NOW + 9) is None
    assert (comparing.unseen, len(history.asked)) == ((), 1), "it isn't asked at each tick"
    assert await comparing.see(history.ask, "voice", NOW + 10) is None
    assert "slow" in (comparing.unseen or ()), "nobody has asked that one"


async def test_answers_that_were_joined_are_kept_in_the_status() -> None:
    comparing = Comparing(SPEC)
    kept = Compared(
        name=MetricName.DISAGREED,
        standing="Open",
        candidate_events=3,
        candidate_of=900,
        champion_events=0,
        champion_of=900,
        kinds=(Kind(kind="hours", candidate_events=3, candidate_of=4, champion_events=0, champion_of=4),),
    )
    comparing.resume(CANARY.model_copy(update={"compared": (kept,)}))
    seen = comparing.comparison.arms["disagreed"]
    assert seen.candidate == {"(before)": Count(3, 900)}
    assert seen.champion == {"(before)": Count(0, 900)}
    assert comparing.comparison.arms["disagreed/hours"].candidate == {"(before)": Count(3, 4)}
    (again,) = (one for one in compared_of(judge(comparing.comparison)) if one.name is MetricName.DISAGREED)
    assert again == kept, "it is kept on, and open: a kind of which three of four are others"


def test_what_one_arm_alone_has_answered_waits_for_the_other() -> None:
    comparing, pods = Comparing(SPEC), {"p": Count(1, 5)}
    comparing.add_answers(Joined(pods, {"hours": pods}), NOTHING, NOW)
    assert comparing.comparison.arms == {}
    comparing.add_answers(Joined(pods, {"rates": pods}), Joined(pods, {"rates": pods}), NOW)
    seen = {name: arms.candidate["p"] for name, arms in comparing.comparison.arms.items()}
    assert seen == {"disagreed": Count(2, 10), "disagreed/rates": Count(1, 5)}
    comparing.add_answers(NOTHING, Joined({}, {"hours": pods}), NOW)
    assert comparing.comparison.arms["disagreed/hours"].candidate == pods


def test_what_it_is_judged_by() -> None:
    assert [one.name for one in metrics_of(SPEC)] == [one.value for one in MetricName]
    no_shadow = metrics_of(SPEC.model_copy(update={"shadow": Shadow(seconds=0)}))
    assert "disagreed" not in [one.name for one in no_shadow]
    own = SPEC.model_copy(update={"metrics": (Margin(name=MetricName.DISAGREED, margin=0.05),)})
    (changed,) = (one for one in metrics_of(own) if one.name == "disagreed")
    assert (changed.margin, changed.tolerated) == (0.05, 0.025)
