"""Pulumi's arguments as Pulumi takes them: the command, and the stack that they name."""

from __future__ import annotations

import contextlib
import subprocess
from pathlib import Path

import pytest

from infra.local import toolchain
from infra.pulumi_arguments import command, policy_packs, stay_on
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
        (["up", "--config-file", "other.yaml"], "would read other.yaml, and the program Pulumi.here.yaml"),
        (["preview", "--config-file=other.yaml"], "would read other.yaml"),
        (["up", "--", "--config-file", "other.yaml"], None),
    ],
)
def test_another_stack_is_refused_however_it_is_written(arguments: list[str], refusal: str | None) -> None:
    expected = pytest.raises(SwitchboardError, match=refusal) if refusal else contextlib.nullcontext()
    with expected:
        stay_on("here", arguments)


OURS = ("--policy-pack", "/checkout/infra/policy")


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["up", "--yes"], ["up", "--yes", *OURS]),
        (["up", "--policy-pack", "mine"], ["up", "--policy-pack", "{cwd}/mine", *OURS]),
        (["up", "--policy-pack=/a/b", "--yes"], ["up", "--yes", "--policy-pack", "/a/b", *OURS]),
        (["up", "--policy-pack", "/a,/b"], ["up", "--policy-pack", "/a", "--policy-pack", "/b", *OURS]),
        (
            ["up", "--policy-pack", '"/a,b"', "--policy-pack", "/c"],
            ["up", "--policy-pack", '"/a,b"', "--policy-pack", "/c", *OURS],
        ),
        # Ours once, however it is named.
        (["up", "--policy-pack", "/checkout/infra/policy/"], ["up", *OURS]),
        (["up", "--policy-pack", "../checkout/infra/../infra/policy"], ["up", *OURS]),
        (
            ["up", "--policy-pack", "/a", "--policy-pack-config", "a.json"],
            [
                *("up", "--policy-pack", "/a", *OURS),
                *("--policy-pack-config", "{cwd}/a.json", "--policy-pack-config", "/checkout/none.json"),
            ],
        ),
        (["up", "--", "--policy-pack", "x"], ["up", *OURS, "--", "--policy-pack", "x"]),
    ],
)
def test_our_policies_are_asked_beside_the_user_s(
    monkeypatch: pytest.MonkeyPatch, arguments: list[str], expected: list[str]
) -> None:
    monkeypatch.chdir("/tmp")  # the user's folder; Pulumi runs in the checkout
    found = policy_packs(arguments, Path("/checkout/infra/policy"), Path("/checkout/none.json"))
    assert found == [word.format(cwd="/tmp") for word in expected]


@pytest.mark.parametrize(
    "arguments",
    [
        ["up", "--policy-pack-config", "advisory.json"],
        ["up", "--policy-pack-config=advisory.json", "--policy-pack", "/checkout/infra/policy"],
        ["up", "--policy-pack", "/a,/checkout/infra/policy", "--policy-pack-config", "a.json,advisory.json"],
    ],
)
def test_our_policies_take_no_settings(arguments: list[str]) -> None:
    with pytest.raises(SwitchboardError, match="infra/policy has no settings"):
        policy_packs(arguments, Path("/checkout/infra/policy"), Path("/checkout/none.json"))


def test_the_spellings_are_pulumi_s() -> None:
    """A Pulumi that reads them otherwise, or has another name for a stack, would be told here."""
    pulumi = str(toolchain.locate(["pulumi"]).path("pulumi"))
    for each in ("up", "preview", "watch", "destroy", "refresh", "import"):
        said = subprocess.run([pulumi, each, "--help"], cwd=ROOT, capture_output=True, text=True).stdout
        assert "-s, --stack string" in said and "-C, --cwd string" in said
        assert "--config-file string" in said
        for option in ("--policy-pack strings", "--policy-pack-config strings"):
            assert (option in said) is (each in ("up", "preview", "watch"))
