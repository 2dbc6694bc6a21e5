"""How long single predictions take: two models asked in turn, text by text, so that the machine's moods hit both.

Of each text the shortest of some tries counts: what is longer is the machine's doing, not the model's.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from models.classifier import IntentClassifier
from models.intervals import Figure, quantile

TEXTS = 300
TRIES = 6


@dataclass(frozen=True)
class Latency:
    """Of one text asked alone."""

    p50_ms: Figure
    p99_ms: Figure

    @classmethod
    def of(cls, took_ms: Sequence[float]) -> Latency:
        return cls(quantile(took_ms, 0.5, unit="ms"), quantile(took_ms, 0.99, unit="ms"))


def side_by_side(
    classifiers: Sequence[IntentClassifier], texts: Sequence[str], *, tries: int = TRIES
) -> list[Latency]:
    """The latency of each classifier, over at most `TEXTS` of the texts, spread over all of them."""
    used = texts[:: max(1, len(texts) // TEXTS)][:TEXTS]
    shortest = [[float("inf")] * len(used) for _ in classifiers]
    order = list(enumerate(classifiers))
    for _ in range(tries):
        order.reverse()  # who is asked second finds the machine warmed up for the text
        for row, text in enumerate(used):
            for which, classifier in order:
                started = time.perf_counter()
                classifier.predict([text])
                took_ms = (time.perf_counter() - started) * 1000
                shortest[which][row] = min(shortest[which][row], took_ms)
    return [Latency.of(took_ms) for took_ms in shortest]
