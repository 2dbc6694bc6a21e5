"""`switchboard serving ask` against a real replica."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from serving import cli
from switchboard.errors import SwitchboardError
from switchboard.gateways import GATEWAY_VARIABLE
from tests.serving.chat.replicas import ReplicaProcess


def run(*arguments: str, env: dict[str, str | None] | None = None) -> str:
    env = {GATEWAY_VARIABLE: None, **(env or {})}
    return CliRunner().invoke(cli.app, ["ask", *arguments], env=env, catch_exceptions=False).stdout


def test_it_prints_the_answer(chat: ReplicaProcess) -> None:
    said = run("I lost my card yesterday", "--url", chat.url)
    assert said.startswith("Please block the card")
    assert "card_lost" in said
    assert "block" not in run(
        "I lost my card yesterday", "--language", "zh", env={GATEWAY_VARIABLE: chat.url}
    )


def test_it_prints_json(chat: ReplicaProcess) -> None:
    answer = json.loads(run("我的银行卡丢了", "--url", chat.url, "--session", "me", "--output", "json"))
    assert answer["language"] == "zh"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["hello"], "which gateway"),
        (["hello", "--url", "127.0.0.1"], "is no address"),
        (["hello", "--url", "http://127.38.0.4:9"], "no answer from http://127.38.0.4:9: .*refused"),
    ],
)
def test_what_goes_wrong_is_said(arguments: list[str], says: str) -> None:
    with pytest.raises(SwitchboardError, match=says):
        run(*arguments)


def test_a_refusal_is_shown_in_the_service_s_words(chat: ReplicaProcess) -> None:
    with pytest.raises(SwitchboardError, match="answered 400: the text is empty"):
        run(" ", "--url", chat.url)
