"""What a right answer looks like, to those who ask."""

from __future__ import annotations

from typing import Any, Final

FIELDS: Final[dict[str, type | tuple[type, ...]]] = {
    "intent": str,
    "confidence": (int, float),
    "answer": str,
    "language": str,
    "model_version": str,
    "handover": bool,
}


SPOKEN: Final = {**FIELDS, "transcript": str}
"""Of a question that was spoken."""


def wrong_with(answer: Any, language: str, *, spoken: bool = False) -> str | None:
    """Why `answer` isn't what the service promises, None where it is."""
    if not isinstance(answer, dict):
        return "the answer is no JSON object"
    for field, kind in (SPOKEN if spoken else FIELDS).items():
        if not isinstance(answer.get(field), kind):
            return f"the answer's {field} is missing or of the wrong type"
    if not answer["answer"].strip():
        return "the answer is empty"
    if answer["language"] != language:
        return f"asked in {language}, answered in {answer['language']}"
    return None
