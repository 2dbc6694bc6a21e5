"""The recordings: each is there, is what a telephone carries, and is about something that there is."""

from __future__ import annotations

import io
import json
import wave

import pytest

from loadtests.conversations import Question
from loadtests.spoken import FOLDER, audio, recordings, request_of
from models import corpus
from models.intents import ANSWERABLE, HANDOVER, OUT_OF_SCOPE
from serving.gateway.listeners import MAX_REQUEST_BYTES


def test_both_languages_speak_of_what_customers_want_and_of_what_they_do_not() -> None:
    for language in ("en", "zh"):
        own = [one for one in recordings() if one.language == language]
        assert len(own) >= 12
        assert len({one.intent for one in own}) == len(own)
        assert HANDOVER in {one.intent for one in own}
    assert {one.intent for one in recordings()} <= set(ANSWERABLE)


def test_there_is_a_file_for_each_and_no_other() -> None:
    names = [one.recording for one in recordings()]
    assert sorted(f"{name}.wav" for name in names) == sorted(file.name for file in FOLDER.glob("*.wav"))


@pytest.mark.parametrize("question", recordings(), ids=lambda one: one.recording)
def test_it_is_what_a_telephone_carries(question: Question) -> None:
    with wave.open(io.BytesIO(audio(str(question.recording)))) as file:
        assert (file.getframerate(), file.getsampwidth(), file.getnchannels()) == (8000, 2, 1)
        seconds = file.getnframes() / file.getframerate()
        samples = memoryview(file.readframes(file.getnframes())).cast("h")
    assert 1.0 < seconds < 8.0
    assert len(audio(str(question.recording))) <= MAX_REQUEST_BYTES, "gateways let it through"
    assert 8_000 < max(samples) < 32_767, "loud, and not cut off"


def test_their_texts_are_held_out_ones_of_that_meaning() -> None:
    held_out = {(one.text, one.language): one.intent for one in corpus.handwritten(name="fresh")}
    for one in recordings():
        found = held_out[one.text, one.language]
        assert (HANDOVER if found == OUT_OF_SCOPE else found) == one.intent


def test_what_is_written_and_what_is_spoken() -> None:
    path, body, headers = request_of(Question("你好", "zh"))
    assert (path, json.loads(body), headers) == (
        "/v1/chat",
        {"text": "你好", "language": "zh"},
        {"Content-Type": "application/json"},
    )
    path, body, headers = request_of(Question("我想直接跟客服说", "zh", "human_agent", "zh-human"))
    assert (path, headers) == ("/v1/voice", {"Content-Type": "audio/wav", "Content-Language": "zh"})
    assert body[:4] == b"RIFF"
