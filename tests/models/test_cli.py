"""`switchboard models …` as a person uses it."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from typer.testing import CliRunner

from models import aliases
from models.cli import app
from models.rest import Registry
from models.rest_write import RegistryWriter
from models.training import Trained
from switchboard.errors import SwitchboardError
from switchboard.paths import ROOT
from tests.models.conftest import Register

runner = CliRunner()


def run(*arguments: str) -> str:
    done = runner.invoke(app, list(arguments), catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.stdout


COMMANDS = [
    *("train", "evaluate", "list", "show", "gate", "compare", "diff", "register"),
    *("promote", "rollback", "history"),
]


@pytest.mark.parametrize("command", [[], *([name] for name in COMMANDS)])
def test_help_has_examples(command: list[str]) -> None:
    found = runner.invoke(app, [*command, "--help"])
    assert found.exit_code == 0
    if command:
        assert "Examples" in found.stdout and "switchboard models" in found.stdout


def test_help_is_quick_to_import() -> None:
    code = "import sys, models.cli; print(sorted({'mlflow', 'sklearn', 'numpy'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_list_and_show(mlflow_server: str, register: Register, model_name: str, small: Trained) -> None:
    first = register()
    second = register(alias="champion")
    text = run("list", model_name, "--tracking-uri", mlflow_server)
    head, *rows = text.splitlines()
    assert head.split()[:3] == ["NAME", "VERSION", "ALIASES"]
    assert [row.split()[1:3] for row in rows] == [[second.version, "champion"], [first.version, "<none>"]]
    found = json.loads(run("list", model_name, "-o", "json", "--tracking-uri", mlflow_server))
    assert [item["aliases"] for item in found] == [["champion"], []]
    assert found[0]["metrics"]["handwritten.coverage"] > 0

    shown = run("show", f"models:/{model_name}@champion", "--tracking-uri", mlflow_server)
    assert small.data.sha256 in shown and "handwritten.zh.accuracy" in shown and "champion" in shown
    one = json.loads(
        run("show", f"models:/{model_name}/{first.version}", "-o", "json", "--tracking-uri", mlflow_server)
    )
    assert one["version"] == first.version and one["params"]["dataset"] == "corpus"


def test_evaluate_a_registered_model(mlflow_server: str, register: Register, model_name: str) -> None:
    register(alias="champion")
    uri = f"models:/{model_name}@champion"
    text = run("evaluate", uri, "--mistakes", "2", "--tracking-uri", mlflow_server)
    assert "handwritten" in text and "ACCURACY" in text and "note:" not in text
    found = json.loads(run("evaluate", uri, "-o", "json", "--tracking-uri", mlflow_server))
    assert found["same_data"] is True
    assert 0.5 < found["metrics"]["handwritten.accuracy"] < 1
    assert found["size_bytes"] > 0
    assert {"language.zh", "customers.senior", "intent.card_lost"} <= set(found["slices"]["groups"])


def test_train_and_register(
    mlflow_server: str, model_name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from models import training
    from tests.models.conftest import SMALL

    monkeypatch.setattr(training, "Params", lambda: SMALL)
    output = run(
        "train", "--register", "--model", model_name, "--alias", "challenger", "-o", "json",
        "--report-dir", str(tmp_path), "--tracking-uri", mlflow_server,
    )  # fmt: skip
    found = json.loads(output)
    assert found["registered"]["name"] == model_name
    assert "<table" in (tmp_path / "report.html").read_text()
    assert "challenger" in run("list", model_name, "--tracking-uri", mlflow_server)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "--alias", "champion"], "add --register"),
        (["train", "--register", "--dataset", "banking77"], "is not registered"),
        (["train", "--register"], "MLFLOW_TRACKING_URI"),
        (["list"], "MLFLOW_TRACKING_URI"),
        (["train", "--log"], "MLFLOW_TRACKING_URI"),
        (["compare", "models:/a/1", "models:/a/2", "--figure", "beauty"], "beauty can't be compared"),
        (["history", "--at", "yesterday"], "neither a day nor a time"),
        (["show", "nonsense", "--tracking-uri", "http://127.37.0.254:9"], "is not a model uri"),
        (["list", "--tracking-uri", "http://127.37.0.254:9"], "no answer from MLflow"),
    ],
)
def test_wrong_use(arguments: list[str], message: str) -> None:
    with pytest.raises(SwitchboardError, match=message):
        runner.invoke(app, arguments, catch_exceptions=False)


def test_a_model_that_is_not_there(mlflow_server: str) -> None:
    with pytest.raises(SwitchboardError, match=r"not found\n.*models list"):
        runner.invoke(
            app, ["show", "models:/nope@champion", "--tracking-uri", mlflow_server], catch_exceptions=False
        )


def test_log_first_and_register_later(
    mlflow_server: str, model_name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from models import training
    from tests.models.conftest import SMALL

    monkeypatch.setattr(training, "Params", lambda **_: SMALL)
    where = ("--model", model_name, "--tracking-uri", mlflow_server)
    run_id = json.loads(run("train", "--log", "-o", "json", *where))["run_id"]
    assert model_name not in run("list", "--tracking-uri", mlflow_server)
    assert f"registered {model_name} version 1, {model_name}@challenger" in run(
        "register", run_id, "--alias", "challenger", *where
    )
    again = json.loads(run("register", run_id, "-o", "json", *where))
    assert (again["version"], again["made"]) == ("1", False)
    version = Registry(mlflow_server).version(model_name, "1")
    assert set(version.files()) == {"classifier.npz", "classifier.json"}
    assert "coverage" in version.description
    stated = {
        "lock_sha256",
        "code_sha256",
        "git_commit",
        "git_dirty",
        "seed",
        "data_sha256",
        "training_sha256",
    }
    assert {f"switchboard.{name}" for name in stated} <= set(version.tags)
    _, params = Registry(mlflow_server).run(run_id)
    assert stated - {"training_sha256"} <= set(params)
    assert params["lock_sha256"] == hashlib.sha256((ROOT / "requirements.lock").read_bytes()).hexdigest()


@pytest.mark.parametrize(("given", "message"), [("0" * 32, "has no run"), (None, "holds no whole model")])
def test_a_run_that_can_not_be_registered(
    mlflow_server: str, model_name: str, given: str | None, message: str
) -> None:
    writer = RegistryWriter(mlflow_server)
    run_id = given or writer.make_run(writer.make_experiment(model_name), "empty", {}, 1)
    with pytest.raises(SwitchboardError, match=message):
        runner.invoke(
            app,
            ["register", run_id, "--model", model_name, "--tracking-uri", mlflow_server],
            catch_exceptions=False,
        )


def test_compare_and_diff(mlflow_server: str, register: Register, model_name: str, small: Trained) -> None:
    first = register()
    cautious = replace(
        small,
        params=replace(small.params, target_accuracy=0.99),
        classifier=type(small.classifier)(
            small.classifier.model, replace(small.classifier.settings, threshold=0.99)
        ),
    )
    second = register(cautious)
    uris = (f"models:/{model_name}/{first.version}", f"models:/{model_name}/{second.version}")
    where = ("--tracking-uri", mlflow_server)

    found = json.loads(run("compare", *uris, "-o", "json", *where))
    by_slice = {(d["figure"], d["kind"], d["slice"]): d for d in found["differences"]}
    assert by_slice["accuracy", "all", "all"]["less"]["value"] == 0.0
    hand_off = by_slice["hand_off", "all", "all"]
    assert hand_off["one"] < hand_off["other"] and hand_off["less"]["high"] < 0
    assert {"senior", "young"} <= {s for _, kind, s in by_slice if kind == "customers"}
    assert found["models"][0]["size_bytes"] > 0 and found["models"][0]["p50_ms"]["value"] > 0
    text = run("compare", *uris, "--figure", "hand_off", *where)
    assert "hand_off" in text and "points" in text and "accuracy" not in text

    differs = json.loads(run("diff", *uris, "-o", "json", *where))["differing"]
    names = {(row["kind"], row["name"]) for row in differs}
    assert {
        ("parameter", "target_accuracy"),
        ("parameter", "threshold"),
        ("files", "classifier.json"),
    } <= names
    assert ("files", "classifier.npz") not in names and not [n for k, n in names if k in ("data", "labels")]
    assert "target_accuracy" in run("diff", *uris, *where)
    assert "differ in nothing" in run("diff", uris[0], uris[0], *where)


def test_history(mlflow_server: str, register: Register, model_name: str) -> None:
    register(alias="champion")
    register()
    where = ("--tracking-uri", mlflow_server)
    assert "knows of nothing" in run("history", model_name, *where)
    writer = RegistryWriter(mlflow_server)
    noon = datetime(2026, 3, 3, 12, tzinfo=UTC)
    aliases.promote(
        writer, model_name, "2", reason=aliases.Reason("ana", "better on loans", "e" * 64), now=noon
    )
    aliases.roll_back(
        writer, model_name, "2", reason=aliases.Reason("ben", "slow"), now=noon + timedelta(days=2)
    )
    head, *rows = run("history", model_name, *where).splitlines()
    assert head.split() == ["VERSION", "SINCE", "UNTIL", "BY", "WHO", "WHY", "EVIDENCE"]
    assert [row.split()[0] for row in rows] == ["1", "2", "1"]
    assert "better on loans" in rows[1] and "rollback" in rows[2]

    def at(moment: str) -> list[str]:
        found = json.loads(run("history", model_name, "--at", moment, "-o", "json", *where))
        return [one["version"] for one in found["standings"]]

    assert at("2026-03-03") == ["1", "2"]
    assert at("2026-03-03T11:59Z") == ["1"]
    assert at("2026-03-03T12:00") == ["2"]
    assert at("2026-03-03T12:30+08:00") == ["1"], "half past noon in Shanghai is early in the day"
    assert at("2026-03-04") == ["2"] and at("2026-03-06") == ["1"]
    assert "is whole: 2 entries" in run("history", model_name, "--verify", *where)

    writer.set_alias(model_name, "champion", "2")
    done = runner.invoke(app, ["history", model_name, "--verify", *where])
    assert done.exit_code == 1
    assert "the champion is version 2, the last entry says version 1" in done.stdout
