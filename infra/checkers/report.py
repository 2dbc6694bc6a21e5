"""A report as a person reads it: what is wrong first, then the exceptions, each reason once."""

from __future__ import annotations

from collections import Counter

from infra.checkers.run import Report


def table(report: Report) -> str:
    """The report on one stack, in lines."""
    others = len(report.findings) - len(report.high)
    lines = [
        f"{report.stack}: {report.objects} objects, {len(report.high)} high, {others} medium, "
        f"{len(report.exceptions)} exceptions"
    ]
    for found in sorted(report.high, key=lambda one: (one.checker, one.check, one.file)):
        lines.append(f"  high   {found.checker} {found.check} {found.file}: {found.message}")
    medium: dict[tuple[str, str], list[str]] = {}
    for found in report.findings:
        if found.severity == "medium":
            medium.setdefault((found.checker, found.check), []).append(found.file)
    for (checker, name), files in sorted(medium.items()):
        lines.append(f"  medium {checker} {name}: {', '.join(sorted(files))}")
    reasons = Counter((one.checker, one.check, one.reason) for one in report.exceptions)
    for (checker, name, why), count in sorted(reasons.items()):
        lines.append(f"  except {checker} {name} ({count} objects): {why}")
    return "\n".join(lines)
