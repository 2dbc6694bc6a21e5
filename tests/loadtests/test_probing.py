"""What is looked at before any load."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from loadtests import probing
from loadtests.probing import Asked, check_target, known
from loadtests.questions import questions
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


HELLO = Asked("hello there", "en", "greeting")
LOST = Asked("I lost my card", "en", "card_lost")


def test_a_question_is_known_if_it_is_answered_right(remote: Remote, tmp_path: Path) -> None:
    """This service says `greeting` to everything."""
    found = known(remote.url, [HELLO, LOST], most=10)
    assert found == ([HELLO], [LOST])
    file = tmp_path / "questions.jsonl"
    probing.write(file, found)
    read = questions(str(file))
    assert [(one.text, one.intent) for one in read["en"]] == [(HELLO.text, "greeting"), (LOST.text, None)]


def test_no_more_are_asked_than_wanted(remote: Remote) -> None:
    some = [Asked(f"question {number}", "en", "greeting") for number in range(50)]
    found = known(remote.url, some, most=7)
    assert len(found[0]) == len(remote.asked) == 7
    assert {json.dumps(one) for one in remote.asked} <= {
        json.dumps({"text": one.text, "language": "en"}) for one in some
    }


def test_one_that_does_not_answer_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probing, "PATIENCE_S", 0.3)
    with pytest.raises(SwitchboardError, match="doesn't answer a question"):
        known("http://127.38.0.5:1", [HELLO], most=1)
