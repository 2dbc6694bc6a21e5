"""Versions are read from what tools really print, and fit by ranges."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra.local.toolchain.versions import Range, Version, parse, same_major, same_minor, show


@pytest.mark.parametrize(
    ("printed", "version"),
    [
        ("v3.200.0\n", (3, 200, 0)),
        ("Kubernetes v1.37.2\n", (1, 37, 2)),
        ("Client Version: v1.32.4-dispatcher\nKustomize Version: v5.5.0\n", (1, 32, 4)),
        ("etcd Version: 3.6.8\nGit SHA: Not provided\nGo Version: go1.26.8\n", (3, 6, 8)),
        ("prometheus, version 2.42.0+ds (branch: debian/sid, revision: 2.42.0+ds-5+deb12u1)\n", (2, 42, 0)),
        ("prometheus, version 3.13.0 (branch: , revision: unknown)\n  go version: go1.26.8\n", (3, 13, 0)),
        ("alertmanager, version 0.25.0 (branch: debian/sid)\n  go version: go1.19.8\n", (0, 25, 0)),
        (
            "envoy  version: 9e5580933739775e8bce696a57a2e1bc99368f23/1.40.0/Clean/RELEASE/BoringSSL\n",
            (1, 40, 0),
        ),
        ("go version go1.26.8 linux/amd64\n", (1, 26, 8)),
        ("go version go1.26 linux/amd64\n", (1, 26, 0)),
        ("go version go1.27rc1 linux/amd64\n", (1, 27, 0)),
        ("2.53.3+ds1-1~deb13u1", (2, 53, 3)),
        ("command not found", None),
        ("", None),
    ],
)
def test_the_version_is_found_in_what_a_tool_prints(printed: str, version: Version | None) -> None:
    assert parse(printed) == version


@pytest.mark.parametrize(
    ("fits", "inside", "outside"),
    [
        (same_minor(1, 37), [(1, 37, 0), (1, 37, 99)], [(1, 36, 9), (1, 38, 0), (2, 37, 0)]),
        (same_minor(1, 37, within=1), [(1, 36, 0), (1, 38, 9)], [(1, 35, 9), (1, 39, 0)]),
        (same_major(3, 200), [(3, 200, 0), (3, 246, 1)], [(3, 199, 9), (4, 0, 0)]),
        (Range((3, 0, 0), (4, 0, 0)), [(3, 0, 0), (3, 5, 0)], [(2, 55, 1), (4, 0, 0), None]),
    ],
)
def test_what_fits(fits: Range, inside: list[Version], outside: list[Version | None]) -> None:
    assert all(version in fits for version in inside)
    assert not any(version in fits for version in outside)


@given(st.tuples(*[st.integers(0, 9999)] * 3))
def test_a_shown_version_is_read_again(version: Version) -> None:
    assert parse(show(version)) == version
    assert parse(f"tool v{show(version)}-rc.1 (go1.26)") == version


def test_an_unknown_version_is_shown_as_such() -> None:
    assert show(None) == "?"
