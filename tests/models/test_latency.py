"""How long single predictions take."""

from __future__ import annotations

from models.intervals import Figure
from models.latency import Latency, side_by_side
from models.training import Trained


def test_a_model_is_as_quick_as_itself(small: Trained) -> None:
    """Asked in turn, neither gains by being asked second."""
    texts = [example.text for example in small.data.tests["handwritten"]]
    one, other = side_by_side([small.classifier, small.classifier], texts)
    assert 0 < one.p50_ms.value <= one.p99_ms.value
    assert 0.67 < one.p50_ms.value / other.p50_ms.value < 1.5


def test_few_texts() -> None:
    assert Latency.of([2.0, 1.0]).p50_ms == Figure(1.0, 1.0, 2.0, 2, "ms")
    assert side_by_side([], ["a"]) == []
