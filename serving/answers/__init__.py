"""What customers are told: one text for each intent and language, in `en.yaml` and `zh.yaml` beside this file.

The texts are the bank's to edit: plain sentences, no markup, nothing that depends on a customer's data. Loading fails
where an intent or a language is missing, so a replica never starts with half of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import yaml

from models.intents import ANSWERABLE, HANDOVER, LANGUAGES
from switchboard.errors import SwitchboardError

TO_A_PERSON: Final = frozenset({HANDOVER, "human_agent", "fraud_report"})
"""After these a person goes on, whatever the text says."""

MAX_CHARACTERS: Final = 600
"""A chat bubble, not a page."""


@dataclass(frozen=True)
class Answer:
    texts: Mapping[str, str]
    """By language."""
    handover: bool

    def text(self, language: str) -> str:
        return self.texts[language]


class Answers(Mapping[str, Answer]):
    """By intent."""

    def __init__(self, answers: Mapping[str, Answer]) -> None:
        self._answers = dict(answers)

    def __getitem__(self, intent: str) -> Answer:
        return self._answers[intent]

    def __iter__(self) -> Iterator[str]:
        return iter(self._answers)

    def __len__(self) -> int:
        return len(self._answers)

    @classmethod
    def load(cls, directory: Path = Path(__file__).parent) -> Answers:
        """The texts in `directory`.

        Raises:
            SwitchboardError: a file that can't be read, or an intent that lacks a text, or a text without an intent.
        """
        texts = {language: _read(directory / f"{language}.yaml") for language in LANGUAGES}
        return cls(
            {
                intent: Answer({name: texts[name][intent] for name in LANGUAGES}, intent in TO_A_PERSON)
                for intent in ANSWERABLE
            }
        )


def _read(path: Path) -> dict[str, str]:
    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise SwitchboardError(f"can't read the answers in {path}: {error}") from None
    if not isinstance(found, dict):
        raise SwitchboardError(f"{path} must map intents to texts")
    if missing := [intent for intent in ANSWERABLE if intent not in found]:
        raise SwitchboardError(f"{path} has no answer for {', '.join(missing)}")
    if unknown := sorted(str(intent) for intent in found if intent not in ANSWERABLE):
        raise SwitchboardError(f"{path} answers what is no intent: {', '.join(unknown)}")
    for intent, text in found.items():
        if not isinstance(text, str) or not 0 < len(text.strip()) <= MAX_CHARACTERS:
            raise SwitchboardError(f"{path}: {intent} must be a text of 1 to {MAX_CHARACTERS} characters")
    return {intent: text.strip() for intent, text in found.items()}
