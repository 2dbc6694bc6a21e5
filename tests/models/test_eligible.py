"""Whether a version may be released: the decision as a table, and the facts from a real registry."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import mlflow
import pytest

from models.eligible import Facts, champion_of, facts_of, refusal, signature
from models.rest import Registry
from models.rest_write import RegistryWriter
from tests.fixtures_mlflow import MlflowProcess
from tests.models.conftest import Register

GOOD = Facts("chat", "3", signature='{"inputs":[]}', gate="passed")
CHAMPION = Facts("chat", "2", signature='{"inputs":[]}')


@pytest.mark.parametrize(
    ("candidate", "champion", "needs_gate", "sentence"),
    [
        (GOOD, CHAMPION, True, None),
        (GOOD, None, True, None),
        (replace(GOOD, exists=False), CHAMPION, False, "chat has no version 3"),
        (replace(GOOD, version="2"), CHAMPION, False, "chat version 2 is the champion already"),
        (
            replace(GOOD, status="FAILED_REGISTRATION"),
            CHAMPION,
            False,
            "chat version 3 is not ready: its status is FAILED_REGISTRATION",
        ),
        (
            replace(GOOD, wrong_files=("a is missing", "b was changed (its hash differs)")),
            CHAMPION,
            False,
            "chat version 3 can't be served: a is missing and b was changed (its hash differs)",
        ),
        (
            replace(GOOD, signature="{}"),
            CHAMPION,
            False,
            'chat version 3 has another signature than the champion, version 2: {} instead of {"inputs":[]}',
        ),
        (replace(GOOD, signature=""), None, False, None),
        (replace(GOOD, gate="failed"), CHAMPION, True, "chat version 3 didn't pass the offline gate"),
        (replace(GOOD, gate=""), CHAMPION, True, "the offline gate hasn't been asked about chat version 3"),
        (replace(GOOD, gate="failed"), CHAMPION, False, None),
    ],
)
def test_refusal(candidate: Facts, champion: Facts | None, needs_gate: bool, sentence: str | None) -> None:
    assert refusal(candidate, champion, needs_gate=needs_gate) == sentence


@pytest.mark.parametrize(
    ("mlmodel", "expected"),
    [
        (b"", ""),
        (b"signature: [", ""),
        (b"flavors: {}", ""),
        (
            b'signature:\n  inputs: \'[{"type": "string"}]\'\n  outputs: null\n',
            '{"inputs":[{"type":"string"}]}',
        ),
    ],
)
def test_signature(mlmodel: bytes, expected: str) -> None:
    assert signature(mlmodel) == expected


@pytest.fixture
def registry(mlflow_server: str) -> Registry:
    return Registry(mlflow_server)


def test_versions_of_the_same_model(registry: Registry, register: Register, model_name: str) -> None:
    assert champion_of(registry, "t-none") is None
    register()
    assert champion_of(registry, model_name) is None
    register(alias="champion")
    champion = champion_of(registry, model_name)
    candidate = facts_of(registry, model_name, "1")
    assert champion is not None and champion.version == "2"
    assert '"type":"string"' in candidate.signature
    assert refusal(candidate, champion) is None
    RegistryWriter(registry.uri).set_version_tag(model_name, "1", "switchboard.gate", "passed")
    assert refusal(facts_of(registry, model_name, "1"), champion, needs_gate=True) is None
    assert refusal(facts_of(registry, model_name, "7"), champion) == f"{model_name} has no version 7"
    same = refusal(facts_of(registry, model_name, "2"), champion)
    assert same == f"{model_name} version 2 is the champion already"


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda path: path.unlink(), "is missing"),
        (lambda path: path.write_bytes(path.read_bytes()[:-1] + b"x"), "was changed"),
        (lambda path: path.write_bytes(path.read_bytes() + b"more"), "was changed"),
        (lambda path: path.write_bytes(b""), "was changed"),
    ],
    ids=["missing", "another byte", "longer", "empty"],
)
@pytest.mark.parametrize("file", ["classifier.npz", "classifier.json"])
def test_files_that_are_not_what_was_registered(
    registry: Registry,
    register: Register,
    model_name: str,
    mlflow_process: MlflowProcess,
    damage,
    said: str,
    file: str,
) -> None:
    made = register()
    root = registry.artifact_root(model_name, made.version)
    path = mlflow_process.artifacts / root / "artifacts" / "classifier" / file
    kept = path.with_suffix(".kept")
    shutil.copy(path, kept)
    try:
        damage(path)
        sentence = refusal(facts_of(registry, model_name, made.version), None)
        assert sentence is not None and f"{file} {said}" in sentence
    finally:
        kept.replace(path)  # other tests make versions of the same run
    assert refusal(facts_of(registry, model_name, made.version), None) is None


def test_another_signature_and_no_hashes(
    mlflow_server: str, registry: Registry, register: Register, model_name: str, tmp_path: Path
) -> None:
    """A version that somebody made with MLflow alone."""
    register(alias="champion")

    class Numbers(mlflow.pyfunc.PythonModel):
        def predict(self, context, model_input, params=None):  # type: ignore[no-untyped-def]
            return model_input

    mlflow.set_tracking_uri(mlflow_server)
    mlflow.set_experiment(model_name)
    with mlflow.start_run():
        mlflow.pyfunc.log_model(
            name="numbers",
            python_model=Numbers(),
            input_example=[1.0],
            registered_model_name=model_name,
            pip_requirements=[],
        )
    found = facts_of(registry, model_name, "2")
    champion = champion_of(registry, model_name)
    assert "no hashes of its files" in (refusal(found, champion) or "")
    assert "has another signature than the champion, version 1" in (
        refusal(replace(found, wrong_files=()), champion) or ""
    )
