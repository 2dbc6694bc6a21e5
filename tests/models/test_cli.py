"""`switchboard models …` as a person uses it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from models.cli import age, app
from models.training import Trained
from switchboard.errors import SwitchboardError
from switchboard.paths import ROOT
from tests.models.conftest import Register

runner = CliRunner()


def run(*arguments: str) -> str:
    done = runner.invoke(app, list(arguments), catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.stdout


@pytest.mark.parametrize("command", [[], ["train"], ["evaluate"], ["list"], ["show"]])
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


@pytest.mark.parametrize(
    ("seconds", "shown"), [(0, "0s"), (119, "119s"), (120, "2m"), (7199, "119m"), (7200, "2h"), (90000, "1d")]
)
def test_age(seconds: int, shown: str) -> None:
    assert age(seconds * 1000) == shown
