"""The page of a release: everything that was asked for is on it, and nothing in it is markup that isn't ours."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from operators.canary.values import METRICS
from operators.releases.report import interval, page
from switchboard import labels
from switchboard.api.model_release import Compared, MetricName, Phase, Spec, Status, Turn

START = datetime(2026, 11, 28, 12, 0, tzinfo=UTC)
SPEC = Spec(server="chat", version=8, reason="new <intents> & more")
RELEASE: dict[str, Any] = {
    "metadata": {
        "name": "chat-8-x",
        "annotations": {labels.REQUESTED_BY: "ana", labels.APPROVED_BY: "<li>"},
    }
}


def turn(minutes: float, phase: Phase, weight: int, sentence: str = "so") -> Turn:
    return Turn(at=START + timedelta(minutes=minutes), phase=phase, weight=weight, sentence=sentence)


STATUS = Status(
    phase=Phase.ROLLED_BACK,
    model="chat-intent",
    champion_version=7,
    verdict="Abort",
    compared_seconds=90,
    turns=(
        turn(0, Phase.PREPARING, 0),
        turn(1, Phase.CANARY, 10, "step 1 of 2: 10 % of the requests"),
        turn(2, Phase.CANARY, 50),
        turn(2.5, Phase.ROLLED_BACK, 0, "requests failed: 40 of 500"),
    ),
    compared=(
        Compared(
            name=MetricName.FAILED,
            standing="Harmful",
            candidate_events=40,
            candidate_of=500,
            champion_events=3,
            champion_of=4500,
        ),
        Compared(
            name=MetricName.RESTARTS,
            standing="Open",
            candidate_events=0,
            candidate_of=0.05,
            champion_events=0,
            champion_of=0,
        ),
    ),
)


def test_what_is_on_it() -> None:
    found = page(
        RELEASE,
        SPEC,
        STATUS,
        tags={"switchboard.gate": "passed", "switchboard.gate.size": "passed: small", "other": "hidden"},
        load_test={"requests": 12345, "p99_ms": 21.5},
        evidence="abc123",
    )
    for words in (
        *("version 7 to 8", "asked for by ana", "RolledBack", "requests failed: 40 of 500"),
        *(
            "step 1 of 2",
            "8 % [",
            "40 of 500",
            "Harmful",
            "nothing",
            "switchboard.gate.size",
            "p99_ms",
            "abc123",
        ),
    ):
        assert words in found, words
    assert "hidden" not in found
    assert "<intents>" not in found
    assert "&lt;intents&gt; &amp; more" in found
    assert "approved by &lt;li&gt;" in found


def test_what_isnt_known_is_said() -> None:
    found = page({"metadata": {"name": "x"}}, SPEC, Status())
    for words in ("unknown", "Nothing was compared", "wasn't asked about this version", "None was given"):
        assert words in found


def test_the_picture_follows_the_weights() -> None:
    found = page(RELEASE, SPEC, STATUS)
    picture = ET.fromstring(found[found.index("<svg") : found.index("</svg>") + 6])  # noqa: S314 - ours
    (path,) = picture.iter("path")
    heights = [float(one.rpartition(",")[2]) for one in path.attrib["d"].split(" ")]
    assert min(heights) == heights[6], "it is highest at the greatest weight"
    assert heights[0] == heights[-1], "it ends where it began"


@pytest.mark.parametrize(
    ("name", "events", "of", "low", "high"),
    [
        ("failed", 0, 300, 0.0, 0.0126),
        ("failed", 40, 500, 0.0592, 0.1072),
        ("restarts", 0, 0.5, 0.0, 7.378),
        ("restarts", 2, 0.5, 0.484, 14.45),
    ],
)
def test_intervals(name: str, events: float, of: float, low: float, high: float) -> None:
    """Hand-worked: Wilson's, and Garwood's from a table of Poisson limits (0: 3.689, 2: 0.242 to 7.225)."""
    metric = next(one for one in METRICS if one.name == name)
    assert interval(metric, events, of) == pytest.approx((low, high), abs=2e-3)
