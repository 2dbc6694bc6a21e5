"""Versions of tools: how one is found in what a tool prints, and which ones fit.

Pure functions of text. A tool fits by a range of its own (`Range`): the control plane must be the minor release that
everything was tried with, kubectl may be one minor release away (Kubernetes' own rule), the rest has a floor and the
next major release as its ceiling.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

Version = tuple[int, int, int]

_VERSION = re.compile(r"(?<![\w.])v?(\d+)\.(\d+)(?:\.(\d+))?(?![\d])")


def parse(text: str) -> Version | None:
    """The first version in what a tool prints (`Kubernetes v1.37.2`, `go version go1.26.8 linux/amd64`)."""
    match = _VERSION.search(re.sub(r"\bgo(?=\d)", "", text))
    if match is None:
        return None
    major, minor, patch = match.groups()
    return int(major), int(minor), int(patch or 0)


def show(version: Version | None) -> str:
    """`1.37.2`, or `?` where it isn't known."""
    return "?" if version is None else ".".join(map(str, version))


@dataclass(frozen=True)
class Range:
    """Versions from `lowest` on and below `below`."""

    lowest: Version
    below: Version

    def __contains__(self, version: object) -> bool:
        return isinstance(version, tuple) and self.lowest <= version < self.below

    def __str__(self) -> str:
        return f"≥ {_short(self.lowest)} and < {_short(self.below)}"


def same_minor(major: int, minor: int, within: int = 0) -> Range:
    """All patches of one minor release, and of `within` minor releases around it."""
    return Range((major, max(minor - within, 0), 0), (major, minor + within + 1, 0))


def same_major(major: int, minor: int) -> Range:
    """From this minor release on to the next major release."""
    return Range((major, minor, 0), (major + 1, 0, 0))


def _short(version: Version) -> str:
    major, minor, patch = version
    return f"{major}.{minor}.{patch}" if patch else f"{major}.{minor}"
