"""Independent checkers over everything that the stacks declare: nothing high, and every exception with its reason."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from infra import config
from infra.checkers import Checkers, Report, ensure, stacks
from infra.checkers.report import table
from infra.checkers.run import Exempt, Finding, _kube_score, _packages, _sort, judge
from infra.cli import app
from infra.components.exceptions import exceptions
from infra.declared import declare
from switchboard.errors import SwitchboardError
from switchboard.progress import Progress

STACKS = ("local", "staging", "production")


@pytest.fixture(scope="module")
def tools() -> Checkers:
    """Made by `make test` before the tests; here where somebody runs pytest alone."""
    return ensure(Progress())


@pytest.fixture(scope="module")
def reports(tools: Checkers) -> dict[str, Report]:
    done = CliRunner().invoke(
        app, ["check", *(word for name in STACKS for word in ("--stack", name)), "-o", "json"]
    )
    assert done.exit_code in (0, 1), done.output
    return {found["stack"]: Report.model_validate(found) for found in json.loads(done.stdout)}


@pytest.mark.parametrize("stack", STACKS)
def test_nothing_high(reports: dict[str, Report], stack: str) -> None:
    report = reports[stack]
    assert report.objects > 30
    assert not report.high, table(report)


def test_all_stacks_are_checked_where_none_is_named() -> None:
    assert set(STACKS) <= set(stacks())
    assert not [name for name in stacks() if name.startswith("test")]


def test_every_exception_has_its_reason(reports: dict[str, Report]) -> None:
    for report in reports.values():
        assert report.exceptions
        assert all(len(one.reason) > 20 for one in report.exceptions)
        # What is committed keeps to our own policies without any.
        assert not [one for one in report.exceptions if one.checker == "policy"]
    # What is exempt for want of a registry is so in the embedded cloud alone.
    assert "CKV_K8S_43" not in {one.check for one in reports["production"].exceptions}


def test_an_exception_hides_nothing_but_what_its_reason_names() -> None:
    """checkov exempts a whole object: the containers that the reason isn't about are looked at here."""
    for name in STACKS:
        objects = declare(config.load(name), name=name)
        for one in (every for declared in objects for every in (declared, *declared.becomes())):
            manifest = one.revealed()
            if one.kind != "Deployment":
                continue
            spec = manifest["spec"]["template"]["spec"]
            for container in spec["containers"]:
                has = {"livenessProbe", "readinessProbe"} <= set(container)
                assert has or (one.name.startswith("gateway") and container["name"] == "agent"), one.name
            token = spec.get("automountServiceAccountToken") is not False
            assert not token or one.name.startswith(("gateway", "operator", "prometheus")), one.name


BAD: dict[str, Any] = {
    "apiVersion": "apps/v1",
    "kind": "Deployment",
    "metadata": {"name": "bad", "namespace": "apps"},
    "spec": {
        "replicaz": 2,
        "selector": {"matchLabels": {"app": "bad"}},
        "template": {
            "metadata": {"labels": {"app": "bad"}},
            "spec": {
                "containers": [{"name": "app", "image": "app", "securityContext": {"privileged": True}}]
            },
        },
    },
}


def test_each_checker_finds_what_is_wrong_and_takes_an_exception(tools: Checkers, tmp_path: Path) -> None:
    exempt = exceptions(
        checkov={"CKV_K8S_16": "privileged for this test"},
        kube_score={"container-image-tag": "no tag for this test"},
    )
    unexplained = {"kube-score/ignore": "container-image-pull-policy", "checkov.io/skip1": "CKV_K8S_16"}
    for name, own in (("bad", {}), ("exempt", exempt), ("unexplained", unexplained)):
        spec = json.loads(json.dumps(BAD))
        spec["metadata"] |= {"name": name, "annotations": own}
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump(spec))
    report = Report(stack="t", objects=3)
    for said in [*_packages(tools, [tmp_path]), *_kube_score(tools, tmp_path)]:
        _sort(said, report)
    high = {(one.checker, one.check, one.file.rpartition("/")[2]) for one in report.high}
    assert {
        ("checkov", "CKV_K8S_16", "bad.yaml"),
        ("kube-score", "container-image-tag", "bad.yaml"),
        ("kubernetes-validate", "schema", "bad.yaml"),
    } <= high
    assert (
        not {("checkov", "CKV_K8S_16", "exempt.yaml"), ("kube-score", "container-image-tag", "exempt.yaml")}
        & high
    )
    assert {(one.check, one.reason) for one in report.exceptions} == {
        ("CKV_K8S_16", "privileged for this test"),
        ("container-image-tag", "no tag for this test"),
    }
    for check in ("container-image-pull-policy", "CKV_K8S_16"):
        (said_of_none,) = [
            one for one in report.high if one.file.endswith("unexplained.yaml") and one.check == check
        ]
        assert "has no reason" in said_of_none.message
    assert "replicaz" in next(one.message for one in report.high if one.checker == "kubernetes-validate")


def test_custom_resources_are_judged_by_their_definition(tools: Checkers, tmp_path: Path) -> None:
    objects = declare(config.load("local"), name="local")
    (definition,) = [one.revealed() for one in objects if one.name == "modelservers.switchboard.dev"]
    (server,) = [one.revealed() for one in objects if (one.kind, one.name) == ("ModelServer", "chat")]
    (tmp_path / "definition.yaml").write_text(yaml.safe_dump(definition))
    for name, change in (
        ("right", {}),
        ("unknown", {"colour": "red"}),
        ("bound", {"scaling": {"maxReplicas": 0}}),
        ("nested", {"scaling": {"maxReplicas": 6, "up": {"pods": 2}}}),
    ):
        spoilt = {**server, "spec": {**server["spec"], **change}}
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump(spoilt))
    report = Report(stack="t", objects=5)
    for said in _packages(tools, [tmp_path]):
        _sort(said, report)
    told = {one.file.rpartition("/")[2]: one.message for one in report.high if one.check == "schema"}
    assert set(told) == {"unknown.yaml", "bound.yaml", "nested.yaml"}
    assert "'colour' was unexpected" in told["unknown.yaml"]
    assert "spec.scaling.maxReplicas: 0 is less than" in told["bound.yaml"]
    assert "'pods' was unexpected" in told["nested.yaml"]


def test_a_reason_that_checkov_can_t_read_is_refused() -> None:
    with pytest.raises(SwitchboardError, match='CKV_K8S_16 has a "="'):
        exceptions(checkov={"CKV_K8S_16": "privileged=true is meant"})


def test_our_own_policies_judge_too() -> None:
    production = config.load("production")
    assert judge(production, declare(production, name="production")) == []
    # Images of the embedded cloud have no digest, which is right there alone.
    assert {one.check for one in judge(production, declare(config.load("local"), name="local"))} >= {
        "image-digest"
    }


def test_a_report_says_what_is_wrong_first() -> None:
    report = Report(
        stack="t",
        objects=3,
        findings=[
            Finding(checker="b", severity="medium", check="M", file="y", message="so so"),
            Finding(checker="a", severity="high", check="H", file="x", message="bad"),
        ],
        exceptions=[Exempt(checker="a", check="E", file=file, reason="because") for file in "xy"],
    )
    assert table(report).splitlines() == [
        "t: 3 objects, 1 high, 1 medium, 2 exceptions",
        "  high   a H x: bad",
        "  medium b M: y",
        "  except a E (2 objects): because",
    ]


def test_the_locks_hold_hashes_and_no_addresses() -> None:
    from infra.checkers.tools import LOCK

    text = LOCK.read_text()
    pins = [line for line in text.splitlines() if "==" in line and not line.lstrip().startswith("#")]
    assert len(pins) > 50 and "://" not in text
    assert text.count("--hash=sha256:") >= len(pins)
