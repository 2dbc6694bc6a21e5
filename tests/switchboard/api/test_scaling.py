"""What a scaling policy may say, and the sentence for what it may not."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from switchboard.api.scaling import Mode, Scaling


def test_a_policy_as_users_write_it() -> None:
    found = Scaling.model_validate(
        {
            "mode": "shadow",
            "minReplicas": 2,
            "maxReplicas": 40,
            "up": {"percent": 200, "replicas": 10, "periodSeconds": 30},
            "pause": {"down": True},
            "headroom": {"price": 100},
            "schedules": [
                {
                    "name": "opening",
                    "days": ["Mon", "Fri"],
                    "start": "08:30",
                    "end": "10:00",
                    "timeZone": "Asia/Shanghai",
                    "minReplicas": 8,
                }
            ],
        }
    )
    assert (found.mode, found.min_replicas, found.max_replicas) == (Mode.SHADOW, 2, 40)
    assert found.up is not None
    assert found.up.percent == 200
    assert found.pause.down
    assert not found.pause.up
    assert found.schedules[0].min_replicas == 8
    assert Scaling.model_validate(found.model_dump(by_alias=True, mode="json")) == found


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({}, "maxReplicas"),
        ({"maxReplicas": 1, "minReplicas": 2}, "minReplicas 2 is more than maxReplicas 1"),
        ({"maxReplicas": 0}, "greater than or equal to 1"),
        ({"maxReplicas": 3, "fallbackReplicas": 4}, "fallbackReplicas 4 is more than maxReplicas 3"),
        ({"maxReplicas": 3, "idleSeconds": 60}, "idleSeconds is for minReplicas 0"),
        ({"maxReplicas": 3, "utilization": 0}, "greater than 0"),
        ({"maxReplicas": 3, "headroom": {"price": float("nan")}}, "finite"),
        ({"maxReplicas": 3, "replicas": 3}, "Extra inputs"),
        (
            {
                "maxReplicas": 3,
                "schedules": [{"name": "s", "start": "8:30", "end": "10:00", "minReplicas": 1}],
            },
            "pattern",
        ),
        (
            {
                "maxReplicas": 3,
                "schedules": [
                    {"name": "s", "start": "08:30", "end": "10:00", "minReplicas": 1, "timeZone": "Shanghai"}
                ],
            },
            "'Shanghai' is no time zone",
        ),
        (
            {
                "maxReplicas": 3,
                "schedules": [{"name": "s", "start": "08:30", "end": "10:00", "minReplicas": 4}],
            },
            "schedule 's': minReplicas 4 is more than maxReplicas 3",
        ),
    ],
)
def test_what_is_refused(values: dict[str, Any], says: str) -> None:
    with pytest.raises(ValidationError, match=says):
        Scaling.model_validate(values)
