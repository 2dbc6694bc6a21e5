"""Renders a stack and lets every checker judge it, and our own policies too."""

from __future__ import annotations

import json
import subprocess
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel

from infra import config
from infra.checkers.tools import FOLDER, Checkers
from infra.components.exceptions import IGNORED, kube_score_reason
from infra.declared import Declared, declare
from infra.local.toolchain.recipes import RECIPES, GoRecipe
from infra.policy import stack as policy
from infra.render import render, write
from switchboard.errors import SwitchboardError
from switchboard.paths import ROOT

Severity = Literal["high", "medium"]

WARNING = 5
"""kube-score's grade of what could be better; below it is critical, 10 is right."""


class Finding(BaseModel):
    """What a checker says against an object."""

    checker: str
    severity: Severity
    check: str
    file: str
    message: str


class Exempt(BaseModel):
    """A check that an object exempts itself from, and why."""

    checker: str
    check: str
    file: str
    reason: str


class Report(BaseModel):
    """What all checkers said of a stack. Only `high` findings are faults; an exception without a reason is one."""

    stack: str
    objects: int
    findings: list[Finding] = []
    exceptions: list[Exempt] = []

    @property
    def high(self) -> list[Finding]:
        return [one for one in self.findings if one.severity == "high"]


def stacks() -> list[str]:
    """The checkout's stacks, without those that tests make for themselves."""
    names = sorted(path.name.split(".")[1] for path in ROOT.glob("Pulumi.*.yaml"))
    return [name for name in names if not name.startswith("test")]


def check(names: Sequence[str], tools: Checkers) -> list[Report]:
    """The reports on what these stacks declare, in their order.

    Raises:
        SwitchboardError: a stack can't be rendered, or a checker itself fails.
    """
    reports: dict[str, Report] = {}
    sites: list[Path] = []
    with tempfile.TemporaryDirectory(prefix="switchboard-check-") as out:
        for name in names:
            loaded = config.load(name)
            objects = declare(loaded, name=name)
            reports[name] = Report(
                stack=name,
                objects=len(objects),
                findings=judge(loaded, objects),
                exceptions=[
                    Exempt(checker="policy", check=one.rule, file=one.resource, reason=one.reason)
                    for one in policy.exempt(objects)
                ],
            )
            write(render(name, objects), Path(out) / name)
            sites += [Path(out) / name / site for site in sorted({one.site for one in objects})]
        for said in [*_packages(tools, sites), *(one for site in sites for one in _kube_score(tools, site))]:
            _sort(said, reports[Path(said["folder"]).parent.name])
    return list(reports.values())


def judge(stack: config.Stack, objects: Iterable[Declared]) -> list[Finding]:
    """What `infra.policy` refuses."""
    return [
        Finding(
            checker="policy",
            severity="high",
            check=one.rule,
            file=one.resource,
            message=f"{one.reason} → {one.mend}",
        )
        for one in policy.judge(stack, objects)
    ]


def _sort(said: dict[str, Any], report: Report) -> None:
    checker, name, exception = said["checker"], said["check"], said["exception"]
    file = f"{Path(said['folder']).name}/{said['file']}"
    if exception:
        report.exceptions.append(Exempt(checker=checker, check=name, file=file, reason=exception))
        return
    message = f"{said['resource']}: {said['message']}"
    if exception is not None:
        message += " (the exception that the object makes has no reason)"
    severity: Severity = "medium" if said.get("medium") else "high"
    report.findings.append(
        Finding(checker=checker, severity=severity, check=name, file=file, message=message)
    )


def _packages(tools: Checkers, folders: list[Path]) -> list[dict[str, Any]]:
    version = ".".join(map(str, _kubernetes_version()))
    script = str(FOLDER / "packages.py")
    return list(json.loads(_run([str(tools.python), "-I", script, version, *map(str, folders)])))


def _kube_score(tools: Checkers, folder: Path) -> list[dict[str, Any]]:
    """What kube-score finds in a site."""
    files = [path for path in sorted(folder.rglob("*.yaml")) if path.name != "kustomization.yaml"]
    version = "v{}.{}".format(*_kubernetes_version())
    command = [str(tools.kube_score), "score", "--kubernetes-version", version, "--output-format", "json"]
    # 1 is its answer where something is critical; it prints nothing where it can't read a file.
    scored = json.loads(_run([*command, *map(str, files)], answers=(0, 1)))
    return [one for scores in scored for one in _graded(scores, folder)]


def _graded(scores: dict[str, Any], folder: Path) -> Iterable[dict[str, Any]]:
    path = Path(scores["file_name"])
    annotations = (scores["object_meta"].get("annotations") or {}) if "object_meta" in scores else {}
    ignored = {name.strip() for name in annotations.get(IGNORED, "").split(",")}
    for graded in scores["checks"]:
        name = graded["check"]["id"]
        exempt = graded["skipped"] and name in ignored
        exception = (kube_score_reason(name, annotations) or "") if exempt else None
        if (graded["skipped"] and exception is None) or (not graded["skipped"] and graded["grade"] > WARNING):
            continue
        comments = "; ".join(one["summary"] for one in graded["comments"] or [])
        yield {
            "checker": "kube-score",
            "check": name,
            "folder": str(folder),
            "file": str(path.relative_to(folder)),
            "resource": scores["object_name"],
            "message": comments or graded["check"]["name"],
            "exception": exception,
            "medium": graded["grade"] == WARNING,
        }


def _kubernetes_version() -> tuple[int, int]:
    """The release that the embedded cloud runs, by which all is judged."""
    recipe = next(one for one in RECIPES if isinstance(one, GoRecipe) and one.name == "kubernetes")
    return recipe.builds[0].version()[:2]


def _run(command: list[str], answers: tuple[int, ...] = (0,)) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode not in answers or not done.stdout.strip():
        last = (done.stderr.strip().splitlines() or ["no output"])[-1]
        raise SwitchboardError(f"{Path(command[0]).name} failed (exit code {done.returncode}): {last}")
    return done.stdout
