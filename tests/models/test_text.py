"""The normal form of texts."""

from __future__ import annotations

import sys
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models import corpus
from models.text import _INVISIBLE, MAX_CHARS, language, normalise
from models.traditional import PAIRS


@pytest.mark.parametrize(
    ("raw", "normal", "why"),
    [
        ("  I LOST\tmy\n card ", "i lost my card", "case and spaces"),
        ("Ｉ ｌｏｓｔ ｍｙ ｃａｒｄ！", "i lost my card!", "full width"),
        ("can’t", "can't", "typographic quotes"),
        ("I paid 5,000.50 to 2 people", "i paid 0 to 0 people", "numbers say little about the wish"),
        ("转５０００元", "转0元", "full-width digits"),
        ("helpppppppp!!!!!!", "helppp!!!", "repeats"),
        ("my\u200b ca\u00adrd", "my card", "invisible characters"),
        ("", "", "nothing"),
        (" \u3000\n", "", "only spaces"),
        ("\ud800card", "card", "half a character"),
        ("ﬁne", "fine", "ligatures"),
        ("請問轉帳什麼時候到賬？", "请问转账什么时候到账?", "traditional characters"),
        ("对帐单", "对账单", "of two ways to write an account, one"),
        ("臺灣裏的衞生", "台湾里的卫生", "as Taiwan and Hong Kong write them"),
        ("像俱乐部、覆盖", "像俱乐部,覆盖", "what simplified texts have too stays"),
        ("麽薴", "么苎", "the form of a form"),
    ],
)
def test_normal_form(raw: str, normal: str, why: str) -> None:
    assert normalise(raw) == normal, why


def test_a_question_is_the_same_in_traditional_characters() -> None:
    traditional = str.maketrans(PAIRS[1::2], PAIRS[::2])
    chinese = [e.text for e in corpus.handwritten() if e.language == "zh"]
    changed = [text for text in chinese if text != text.translate(traditional)]
    assert len(changed) > len(chinese) * 0.9
    assert [text for text in changed if normalise(text.translate(traditional)) != normalise(text)] == []


@given(st.text())
def test_is_idempotent_and_bounded(text: str) -> None:
    once = normalise(text)
    assert normalise(once) == once
    assert len(once) <= MAX_CHARS
    assert "\n" not in once and once == once.strip()


@given(st.text(min_size=1, max_size=5), st.integers(2000, 4000))
def test_long_texts_stay_bounded(text: str, times: int) -> None:
    assert len(normalise(text * times)) <= MAX_CHARS


@pytest.mark.parametrize(
    ("text", "expected"),
    [("hello", "en"), ("你好", "zh"), ("我的card丢了", "zh"), ("", "en"), ("123", "en"), ("¿qué?", "en")],
)
def test_language(text: str, expected: str) -> None:
    assert language(text) == expected


def test_what_can_be_printed_is_neither_invisible_nor_a_space_of_another_kind() -> None:
    """Of every character that there is: so a text of such characters is spared the look at each."""
    printed = [char for char in map(chr, range(sys.maxunicode + 1)) if char.isprintable()]
    assert len(printed) > 100_000
    assert [char for char in printed if unicodedata.category(char) in _INVISIBLE] == []
    assert [char for char in printed if char.isspace()] == [" "]
