"""What the doctor found: a line for each check, and below each that isn't well how to mend it.

The face for other programs is `Report` as JSON: `stack`, `passed` and `findings` (check, status, what, mend) stay as
they are.
"""

from __future__ import annotations

from collections import Counter
from enum import StrEnum

from pydantic import BaseModel, ConfigDict, computed_field

from switchboard.errors import SwitchboardError
from switchboard.text import columns


class Verdict(StrEnum):
    """`skipped`: it could not be looked at, or there is nothing to look at yet."""

    OK = "ok"
    WARNING = "warning"
    FAILED = "failed"
    SKIPPED = "skipped"


class Finding(BaseModel):
    """One check's outcome: what was seen, and how to mend it where it isn't well."""

    model_config = ConfigDict(frozen=True)

    check: str
    status: Verdict
    what: str
    mend: str | None = None


class Report(BaseModel):
    """All checks of one stack and its machine; passed unless one failed."""

    stack: str
    findings: list[Finding]
    seconds: float = 0.0

    @computed_field  # type: ignore[prop-decorator]
    @property
    def passed(self) -> bool:
        return all(finding.status is not Verdict.FAILED for finding in self.findings)


def ok(check: str, what: str) -> Finding:
    return Finding(check=check, status=Verdict.OK, what=what)


def warning(check: str, what: str, mend: str) -> Finding:
    """Something that works for now, or with a part missing."""
    return Finding(check=check, status=Verdict.WARNING, what=what, mend=mend)


def failed(check: str, what: str, mend: str) -> Finding:
    return Finding(check=check, status=Verdict.FAILED, what=what, mend=mend)


def skipped(check: str, what: str, mend: str | None = None) -> Finding:
    return Finding(check=check, status=Verdict.SKIPPED, what=what, mend=mend)


def of_error(check: str, error: SwitchboardError, mend: str) -> Finding:
    """An error as a failed check; `mend` where it doesn't say itself what to do."""
    return failed(check, one_line(error.what), one_line(error.next_step or mend))


def one_line(text: object) -> str:
    """Without line ends, so that it fits the table."""
    return " ".join(str(text).split())


def table(report: Report) -> str:
    """CHECK, STATUS and WHAT, with `→ how to mend it` below, and a line of counts at the end."""
    rows = [("CHECK", "STATUS", "WHAT")]
    rows += [(each.check, each.status.value, each.what) for each in report.findings]
    head, *lines = columns(rows, gap=2).splitlines()
    told = [head]
    for line, finding in zip(lines, report.findings, strict=True):
        told.append(line)
        if finding.mend:
            told.append(f"  → {finding.mend}")
    counts = Counter(finding.status for finding in report.findings)
    order = (Verdict.FAILED, Verdict.WARNING, Verdict.OK, Verdict.SKIPPED)
    summary = ", ".join(f"{counts[status]} {status.value}" for status in order if counts[status])
    return "\n".join([*told, "", f"stack {report.stack}: {summary} ({report.seconds:.1f} s)"])
