"""The corpus: templates in, labelled texts out, always the same ones.

A template is one line with slots and alternatives: `I (lost|misplaced) my {card}`. What counts as unseen is a
template, never an expansion of one: `split` keeps templates apart, and a text that two templates can produce is taken
out of the training side. Everything is deterministic: the choices come from hashes of the template and a seed.
"""

from __future__ import annotations

import hashlib
import random
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import yaml

from models.intents import INTENTS, LANGUAGES, OUT_OF_SCOPE
from models.text import normalise
from switchboard.errors import SwitchboardError

DATA = Path(__file__).parent / "data"
SEED = 20
MIN_TEMPLATES = 15

Split = Literal["train", "validation", "test"]

_ALTERNATIVES = re.compile(r"\(([^()]*)\)")
_SLOT = re.compile(r"\{(\w+)\}")

Slots = Mapping[str, Sequence[str]]


@dataclass(frozen=True)
class Template:
    """One line of the corpus."""

    text: str
    intent: str
    language: str

    @property
    def key(self) -> str:
        return f"{self.language}:{self.intent}:{self.text}"


@dataclass(frozen=True)
class Example:
    """A labelled text; `group` is what it came from (a template's key), the unit of splits and of intervals."""

    text: str
    intent: str
    language: str
    group: str
    customers: str = ""
    """Who would ask it so, in the test of customer groups."""
    bent: bool = False
    """A copy that `augment` made."""


@dataclass(frozen=True)
class Corpus:
    """What is trained on, split by template, and the hand-written tests that are kept apart."""

    train: tuple[Example, ...]
    validation: tuple[Example, ...]
    test: tuple[Example, ...]
    handwritten: tuple[Example, ...]
    fresh: tuple[Example, ...]
    groups: tuple[Example, ...]
    sha256: str

    @property
    def known(self) -> tuple[Example, ...]:
        """All that a shipped model may learn from: everything but the tests."""
        return self.train + self.validation


def expand(template: str, slots: Slots, count: int, seed: int = SEED) -> list[str]:
    """Up to `count` different texts of a template, in an order that depends on nothing but the arguments.

    Raises:
        SwitchboardError: the template names a slot that there isn't.
    """
    rng = _rng(seed, template)
    texts: dict[str, None] = {}
    for _ in range(count * 4):
        text = _SLOT.sub(
            lambda found: rng.choice(_slot(slots, found[1], template)),
            _ALTERNATIVES.sub(lambda found: rng.choice(found[1].split("|")), template),
        )
        texts[re.sub(r" +", " ", text).strip()] = None
        if len(texts) == count:
            break
    return list(texts)


def split(templates: Iterable[Template], seed: int = SEED) -> dict[Split, list[Template]]:
    """Of each intent and language 65 % of the templates for training, 15 % for validation, 20 % for the test."""
    cells: dict[tuple[str, str], list[Template]] = {}
    for template in templates:
        cells.setdefault((template.language, template.intent), []).append(template)
    parts: dict[Split, list[Template]] = {"train": [], "validation": [], "test": []}
    for key in sorted(cells):
        cell = sorted(cells[key], key=lambda template: _digest(seed, template.key))
        test, validation = round(len(cell) * 0.2), round(len(cell) * 0.15)
        parts["test"] += cell[:test]
        parts["validation"] += cell[test : test + validation]
        parts["train"] += cell[test + validation :]
    return parts


def without_texts_of(examples: Iterable[Example], others: Iterable[Example]) -> tuple[Example, ...]:
    """`examples` less those whose normal form is among the `others`'."""
    seen = {normalise(other.text) for other in others}
    return tuple(example for example in examples if normalise(example.text) not in seen)


def load(directory: Path = DATA, *, per_template: int = 6, seed: int = SEED) -> Corpus:
    """The corpus of a folder: `slots.yaml`, `corpus/*.yaml`, `handwritten.yaml`, `fresh.yaml`, `groups.yaml`.

    What is known depends neither on `fresh` nor on `groups`: a text that both have is taken out of the test, not out
    of the training.
    Validation and test get at most five texts a template, so that a template rich in alternatives weighs no more.

    Raises:
        SwitchboardError: a file is missing or malformed, an intent has too few templates, or one has two intents.
    """
    slots = _yaml(directory / "slots.yaml")
    parts = split(templates(directory), seed)

    def examples(part: Split, count: int) -> tuple[Example, ...]:
        return tuple(
            Example(text, template.intent, template.language, template.key)
            for template in parts[part]
            for text in expand(template.text, slots[template.language], count, seed)
        )

    hand = handwritten(directory)
    test = examples("test", 5)
    validation = without_texts_of(examples("validation", 5), [*test, *hand])
    train = without_texts_of(examples("train", per_template), [*validation, *test, *hand])
    fresh = without_texts_of(handwritten(directory, "fresh"), [*train, *validation])
    groups = without_texts_of(customer_groups(directory), [*train, *validation])
    return Corpus(train, validation, test, hand, fresh, groups, data_sha256(directory))


def templates(directory: Path = DATA) -> list[Template]:
    """All templates, checked.

    Raises:
        SwitchboardError: see `load`.
    """
    found: list[Template] = []
    for path in sorted((directory / "corpus").glob("*.yaml")):
        content = _yaml(path)
        intent = content.pop("intent", None)
        if intent not in (*INTENTS, OUT_OF_SCOPE):
            raise SwitchboardError(f"{path.name} is for {intent!r}, which models/intents.py doesn't know")
        if unknown := set(content) - set(LANGUAGES):
            raise SwitchboardError(f"{path.name} has an unknown language: {', '.join(sorted(unknown))}")
        for language in LANGUAGES:
            lines = _lines(content.get(language))
            if len(lines) < MIN_TEMPLATES:
                raise SwitchboardError(
                    f"{path.name} has {len(lines)} templates for {language}, {MIN_TEMPLATES} are needed"
                )
            found += [Template(line, intent, language) for line in lines]
    if missing := {*INTENTS, OUT_OF_SCOPE} - {template.intent for template in found}:
        raise SwitchboardError(f"{directory / 'corpus'} has no templates for {', '.join(sorted(missing))}")
    seen: dict[str, str] = {}
    for template in found:
        if other := seen.get(normalise(template.text)):
            raise SwitchboardError(
                f"the template {template.text!r} is there twice: {other}, {template.intent}"
            )
        seen[normalise(template.text)] = template.intent
    return found


def handwritten(directory: Path = DATA, name: str = "handwritten") -> tuple[Example, ...]:
    """All of a hand-written test, the first or `fresh`; each line is a group of its own.

    Raises:
        SwitchboardError: the file is missing or names an unknown intent.
    """
    return tuple(_written(_yaml(directory / f"{name}.yaml"), name))


def customer_groups(directory: Path = DATA) -> tuple[Example, ...]:
    """All of `groups.yaml`: hand-written questions as groups of customers would ask them.

    Raises:
        SwitchboardError: the file is missing or names an unknown intent.
    """
    return tuple(
        replace(example, customers=customers)
        for customers, by_intent in _yaml(directory / "groups.yaml").items()
        for example in _written(by_intent, "groups")
    )


def _written(by_intent: Mapping[str, Mapping[str, str]], name: str) -> Iterator[Example]:
    for intent, by_language in by_intent.items():
        if intent not in (*INTENTS, OUT_OF_SCOPE):
            raise SwitchboardError(f"{name}.yaml has an unknown intent: {intent}")
        for language, text in by_language.items():
            for line in _lines(text):
                yield Example(line, intent, language, f"{name}:{line}")


def origins(directory: Path = DATA) -> dict[str, str | None]:
    """The licence of each data file, as `origin.yaml` has it; None for a file whose origin or licence isn't known.

    Raises:
        SwitchboardError: the list is malformed; without a list nothing is known.
    """
    path = directory / "origin.yaml"
    stated = _yaml(path).get("files") if path.exists() else {}
    if not isinstance(stated, dict) or not all(isinstance(entry, dict) for entry in stated.values()):
        raise SwitchboardError(f"{path} must have files: pattern → origin, licence")
    found: dict[str, str | None] = {}
    for file in _files(directory):
        name = file.relative_to(directory)
        entry: dict[str, Any] = next((one for pattern, one in stated.items() if name.match(pattern)), {})
        known = entry.get("origin") and entry.get("licence")
        found[name.as_posix()] = str(entry["licence"]) if known else None
    return found


def augment(examples: Sequence[Example], directory: Path = DATA, *, seed: int = SEED) -> list[Example]:
    """`examples` and bent copies of them: wrapped in small talk, mistyped, abbreviated, of mixed language.

    A copy keeps its group. Typos are for English; words are swapped for English ones in Chinese.
    """
    rules = _yaml(directory / "augmentation.yaml")
    bent: list[Example] = []
    for example in examples:
        rng = _rng(seed, example.text)
        text = _bend(example.text, example.language, rules, rng)
        if text != example.text:
            bent.append(replace(example, text=text, bent=True))
    return [*examples, *bent]


def _bend(text: str, language: str, rules: Mapping[str, Any], rng: random.Random) -> str:
    if language == "zh":
        if rng.random() < 0.35:
            for word in sorted(rules["mixed"], key=len, reverse=True):
                if word in text:
                    text = text.replace(word, str(rules["mixed"][word]), 1)
                    break
    else:
        if rng.random() < 0.4:
            for word, short in rules["abbreviations"].items():
                text = re.sub(rf"\b{re.escape(word)}\b", str(short), text, flags=re.IGNORECASE)
        if rng.random() < 0.4:
            text = _typo(text, rng)
    wraps = rules[language]
    if rng.random() < 0.5:
        text = rng.choice(wraps["prefixes"]) + text
    if rng.random() < 0.5:
        text += rng.choice(wraps["suffixes"])
    return text


def _typo(text: str, rng: random.Random) -> str:
    """One letter dropped, doubled or swapped with its neighbour, never at the start of a word."""
    places = [i for i in range(1, len(text) - 1) if text[i - 1 : i + 2].isalpha()]
    if not places:
        return text
    at = rng.choice(places)
    kind = rng.randrange(3)
    if kind == 0:
        return text[:at] + text[at + 1 :]
    if kind == 1:
        return text[:at] + text[at] + text[at:]
    return text[:at] + text[at + 1] + text[at] + text[at + 2 :]


def data_sha256(directory: Path = DATA) -> str:
    """SHA-256 over names and contents of all data files: what tells one corpus from another."""
    digest = hashlib.sha256()
    for path in _files(directory):
        content = path.read_bytes()
        digest.update(f"{path.relative_to(directory).as_posix()}\0{len(content)}\0".encode())
        digest.update(content)
    return digest.hexdigest()


def _files(directory: Path) -> list[Path]:
    return sorted(directory.rglob("*.yaml"))


@lru_cache(maxsize=64)
def _parsed(path: Path, modified_ns: int) -> Any:
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    with path.open(encoding="utf-8") as file:
        return yaml.load(file, Loader=loader)  # noqa: S506 - both are safe loaders


def _yaml(path: Path) -> dict[str, Any]:
    try:
        content = _parsed(path, path.stat().st_mtime_ns)
    except OSError as error:
        raise SwitchboardError(f"can't read {path}: {error.strerror}") from None
    except yaml.YAMLError as error:
        raise SwitchboardError(f"{path} is not YAML: {error}") from None
    if not isinstance(content, dict):
        raise SwitchboardError(f"{path} must be a mapping")
    return dict(content)


def _lines(text: str | None) -> list[str]:
    return [line.strip() for line in (text or "").splitlines() if line.strip()]


def _slot(slots: Slots, name: str, template: str) -> Sequence[str]:
    try:
        return [str(value) for value in slots[name]]
    except KeyError:
        raise SwitchboardError(
            f"the template {template!r} names a slot that slots.yaml doesn't have: {name}"
        ) from None


def _digest(seed: int, text: str) -> bytes:
    return hashlib.sha256(f"{seed}\0{text}".encode()).digest()


def _rng(seed: int, text: str) -> random.Random:
    return random.Random(_digest(seed, text))  # noqa: S311 - choices of data, not secrets
