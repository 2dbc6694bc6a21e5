"""The list of behaviours says what the tests say."""

from __future__ import annotations

from collections import Counter

from tests.infra.local.behaviours.__main__ import TARGET, collect, text


def test_the_list_is_what_the_tests_hold() -> None:
    assert TARGET.read_text() == text(collect()), "write it anew: python -m tests.infra.local.behaviours"


def test_each_name_once_and_with_the_group_that_it_is_of() -> None:
    names = [one.name for one in collect()]
    assert {name: count for name, count in Counter(names).items() if count > 1} == {}
    assert [name for name in names if not name.startswith("[sig-")] == []
