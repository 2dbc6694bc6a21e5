"""Writes the list of the behaviours anew: `python -m tests.infra.local.behaviours`."""

from __future__ import annotations

import importlib
from collections import Counter
from pathlib import Path

from infra.local import node
from tests.infra.local.behaviours.scenario import LIST, Behaviour

FOLDER = Path(__file__).parent
TARGET = Path(str(node.__file__)).with_name("BEHAVIOURS.md")

_HEAD = """# Behaviours of Kubernetes that are held by tests

Upstream's conformance and end-to-end cases (v1.37, by their names there) that make sense where a container is a
process, each tried against the real control plane and these node agents by a test of our own. `works`: as upstream
has it. `differs` and `refused`: not so, and how; the test holds that. Written by
`python -m tests.infra.local.behaviours`; a test holds this file and the tests together.

"""


def collect() -> list[Behaviour]:
    """All behaviours, by name."""
    for path in sorted(FOLDER.rglob("test_*.py")):
        importlib.import_module(
            ".".join((__package__ or "", *path.relative_to(FOLDER).with_suffix("").parts))
        )
    return sorted(set(LIST), key=lambda one: (one.name, one.test))


def text(listed: list[Behaviour]) -> str:
    """The whole file."""
    counts = Counter(one.result for one in listed)
    lines = [_HEAD, f"{len(listed)} behaviours: "]
    lines.append(
        ", ".join(f"{counts[result]} {result}" for result in ("works", "differs", "refused")) + ".\n\n"
    )
    lines.append("| behaviour | result | test |\n| --- | --- | --- |\n")
    for one in listed:
        result = f"{one.result}: {one.note}" if one.note else one.result
        lines.append(f"| {one.name.replace('|', '/')} | {result} | `{one.test}` |\n")
    return "".join(lines)


if __name__ == "__main__":
    listed = collect()
    TARGET.write_text(text(listed))
    print(f"{TARGET}: {len(listed)} behaviours")
