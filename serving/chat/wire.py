"""The chat service's contract on the wire: request, answer, errors, and how a request is read.

Pure: bytes and header values in, typed values or a `Refusal` out. A refusal never repeats what the customer wrote, so
that it may be logged. Whatever a client sends is answered with a 4xx and a reason that it can act on, never a 5xx.
"""

from __future__ import annotations

import hashlib
import json
import re
import unicodedata
import uuid
from collections.abc import Sequence
from typing import Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator
from pydantic_core import PydanticCustomError

MAX_BODY_BYTES: Final = 8 * 1024
"""The longest request body, which also bounds the text."""

Language = Literal["zh", "en"]

_SESSION = re.compile(r"[A-Za-z0-9._:~-]{1,128}")
_REQUEST_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")
_IDEMPOTENCY_KEY = re.compile(r"[\x21-\x7e]{1,255}")


SHADOW_HOST: Final = "-shadow"
"""How the host of a request ends that a gateway has sent for comparison. What customers send has the gateway's own name
as its host, whatever they say."""


class Refusal(Exception):
    """A request that is answered with `status` and a JSON error; `code` is for programs, `message` for people."""

    def __init__(
        self, status: int, code: str, message: str, *, retry_after_s: int | None = None, close: bool = False
    ) -> None:
        super().__init__(f"{status} {code}")
        self.status = status
        self.code = code
        self.message = message
        self.retry_after_s = retry_after_s
        self.close = close
        """The connection can't be used again (the rest of the request was not read)."""

    def body(self, request_id: str) -> bytes:
        return _json({"error": {"code": self.code, "message": self.message}, "request_id": request_id})


def full() -> Refusal:
    """No more requests at once."""
    return Refusal(503, "overloaded", "too many requests at once; try again", retry_after_s=1)


class ChatRequest(BaseModel):
    """What a customer says. Unknown fields are ignored, so that newer clients may talk to older replicas."""

    model_config = ConfigDict(strict=True, extra="ignore", frozen=True)

    text: str
    language: Language | None = None
    """The language to answer in; found from the text where it isn't given."""

    @field_validator("text")
    @classmethod
    def _says_something(cls, text: str) -> str:
        if is_blank(text):
            raise PydanticCustomError("text_empty", "blank")
        return text

    def digest(self) -> str:
        """Equal for requests that ask the same."""
        return hashlib.sha256(_json([self.text, self.language])).hexdigest()


class ChatAnswer(BaseModel):
    """What the customer gets, and from which model."""

    model_config = ConfigDict(frozen=True, protected_namespaces=())

    intent: str
    confidence: float = Field(ge=0, le=1)
    answer: str
    language: Language
    handover: bool
    """A person should go on from here."""
    model: str
    model_version: str
    tier: Literal["core", "edge"]
    request_id: str

    def encode(self) -> bytes:
        return _json(self.model_dump())

    def digest(self) -> str:
        """SHA-256 of what the customer sees: replicas and model versions that answer alike have the same."""
        return hashlib.sha256(_json([self.intent, self.answer, self.language, self.handover])).hexdigest()


def _json(value: object) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode()


def is_blank(text: str) -> bool:
    """No visible character: separators and control or format characters (zero-width space) alone."""
    return all(unicodedata.category(character)[0] in "ZC" for character in text)


def parse_body(body: bytes) -> ChatRequest:
    """The request in `body`.

    Raises:
        Refusal: 400 or 413, with the reason.
    """
    if len(body) > MAX_BODY_BYTES:
        raise too_long()
    if not body.strip():
        raise Refusal(400, "body_empty", 'the body is empty; send JSON such as {"text": "I lost my card"}')
    try:
        return ChatRequest.model_validate_json(body)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False, include_context=False)[0]
        raise _refusal(first["type"], first["loc"]) from None


def _refusal(kind: str, where: Sequence[int | str]) -> Refusal:
    field = where[0] if where else None
    if kind == "json_invalid":
        return Refusal(400, "not_json", "the body is not valid JSON in UTF-8")
    if field is None:
        return Refusal(400, "not_an_object", 'the body must be a JSON object with a "text"')
    if field == "language":
        return Refusal(400, "language_unknown", 'language must be "zh" or "en", or left out')
    if kind == "missing":
        return Refusal(400, "text_missing", 'the body has no "text"')
    if kind == "text_empty":
        return Refusal(400, "text_empty", "the text is empty")
    return Refusal(400, "text_not_a_string", "text must be a string")


def too_long(*, close: bool = False) -> Refusal:
    return Refusal(
        413, "too_long", f"the body is longer than {MAX_BODY_BYTES} bytes; send a shorter text", close=close
    )


def check_content_type(value: str | None) -> None:
    """Raises `Refusal` (415) unless the body is declared as JSON in UTF-8."""
    kind, *parameters = [part.strip().lower() for part in (value or "").split(";")]
    charsets = [part.split("=", 1)[1].strip('"') for part in parameters if part.startswith("charset=")]
    if kind != "application/json" or any(name not in ("utf-8", "utf8", "us-ascii") for name in charsets):
        raise Refusal(415, "content_type", "send the header Content-Type: application/json (UTF-8)")


def number(values: Sequence[str], name: str, default: int, *, low: int, high: int) -> int:
    """A whole number of a query, or a `Refusal` that names it."""
    if not values:
        return default
    text = values[0]
    if len(values) > 1 or not (text.isascii() and text.isdigit() and len(text) < 19):
        raise Refusal(400, "not_a_number", f"{name} must be one whole number")
    return max(low, min(high, int(text)))


def session_id(values: Sequence[str]) -> str:
    """The one value of `X-Session-Id`, or a `Refusal`: routing and idempotency need it."""
    if not values:
        raise Refusal(400, "session_missing", "the header X-Session-Id is missing")
    if len(values) > 1 or not _SESSION.fullmatch(values[0]):
        raise Refusal(
            400, "session_invalid", "X-Session-Id must be 1 to 128 letters, digits, or any of . _ : ~ -"
        )
    return values[0]


def idempotency_key(values: Sequence[str]) -> str | None:
    """The value of `Idempotency-Key`, None where there is none, or a `Refusal`."""
    if not values:
        return None
    if len(values) > 1 or not _IDEMPOTENCY_KEY.fullmatch(values[0]):
        raise Refusal(
            400, "idempotency_key_invalid", "Idempotency-Key must be 1 to 255 visible ASCII characters"
        )
    return values[0]


def is_shadow(values: Sequence[str]) -> bool:
    """Whether the values of `Host` are those of a request whose answer is thrown away."""
    return len(values) == 1 and values[0].partition(":")[0].endswith(SHADOW_HOST)


def request_id(values: Sequence[str]) -> str:
    """The request's own id where it has a usable one, else a new one."""
    if len(values) == 1 and _REQUEST_ID.fullmatch(values[0]):
        return values[0]
    return uuid.uuid4().hex
