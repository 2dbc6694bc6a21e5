"""A tracking server that asks who you are, with a model that has a champion and a ledger, and clients of its users."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import requests

from models import evaluation, registry
from models.training import Trained
from tests.fixtures_mlflow import Guarded

API, AJAX = "/api/2.0/mlflow", "/ajax-api/2.0/mlflow"
FILES = "/api/2.0/mlflow-artifacts/artifacts"


class Client:
    """Asks the server as a user, by any path."""

    def __init__(self, server: Guarded, user: str | None) -> None:
        self.url = server.url
        self.session = requests.Session()
        self.session.trust_env = False
        if user is not None:
            self.session.auth = (user, server.passwords[user])

    def __call__(self, method: str, path: str, body: Any = None, **more: Any) -> requests.Response:
        if isinstance(body, dict):
            more["params" if method == "GET" else "json"] = body
        elif body is not None:
            more["data"] = body
            more.setdefault("headers", {"Content-Type": "application/json"})
        # As it is written: `requests` would take `..` out of a path.
        prepared = self.session.prepare_request(requests.Request(method, self.url, **more))
        query = prepared.url.partition("?")[2] if prepared.url else ""
        prepared.url = self.url + path + (f"?{query}" if query else "")
        return self.session.send(prepared, timeout=120)


@dataclass(frozen=True)
class Model:
    """A registered model with a champion (version 1) and another version (2), as trainers and a release left it."""

    name: str
    model_id: str
    run_id: str
    experiment_id: str
    ledger_run: str
    ledger_id: str
    open_run: str
    """Of the ledger, and not finished."""


@pytest.fixture(scope="session")
def clients(guarded: Guarded) -> Callable[[str | None], Client]:
    made: dict[str | None, Client] = {}
    return lambda user: made.setdefault(user, Client(guarded, user))


@pytest.fixture(scope="session")
def model(guarded: Guarded, small: Trained, clients: Callable[[str | None], Client]) -> Model:
    """Made by our own client for training, and by what a release does."""
    name = f"t-{uuid.uuid4().hex[:8]}"
    patch = pytest.MonkeyPatch()
    with patch.context() as context:
        for variable, value in guarded.login("trainer").items():
            context.setenv(variable, value)
        found = evaluation.evaluate(small.classifier, {"handwritten": small.data.tests["handwritten"]})
        logged = registry.log_run(small, found, name=name, tracking_uri=guarded.url)
        registry.make_version(logged, name=name, tracking_uri=guarded.url, alias="champion")
        registry.make_version(logged, name=name, tracking_uri=guarded.url, alias="challenger")
    release = clients("release")
    ledger = release("POST", f"{API}/experiments/create", {"name": f"{name}-releases"}).json()[
        "experiment_id"
    ]
    runs = []
    for _ in range(2):
        answer = release("POST", f"{API}/runs/create", {"experiment_id": ledger, "start_time": 1})
        runs.append(answer.json()["run"]["info"]["run_id"])
    release("PUT", f"{FILES}/{ledger}/{runs[0]}/artifacts/evidence.json", b"{}").raise_for_status()
    release("POST", f"{API}/runs/update", {"run_id": runs[0], "status": "FINISHED"}).raise_for_status()
    run = release("GET", f"{API}/runs/get", {"run_id": logged.run_id}).json()["run"]["info"]
    return Model(name, logged.model_id, logged.run_id, run["experiment_id"], runs[0], ledger, runs[1])


Clients = Callable[[str | None], Client]


def fill(value: Any, model: Model) -> Any:
    """With the names and ids of `model` in their places."""
    if isinstance(value, dict):
        return {key: fill(item, model) for key, item in value.items()}
    if isinstance(value, list):
        return [fill(item, model) for item in value]
    if not isinstance(value, str):
        return value
    names = {
        "LEDGER_RUN": model.ledger_run,
        "OPEN_RUN": model.open_run,
        "LEDGER": model.ledger_id,
        "EXPERIMENT": model.experiment_id,
        "MODEL": model.model_id,
        "RUN": model.run_id,
        "NAME": model.name,
    }
    for name, found in names.items():
        value = value.replace(name, found)
    return value
