"""What the tests of the models share: a real MLflow server, trained models, and versions registered with them."""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Iterator

import pytest

from models import evaluation, registry, training
from models.evaluation import Report
from models.registry import Registered
from models.training import Params, Trained
from tests.fixtures_mlflow import Cuttable, mlflow_process, mlflow_server

__all__ = ["mlflow_process", "mlflow_server"]

SMALL = Params(per_template=1, augment=False)


@pytest.fixture(scope="session")
def trained() -> Trained:
    """The model as it is shipped."""
    params = Params()
    return training.train(training.load_corpus(params), params)


@pytest.fixture(scope="session")
def reports(trained: Trained) -> dict[str, Report]:
    return {one.name: one for one in evaluation.evaluate(trained.classifier, trained.data.tests)}


@pytest.fixture(scope="session")
def small() -> Trained:
    """A model that is trained in a second, for tests of everything but its figures."""
    return training.train(training.load_corpus(SMALL), SMALL)


Register = Callable[..., Registered]


@pytest.fixture
def model_name() -> str:
    """A registered model's name that no other test uses."""
    return f"t-{uuid.uuid4().hex[:12]}"


@pytest.fixture
def register(mlflow_server: str, small: Trained, model_name: str) -> Register:
    """Register the small model under this test's name: `register(alias="champion")`."""

    def make(trained: Trained = small, **options: object) -> Registered:
        tests = {"handwritten": trained.data.tests["handwritten"]}
        reports = evaluation.evaluate(trained.classifier, tests)
        return registry.register(trained, reports, name=model_name, tracking_uri=mlflow_server, **options)  # type: ignore[arg-type]

    return make


@pytest.fixture
def link(mlflow_server: str) -> Iterator[Cuttable]:
    """A connection to the server that the test may cut."""
    cuttable = Cuttable(mlflow_server)
    yield cuttable
    cuttable.close()


@pytest.fixture(autouse=True)
def no_tracking_uri(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Tests name their server; nothing of the shell's, and nothing that a test's mlflow calls set, leaks between them."""
    before = dict(os.environ)
    for name in [name for name in before if name.startswith("MLFLOW_")]:
        monkeypatch.delenv(name)
    yield
    for name in [name for name in os.environ if name.startswith("MLFLOW_") and name not in before]:
        del os.environ[name]
