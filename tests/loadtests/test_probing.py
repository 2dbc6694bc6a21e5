"""What is looked at before any load."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from loadtests import probing
from loadtests.conversations import Question
from loadtests.probing import check_target, check_voice, find_out, known
from loadtests.questions import questions, spoken
from loadtests.spoken import recordings
from switchboard.errors import SwitchboardError
from tests.loadtests.conftest import Remote


def test_a_service_of_ours_on_this_machine(remote: Remote) -> None:
    check_target(remote.url, "local")
    assert len(remote.asked) == 1


@pytest.mark.parametrize(
    ("url", "stack", "says"),
    [
        ("127.0.0.1:8080", "local", "is no address"),
        ("ftp://127.0.0.1", "local", "is no address"),
        ("http://", "local", "is no address"),
        ("http://127.0.0.1:many", "local", "is no address"),
        ("http://[::1", "local", "is no address"),
        ("http://..../", "local", "isn't on this machine"),
        ("http://" + "a" * 64 + ".invalid", "local", "isn't on this machine"),
        ("http://192.0.2.1:8080", "local", "isn't on this machine, and the stack is called local"),
        ("http://name.invalid:8080", "local", "isn't on this machine"),
        ("http://127.38.0.5:1", "local", "doesn't answer"),
        ("http://127.38.0.5:1", "staging", "doesn't answer"),
    ],
)
def test_targets_that_are_none(url: str, stack: str, says: str) -> None:
    with pytest.raises(SwitchboardError, match=says) as raised:
        check_target(url, stack)
    assert "--target" in str(raised.value)


def test_one_that_is_not_ours(remote: Remote) -> None:
    remote.answer = {"intent": None}
    with pytest.raises(SwitchboardError, match="is no chat service of Switchboard's: the answer's intent"):
        check_target(remote.url, "local")


def test_one_that_refuses(remote: Remote) -> None:
    remote.status = 503
    with pytest.raises(SwitchboardError, match=r"--other .* refuses a question: 503"):
        check_target(remote.url, "local", what="--other")


HELLO = Question("hello there", "en", "greeting")
LOST = Question("I lost my card", "en", "card_lost")


def test_a_question_is_known_if_it_is_answered_right(remote: Remote, tmp_path: Path) -> None:
    """This service says `greeting` to everything."""
    found = known(remote.url, [HELLO, LOST], most=10)
    assert found == ([HELLO], [LOST])
    file = tmp_path / "questions.jsonl"
    assert find_out(remote.url, [HELLO, LOST], file) == "1 of 2"
    read = questions(str(file))
    assert [(one.text, one.intent) for one in read["en"]] == [(HELLO.text, "greeting"), (LOST.text, None)]


def test_no_more_are_asked_than_wanted(remote: Remote) -> None:
    some = [Question(f"question {number}", "en", "greeting") for number in range(50)]
    found = known(remote.url, some, most=7)
    assert len(found[0]) == len(remote.asked) == 7
    assert {json.dumps(one) for one in remote.asked} <= {
        json.dumps({"text": one.text, "language": "en"}) for one in some
    }


def test_one_that_does_not_answer_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probing, "PATIENCE_S", 0.3)
    with pytest.raises(SwitchboardError, match="doesn't answer a question"):
        known("http://127.38.0.5:1", [HELLO], most=1)


def test_a_voice_service(remote: Remote, tmp_path: Path) -> None:
    check_voice(remote.url)
    assert len(remote.heard) == 1
    file = tmp_path / "recordings.jsonl"
    some = [
        Question("hello there", "en", "greeting", "en-human"),
        Question("我想直接跟客服说", "zh", "human_agent", "zh-human"),
    ]
    assert find_out(remote.url, some, file) == "1 of 2"
    read = spoken(str(file))
    assert [(one.recording, one.intent) for one in read["en"]] == [("en-human", "greeting")]
    assert [(one.recording, one.intent) for one in read["zh"]] == [("zh-human", None)]


def test_where_there_is_none(remote: Remote) -> None:
    remote.listens = False
    with pytest.raises(SwitchboardError, match=r"--target .* has no voice service: it knows no /v1/voice"):
        check_voice(remote.url)


def test_one_that_does_not_say_what_it_heard(remote: Remote) -> None:
    remote.answer = {"transcript": None}
    with pytest.raises(
        SwitchboardError, match="is no voice service of Switchboard's: the answer's transcript"
    ):
        check_voice(remote.url)


@pytest.mark.parametrize("status", [413, 503])
def test_one_that_refuses_recordings(remote: Remote, monkeypatch: pytest.MonkeyPatch, status: int) -> None:
    monkeypatch.setattr(probing, "SPOKEN_PATIENCE_S", 0.3)
    remote.status = status
    name = recordings()[0].recording
    with pytest.raises(SwitchboardError, match=f"refuses the recording {name}: {status}"):
        check_voice(remote.url)
    with pytest.raises(SwitchboardError, match=f"refuses the recording {name}: {status}"):
        known(remote.url, recordings()[:1], most=1)
    # One that is busy is asked again for a while; one that won't take it isn't.
    assert (len(remote.heard) > 2) == (status == 503)


def test_one_that_has_to_start_is_waited_for(remote: Remote) -> None:
    remote.status, remote.every = 503, 10**6  # at the first request
    check_voice(remote.url)
    assert len(remote.heard) == 2
