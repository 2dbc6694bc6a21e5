"""The classifier: what it answers, what it is on disk."""

from __future__ import annotations

import json
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.classifier import FILES, IntentClassifier, LinearModel, answer, softmax
from models.corpus import handwritten
from models.intents import ANSWERABLE
from models.text import normalise
from models.training import Trained


@pytest.mark.parametrize(
    ("label", "confidence", "threshold", "expected"),
    [
        ("card_lost", 0.9, 0.8, "card_lost"),
        ("card_lost", 0.8, 0.8, "card_lost"),
        ("card_lost", 0.79, 0.8, "handover"),
        ("out_of_scope", 0.99, 0.8, "handover"),
    ],
)
def test_when_it_hands_over(label: str, confidence: float, threshold: float, expected: str) -> None:
    assert answer(label, confidence, threshold) == expected


@given(
    st.lists(st.lists(st.floats(-20, 20), min_size=3, max_size=3), min_size=1, max_size=5),
    st.floats(0.02, 5),
)
def test_probabilities_sum_to_one_and_keep_the_order(rows: list[list[float]], temperature: float) -> None:
    scores = np.array(rows)
    found = softmax(scores, temperature)
    assert found.sum(axis=1) == pytest.approx(1)
    best = scores.max(axis=1)
    assert all(row[s.argmax()] == row.max() for row, s in zip(found, scores, strict=True)), best


def test_survives_disk(small: Trained, tmp_path: Path) -> None:
    texts = [example.text for example in handwritten()]
    small.classifier.save(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(FILES)
    loaded = IntentClassifier.load(tmp_path)
    assert loaded.predict(texts) == small.classifier.predict(texts)
    again = tmp_path / "again"
    again.mkdir()
    loaded.save(again)
    assert all((again / name).read_bytes() == (tmp_path / name).read_bytes() for name in FILES)


@given(text=st.text())
def test_any_text_gets_an_answer(small: Trained, text: str) -> None:
    (found,) = small.classifier.predict([text])
    assert found.intent in ANSWERABLE
    assert 0 < found.confidence <= 1


def test_scores_are_what_scikit_learn_says() -> None:
    """Fitted there, answered here: the same numbers."""
    from scipy.sparse import hstack
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.svm import LinearSVC

    known = [example for example in handwritten() if example.intent != "out_of_scope"]
    texts, intents = [normalise(e.text) for e in known], [e.intent for e in known]
    model, labels = LinearModel.fit(texts, intents, c=1.0, seed=3)
    tokens = r"[a-z0-9']+|[\u3400-\u4dbf\u4e00-\u9fff]"
    blocks = [
        TfidfVectorizer(token_pattern=tokens, ngram_range=(1, 2), sublinear_tf=True),
        TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 4), sublinear_tf=True),
    ]
    machine = LinearSVC(C=1.0, random_state=3).fit(
        hstack([block.fit_transform(texts) for block in blocks]), intents
    )
    new = [normalise(e.text) for e in handwritten()] + ["", "a", "completely unheard of", "我"]
    expected = machine.decision_function(hstack([block.transform(new) for block in blocks]))
    assert list(labels) == machine.classes_.tolist()
    assert model.scores(new) == pytest.approx(expected, abs=5e-3)


@pytest.mark.parametrize(
    "text", ["", " ", "\x00", "\ud800", "a" * 100_000, "卡" * 100_000, "🙂", "\n".join("ab")]
)
def test_odd_texts(small: Trained, text: str) -> None:
    (found,) = small.classifier.predict([text])
    assert found.intent in ANSWERABLE


def test_no_texts(small: Trained) -> None:
    assert small.classifier.predict([]) == []


def test_a_text_is_answered_alike_alone_and_among_others_and_by_threads(small: Trained) -> None:
    texts = [example.text for example in handwritten()][:60]
    together = small.classifier.predict(texts)
    with ThreadPoolExecutor(8) as pool:
        alone = list(pool.map(lambda text: small.classifier.predict([text])[0], texts * 3))
    for one, other in zip(alone, together * 3, strict=True):
        assert one.intent == other.intent
        assert one.confidence == pytest.approx(other.confidence, abs=1e-5)


def _damage(directory: Path, how: str) -> None:
    weights, settings = (directory / name for name in FILES)
    match how:
        case "missing":
            weights.unlink()
        case "cut":
            weights.write_bytes(weights.read_bytes()[:5000])
        case "empty":
            weights.write_bytes(b"")
        case "pickle inside":
            with zipfile.ZipFile(weights, "w") as archive, archive.open("weights.npy", "w") as file:
                np.save(file, np.array([{"a": print}], dtype=object), allow_pickle=True)
        case "other shape":
            with np.load(weights) as arrays:
                content = {name: arrays[name] for name in arrays.files}
            content["weights"] = content["weights"][:-1]
            np.savez_compressed(weights, **content)
        case "not json":
            settings.write_text("{")
        case "no object":
            settings.write_text("[]")
        case "other format":
            settings.write_text(json.dumps({**json.loads(settings.read_text()), "format": 99}))
        case "label missing":
            raw = json.loads(settings.read_text())
            settings.write_text(json.dumps({**raw, "labels": raw["labels"][:-1]}))
        case "no threshold":
            raw = json.loads(settings.read_text())
            del raw["threshold"]
            settings.write_text(json.dumps(raw))


@pytest.mark.parametrize(
    "how",
    [
        "missing", "cut", "empty", "pickle inside", "other shape", "not json", "no object", "other format",
        "label missing", "no threshold",
    ],
)  # fmt: skip
def test_damage_is_refused(small: Trained, tmp_path: Path, how: str) -> None:
    small.classifier.save(tmp_path)
    _damage(tmp_path, how)
    with pytest.raises((ValueError, OSError)):
        IntentClassifier.load(tmp_path)
