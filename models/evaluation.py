"""Figures of a classifier, with the interval that each can be trusted in. Pure functions of predictions.

Texts of one template are not independent, so the intervals of templated tests come from a bootstrap over templates;
where every text stands for itself (hand-written, BANKING77), they are Wilson's.

- accuracy: of the in-scope texts, how many have the right best intent, threshold aside
- coverage: of the in-scope texts, how many get an answer; the rest is the hand-off rate
- answered_accuracy: of the answers given to in-scope texts, how many are right
- precision: of all answers given, out-of-scope texts included, how many are right
- out_of_scope_rejected: of the out-of-scope texts, how many are handed over
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from models.classifier import IntentClassifier, answer
from models.corpus import Example
from models.intents import HANDOVER, OUT_OF_SCOPE

Z95 = 1.959963984540054
BOOTSTRAPS = 1000


@dataclass(frozen=True)
class Figure:
    """A proportion of `n` texts with its 95 % interval; with `n == 0` it is unknown: 0 in [0, 1]."""

    value: float
    low: float
    high: float
    n: int

    def __str__(self) -> str:
        return f"{self.value:.1%} [{self.low:.1%}, {self.high:.1%}] (n={self.n})"


@dataclass(frozen=True)
class Outcome:
    """One text of a test: what it is, what the model thought best, and what it answered."""

    text: str
    language: str
    group: str
    wanted: str
    best: str
    confidence: float
    answered: str


@dataclass(frozen=True)
class Figures:
    """The figures of one set of outcomes."""

    accuracy: Figure
    coverage: Figure
    hand_off: Figure
    answered_accuracy: Figure
    precision: Figure
    out_of_scope_rejected: Figure

    def named(self) -> dict[str, Figure]:
        return dict(self.__dict__)


@dataclass(frozen=True)
class Report:
    """All that is said of one test set."""

    name: str
    overall: Figures
    by_language: dict[str, Figures]
    by_intent: dict[str, Figures]
    confusion: dict[str, dict[str, int]] = field(repr=False)
    """Wanted → answered → count; a row for each intent and the background, `handover` among the columns."""
    mistakes: list[Outcome] = field(repr=False)
    """Answers that were wrong (not hand-offs), surest first."""


def outcomes(classifier: IntentClassifier, examples: Sequence[Example]) -> list[Outcome]:
    """What the classifier makes of each example."""
    best = classifier.best([example.text for example in examples])
    threshold = classifier.settings.threshold
    return [
        Outcome(
            example.text,
            example.language,
            example.group,
            example.intent,
            label,
            round(confidence, 4),
            answer(label, confidence, threshold),
        )
        for example, (label, confidence) in zip(examples, best, strict=True)
    ]


def report(name: str, found: Sequence[Outcome]) -> Report:
    """The figures of one test set, over all and by language and intent."""
    intents = sorted({outcome.wanted for outcome in found} - {OUT_OF_SCOPE})
    confusion: dict[str, Counter[str]] = {}
    for outcome in found:
        confusion.setdefault(outcome.wanted, Counter())[outcome.answered] += 1
    wrong = [o for o in found if o.answered not in (HANDOVER, o.wanted)]
    return Report(
        name,
        figures(found),
        {
            language: figures([o for o in found if o.language == language])
            for language in sorted({o.language for o in found})
        },
        {intent: figures([o for o in found if o.wanted == intent]) for intent in intents},
        {wanted: dict(sorted(row.items())) for wanted, row in sorted(confusion.items())},
        sorted(wrong, key=lambda o: -o.confidence),
    )


def figures(found: Sequence[Outcome]) -> Figures:
    """The figures of some outcomes, each with its interval."""

    def figure(of: Callable[[Outcome], bool], among: Callable[[Outcome], bool]) -> Figure:
        return proportion([(o.group, of(o)) for o in found if among(o)])

    def in_scope(o: Outcome) -> bool:
        return o.wanted != OUT_OF_SCOPE

    def given(o: Outcome) -> bool:
        return o.answered != HANDOVER

    return Figures(
        accuracy=figure(lambda o: o.best == o.wanted, in_scope),
        coverage=figure(given, in_scope),
        hand_off=figure(lambda o: not given(o), in_scope),
        answered_accuracy=figure(lambda o: o.answered == o.wanted, lambda o: in_scope(o) and given(o)),
        precision=figure(lambda o: o.answered == o.wanted, given),
        out_of_scope_rejected=figure(lambda o: not given(o), lambda o: not in_scope(o)),
    )


def proportion(results: Sequence[tuple[str, bool]]) -> Figure:
    """Of (group, success): Wilson's interval where each group has one result, else a bootstrap over groups."""
    n = len(results)
    value = sum(success for _, success in results) / n if n else 0.0
    if len({group for group, _ in results}) == n:
        low, high = wilson(sum(success for _, success in results), n)
    else:
        low, high = cluster_bootstrap(results)
    return Figure(round(value, 4), round(low, 4), round(high, 4), n)


def wilson(successes: int, n: int, z: float = Z95) -> tuple[float, float]:
    """Wilson's score interval of a proportion (E. B. Wilson, 1927); (0, 1) where there is nothing."""
    if n == 0:
        return 0.0, 1.0
    p = successes / n
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    low = 0.0 if successes == 0 else max(0.0, centre - half)
    return low, 1.0 if successes == n else min(1.0, centre + half)


def cluster_bootstrap(
    results: Sequence[tuple[str, bool]], *, rounds: int = BOOTSTRAPS, seed: int = 0
) -> tuple[float, float]:
    """The 2.5 % and 97.5 % points of the proportion over groups drawn with replacement.

    Where all results are alike the bootstrap would say that nothing is uncertain: then it is Wilson's over the groups.
    """
    import numpy as np

    sums: dict[str, list[int]] = {}
    for group, success in results:
        total = sums.setdefault(group, [0, 0])
        total[0] += success
        total[1] += 1
    table = np.array(list(sums.values()), dtype=float)
    if table[:, 0].sum() in (0, table[:, 1].sum()):
        return wilson(len(sums) if table[:, 0].sum() else 0, len(sums))
    drawn = np.random.default_rng(seed).integers(0, len(table), size=(rounds, len(table)))
    totals = table[drawn].sum(axis=1)
    low, high = np.quantile(totals[:, 0] / totals[:, 1], (0.025, 0.975))
    return float(low), float(high)


def metrics(reports: Iterable[Report]) -> dict[str, float]:
    """Flat names for MLflow: `handwritten.zh.accuracy`, `….accuracy_low`, `….accuracy_high`, `….accuracy_n`."""
    flat: dict[str, float] = {}
    for one in reports:
        parts = {one.name: one.overall} | {f"{one.name}.{lang}": f for lang, f in one.by_language.items()}
        for prefix, found in parts.items():
            for name, figure in found.named().items():
                if figure.n == 0:
                    continue
                flat[f"{prefix}.{name}"] = figure.value
                flat[f"{prefix}.{name}_low"] = figure.low
                flat[f"{prefix}.{name}_high"] = figure.high
                flat[f"{prefix}.{name}_n"] = float(figure.n)
    return flat


def to_json(reports: Iterable[Report]) -> list[dict[str, Any]]:
    """The reports as plain data."""
    return [asdict(one) for one in reports]


def evaluate(classifier: IntentClassifier, tests: Mapping[str, Sequence[Example]]) -> list[Report]:
    """A report for each test set."""
    return [report(name, outcomes(classifier, examples)) for name, examples in tests.items()]
