"""Training: fit, calibrate and choose a threshold on texts that weren't fitted, fit again on all that may be known.

Used alike for Switchboard's own corpus and for BANKING77 (the public check). The temperature makes the probabilities
honest (minimum log loss), the threshold is the lowest at which the answers given reach the aimed accuracy.
"""

from __future__ import annotations

import csv
import hashlib
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from models import corpus
from models.classifier import IntentClassifier, LinearModel, Settings, answer, softmax
from models.corpus import Example
from models.intents import HANDOVER, OUT_OF_SCOPE
from switchboard.errors import SwitchboardError
from switchboard.paths import ROOT

if TYPE_CHECKING:
    import numpy as np

Dataset = Literal["corpus", "banking77"]

BANKING77 = ROOT.parent / "shared" / "data" / "banking77" / "train.csv"


@dataclass(frozen=True)
class Params:
    """Everything that decides what comes out, beside the data and the versions of the libraries."""

    c: float = 1.0
    per_template: int = 6
    augment: bool = True
    target_accuracy: float = 0.95
    seed: int = corpus.SEED


@dataclass(frozen=True)
class Data:
    """Texts in their roles: `train` and `validation` are known to the shipped model, `tests` never."""

    name: Dataset
    train: tuple[Example, ...]
    validation: tuple[Example, ...]
    tests: dict[str, tuple[Example, ...]]
    sha256: str


@dataclass(frozen=True)
class Trained:
    """A classifier with how it came to be."""

    classifier: IntentClassifier
    params: Params
    data: Data
    texts: int
    features: int
    seconds: float
    learnt: tuple[Example, ...] = field(repr=False)
    """What the shipped weights were fitted on, in order, bent copies included."""


def load_corpus(params: Params, directory: Path = corpus.DATA) -> Data:
    """Switchboard's own: tests are `templates` (held out), `handwritten`, `fresh` and `groups` (by other hands)."""
    found = corpus.load(directory, per_template=params.per_template, seed=params.seed)
    return Data(
        "corpus",
        found.train,
        found.validation,
        {
            "templates": found.test,
            "handwritten": found.handwritten,
            "fresh": found.fresh,
            "groups": found.groups,
        },
        found.sha256,
    )


def load_banking77(params: Params, path: Path = BANKING77) -> Data:
    """BANKING77: a random stratified fifth is the test, an eighth of the rest the validation.

    Raises:
        SwitchboardError: the file isn't there or isn't BANKING77.
    """
    try:
        content = path.read_bytes()
    except OSError:
        raise SwitchboardError(
            f"BANKING77 is not at {path}", "it is a check only: without it, train with --dataset corpus"
        ) from None
    rows = list(csv.DictReader(content.decode("utf-8").splitlines()))
    if not rows or not {"text", "category"} <= set(rows[0]):
        raise SwitchboardError(f"{path} has no columns text and category")
    from sklearn.model_selection import train_test_split

    examples = [Example(row["text"], row["category"], "en", f"row:{i}") for i, row in enumerate(rows)]
    known, test = train_test_split(
        examples, test_size=0.2, random_state=params.seed, stratify=[example.intent for example in examples]
    )
    train, validation = train_test_split(
        known, test_size=0.125, random_state=params.seed, stratify=[example.intent for example in known]
    )
    return Data(
        "banking77",
        tuple(train),
        tuple(validation),
        {"heldout": tuple(test)},
        hashlib.sha256(content).hexdigest(),
    )


def load(dataset: Dataset, params: Params) -> Data:
    """The data set of that name."""
    return load_corpus(params) if dataset == "corpus" else load_banking77(params)


def train(data: Data, params: Params) -> Trained:
    """A classifier that knows `train` and `validation`, with temperature and threshold found without them."""
    started = time.monotonic()
    bend = params.augment and data.name == "corpus"

    def bent(examples: Sequence[Example], seed: int) -> list[Example]:
        return corpus.augment(examples, seed=seed) if bend else list(examples)

    first, labels = fit(bent(data.train, params.seed), params)
    judged = bent(data.validation, params.seed + 1)
    scores = first.scores([example.text for example in judged])
    truth = [example.intent for example in judged]
    temperature = fit_temperature(scores, [labels.index(intent) for intent in truth])
    probabilities = softmax(scores, temperature)
    best = [(labels[row.argmax()], float(row.max())) for row in probabilities]
    threshold = choose_threshold(best, truth, params.target_accuracy)

    learnt = tuple(bent((*data.train, *data.validation), params.seed))
    last, labels = fit(learnt, params)
    classifier = IntentClassifier(last, Settings(labels, temperature, threshold))
    texts = len(data.train) + len(data.validation)
    return Trained(classifier, params, data, texts, last.features, time.monotonic() - started, learnt)


def fit(learnt: Sequence[Example], params: Params) -> tuple[LinearModel, tuple[str, ...]]:
    """Features and weights of exactly these texts, and the labels; the same texts in the same order give the same."""
    texts, intents = [example.text for example in learnt], [example.intent for example in learnt]
    return LinearModel.fit(texts, intents, c=params.c, seed=params.seed)


def fit_temperature(scores: np.ndarray, truth: Sequence[int]) -> float:
    """The temperature of least log loss, by golden-section search over its logarithm (0.02 to 5)."""
    import numpy as np

    def loss(log_temperature: float) -> float:
        probabilities = softmax(scores, float(np.exp(log_temperature)))
        return -float(np.log(probabilities[np.arange(len(truth)), list(truth)] + 1e-12).mean())

    low, high = float(np.log(0.02)), float(np.log(5.0))
    ratio = (5**0.5 - 1) / 2
    for _ in range(30):
        a, b = high - ratio * (high - low), low + ratio * (high - low)
        if loss(a) < loss(b):
            high = b
        else:
            low = a
    return round(float(np.exp((low + high) / 2)), 4)


def choose_threshold(
    best: Sequence[tuple[str, float]], truth: Sequence[str], target_accuracy: float, *, floor: float = 0.2
) -> float:
    """The lowest threshold (steps of 0.01) from which on the answers given are right as often as is aimed for.

    An answer to a question that is out of scope is a wrong one. Where the aim is out of reach, it is the threshold of
    the best accuracy among those that still answer a third.
    """
    pairs = list(zip(best, truth, strict=True))
    best_found: tuple[float, float] = (-1.0, floor)
    for step in range(round(floor * 100), 100):
        threshold = step / 100
        given = [
            label == wanted
            for (label, confidence), wanted in pairs
            if answer(label, confidence, threshold) != HANDOVER
        ]
        in_scope = sum(wanted != OUT_OF_SCOPE for wanted in truth)
        if len(given) < in_scope / 3:
            break
        accuracy = sum(given) / len(given)
        if accuracy >= target_accuracy:
            return threshold
        if accuracy > best_found[0]:
            best_found = (accuracy, threshold)
    return best_found[1]
