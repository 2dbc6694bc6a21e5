"""Pulumi's arguments as Pulumi takes them: the command, and the stack that they name."""

from __future__ import annotations

import contextlib
import subprocess

import pytest

from infra.local import toolchain
from infra.pulumi_arguments import command, stay_on
from switchboard.errors import SwitchboardError
from switchboard.paths import ROOT


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], ""),
        (["--version"], ""),
        (["up", "--yes"], "up"),
        (["-C", "destroy", "up"], "up"),
        (["--color", "never", "--non-interactive", "destroy"], "destroy"),
        (["--color=never", "-e", "watch"], "watch"),
        (["-v3", "up"], "up"),
        (["stack", "init", "preview"], "stack init"),
        (["stack", "-s", "up", "import"], "stack import"),
        (["config", "set", "x", "up"], "config"),
        (["--", "up"], ""),
    ],
)
def test_the_command(arguments: list[str], expected: str) -> None:
    assert command(arguments) == expected


@pytest.mark.parametrize(
    ("arguments", "refusal"),
    [
        (["up", "--stack", "here"], None),
        (["up", "-shere", "--yes"], None),
        (["up", "--suppress-outputs", "-m", "fixes"], None),
        (["up", "-mfixes"], None),
        (["preview", "-r=s"], None),
        (["config", "set", "x", "--", "--stack"], None),
        (["destroy", "--stack", "other"], "names stack other"),
        (["destroy", "--stack=other"], "names stack other"),
        (["destroy", "-s", "other"], "names stack other"),
        (["destroy", "-sother"], "names stack other"),
        (["destroy", "-s=other"], "names stack other"),
        (["destroy", "-yfs", "other"], "names stack other"),
        (["destroy", "-yrsother"], "names stack other"),
        (["--stack", "other", "destroy"], "names stack other"),
        (["destroy", "--stack", "here", "--stack", "other"], "names stack other"),
        (["destroy", "--stack", "organization/switchboard/here"], "names stack organization"),
        (["destroy", "--stack"], "names stack "),
        (["-C", "/elsewhere", "destroy"], "not in /elsewhere"),
        (["destroy", "--cwd=/elsewhere"], "not in /elsewhere"),
        (["destroy", "-yC/elsewhere"], "not in /elsewhere"),
    ],
)
def test_another_stack_is_refused_however_it_is_written(arguments: list[str], refusal: str | None) -> None:
    expected = pytest.raises(SwitchboardError, match=refusal) if refusal else contextlib.nullcontext()
    with expected:
        stay_on("here", arguments)


def test_the_spellings_are_pulumi_s() -> None:
    """A Pulumi that reads them otherwise, or has another name for a stack, would be told here."""
    pulumi = str(toolchain.locate(["pulumi"]).path("pulumi"))
    for each in ("up", "preview", "watch", "destroy", "refresh", "import"):
        said = subprocess.run([pulumi, each, "--help"], cwd=ROOT, capture_output=True, text=True).stdout
        assert "-s, --stack string" in said and "-C, --cwd string" in said
        assert ("--policy-pack strings" in said) is (each in ("up", "preview", "watch"))
