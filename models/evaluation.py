"""What is said of a classifier on its tests: figures with intervals, over all and by language, intent and customers.

Pure functions of outcomes; only `outcomes` runs the model, and times it. Intervals are `models/intervals.py`'s: where
texts share a template from a bootstrap over templates, where each stands for itself (hand-written, BANKING77) Wilson's.

- accuracy: of the in-scope texts, how many have the right best intent, threshold aside
- coverage: of the in-scope texts, how many get an answer; the rest is the hand-off rate
- answered_accuracy: of the answers given to in-scope texts, how many are right
- precision: of all answers given, out-of-scope texts included, how many are right
- out_of_scope_rejected: of the out-of-scope texts, how many are handed over
- macro_f1: the mean F1 of the best classes, background included; of one intent, that intent's F1 among all texts
- calibration_error, brier: how far the confidence is from being right, by the best class of all texts
- p50_ms, p99_ms: how long one text takes, asked alone: of each text the shortest of three tries, on this machine
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from models.classifier import IntentClassifier, answer
from models.corpus import Example
from models.intents import HANDOVER, OUT_OF_SCOPE
from models.intervals import Figure, brier, calibration_error, macro_f1, proportion, quantile

TRIES = 3


@dataclass(frozen=True)
class Outcome:
    """One text of a test: what it is, what the model thought best, and what it answered."""

    text: str
    language: str
    group: str
    """The template, or the text that stands for itself."""
    wanted: str
    best: str
    confidence: float
    answered: str
    customers: str = ""
    """The customer group, where the test has them."""
    ms: float = 0.0


@dataclass(frozen=True)
class Figures:
    """The figures of one set of outcomes."""

    accuracy: Figure
    coverage: Figure
    hand_off: Figure
    answered_accuracy: Figure
    precision: Figure
    out_of_scope_rejected: Figure
    macro_f1: Figure
    calibration_error: Figure
    brier: Figure
    p50_ms: Figure
    p99_ms: Figure

    def named(self) -> dict[str, Figure]:
        return dict(self.__dict__)


@dataclass(frozen=True)
class Report:
    """All that is said of one test set."""

    name: str
    overall: Figures
    by_language: dict[str, Figures]
    by_intent: dict[str, Figures]
    by_customers: dict[str, Figures]
    """By customer group; empty where the test has none."""
    confusion: dict[str, dict[str, int]] = field(repr=False)
    """Wanted → answered → count; a row for each intent and the background, `handover` among the columns."""
    mistakes: list[Outcome] = field(repr=False)
    """Answers that were wrong (not hand-offs), surest first."""

    def slices(self) -> dict[str, Figures]:
        """Each slice by its name for MLflow: `language.zh`, `customers.senior`, `intent.card_lost`."""
        return {
            f"{kind}.{name}": found
            for kind, parts in (
                ("language", self.by_language),
                ("customers", self.by_customers),
                ("intent", self.by_intent),
            )
            for name, found in parts.items()
        }


def outcomes(classifier: IntentClassifier, examples: Sequence[Example]) -> list[Outcome]:
    """What the classifier makes of each example, and how long it takes over it."""
    found: list[Outcome] = []
    # Round after round rather than one text three times: what holds the machine up for a moment hits a text once.
    for _ in range(TRIES):
        tried = [_outcome(classifier, example) for example in examples]
        found = [min(pair, key=lambda o: o.ms) for pair in zip(found or tried, tried, strict=True)]
    return found


def _outcome(classifier: IntentClassifier, example: Example) -> Outcome:
    started = time.perf_counter()
    ((label, confidence),) = classifier.best([example.text])
    took_s = time.perf_counter() - started
    return Outcome(
        example.text,
        example.language,
        example.group,
        example.intent,
        label,
        round(confidence, 4),
        answer(label, confidence, classifier.settings.threshold),
        example.customers,
        round(took_s * 1000, 4),
    )


def report(name: str, found: Sequence[Outcome]) -> Report:
    """The figures of one test set, over all and by language, intent and customer group."""
    intents = sorted({outcome.wanted for outcome in found} - {OUT_OF_SCOPE})
    confusion: dict[str, Counter[str]] = {}
    for outcome in found:
        confusion.setdefault(outcome.wanted, Counter())[outcome.answered] += 1
    wrong = [o for o in found if o.answered not in (HANDOVER, o.wanted)]
    return Report(
        name,
        figures(found),
        {key: figures(part) for key, part in split(found, lambda o: o.language).items()},
        {intent: _of_intent(found, intent) for intent in intents},
        {key: figures(part) for key, part in split(found, lambda o: o.customers).items()},
        {wanted: dict(sorted(row.items())) for wanted, row in sorted(confusion.items())},
        sorted(wrong, key=lambda o: -o.confidence),
    )


def split(found: Iterable[Outcome], key: Callable[[Outcome], str]) -> dict[str, list[Outcome]]:
    """The outcomes by a key, in its order; those without one are in none."""
    parts: dict[str, list[Outcome]] = {}
    for outcome in found:
        if of := key(outcome):
            parts.setdefault(of, []).append(outcome)
    return dict(sorted(parts.items()))


def figures(found: Sequence[Outcome]) -> Figures:
    """The figures of some outcomes, each with its interval."""

    def figure(of: Callable[[Outcome], bool], among: Callable[[Outcome], bool]) -> Figure:
        return proportion([(o.group, of(o)) for o in found if among(o)])

    clusters = [o.group for o in found]
    confidence, right = [o.confidence for o in found], [o.best == o.wanted for o in found]
    took_ms = [o.ms for o in found]
    return Figures(
        accuracy=figure(lambda o: o.best == o.wanted, in_scope),
        coverage=figure(given, in_scope),
        hand_off=figure(lambda o: not given(o), in_scope),
        answered_accuracy=figure(lambda o: o.answered == o.wanted, lambda o: in_scope(o) and given(o)),
        precision=figure(lambda o: o.answered == o.wanted, given),
        out_of_scope_rejected=figure(lambda o: not given(o), lambda o: not in_scope(o)),
        macro_f1=_f1(found, sorted({o.wanted for o in found})),
        calibration_error=calibration_error(clusters, confidence, right),
        brier=brier(clusters, confidence, right),
        p50_ms=quantile(took_ms, 0.5, unit="ms"),
        p99_ms=quantile(took_ms, 0.99, unit="ms"),
    )


def in_scope(o: Outcome) -> bool:
    """Whether the question is about banking."""
    return o.wanted != OUT_OF_SCOPE


def given(o: Outcome) -> bool:
    """Whether the model answered, rather than to hand over."""
    return o.answered != HANDOVER


def _of_intent(found: Sequence[Outcome], intent: str) -> Figures:
    # What was taken for the intent lies outside its own texts, so its F1 is among all.
    return replace(figures([o for o in found if o.wanted == intent]), macro_f1=_f1(found, [intent]))


def _f1(found: Sequence[Outcome], classes: Sequence[str]) -> Figure:
    return macro_f1([o.group for o in found], [o.wanted for o in found], [o.best for o in found], classes)


def metrics(reports: Iterable[Report]) -> dict[str, float]:
    """Flat names for MLflow: `handwritten.zh.accuracy`, `….accuracy_low`, `….accuracy_high`, `….accuracy_n`.

    Customer groups go by their names too: `groups.senior.accuracy`. Intents are in the report's JSON, not here.
    """
    flat: dict[str, float] = {}
    for one in reports:
        parts = {one.name: one.overall} | {
            f"{one.name}.{key}": found for key, found in {**one.by_language, **one.by_customers}.items()
        }
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
