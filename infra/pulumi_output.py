"""What Pulumi's plain output says: how far it is, what it changed, why it failed. Pure functions of its lines."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from switchboard.errors import SwitchboardError

_CHANGE = re.compile(r"^ *[+\-~]+ +(\S+) (\S+) (creat|updat|delet|replac)(ed|e|ing)\b")
_VIOLATION = re.compile(r"^ +- \[mandatory\]\s+(\S+)\s+\((.*)\)$")


@dataclass(frozen=True)
class Change:
    """A change that Pulumi makes: begun or done, and what it is (`creating core/v1:Service public-chat`)."""

    done: bool
    words: str


def change(line: str) -> Change | None:
    """What a line of output tells of a change; None where it tells of none."""
    match = _CHANGE.match(line)
    if match is None:
        return None
    kind = match[1].removeprefix("kubernetes:")
    return Change(match[4] != "ing", f"{match[3]}{match[4]} {kind} {match[2]}")


def error(lines: Sequence[str], log: Path) -> SwitchboardError:
    """Why an `up` failed: what the policies refuse, else Pulumi's first error."""
    if refused := violations(lines):
        more = f" (and {len(refused) - 1} more in {log})" if len(refused) > 1 else ""
        return SwitchboardError(f"policy {refused[0].policy}: {refused[0].what}{more}", refused[0].mend)
    return SwitchboardError(f"`pulumi up` failed: {reason(lines)}", f"all of its output: {log}")


@dataclass(frozen=True)
class Violation:
    """What a policy refuses: which policy, the resource with the reason, and what to do."""

    policy: str
    what: str
    mend: str | None


def violations(lines: Sequence[str]) -> list[Violation]:
    """The mandatory policies' refusals, each once."""
    found: dict[Violation, None] = {}
    for index, line in enumerate(lines):
        if match := _VIOLATION.match(line):
            indent = len(line) - len(line.lstrip())
            told = []
            for following in lines[index + 1 :]:
                if len(following) - len(following.lstrip()) <= indent:
                    break
                told.append(following.strip())
            # The policy's description comes first, then the rule's own words.
            words = [each for each in told[1:] if not each.startswith("→")] or told or [match[2]]
            mend = next((each.removeprefix("→").strip() for each in told if each.startswith("→")), None)
            found[Violation(match[1], " ".join(words), mend)] = None
    return list(found)


def reason(lines: Sequence[str]) -> str:
    """Pulumi's first error in its own words, on one line.

    Its diagnostics have it whole, after what it shows while it is at work; that the update failed is known.
    """
    said = list(lines)
    if "Diagnostics:" in said:
        said = said[said.index("Diagnostics:") :]
    errors = [" ".join(filter(None, _error(said, at))) for at, line in enumerate(said) if "error:" in line]
    for one in errors:
        if one not in ("update failed", "preview failed"):
            return one
    return next(iter([*errors, *(line.strip() for line in reversed(lines) if line.strip())]), "no output")


def _error(lines: Sequence[str], at: int) -> list[str]:
    """The words of an error that begins in the line `at`, and goes on where that ends with a colon."""
    words = [lines[at].split("error:", 1)[1].strip()]
    if words[0] and not words[0].endswith(":"):
        return words
    for line in lines[at + 1 : at + 4]:
        if not line.strip() and words[-1]:
            break  # what comes then is about another resource
        words.append(line.strip().removeprefix("* "))
    return [one for one in words if not re.fullmatch(r"\d+ errors? occurred:", one)]


def summary(lines: Sequence[str]) -> str:
    """`1 created, 55 unchanged`."""
    counts = [
        " ".join(line.split()[1:])
        for line in lines
        if re.match(r"^ +[+\-~]+ +\d+ (created|updated|deleted|replaced)", line)
    ]
    unchanged = [line.strip() for line in lines if re.match(r"^ +\d+ unchanged", line)]
    return ", ".join(counts + unchanged) or "done"
