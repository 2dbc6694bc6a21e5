"""The record of what a model was fitted on: every text with its label, kept in the run beside the model.

The gate reads it rather than believe the run: a text of a test, or a person's data, can only have been learnt if it is
in here, and a fit of the record gives the model's own weights or the record is not true. It is JSON lines, compressed;
the hash is that of the lines.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
from collections.abc import Iterable, Sequence
from typing import Final

from models.corpus import Example

ARTIFACT: Final = "training/texts.jsonl.gz"
MAX_BYTES: Final = 256 << 20
"""Of the lines; more is no record of ours, but an attack on the reader's memory."""


def lines(examples: Iterable[Example]) -> bytes:
    """The record's lines, a text each, in the order of the fit."""
    rows = (
        {
            "text": example.text,
            "intent": example.intent,
            "language": example.language,
            "group": example.group,
            "bent": example.bent,
        }
        for example in examples
    )
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()


def sha256(examples: Iterable[Example]) -> str:
    return hashlib.sha256(lines(examples)).hexdigest()


def pack(examples: Sequence[Example]) -> bytes:
    """The same bytes for the same examples, whenever they are packed."""
    return gzip.compress(lines(examples), 6, mtime=0)


def unpack(content: bytes) -> tuple[Example, ...]:
    """The examples of a record.

    Raises:
        ValueError: it isn't a record, is damaged, or too large.
    """
    try:
        if not content:
            raise ValueError("it is empty")
        with gzip.GzipFile(fileobj=io.BytesIO(content)) as file:
            raw = file.read(MAX_BYTES + 1)
        if len(raw) > MAX_BYTES:
            raise ValueError(f"it is larger than {MAX_BYTES >> 20} MiB")
        # By line feeds alone: a text may have other characters that end a line in it.
        rows = [json.loads(line) for line in raw.decode().split("\n")[:-1]]
        return tuple(
            Example(
                str(row["text"]),
                str(row["intent"]),
                str(row["language"]),
                str(row["group"]),
                bent=bool(row["bent"]),
            )
            for row in rows
        )
    except (OSError, EOFError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"not a record of training: {error}") from None
