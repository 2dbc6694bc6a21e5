"""Makes a drill's candidate: trains what is wrong with its model, and registers it as a version like any other.

A version that was made before is taken again, by its tags; one that isn't to fail is always new, as it may be the
champion by now.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Final

from models import evaluation, registry, training
from models.corpus import Example
from models.intents import INTENTS
from models.rest import NotFound, Registry, RegistryError
from models.training import Data, Trained
from operators.drills.candidates import Candidate, Fault, Training
from operators.drills.faults import FaultyClassifier

TAG: Final = "switchboard.drill"
SHA256_TAG: Final = "switchboard.drill_sha256"
_TEST: Final = "handwritten"
NEVER_SURE: Final = 1.01
"""As a threshold: no probability reaches it."""


def made_before(candidate: Candidate, versions: Mapping[str, Mapping[str, str]]) -> str | None:
    """The version to be taken again, of versions with their tags; None where there is none."""
    if candidate.ends == "Promoted":
        return None
    found = [
        number
        for number, tags in versions.items()
        if (tags.get(TAG), tags.get(SHA256_TAG)) == (candidate.name, candidate.sha256)
    ]
    return max(found, key=int, default=None)


def version_of(candidate: Candidate, *, model: str, tracking_uri: str) -> str:
    """A version of the registered model that is this candidate.

    Raises:
        SwitchboardError: the registry refuses, or can't be reached.
    """
    from models.cli_shared import failed

    try:
        known = {one.version: one.tags for one in Registry(tracking_uri).versions(model)}
    except NotFound:
        known = {}
    except RegistryError as error:
        raise failed(error) from None
    if (found := made_before(candidate, known)) is not None:
        return found
    trained = train(candidate.training)
    reports = evaluation.evaluate(trained.classifier, {_TEST: trained.data.tests[_TEST]})
    faulty = with_fault(trained, candidate.fault)
    tags = {TAG: candidate.name, SHA256_TAG: candidate.sha256}
    return registry.register(faulty, reports, name=model, tracking_uri=tracking_uri, more=tags).version


def train(how: Training) -> Trained:
    """A model with what is wrong with it."""
    params = training.Params()
    trained = training.train(spoilt(training.load_corpus(params), how), params)
    if how.hands_over:
        trained.classifier.settings = replace(trained.classifier.settings, threshold=NEVER_SURE)
    return trained


def with_fault(trained: Trained, fault: Fault) -> Trained:
    """The same model, to be served with a fault."""
    if fault == Fault():
        return trained
    whole = trained.classifier
    return replace(trained, classifier=FaultyClassifier(whole.model, whole.settings, fault))


def spoilt(data: Data, how: Training) -> Data:
    """Data whose labels are wrong as `how` says; the tests' are right."""
    if how.confused_language is None and how.confused_intent is None:
        return data
    return replace(data, train=relabelled(data.train, how), validation=relabelled(data.validation, how))


def relabelled(examples: Sequence[Example], how: Training) -> tuple[Example, ...]:
    """Each question of the confused language is taken for the next intent of the list, and of the confused intent for
    the stated one."""
    names = list(INTENTS)
    following = dict(zip(names, [*names[1:], names[0]], strict=True))

    def label(example: Example) -> str:
        if example.language == how.confused_language:
            return following.get(example.intent, example.intent)
        if example.intent == how.confused_intent and how.taken_for is not None:
            return how.taken_for
        return example.intent

    return tuple(replace(example, intent=label(example)) for example in examples)
