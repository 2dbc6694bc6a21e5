"""What counts as personal data, and what only looks like it. The numbers are made up, or the libraries' examples."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from stdnum import luhn
from stdnum.cn import ric

from models.gates.personal_data import find, kinds_in

IDENTITY = "360426199101010071"
CARD = "4111111111111111"


@pytest.mark.parametrize(
    ("text", "kinds"),
    [
        (f"我的身份证是{IDENTITY}请查", ["identity number"]),
        ("身份证360426199101010072", []),
        (f"my card {CARD} is lost", ["card number"]),
        ("卡号4111 1111 1111 1111丢了", ["card number"]),
        ("card 4111-1111-1111-1111", ["card number"]),
        ("card 4111111111111112", []),
        ("order 0000000000000000", []),
        ("给我打13812345678吧", ["telephone number"]),
        ("call +86 138 1234 5678", ["telephone number"]),
        ("call me on +44 20 7946 0958", ["telephone number"]),
        ("ring 020-79460958 or (555) 123-4567", ["telephone number", "telephone number"]),
        ("write to ana.b+c@example.co.uk,please", ["e-mail address"]),
        ("邮箱是ana@example.com谢谢", ["e-mail address"]),
        (f"{IDENTITY},{CARD},ana@example.com", ["e-mail address", "identity number", "card number"]),
        ("transfer 50000 to my savings account on 2026-03-03 at 12:30", []),
        ("limit 1,000,000.00", []),
        ("the last four digits are 1234", []),
        ("meet me @ the branch", []),
        ("", []),
    ],
)
def test_what_is_found(text: str, kinds: list[str]) -> None:
    assert kinds_in(text) == kinds


def test_an_identity_number_is_no_card() -> None:
    """Some pass the checksum of cards, too; each is found once, and as what it is."""
    both = [
        number
        for order in range(1000)
        for number in [f"36042619910101{order:03d}0"]
        for number in [number[:-1] + ric.calc_check_digit(number)]
        if luhn.is_valid(number)
    ]
    assert both
    for number in both:
        assert kinds_in(f"号{number}码") == ["identity number"]


@given(st.integers(10**14, 10**15 - 1))
def test_every_card_is_found(number: int) -> None:
    digits = f"{number}{luhn.calc_check_digit(str(number))}"
    assert kinds_in(f"卡{digits}丢") == ["card number"]


@given(st.text(max_size=60))
def test_no_text_is_too_odd(text: str) -> None:
    kinds_in(text)


def test_where_it_is_found_but_not_what() -> None:
    (found,) = find(["nothing", f"my card is {CARD}"])
    assert (found.kind, found.index) == ("card number", 1)
    assert CARD not in repr(found)
