"""What is written to MLflow: runs with their figures, models, versions, aliases.

Imports mlflow when it is first needed (a second or two), with retries bounded well below the service level of recovery.
A version is created last, with the hashes of its files as tags, so a version that exists is whole.
"""

from __future__ import annotations

import importlib.metadata
import json
import logging
import os
import shutil
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import models
import switchboard
from models import report
from models.classifier import FILES
from models.evaluation import Report, metrics
from models.rest import ARTIFACT_FOLDER, BOOTSTRAP_TAG, CODE_TAG, DATA_TAG, FILES_TAG
from models.store import fingerprint
from models.training import Trained
from switchboard.errors import SwitchboardError

log = logging.getLogger(__name__)

INPUT_EXAMPLE = ["I lost my card in Shanghai", "我的转账什么时候到账"]
REQUIREMENTS = ("mlflow", "numpy", "pydantic")
TRAVELLING = ("__init__.py", "classifier.py", "intents.py", "text.py")
"""The modules that a registered model needs beside `pyfunc.py`."""

_ASKS = 3

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
) -> Registered:
    """Log a run with its model and make a version of it; `alias`, where given, is set last.

    Raises:
        SwitchboardError: MLflow refused or went away; a run that was begun is then marked as failed.
    """
    logged = log_run(trained, reports, name=name, tracking_uri=tracking_uri)
    return make_version(logged, name=name, tracking_uri=tracking_uri, alias=alias, bootstrap=bootstrap)


def log_run(trained: Trained, reports: Sequence[Report], *, name: str, tracking_uri: str) -> Logged:
    """Log a run in the experiment `name`: parameters, figures, the data's hash, the report and the model.

    Raises:
        SwitchboardError: see `register`.
    """
    mlflow = _mlflow(tracking_uri)
    try:
        mlflow.set_experiment(name)
        with mlflow.start_run(run_name=f"{trained.data.name}-{trained.data.sha256[:8]}") as run:
            mlflow.set_tags(_tags(trained))
            mlflow.log_params(_params(trained))
            mlflow.log_metrics(_metrics(trained, reports))
            _log_input(mlflow, trained)
            with tempfile.TemporaryDirectory(prefix="switchboard-") as folder:
                model, hashes = _log_model(mlflow, trained, name, Path(folder))
                _log_reports(mlflow, trained, reports, Path(folder))
    except (mlflow.exceptions.MlflowException, OSError) as error:
        raise _refused(tracking_uri, error) from error
    return Logged(
        run_id=run.info.run_id,
        model_uri=model.model_uri,
        model_id=model.model_id,
        tags=_tags(trained) | {FILES_TAG: hashes},
        description=report.one_line(reports),
    )


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


def _tags(trained: Trained) -> dict[str, str]:
    return {DATA_TAG: trained.data.sha256, CODE_TAG: switchboard.__version__}


def _params(trained: Trained) -> dict[str, Any]:
    settings = trained.classifier.settings
    return asdict(trained.params) | {
        "dataset": trained.data.name,
        "data_sha256": trained.data.sha256,
        "labels": len(settings.labels),
        "texts": trained.texts,
        "features": trained.features,
        "temperature": settings.temperature,
        "threshold": settings.threshold,
        "sklearn": importlib.metadata.version("scikit-learn"),
    }


def _metrics(trained: Trained, reports: Iterable[Report]) -> Mapping[str, float]:
    return metrics(reports) | {"train_seconds": round(trained.seconds, 3)}


def _mlflow(tracking_uri: str) -> Any:
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    import mlflow
    import mlflow.pyfunc

    mlflow.set_tracking_uri(tracking_uri)
    mlflow.set_registry_uri(tracking_uri)
    return mlflow


def _refused(tracking_uri: str, error: Exception) -> SwitchboardError:
    return SwitchboardError(
        f"MLflow at {tracking_uri} didn't take the model: {_first_line(error)}",
        "see whether MLflow runs: switchboard status",
    )


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0][:300]
