from __future__ import annotations

import pytest

from serving.chat.language import detect


@pytest.mark.parametrize(
    ("text", "language", "why"),
    [
        ("我的银行卡丢了", "zh", "all Chinese"),
        ("信用額度", "zh", "traditional characters too"),
        ("I lost my card", "en", "all English"),
        ("我的 credit card 丢了", "zh", "Chinese with English words in it"),
        ("ATM在哪", "zh", "an abbreviation in Chinese"),
        ("app登录password忘了", "zh", "no spaces between"),
        ("how do I transfer to 王小明 please, and hurry up", "en", "a Chinese name in English"),
        ("¿dónde está mi tarjeta?", "en", "another language: the one that most read"),
        ("12345", "en", "no letters at all"),
        ("🙂", "en", "no letters at all"),
        ("", "en", "nothing"),
    ],
)
def test_detect(text: str, language: str, why: str) -> None:
    assert detect(text) == language, why
