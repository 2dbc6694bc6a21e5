"""The intent classifier: features, a linear model, probabilities that mean something, and when not to answer.

Features are TF-IDF of words (English words and single Chinese characters alike, one to two in a row) and of character
n-grams within words, so that one model takes English, Chinese and mixed texts. A linear support vector machine scores
the intents; a softmax with one temperature, fitted on texts the model hasn't seen, makes probabilities of the scores;
below a threshold, or for the background class, the answer is `handover`.

It is fitted with scikit-learn and answers with numpy alone: importing scikit-learn (and pandas with it) would cost a
replica more than a second and 100 MB. On disk it is data, not code: vocabularies and numbers in `classifier.npz` (read
without pickle), settings in `classifier.json`; as skops it was 25 times as large (a JSON node for each n-gram).
This file, `models/text.py` with its table and `models/intents.py` travel with the registered model and import nothing
else of ours.
"""

from __future__ import annotations

import io
import json
import re
import zipfile
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from models.intents import HANDOVER, OUT_OF_SCOPE
from models.text import normalise

if TYPE_CHECKING:
    import numpy as np

FORMAT: Final = 1
WEIGHTS_FILE: Final = "classifier.npz"
SETTINGS_FILE: Final = "classifier.json"
FILES: Final = (WEIGHTS_FILE, SETTINGS_FILE)

_TOKENS: Final = re.compile(r"[a-z0-9']+|[\u3400-\u4dbf\u4e00-\u9fff]")
"""A word of Latin letters, or one Chinese character."""
_CHARS: Final = (2, 4)


@dataclass(frozen=True)
class Prediction:
    """`intent` is one of `models.intents.ANSWERABLE`; `confidence` is the calibrated probability of the best class.

    For `handover` too it is that of the best class, which the model didn't trust or which was none of banking.
    """

    intent: str
    confidence: float


@dataclass(frozen=True)
class Settings:
    """What belongs to a classifier beside its numbers."""

    labels: tuple[str, ...]
    temperature: float
    threshold: float
    format: int = FORMAT


def word_terms(text: str) -> list[str]:
    """The tokens of a normal text and the pairs of neighbours."""
    tokens = _TOKENS.findall(text)
    return tokens + [f"{one} {other}" for one, other in pairwise(tokens)]


def char_terms(text: str) -> list[str]:
    """The 2- to 4-grams of each word of a normal text, with a space at its ends."""
    terms: list[str] = []
    for word in text.split():
        padded = f" {word} "
        for n in range(_CHARS[0], min(_CHARS[1], len(padded)) + 1):
            terms += [padded[i : i + n] for i in range(len(padded) - n + 1)]
    return terms


ANALYSERS: Final[Mapping[str, Callable[[str], list[str]]]] = {"words": word_terms, "chars": char_terms}


class LinearModel:
    """TF-IDF of words and of characters, and the weights of a linear model on both.

    A block (words, chars) has its own vocabulary (term → row among the block's) and idf, and is brought to length 1.
    """

    def __init__(
        self,
        vocabularies: Mapping[str, dict[str, int]],
        idf: Mapping[str, np.ndarray],
        weights: np.ndarray,
        bias: np.ndarray,
    ) -> None:
        self.vocabularies, self.idf = vocabularies, idf
        self.weights, self.bias = weights, bias

    @property
    def features(self) -> int:
        return int(self.weights.shape[0])

    @classmethod
    def fit(
        cls, texts: Sequence[str], intents: Sequence[str], *, c: float = 1.0, seed: int = 0
    ) -> tuple[LinearModel, tuple[str, ...]]:
        """Fit on labelled texts; gives the model and its labels, in the order of its scores."""
        import numpy as np
        from scipy.sparse import hstack
        from sklearn.feature_extraction.text import TfidfVectorizer
        from sklearn.svm import LinearSVC

        plain = [normalise(text) for text in texts]
        blocks = {
            name: TfidfVectorizer(analyzer=terms, sublinear_tf=True, dtype=np.float32)
            for name, terms in ANALYSERS.items()
        }
        found = hstack([block.fit_transform(plain) for block in blocks.values()], format="csr")
        machine = LinearSVC(C=c, tol=1e-3, random_state=seed).fit(found, list(intents))
        model = cls(
            {name: {term: int(row) for term, row in b.vocabulary_.items()} for name, b in blocks.items()},
            {name: block.idf_.astype(np.float32) for name, block in blocks.items()},
            np.ascontiguousarray(machine.coef_.T, dtype=np.float32),
            machine.intercept_.astype(np.float32),
        )
        return model, tuple(str(label) for label in machine.classes_)

    def scores(self, texts: Sequence[str]) -> np.ndarray:
        """Shape (texts, labels), float64."""
        import numpy as np

        found = np.empty((len(texts), len(self.bias)), dtype=np.float64)
        for row, text in enumerate(texts):
            plain = normalise(text)
            found[row] = self.bias
            offset = 0
            for name, terms in ANALYSERS.items():
                vocabulary = self.vocabularies[name]
                counts = Counter(vocabulary[term] for term in terms(plain) if term in vocabulary)
                if counts:
                    rows = np.fromiter(counts.keys(), dtype=np.intp, count=len(counts))
                    values = np.fromiter(counts.values(), dtype=np.float32, count=len(counts))
                    values = (1.0 + np.log(values)) * self.idf[name][rows]
                    found[row] += (values / np.linalg.norm(values)) @ self.weights[rows + offset]
                offset += len(vocabulary)
        return found

    def save(self, path: Path) -> None:
        import numpy as np

        arrays: dict[str, Any] = {"weights": self.weights, "bias": self.bias}
        for name, vocabulary in self.vocabularies.items():
            # No term has a line break in it: `normalise` leaves none.
            terms = "\n".join(sorted(vocabulary, key=vocabulary.__getitem__))
            arrays[f"{name}_terms"] = np.frombuffer(terms.encode(), dtype=np.uint8)
            arrays[f"{name}_idf"] = self.idf[name]
        np.savez_compressed(path, **arrays)

    @classmethod
    def of(cls, content: bytes) -> LinearModel:
        """Raises ValueError, KeyError, EOFError, zipfile.BadZipFile for what `save` didn't write."""
        import numpy as np

        with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
            vocabularies = {
                name: {
                    term: row
                    for row, term in enumerate(arrays[f"{name}_terms"].tobytes().decode().split("\n"))
                }
                for name in ANALYSERS
            }
            idf = {name: arrays[f"{name}_idf"] for name in ANALYSERS}
            weights, bias = arrays["weights"], arrays["bias"]
        total = sum(len(vocabulary) for vocabulary in vocabularies.values())
        fits = all(idf[name].shape == (len(vocabularies[name]),) for name in ANALYSERS)
        if not fits or bias.ndim != 1 or weights.shape != (total, len(bias)):
            raise ValueError(f"{WEIGHTS_FILE}: {total} terms don't fit {weights.shape} weights")
        return cls(vocabularies, idf, weights, bias)


class IntentClassifier:
    """A fitted model with its settings; `predict` may be called by several threads at once."""

    def __init__(self, model: LinearModel, settings: Settings) -> None:
        self.model = model
        self.settings = settings

    def probabilities(self, texts: Sequence[str]) -> np.ndarray:
        """Shape (texts, labels), rows sum to 1, columns in the order of `settings.labels`."""
        return softmax(self.model.scores(texts), self.settings.temperature)

    def best(self, texts: Sequence[str]) -> list[tuple[str, float]]:
        """The best class of each text, whatever its probability and background included."""
        if not texts:
            return []
        found = self.probabilities(texts)
        columns = found.argmax(axis=1)
        return [
            (self.settings.labels[column], float(row[column]))
            for row, column in zip(found, columns, strict=True)
        ]

    def predict(self, texts: Sequence[str]) -> list[Prediction]:
        """One answer for each text, in order."""
        return [
            Prediction(answer(label, confidence, self.settings.threshold), confidence)
            for label, confidence in self.best(texts)
        ]

    def save(self, directory: Path) -> None:
        """Write `FILES` into an existing folder."""
        self.model.save(directory / WEIGHTS_FILE)
        text = json.dumps(asdict(self.settings), indent=2, sort_keys=True) + "\n"
        (directory / SETTINGS_FILE).write_text(text, encoding="utf-8")

    @classmethod
    def load(cls, directory: Path) -> IntentClassifier:
        """Read what `save` wrote; no code of the files is run.

        Raises:
            OSError, ValueError: a file is missing, damaged, or of another format.
        """
        return cls.of({name: (directory / name).read_bytes() for name in FILES})

    @classmethod
    def of(cls, contents: Mapping[str, bytes]) -> IntentClassifier:
        """`load` from the contents of `FILES`.

        Raises:
            ValueError: one is missing, damaged, or of another format.
        """
        try:
            raw = json.loads(contents[SETTINGS_FILE])
            if raw.get("format") != FORMAT:
                raise ValueError(
                    f"{SETTINGS_FILE} has format {raw.get('format')!r}, this code reads {FORMAT}"
                )
            settings = Settings(
                tuple(map(str, raw["labels"])), float(raw["temperature"]), float(raw["threshold"]), FORMAT
            )
            model = LinearModel.of(contents[WEIGHTS_FILE])
        except (KeyError, TypeError, AttributeError, EOFError, OSError, zipfile.BadZipFile) as error:
            raise ValueError(f"not an intent classifier: {error}") from error
        if len(model.bias) != len(settings.labels):
            raise ValueError("the labels of the weights and of the settings differ in number")
        return cls(model, settings)


def answer(label: str, confidence: float, threshold: float) -> str:
    """The intent to act on: `handover` for the background class and for what isn't sure enough."""
    return HANDOVER if label == OUT_OF_SCOPE or confidence < threshold else label


def softmax(scores: np.ndarray, temperature: float) -> np.ndarray:
    """Row-wise `exp(score / temperature)`, normalised."""
    import numpy as np

    scaled = scores / temperature
    scaled -= scaled.max(axis=1, keepdims=True)
    exp = np.exp(scaled)
    return exp / exp.sum(axis=1, keepdims=True)
