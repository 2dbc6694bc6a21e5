"""Property paths, as the engine writes and reads them."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra.plugin.paths import Path, copy_at, covers, format_path, parse_path

keys = st.text(min_size=1, max_size=8) | st.sampled_from(["spec", "pulumi.com/skipAwait", 'a"b', "a\\b"])


@given(st.lists(keys | st.integers(0, 20), min_size=1, max_size=5).filter(lambda p: isinstance(p[0], str)))
def test_a_written_path_is_read_back(path: list[str | int]) -> None:
    assert parse_path(format_path(path)) == tuple(path)


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("spec.containers[0].image", ("spec", "containers", 0, "image")),
        ("spec.containers[*].image", ("spec", "containers", "*", "image")),
        ('metadata.annotations["a.b/c"]', ("metadata", "annotations", "a.b/c")),
        ("metadata.labels.*", ("metadata", "labels", "*")),
    ],
)
def test_paths_are_read(text: str, path: Path) -> None:
    assert parse_path(text) == path


@pytest.mark.parametrize("text", ["a[", "a[x]", 'a["b]'])
def test_what_is_no_path_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not a property path"):
        parse_path(text)


@pytest.mark.parametrize(
    ("pattern", "path", "covered"),
    [
        ("spec", "spec.replicas", True),
        ("spec.replicas", "spec", False),
        ("spec.containers[*].image", "spec.containers[3].image", True),
        ("spec.containers[*].image", "spec.containers[3].name", False),
    ],
)
def test_a_pattern_covers_what_is_inside(pattern: str, path: str, covered: bool) -> None:
    assert covers(parse_path(pattern), parse_path(path)) is covered


@pytest.mark.parametrize(
    ("path", "live", "obj", "result"),
    [
        pytest.param("a.b", {"a": {"b": 2}}, {"a": {"b": 1}}, {"a": {"b": 2}}, id="taken over"),
        pytest.param("a.b", {"a": {}}, {"a": {"b": 1}}, {"a": {}}, id="left out where it isn't"),
        pytest.param("a.b", {"a": {"b": 2}}, {"a": {}}, {"a": {}}, id="what isn't ours isn't claimed"),
        pytest.param(
            "c[*].i", {"c": [{"i": 8}, {"i": 9}]}, {"c": [{"i": 1}]}, {"c": [{"i": 8}]}, id="in every item"
        ),
        pytest.param("c[1]", {"c": [5, 6]}, {"c": [1, 2]}, {"c": [1, 6]}, id="one item"),
        pytest.param("m.*", {"m": {"x": 3}}, {"m": {"x": 1, "y": 2}}, {"m": {"x": 3}}, id="every key"),
    ],
)
def test_copy_at(path: str, live: Any, obj: Any, result: Any) -> None:
    copy_at(parse_path(path), live, obj)
    assert obj == result
