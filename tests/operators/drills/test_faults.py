"""Faults in real replicas, with and without what the drills' image has on Python's path."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

import pytest

from models import evaluation, registry, training
from models.classifier import IntentClassifier
from models.training import Trained
from operators.drills import faults, making
from operators.drills.candidates import Fault
from switchboard.paths import ROOT
from tests.serving.chat.replicas import START_S, replica

IMAGE = {"PYTHONPATH": os.pathsep.join([str(ROOT / "operators" / "drills" / "image"), str(ROOT)])}
SMALL = training.Params(per_template=1, augment=False)


@pytest.fixture(scope="module")
def trained() -> Trained:
    return training.train(training.load_corpus(SMALL), SMALL)


@pytest.fixture
def environ(request: pytest.FixtureRequest, trained: Trained, mlflow_server: str) -> dict[str, str]:
    """Of a replica that serves a version with the fault of the test's parameter."""
    faulty = making.with_fault(trained, request.param)
    reports = evaluation.evaluate(trained.classifier, {"handwritten": trained.data.tests["handwritten"]})
    made = registry.register(faulty, reports, name="t-drills", tracking_uri=mlflow_server)
    return {"MODEL_URI": f"models:/t-drills/{made.version}", "MLFLOW_TRACKING_URI": mlflow_server}


@pytest.mark.parametrize("environ", [Fault(fails=1.0)], indirect=True)
def test_only_in_the_drills_image(environ: dict[str, str], tmp_path: Path) -> None:
    with replica(tmp_path, **environ) as usual:
        usual.wait_ready()
        assert Counter(usual.ask("I lost my card").status for _ in range(30)) == {200: 30}
    with replica(tmp_path, **environ, **IMAGE) as drilled:
        drilled.wait_ready()
        assert Counter(drilled.ask("I lost my card").status for _ in range(30))[500] >= 30 - faults.WARM_UP
        assert "refuses" not in drilled.log, "what a model says of a question is in no log"


@pytest.mark.parametrize("environ", [Fault(exits_after=10)], indirect=True)
def test_it_crashes_under_load(environ: dict[str, str], tmp_path: Path) -> None:
    with replica(tmp_path, **environ, **IMAGE) as drilled:
        drilled.wait_ready()
        answered = 0
        with pytest.raises((OSError, AssertionError)):  # the connection breaks in the midst
            for answered in range(60):  # noqa: B007
                drilled.ask("I lost my card")
        assert answered >= 5
        assert drilled.process.wait(START_S) == faults.EXIT_CODE


@pytest.mark.parametrize("environ", [Fault(exits_at_load=True)], indirect=True)
def test_it_crashes_at_its_start(environ: dict[str, str], tmp_path: Path) -> None:
    with replica(tmp_path, **environ, **IMAGE) as drilled:
        assert drilled.process.wait(START_S) == faults.EXIT_CODE


@pytest.mark.parametrize("fault", [Fault(waits_seconds=0.05), Fault(leaks_kib=10)])
def test_it_waits_and_keeps(trained: Trained, fault: Fault, monkeypatch: pytest.MonkeyPatch) -> None:
    waited: list[float] = []
    monkeypatch.setattr(faults.time, "sleep", waited.append)
    whole = trained.classifier
    model = faults.FaultyClassifier(whole.model, whole.settings, fault)
    for _ in range(faults.WARM_UP):
        model.predict(["hello"])
    assert (waited, model._kept) == ([], []), "while it starts it is as good as any"
    assert model.predict(["hello"] * 3) == whole.predict(["hello"] * 3)
    assert waited == [fault.waits_seconds]
    assert [len(kept) for kept in model._kept] == [10 << 10] * (3 if fault.leaks_kib else 0)


def test_what_is_saved_says_its_fault(
    trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(IntentClassifier, "of", IntentClassifier.of)  # put back afterwards
    making.with_fault(trained, Fault(leaks_kib=7)).classifier.save(tmp_path)
    assert type(IntentClassifier.load(tmp_path)) is IntentClassifier
    faults.install()
    found = IntentClassifier.load(tmp_path)
    assert isinstance(found, faults.FaultyClassifier) and found.fault == Fault(leaks_kib=7)
    trained.classifier.save(tmp_path)
    assert type(IntentClassifier.load(tmp_path)) is IntentClassifier
