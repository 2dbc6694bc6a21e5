"""The intent classifier: features, a linear model, probabilities that mean something, and when not to answer.

Features are TF-IDF of words (English words and single Chinese characters alike, one to two in a row) and of character
n-grams within words, so that one model takes English, Chinese and mixed texts. A linear support vector machine scores
the intents; a softmax with one temperature, fitted on texts the model hasn't seen, makes probabilities of the scores;
below a threshold, or for the background class, the answer is `handover`.

On disk a classifier is data, not code: vocabularies and numbers in `classifier.npz` (read without pickle), settings in
`classifier.json`. The same as skops would be ten times as large and as slow to load (a JSON node for each n-gram).
This file and `models/text.py` travel with the registered model, so they import nothing else of Switchboard but
`models.intents`.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
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

TOKENS: Final = r"[a-z0-9']+|[\u3400-\u4dbf\u4e00-\u9fff]"
"""A word of Latin letters, or one Chinese character."""


@dataclass(frozen=True)
class Prediction:
    """`intent` is one of `models.intents.ANSWERABLE`; `confidence` is the calibrated probability of the best class.

    For `handover` too `confidence` is that of the best class, which the model didn't trust (or which was none of banking).
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


class LinearModel:
    """TF-IDF of words and of characters, and the weights of a linear model on both."""

    def __init__(self, words: Any, chars: Any, weights: np.ndarray, bias: np.ndarray) -> None:
        self.words, self.chars = words, chars
        self.weights, self.bias = weights, bias
        self._split = len(words.vocabulary_)

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
        from sklearn.svm import LinearSVC

        plain = [normalise(text) for text in texts]
        words, chars = _vectorisers()
        found = hstack([words.fit_transform(plain), chars.fit_transform(plain)], format="csr")
        machine = LinearSVC(C=c, random_state=seed).fit(found, list(intents))
        weights = np.ascontiguousarray(machine.coef_.T, dtype=np.float32)
        return cls(words, chars, weights, machine.intercept_), tuple(str(label) for label in machine.classes_)

    def scores(self, texts: Sequence[str]) -> np.ndarray:
        """Shape (texts, labels)."""
        plain = [normalise(text) for text in texts]
        by_words = self.words.transform(plain) @ self.weights[: self._split]
        by_chars = self.chars.transform(plain) @ self.weights[self._split :]
        return by_words + by_chars + self.bias

    def save(self, path: Path) -> None:
        import numpy as np

        arrays = {"weights": self.weights, "bias": self.bias}
        for name, vectoriser in (("words", self.words), ("chars", self.chars)):
            # No n-gram has a line break in it: `normalise` leaves none.
            terms = "\n".join(sorted(vectoriser.vocabulary_, key=vectoriser.vocabulary_.__getitem__))
            arrays[f"{name}_terms"] = np.frombuffer(terms.encode(), dtype=np.uint8)
            arrays[f"{name}_idf"] = vectoriser.idf_
        np.savez_compressed(path, **arrays)

    @classmethod
    def load(cls, path: Path) -> LinearModel:
        """Raises OSError, ValueError, KeyError, zipfile.BadZipFile for what isn't such a file."""
        import numpy as np

        with np.load(path, allow_pickle=False) as arrays:
            vectorisers = _vectorisers()
            for name, vectoriser in zip(("words", "chars"), vectorisers, strict=True):
                terms = arrays[f"{name}_terms"].tobytes().decode().split("\n")
                vectoriser.vocabulary_ = {term: column for column, term in enumerate(terms)}
                vectoriser.idf_ = arrays[f"{name}_idf"]
            weights, bias = arrays["weights"], arrays["bias"]
        terms_in_all = sum(len(vectoriser.vocabulary_) for vectoriser in vectorisers)
        if weights.ndim != 2 or weights.shape != (terms_in_all, len(bias)):
            raise ValueError(
                f"{path.name}: {terms_in_all} terms and {len(bias)} labels, but {weights.shape} weights"
            )
        return cls(*vectorisers, weights, bias)


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
        try:
            raw = json.loads((directory / SETTINGS_FILE).read_text(encoding="utf-8"))
            if raw.get("format") != FORMAT:
                raise ValueError(
                    f"{SETTINGS_FILE} has format {raw.get('format')!r}, this code reads {FORMAT}"
                )
            settings = Settings(
                tuple(map(str, raw["labels"])), float(raw["temperature"]), float(raw["threshold"]), FORMAT
            )
            model = LinearModel.load(directory / WEIGHTS_FILE)
        except (KeyError, TypeError, AttributeError, EOFError, zipfile.BadZipFile) as error:
            raise ValueError(f"{directory.name} is not an intent classifier: {error}") from error
        if len(model.bias) != len(settings.labels):
            raise ValueError("the labels of the weights and of the settings differ in number")
        return cls(model, settings)


def answer(label: str, confidence: float, threshold: float) -> str:
    """The intent to act on: `handover` for the background class and for what isn't sure enough."""
    return HANDOVER if label == OUT_OF_SCOPE or confidence < threshold else label


def _vectorisers() -> tuple[Any, Any]:
    import numpy as np
    from sklearn.feature_extraction.text import TfidfVectorizer

    # float32 throughout: with mixed types each prediction would convert all the weights.
    shared = {"lowercase": False, "sublinear_tf": True, "dtype": np.float32}
    words = TfidfVectorizer(token_pattern=TOKENS, ngram_range=(1, 2), **shared)
    chars = TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 4), **shared)
    return words, chars


def softmax(scores: np.ndarray, temperature: float) -> np.ndarray:
    """Row-wise `exp(score / temperature)`, normalised."""
    import numpy as np

    scaled = scores / temperature
    scaled -= scaled.max(axis=1, keepdims=True)
    exp = np.exp(scaled)
    return exp / exp.sum(axis=1, keepdims=True)
