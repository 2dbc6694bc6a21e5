"""The corpus: what is in it, and that nothing of the tests is ever learnt."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models import corpus
from models.corpus import Example, Template, expand
from models.intents import ANSWERABLE, HANDOVER, INTENTS, LANGUAGES, OUT_OF_SCOPE
from models.text import normalise
from switchboard.errors import SwitchboardError
from switchboard.paths import ROOT

SLOTS = {"card": ["visa", "gold card"], "day": ["Monday", "Sunday"]}


@pytest.fixture(scope="module")
def loaded() -> corpus.Corpus:
    return corpus.load()


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """A copy of the data that a test may break."""
    return Path(shutil.copytree(corpus.DATA, tmp_path / "data"))


def test_every_intent_has_enough_templates_of_both_languages() -> None:
    counts = Counter((template.intent, template.language) for template in corpus.templates())
    assert set(counts) == {(i, lang) for i in (*INTENTS, OUT_OF_SCOPE) for lang in LANGUAGES}
    assert min(counts.values()) >= 30
    assert 15 <= len(INTENTS) <= 25
    assert HANDOVER in ANSWERABLE and OUT_OF_SCOPE not in ANSWERABLE


def test_handwritten_file_is_large_enough(loaded: corpus.Corpus) -> None:
    scope = Counter((e.language, e.intent != OUT_OF_SCOPE) for e in loaded.handwritten)
    assert scope["en", True] + scope["zh", True] >= 200
    assert scope["en", False] + scope["zh", False] >= 40
    assert {e.intent for e in loaded.handwritten} == {*INTENTS, OUT_OF_SCOPE}
    assert len({normalise(e.text) for e in loaded.handwritten}) == len(loaded.handwritten)


def test_fresh_file_is_whole() -> None:
    """Six questions of each intent in each language, thirty out of scope; none twice, none of the first test's."""
    written = corpus.handwritten(name="fresh")
    counts = Counter((e.intent, e.language) for e in written)
    assert counts == {(i, lang): 6 for i in INTENTS for lang in LANGUAGES} | {
        (OUT_OF_SCOPE, lang): 30 for lang in LANGUAGES
    }
    texts = {normalise(e.text) for e in written}
    assert len(texts) == len(written)
    assert not texts & {normalise(e.text) for e in corpus.handwritten()}


def test_fresh_test_leaves_out_what_is_known(loaded: corpus.Corpus) -> None:
    written = corpus.handwritten(name="fresh")
    assert not {normalise(e.text) for e in loaded.known} & {normalise(e.text) for e in loaded.fresh}
    assert set(loaded.fresh) <= set(written)
    assert len(loaded.fresh) >= len(written) * 0.95
    counts = Counter((e.intent, e.language) for e in loaded.fresh)
    assert set(counts) == {(i, lang) for i in (*INTENTS, OUT_OF_SCOPE) for lang in LANGUAGES}
    assert min(counts.values()) >= 3


def test_what_is_known_does_not_depend_on_the_fresh_file(loaded: corpus.Corpus, directory: Path) -> None:
    question = loaded.train[0]
    (directory / "fresh.yaml").write_text(
        f"{question.intent}:\n  {question.language}: |\n    {question.text}\n    never heard of before\n"
    )
    other = corpus.load(directory)
    assert other.known == loaded.known
    assert [e.text for e in other.fresh] == ["never heard of before"]
    assert other.sha256 != loaded.sha256


def test_groups_of_customers_are_enough_and_new(loaded: corpus.Corpus) -> None:
    """At least five groups with fifty lines each, spread over all intents, and none of them in another file."""
    written = corpus.customer_groups()
    texts = {normalise(e.text) for e in written}
    assert len(texts) == len(written)
    others = {normalise(e.text) for e in (*corpus.handwritten(), *corpus.handwritten(name="fresh"))}
    assert not texts & others
    counts = Counter(e.customers for e in loaded.groups)
    assert len(counts) >= 5 and min(counts.values()) >= 50
    for customers in counts:
        assert {e.intent for e in loaded.groups if e.customers == customers} == {*INTENTS, OUT_OF_SCOPE}


def test_what_is_known_does_not_depend_on_the_groups(loaded: corpus.Corpus, directory: Path) -> None:
    question = loaded.train[0]
    (directory / "groups.yaml").write_text(
        f"senior:\n  {question.intent}:\n    {question.language}: |\n      {question.text}\n      quite new\n"
    )
    other = corpus.load(directory)
    assert other.known == loaded.known
    assert [(e.text, e.customers) for e in other.groups] == [("quite new", "senior")]


def test_every_data_file_has_an_origin_and_a_licence(directory: Path) -> None:
    found = corpus.origins()
    assert set(found.values()) == {"Apache-2.0"}
    assert {"corpus/card_lost.yaml", "groups.yaml", "slots.yaml"} <= set(found)
    (directory / "found_somewhere.yaml").write_text("a: b\n")
    assert corpus.origins(directory) == found | {"found_somewhere.yaml": None}
    (directory / "origin.yaml").unlink()
    assert set(corpus.origins(directory).values()) == {None}
    (directory / "origin.yaml").write_text("files: [corpus]\n")
    with pytest.raises(SwitchboardError, match="pattern → origin, licence"):
        corpus.origins(directory)


def test_no_template_is_in_two_parts(loaded: corpus.Corpus) -> None:
    parts = [
        {e.group for e in part}
        for part in (
            loaded.train,
            loaded.validation,
            loaded.test,
            loaded.handwritten,
            loaded.fresh,
            loaded.groups,
        )
    ]
    for i, one in enumerate(parts):
        for other in parts[i + 1 :]:
            assert not one & other


def test_no_text_of_a_test_is_learnt(loaded: corpus.Corpus) -> None:
    known = {normalise(e.text) for e in corpus.augment(loaded.known)}
    plain = {normalise(e.text) for e in loaded.known}
    unseen = [normalise(e.text) for e in (*loaded.test, *loaded.handwritten, *loaded.fresh, *loaded.groups)]
    assert not plain & set(unseen)
    # What bending makes of a known text may by chance be a text of a test; that must stay a rarity.
    assert sum(text in known for text in unseen) <= len(unseen) * 0.005


def test_no_known_text_has_two_intents(loaded: corpus.Corpus) -> None:
    intents: dict[str, set[str]] = {}
    for example in loaded.known:
        intents.setdefault(normalise(example.text), set()).add(example.intent)
    assert [text for text, found in intents.items() if len(found) > 1] == []


def test_each_cell_is_in_each_part(loaded: corpus.Corpus) -> None:
    for part in (loaded.train, loaded.validation, loaded.test):
        assert {(e.intent, e.language) for e in part} == {
            (i, lang) for i in (*INTENTS, OUT_OF_SCOPE) for lang in LANGUAGES
        }


def test_language_of_templates(loaded: corpus.Corpus) -> None:
    """A Chinese template has Chinese in it, but for a few that are names or abbreviations."""
    from models.text import language

    wrong = [e.text for e in loaded.known if e.language == "en" and language(e.text) != "en"]
    assert wrong == []


@pytest.mark.parametrize(
    ("template", "texts"),
    [
        ("plain", {"plain"}),
        ("(a|b) c", {"a c", "b c"}),
        ("(please |)go", {"please go", "go"}),
        ("my {card} on {day}", {f"my {c} on {d}" for c in SLOTS["card"] for d in SLOTS["day"]}),
        ("(my {card}|it)", {"my visa", "my gold card", "it"}),
    ],
)
def test_expansion(template: str, texts: set[str]) -> None:
    assert set(expand(template, SLOTS, 50)) == texts


@given(
    st.lists(st.sampled_from(["a", "(b|c)", "{card}", "{day}", "(d {card}|)", " "]), max_size=6),
    st.integers(1, 20),
    st.integers(0, 5),
)
def test_expansion_is_deterministic_bounded_and_without_repeats(
    parts: list[str], count: int, seed: int
) -> None:
    template = "".join(parts)
    texts = expand(template, SLOTS, count, seed)
    assert texts == expand(template, SLOTS, count, seed)
    assert 1 <= len(texts) <= count
    assert len(set(texts)) == len(texts)
    assert not any(mark in text for text in texts for mark in "(){}|")


@given(st.sets(st.text("abc", min_size=1, max_size=6), min_size=1, max_size=60), st.integers(0, 3))
def test_split_keeps_every_template_once(texts: set[str], seed: int) -> None:
    templates = [Template(text, "greeting", "en") for text in sorted(texts)]
    parts = corpus.split(templates, seed)
    assert sorted(t.key for part in parts.values() for t in part) == sorted(t.key for t in templates)
    assert parts == corpus.split(reversed(templates), seed), "the order of the file doesn't matter"
    assert len(parts["test"]) == round(len(templates) * 0.2)


def test_bending_keeps_intent_and_group_and_is_deterministic(loaded: corpus.Corpus) -> None:
    some = loaded.train[:300]
    bent = corpus.augment(some)
    assert bent[:300] == list(some)
    assert bent == corpus.augment(some)
    assert {(e.group, e.intent) for e in bent} == {(e.group, e.intent) for e in some}
    assert len(bent) > 450


def test_known_texts_of_a_test_are_taken_out() -> None:
    learnt = [Example("I lost it", "card_lost", "en", "a"), Example("gone", "card_lost", "en", "b")]
    tests = [Example("i  LOST it", "card_lost", "en", "c")]
    assert corpus.without_texts_of(learnt, tests) == (learnt[1],)


def test_is_the_same_in_another_process(loaded: corpus.Corpus) -> None:
    """Nothing depends on the hash seed or on the order of a folder."""
    code = (
        "import hashlib; from models import corpus; c = corpus.load();"
        "print(hashlib.sha256(repr([*c.known, *corpus.augment(c.train)[-50:]]).encode()).hexdigest(), c.sha256)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env={**os.environ, "PYTHONHASHSEED": "7"},
        check=True,
        capture_output=True,
        text=True,
    )
    bent = corpus.augment(loaded.train)[-50:]
    own = hashlib.sha256(repr([*loaded.known, *bent]).encode()).hexdigest()
    assert done.stdout.split() == [own, loaded.sha256]


def test_hash_tells_every_change(directory: Path) -> None:
    before = corpus.data_sha256(directory)
    assert before == corpus.data_sha256()
    path = directory / "slots.yaml"
    path.write_text(path.read_text() + "\n# more\n")
    assert corpus.data_sha256(directory) != before


def _break(directory: Path, how: str) -> None:
    lost = directory / "corpus" / "card_lost.yaml"
    match how:
        case "missing file":
            (directory / "slots.yaml").unlink()
        case "missing intent":
            lost.unlink()
        case "unknown intent":
            lost.write_text(lost.read_text().replace("intent: card_lost", "intent: card_eaten"))
        case "unknown slot":
            lost.write_text(lost.read_text().replace("{card}", "{kard}", 1))
        case "too few":
            lost.write_text("intent: card_lost\nen: |\n  one\nzh: |\n  一\n")
        case "twice":
            greeting = directory / "corpus" / "greeting.yaml"
            greeting.write_text(greeting.read_text().replace("zh: |\n", "  lost {card}, need help\nzh: |\n"))
        case "not yaml":
            lost.write_text("intent: [")
        case "no mapping":
            lost.write_text("- a\n")


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("missing file", "slots.yaml"),
        ("missing intent", "no templates for card_lost"),
        ("unknown intent", "card_eaten"),
        ("unknown slot", "kard"),
        ("too few", "15 are needed"),
        ("twice", "twice: card_lost, greeting"),
        ("not yaml", "is not YAML"),
        ("no mapping", "must be a mapping"),
    ],
)
def test_broken_data_is_named(directory: Path, how: str, message: str) -> None:
    _break(directory, how)
    with pytest.raises(SwitchboardError, match=message):
        corpus.load(directory)
