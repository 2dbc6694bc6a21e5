"""The model as MLflow's `pyfunc` flavour loads it: a list of texts in, a list of answers out.

Logged as source ("models from code"), so that no pickle is involved, with the few modules it needs beside it.
"""

from __future__ import annotations

from pathlib import Path

import mlflow.models
import mlflow.pyfunc
import pydantic

from models.classifier import IntentClassifier


class Answer(pydantic.BaseModel):
    """What the model says about one text."""

    intent: str
    confidence: float


class IntentModel(mlflow.pyfunc.PythonModel):
    """Loads the classifier of the artifact `classifier`."""

    def load_context(self, context: mlflow.pyfunc.PythonModelContext) -> None:
        self._classifier = IntentClassifier.load(Path(context.artifacts["classifier"]))

    def predict(self, model_input: list[str], params: dict | None = None) -> list[Answer]:
        return [
            Answer(intent=p.intent, confidence=p.confidence) for p in self._classifier.predict(model_input)
        ]


mlflow.models.set_model(IntentModel())
