"""What Pulumi would make of its arguments: which command, of which stack, judged by which policies.

Read as Pulumi itself reads them (by cobra and pflag), with the options of Pulumi 3.200: a value that looks like a
command (`stack init preview`) is none, and a stack is found however it is written (`-s x`, `-ysx`, `--stack=x`).
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from pathlib import Path

from switchboard.errors import SwitchboardError

_SWITCHES = frozenset(
    {
        "--disable-integrity-checking",
        "--emoji",
        "--fully-qualify-stack-names",
        "--help",
        "--logflow",
        "--logtostderr",
        "--non-interactive",
        "--version",
        "-Q",
        "-e",
        "-h",
    }
)
"""Of the options that may come before the command, those that take no value."""
_VALUED = frozenset("Ccmopstvx")
"""The letters that take a value, of any command: what follows one in the same word is its value."""
_GROUPS = frozenset({"stack"})
"""Commands of which the next word counts as well."""


def command(arguments: Sequence[str]) -> str:
    """The command, as `up` or `stack import`; empty where there is none.

    >>> command(["-C", "up", "--color", "never", "stack", "init", "preview"])
    'stack init'
    """
    words = _words(arguments)
    first = next(words, "")
    return f"{first} {next(words, '')}".strip() if first in _GROUPS else first


def _words(arguments: Sequence[str]) -> Iterator[str]:
    """The arguments that are neither options nor, before the command and its subcommand, values of options."""
    rest = iter(arguments)
    for each in rest:
        if each == "--":
            return
        if not each.startswith("-"):
            yield each
        elif each not in _SWITCHES and "=" not in each and (each.startswith("--") or len(each) == 2):
            next(rest, None)


def stay_on(stack: str, arguments: Sequence[str]) -> None:
    """See that the arguments name no stack but this one, whose clusters and environment were looked at.

    Raises:
        SwitchboardError: they name another stack; or another folder, whose program and stack files these aren't; or
            another stack file, which policies and secrets would be read from, and the program not.
    """
    rest = iter(arguments)
    for each in rest:
        if each == "--":
            return
        option, value = _option(each)
        if option not in ("stack", "cwd", "config-file"):
            continue
        named = next(rest, "") if value is None else value
        if option == "config-file":
            raise SwitchboardError(
                f"the policies would read {named or 'another file'}, and the program Pulumi.{stack}.yaml",
                f"leave `{each}` out",
            )
        if option == "cwd":
            raise SwitchboardError(
                f"Pulumi runs in this checkout, not in {named or each}", f"leave `{each}` out"
            )
        if named != stack:
            raise SwitchboardError(
                f"`{each}` names stack {named}, but this is the environment of stack {stack}",
                f"name the stack before the dashes: `switchboard pulumi --stack {named or stack} -- …`",
            )


def policy_packs(arguments: Sequence[str], ours: Path, unchanged: Path) -> list[str]:
    """The arguments with the policy pack `ours` beside those that they name; these may be relative to this folder.

    Pulumi takes settings for each pack or for none: where the user's packs have some, ours get those of the file
    `unchanged`, for a setting of a pack's can be that it refuses nothing.

    Raises:
        SwitchboardError: there are settings for ours.
    """
    end = list(arguments).index("--") if "--" in arguments else len(arguments)
    rest, packs = _without("--policy-pack", arguments[:end])
    rest, settings = _without("--policy-pack-config", rest)
    theirs = [pack for pack in packs if Path(pack).resolve() != ours.resolve()]
    if settings and (not theirs or theirs != packs):
        raise SwitchboardError(
            f"{ours.parent.name}/{ours.name} has no settings: what it refuses is refused",
            "leave `--policy-pack-config` out, or name the packs of your own that it is for",
        )
    named = [("--policy-pack", [*theirs, str(ours)])]
    if settings:
        named.append(("--policy-pack-config", [*settings, str(unchanged)]))
    given = [word for option, paths in named for path in paths for word in (option, as_item(path))]
    return [*rest, *given, *arguments[end:]]


def as_item(path: str | Path) -> str:
    """A path as an option that takes a list wants it: absolute, and in quotes where it has a comma."""
    text = io.StringIO()
    csv.writer(text, lineterminator="").writerow([str(Path(path).absolute())])
    return text.getvalue()


def _without(option: str, arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """The arguments without an option that takes a list, and all that it lists."""
    rest, listed = [], []
    each = iter(arguments)
    for word in each:
        name, equals, value = word.partition("=")
        if name != option:
            rest.append(word)
        else:
            listed += next(csv.reader([value if equals else next(each, "")]), [])
    return rest, listed


def _option(word: str) -> tuple[str, str | None]:
    """Whether a word sets the `stack` or the `cwd`, and to what; None where the next word says that."""
    if word.startswith("--"):
        name, equals, value = word[2:].partition("=")
        return name, value if equals else None
    if word.startswith("-"):
        for index, letter in enumerate(word[1:], 1):
            if letter in _VALUED or word[index + 1 : index + 2] == "=":
                value = word[index + 1 :]
                name = {"s": "stack", "C": "cwd"}.get(letter, "")
                return name, value.removeprefix("=") if value else None
    return "", None
