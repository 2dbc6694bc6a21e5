"""What the gate's verdict rests on, gathered: the candidate and the champion are run on the tests of this checkout.

The tests are those of the candidate's own seed, since templates are held out by it. With the champion it is compared on
the texts that neither has learnt: their records tell, and where a champion has none, the templates are left out unless
it was trained on the same data in the same way. The candidate is also fitted again on its record, which shows that the
record is what it was made of.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from models import corpus, latency, training
from models.classifier import IntentClassifier
from models.comparison import unseen
from models.corpus import Example
from models.evaluation import outcomes
from models.examined import Examined, examine
from models.gates.judge import Champion, Evidence
from models.rest import NotFound
from models.rest_write import RegistryWriter
from switchboard.errors import SwitchboardError

TEMPLATES = "templates"
"""The test that is drawn from the templates by a seed."""

Tests = dict[str, tuple[Example, ...]]


def gather(
    registry: RegistryWriter, candidate: Examined, *, champion_alias: str, directory: Path = corpus.DATA
) -> Evidence:
    """The evidence for a candidate, on the data of `directory`; about 20 s of a core.

    Raises:
        SwitchboardError: the candidate's run doesn't say how it was trained, or a model can't be loaded.
        RegistryError: the registry can't be reached.
    """
    params = candidate.params()
    data = training.load_corpus(params, directory)
    try:
        champion = examine(registry, f"models:/{candidate.version.name}@{champion_alias}")
    except NotFound:
        champion = None
    asked = {name: outcomes(candidate.classifier, examples) for name, examples in data.tests.items()}
    texts = [example.text for examples in data.tests.values() for example in examples]
    classifiers = [candidate.classifier, *([champion.classifier] if champion else [])]
    took = latency.side_by_side(classifiers, texts)
    compared = None
    if champion is not None:
        common = comparable(data.tests, candidate, champion)
        kept = {(name, e.text, e.group) for name, examples in common.items() for e in examples}
        compared = Champion(
            champion.version.version,
            {name: [o for o in found if (name, o.text, o.group) in kept] for name, found in asked.items()},
            {name: outcomes(champion.classifier, common.get(name, ())) for name in asked},
            took[1],
            champion.signature,
            champion.answers,
        )
    return Evidence(
        outcomes=asked,
        tests=data.tests,
        latency=took[0],
        size_bytes=candidate.size_bytes,
        record_fault=candidate.record_fault,
        learnt=candidate.learnt,
        refit_difference=refit_difference(candidate, texts),
        input_example=candidate.input_example,
        licences=corpus.origins(directory),
        data_sha256=candidate.data_sha256,
        tested_sha256=data.sha256,
        signature=candidate.signature,
        answers=candidate.answers,
        champion=compared,
    )


def comparable(tests: Tests, one: Examined, other: Examined) -> Tests:
    """The texts of the tests that neither model has learnt, as far as their records tell."""
    found = unseen(tests, [*one.learnt, *other.learnt])
    if other.record_fault and not _same_split(one, other):
        found.pop(TEMPLATES, None)
    return found


def _same_split(one: Examined, other: Examined) -> bool:
    try:
        same = replace(one.params(), c=0, target_accuracy=0) == replace(
            other.params(), c=0, target_accuracy=0
        )
    except SwitchboardError:
        return False
    return same and one.data_sha256 == other.data_sha256 != ""


def refit_difference(candidate: Examined, texts: list[str]) -> float:
    """The largest difference of a class's probability, over the texts, between a model and a fit of its record."""
    if not candidate.learnt:
        return 1.0
    fitted, labels = training.fit(candidate.learnt, candidate.params())
    settings = candidate.classifier.settings
    if labels != settings.labels:
        return 1.0
    again = IntentClassifier(fitted, settings)
    return largest_difference(candidate.classifier, again, texts)


def largest_difference(one: IntentClassifier, other: IntentClassifier, texts: list[str]) -> float:
    """Of the probabilities of any class."""
    import numpy as np

    return float(np.abs(one.probabilities(texts) - other.probabilities(texts)).max(initial=0.0))
