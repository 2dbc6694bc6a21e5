"""What the tests of the models share: a real MLflow server, trained models, and versions registered with them."""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from models import evaluation, registry, training
from models.evaluation import Report
from models.registry import Logged, Registered
from models.training import Params, Trained
from tests.fixtures_mlflow import Cuttable

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


@pytest.fixture(scope="session")
def logged(mlflow_server: str, small: Trained) -> Logged:
    """The small model in a run of its own; making versions of it is cheap."""
    found = evaluation.evaluate(small.classifier, {"handwritten": small.data.tests["handwritten"]})
    return registry.log_run(small, found, name="tests", tracking_uri=mlflow_server)


@pytest.fixture
def register(mlflow_server: str, logged: Logged, model_name: str) -> Register:
    """Make a version under this test's name: `register(alias="champion")`; of `trained`, if given, in a new run."""

    def make(
        trained: Trained | None = None, *, alias: str | None = None, bootstrap: bool = False
    ) -> Registered:
        used = logged
        if trained is not None:
            used = registry.log_run(trained, [], name=model_name, tracking_uri=mlflow_server)
        return registry.make_version(
            used, name=model_name, tracking_uri=mlflow_server, alias=alias, bootstrap=bootstrap
        )

    return make


@pytest.fixture
def link(mlflow_server: str) -> Iterator[Cuttable]:
    """A connection to the server that the test may cut."""
    cuttable = Cuttable(mlflow_server)
    yield cuttable
    cuttable.close()


def age(path: Path, by_s: float) -> None:
    """Make a folder and its files older."""
    for one in (*path.iterdir(), path):
        then_s = one.stat().st_mtime - by_s
        os.utime(one, (then_s, then_s))


@pytest.fixture(autouse=True)
def no_tracking_uri(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Tests name their server; nothing leaks from the shell, nor from one test's mlflow calls to the next."""
    before = dict(os.environ)
    for name in [name for name in before if name.startswith("MLFLOW_")]:
        monkeypatch.delenv(name)
    yield
    for name in [name for name in os.environ if name.startswith("MLFLOW_") and name not in before]:
        del os.environ[name]
