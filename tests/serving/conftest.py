"""A registry with a small champion, for the whole session and all folders below."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from models import evaluation, registry, training


@dataclass(frozen=True)
class Champion:
    name: str
    version: str
    registry: str

    @property
    def env(self) -> dict[str, str]:
        return {"MODEL_URI": f"models:/{self.name}@champion", "MLFLOW_TRACKING_URI": self.registry}


@pytest.fixture(scope="session")
def champion(mlflow_server: str) -> Champion:
    params = training.Params(per_template=1, augment=False)
    trained = training.train(training.load_corpus(params), params)
    reports = evaluation.evaluate(trained.classifier, {"handwritten": trained.data.tests["handwritten"]})
    made = registry.register(
        trained, reports, name="t-chat-service", tracking_uri=mlflow_server, alias="champion"
    )
    return Champion(made.name, made.version, mlflow_server)
