"""What is written to MLflow: runs with their figures, models, versions, aliases.

Imports mlflow when it is first needed (a second or two), with retries bounded well below the service level of recovery.
A version is created last, with the hashes of its files as tags, so a version that exists is whole. What a version says
of where it comes from is in its run's tags too, so that a run that was only logged can be registered later.
"""

from __future__ import annotations

import importlib.metadata
import json
import logging
import os
import shutil
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import models
import switchboard
from models import provenance, record, report
from models.classifier import FILES
from models.evaluation import Report, metrics
from models.provenance import Provenance
from models.rest import ARTIFACT_FOLDER, BOOTSTRAP_TAG, CODE_TAG, DATA_TAG, FILES_TAG, NotFound, denied
from models.rest_write import RegistryWriter
from models.store import fingerprint
from models.training import Trained
from switchboard.errors import SwitchboardError
from switchboard.registry_users import login

log = logging.getLogger(__name__)

INPUT_EXAMPLE = ["I lost my card in Shanghai", "我的转账什么时候到账"]
REQUIREMENTS = ("mlflow", "numpy", "pydantic")
TRAVELLING = ("__init__.py", "classifier.py", "intents.py", "text.py", "traditional.py")
"""The modules that a registered model needs beside `pyfunc.py`."""

RECORD_TAG = "switchboard.training_sha256"
"""SHA-256 of the record of what the weights were fitted on (`models/record.py`)."""
MODEL_ID_TAG = "switchboard.model_id"
"""On a run: MLflow's id of the model that was logged in it."""

_ASKS = 3
_DENIED = {"UNAUTHENTICATED": 401, "PERMISSION_DENIED": 403}
"""MLflow's codes for what is about who asks."""
_NOTE_TAG = "mlflow.note.content"

_ENVIRONMENT = {
    # By default a client tries for about four minutes.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "3",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "15",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "GIT_PYTHON_REFRESH": "quiet",
    # Asked for as the author of a run; a pod's user has no entry in the password file.
    "LOGNAME": "switchboard",
}


@dataclass(frozen=True)
class Logged:
    """A model in a run, not yet a version."""

    run_id: str
    model_uri: str
    model_id: str
    tags: Mapping[str, str]
    description: str


@dataclass(frozen=True)
class Registered:
    """A version that was made."""

    name: str
    version: str
    run_id: str


def register(
    trained: Trained,
    reports: Sequence[Report],
    *,
    name: str,
    tracking_uri: str,
    alias: str | None = None,
    bootstrap: bool = False,
    more: Mapping[str, str] | None = None,
) -> Registered:
    """Log a run with its model and make a version of it, with `more` tags; `alias`, where given, is set last.

    Raises:
        SwitchboardError: MLflow refused or went away; a run that was begun is then marked as failed.
    """
    logged = log_run(trained, reports, name=name, tracking_uri=tracking_uri)
    logged = replace(logged, tags={**logged.tags, **(more or {})})
    return make_version(logged, name=name, tracking_uri=tracking_uri, alias=alias, bootstrap=bootstrap)


def log_run(trained: Trained, reports: Sequence[Report], *, name: str, tracking_uri: str) -> Logged:
    """Log a run in the experiment `name`: where the model comes from, figures, the record of its training, the model.

    Raises:
        SwitchboardError: see `register`.
    """
    mlflow = _mlflow(tracking_uri)
    origin = provenance.of_checkout()
    tags, description = _tags(trained, origin), report.one_line(reports)
    try:
        mlflow.set_experiment(name)
        with mlflow.start_run(run_name=f"{trained.data.name}-{trained.data.sha256[:8]}") as run:
            mlflow.set_tags(tags)
            mlflow.log_params(_params(trained, origin))
            mlflow.log_metrics(_metrics(trained, reports))
            _log_input(mlflow, trained)
            with tempfile.TemporaryDirectory(prefix="switchboard-") as folder:
                model, hashes = _log_model(mlflow, trained, name, Path(folder))
                _log_reports(mlflow, trained, reports, Path(folder))
                _log_record(mlflow, trained, Path(folder))
            tags |= {FILES_TAG: hashes}
            # Last: who finds the model's id may register what the run holds.
            mlflow.set_tags(tags | {_NOTE_TAG: description, MODEL_ID_TAG: model.model_id})
    except (mlflow.exceptions.MlflowException, OSError) as error:
        raise _refused(tracking_uri, error) from error
    return Logged(run.info.run_id, model.model_uri, model.model_id, tags, description)


def find_logged(run_id: str, *, tracking_uri: str) -> Logged:
    """What `log_run` logged in a run, some time ago.

    Raises:
        SwitchboardError: there is no such run, or it holds no whole model.
        RegistryError: the registry can't be reached.
    """
    try:
        run = RegistryWriter(tracking_uri).run_record(run_id)
    except NotFound:
        raise SwitchboardError(
            f"MLflow has no run {run_id}", "train one: switchboard models train --log"
        ) from None
    model_id = run.tags.get(MODEL_ID_TAG)
    if run.status != "FINISHED" or not model_id:
        raise SwitchboardError(
            f"run {run_id} holds no whole model (its status is {run.status})",
            "train one: switchboard models train --log",
        )
    tags = {
        key: value
        for key, value in run.tags.items()
        if key.startswith("switchboard.") and key != MODEL_ID_TAG
    }
    return Logged(run_id, f"models:/{model_id}", model_id, tags, run.tags.get(_NOTE_TAG, ""))


def make_version(
    logged: Logged, *, name: str, tracking_uri: str, alias: str | None = None, bootstrap: bool = False
) -> Registered:
    """A version of a logged model, with the hashes of its files; `alias`, where given, is set after.

    Raises:
        SwitchboardError: see `register`.
    """
    mlflow = _mlflow(tracking_uri)
    client = mlflow.MlflowClient()
    try:
        _ensure_model(mlflow, client, name)
        version = client.create_model_version(
            name,
            source=logged.model_uri,
            run_id=logged.run_id,
            tags=dict(logged.tags) | ({BOOTSTRAP_TAG: "true"} if bootstrap else {}),
            description=logged.description,
            model_id=logged.model_id,
        )
        if alias:
            client.set_registered_model_alias(name, alias, version.version)
    except (mlflow.exceptions.MlflowException, OSError) as error:
        raise _refused(tracking_uri, error) from error
    return Registered(name, str(version.version), logged.run_id)


def set_alias(name: str, alias: str, version: str, *, tracking_uri: str) -> None:
    """Let `alias` mean `version`."""
    mlflow = _mlflow(tracking_uri)
    try:
        mlflow.MlflowClient().set_registered_model_alias(name, alias, version)
    except mlflow.exceptions.MlflowException as error:
        raise SwitchboardError(f"can't set {name}@{alias}: {_first_line(error)}") from error


def delete_version(name: str, version: str, *, tracking_uri: str) -> None:
    """Remove a version; one that is gone already is fine."""
    mlflow = _mlflow(tracking_uri)
    try:
        mlflow.MlflowClient().delete_model_version(name, version)
    except mlflow.exceptions.MlflowException as error:
        log.warning("can't remove %s version %s: %s", name, version, _first_line(error))


def _log_model(mlflow: Any, trained: Trained, name: str, folder: Path) -> tuple[Any, str]:
    classifier = folder / ARTIFACT_FOLDER
    classifier.mkdir()
    trained.classifier.save(classifier)
    hashes = {
        file: {"sha256": info.sha256, "size": info.size}
        for file in FILES
        if (info := fingerprint((classifier / file).read_bytes()))
    }
    package = Path(models.__file__).parent
    code = folder / "models"
    code.mkdir()
    for module in TRAVELLING:
        shutil.copy(package / module, code / module)
    logged = mlflow.pyfunc.log_model(
        name=name,
        python_model=str(package / "pyfunc.py"),
        artifacts={ARTIFACT_FOLDER: str(classifier)},
        code_paths=[str(code)],
        input_example=INPUT_EXAMPLE,
        pip_requirements=[f"{package}=={importlib.metadata.version(package)}" for package in REQUIREMENTS],
    )
    return logged, json.dumps(hashes, sort_keys=True)


def _log_reports(mlflow: Any, trained: Trained, reports: Sequence[Report], folder: Path) -> None:
    target = folder / "evaluation"
    target.mkdir()
    report.write(trained, reports, target)
    mlflow.log_artifacts(str(target), "evaluation")


def _log_record(mlflow: Any, trained: Trained, folder: Path) -> None:
    path = folder / record.ARTIFACT
    path.parent.mkdir()
    path.write_bytes(record.pack(trained.learnt))
    mlflow.log_artifact(str(path), Path(record.ARTIFACT).parent.as_posix())


def _log_input(mlflow: Any, trained: Trained) -> None:
    from mlflow.data.code_dataset_source import CodeDatasetSource
    from mlflow.data.meta_dataset import MetaDataset

    dataset = MetaDataset(
        CodeDatasetSource({"sha256": trained.data.sha256}),
        name=trained.data.name,
        digest=trained.data.sha256[:16],
    )
    for attempt in range(1, _ASKS + 1):
        try:
            mlflow.log_input(dataset, context="training")
            return
        except mlflow.exceptions.MlflowException as error:
            # MLflow looks for the data set, then adds it: of two runs at once one is refused, and finds it next time.
            if attempt == _ASKS or "IntegrityError" not in str(error):
                raise


def _ensure_model(mlflow: Any, client: Any, name: str) -> None:
    try:
        client.create_registered_model(
            name, description="What a bank's customer wants: intents in English and Chinese."
        )
    except mlflow.exceptions.MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise


def _tags(trained: Trained, origin: Provenance) -> dict[str, str]:
    return {
        DATA_TAG: trained.data.sha256,
        CODE_TAG: switchboard.__version__,
        RECORD_TAG: record.sha256(trained.learnt),
        "switchboard.seed": str(trained.params.seed),
    } | {f"switchboard.{name}": value for name, value in origin.named().items()}


def _params(trained: Trained, origin: Provenance) -> dict[str, Any]:
    settings = trained.classifier.settings
    return (
        asdict(trained.params)
        | origin.named()
        | {
            "dataset": trained.data.name,
            "data_sha256": trained.data.sha256,
            "labels": len(settings.labels),
            "texts": trained.texts,
            "features": trained.features,
            "temperature": settings.temperature,
            "threshold": settings.threshold,
            "sklearn": importlib.metadata.version("scikit-learn"),
        }
    )


def _metrics(trained: Trained, reports: Iterable[Report]) -> Mapping[str, float]:
    return metrics(reports) | {"train_seconds": round(trained.seconds, 3)}


def _mlflow(tracking_uri: str) -> Any:
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    import mlflow
    import mlflow.pyfunc

    # What it tells of its own steps isn't what was asked for.
    logging.getLogger("mlflow").setLevel(logging.WARNING)
    # As `models.rest` finds it: MLflow's client knows its own variables alone.
    if (who := login(os.environ)) is not None:
        os.environ["MLFLOW_TRACKING_USERNAME"], os.environ["MLFLOW_TRACKING_PASSWORD"] = who
    mlflow.set_tracking_uri(tracking_uri)
    mlflow.set_registry_uri(tracking_uri)
    return mlflow


def _refused(tracking_uri: str, error: Exception) -> SwitchboardError:
    status = _DENIED.get(str(getattr(error, "error_code", "")))
    if status is not None:
        found = denied(status, tracking_uri, _first_line(error), login(os.environ))
        return SwitchboardError(str(found), found.next_step)
    return SwitchboardError(
        f"MLflow at {tracking_uri} didn't take the model: {_first_line(error)}",
        "see whether MLflow runs: switchboard status",
    )


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0][:300]
