"""What a registered version tells: parameters, figures, signature, example, hashes, and that it runs anywhere."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import mlflow
import pytest

from models import registry, rest
from models.rest import Registry
from models.training import Trained
from switchboard.errors import SwitchboardError
from tests.models.conftest import Register


def test_a_version_tells_where_it_comes_from(
    mlflow_server: str, register: Register, model_name: str, small: Trained, tmp_path: Path
) -> None:
    made = register(alias="champion")
    mlflow.set_tracking_uri(mlflow_server)
    client = mlflow.MlflowClient()
    run = client.get_run(made.run_id)
    assert run.info.status == "FINISHED"
    assert run.data.params["data_sha256"] == small.data.sha256
    assert float(run.data.params["threshold"]) == small.classifier.settings.threshold
    for name in ("accuracy", "coverage", "hand_off", "answered_accuracy", "out_of_scope_rejected"):
        low, value, high = (run.data.metrics[f"handwritten.{name}{end}"] for end in ("_low", "", "_high"))
        assert low <= value <= high
    assert {"handwritten.en.accuracy", "handwritten.zh.accuracy"} <= set(run.data.metrics)
    assert run.inputs.dataset_inputs[0].dataset.digest == small.data.sha256[:16]

    version = client.get_model_version_by_alias(model_name, "champion")
    assert (version.version, version.run_id) == (made.version, made.run_id)
    assert version.tags[rest.DATA_TAG] == small.data.sha256
    assert "coverage" in version.description
    files = Registry(mlflow_server).version(model_name, made.version).files()
    assert set(files) == {"classifier.npz", "classifier.json"}

    reports = {item.path: item for item in client.list_artifacts(made.run_id, "evaluation")}
    assert set(reports) == {"evaluation/report.html", "evaluation/report.json"}
    content = json.loads(
        Path(client.download_artifacts(made.run_id, "evaluation/report.json", str(tmp_path))).read_text()
    )
    assert content["data_sha256"] == small.data.sha256
    assert content["tests"][0]["by_intent"]["card_lost"]["accuracy"]["n"] == 10


def test_runs_at_once_on_data_that_is_new_to_mlflow(
    mlflow_server: str, model_name: str, small: Trained
) -> None:
    mlflow.set_tracking_uri(mlflow_server)
    experiment = mlflow.create_experiment(model_name)
    digests = [f"{number:064x}" for number in range(0, 20 << 192, 1 << 192)]
    start = threading.Barrier(4, timeout=300)

    def one(_: int) -> str:
        with mlflow.start_run(experiment_id=experiment) as run:
            for digest in digests:
                start.wait()
                registry._log_input(mlflow, replace(small, data=replace(small.data, sha256=digest)))
        return str(run.info.run_id)

    with ThreadPoolExecutor(start.parties) as pool:
        runs = list(pool.map(one, range(start.parties)))
    for run in runs:
        inputs = mlflow.get_run(run).inputs.dataset_inputs
        assert sorted(one.dataset.digest for one in inputs) == [digest[:16] for digest in digests]


def test_a_version_runs_by_itself(
    mlflow_server: str, register: Register, model_name: str, small: Trained, tmp_path: Path
) -> None:
    """In a process that can't see this checkout, from the registry alone, as anybody's pyfunc."""
    register(alias="champion")
    code = (
        "import json, sys, mlflow.pyfunc\n"
        f"m = mlflow.pyfunc.load_model('models:/{model_name}@champion')\n"
        "found = m.predict(['I lost my card', '我的卡丢了'])\n"
        "import models\n"
        "print(json.dumps({'found': [[a.intent, a.confidence] for a in found], 'code': models.__file__,\n"
        "  'inputs': m.metadata.signature.inputs.to_dict(), 'example': m.input_example}))\n"
    )
    done = subprocess.run(
        [
            sys.executable,
            "-I",
            "-c",
            "import sys; sys.path = [p for p in sys.path if 'site-packages' in p or 'lib' in p]\n" + code,
        ],
        cwd=tmp_path,
        env={**os.environ, "MLFLOW_TRACKING_URI": mlflow_server, "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    content = json.loads(done.stdout.splitlines()[-1])
    expected = small.classifier.predict(["I lost my card", "我的卡丢了"])
    assert [intent for intent, _ in content["found"]] == [p.intent for p in expected]
    assert content["inputs"] == [{"type": "string", "required": True}]
    assert content["example"][0].startswith("I lost")


def test_the_environment_is_written_down(mlflow_server: str, register: Register, model_name: str) -> None:
    made = register()
    registry = Registry(mlflow_server)
    root = registry.artifact_root(model_name, made.version)
    lines = registry.artifact(f"{root}/requirements.txt", max_bytes=10_000, deadline=float("inf")).decode()
    assert {line.split("==")[0] for line in lines.split()} == {"mlflow", "numpy", "pydantic"}


def test_a_registry_that_is_away_is_named(small: Trained, monkeypatch: pytest.MonkeyPatch) -> None:
    from models import registry

    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(SwitchboardError, match="didn't take the model"):
        registry.register(small, [], name="m", tracking_uri="http://127.37.0.254:9")
