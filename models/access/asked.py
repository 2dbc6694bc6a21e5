"""What a request to MLflow's Flask application asks for, and what the registry knows of it, for `rules`.

A request is read with MLflow's own function, so that it means here what it means to the handler that comes after.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from typing import Any

import flask
from mlflow.entities import LoggedModelStatus
from mlflow.exceptions import MlflowException
from mlflow.protos import model_registry_pb2, service_pb2
from mlflow.server import handlers

from models.access.rules import USER_TAG, Asked, Known, Place
from switchboard.registry_users import ENTRY, HEAD_TAG, LEDGER_SUFFIX, Role

_ENDED = ("FINISHED", "FAILED", "KILLED")

_MESSAGES: dict[str, Callable[[], Any]] = {
    "_create_run": service_pb2.CreateRun,
    "_update_run": service_pb2.UpdateRun,
    "_delete_run": service_pb2.DeleteRun,
    "_restore_run": service_pb2.RestoreRun,
    "_set_tag": service_pb2.SetTag,
    "_delete_tag": service_pb2.DeleteTag,
    "_log_param": service_pb2.LogParam,
    "_log_metric": service_pb2.LogMetric,
    "_log_batch": service_pb2.LogBatch,
    "_log_model": service_pb2.LogModel,
    "_log_inputs": service_pb2.LogInputs,
    "_log_outputs": service_pb2.LogOutputs,
    "_create_experiment": service_pb2.CreateExperiment,
    "_update_experiment": service_pb2.UpdateExperiment,
    "_delete_experiment": service_pb2.DeleteExperiment,
    "_restore_experiment": service_pb2.RestoreExperiment,
    "_set_experiment_tag": service_pb2.SetExperimentTag,
    "_delete_experiment_tag": service_pb2.DeleteExperimentTag,
    "_create_logged_model": service_pb2.CreateLoggedModel,
    "_finalize_logged_model": service_pb2.FinalizeLoggedModel,
    "_create_registered_model": model_registry_pb2.CreateRegisteredModel,
    "_rename_registered_model": model_registry_pb2.RenameRegisteredModel,
    "_delete_registered_model": model_registry_pb2.DeleteRegisteredModel,
    "_update_registered_model": model_registry_pb2.UpdateRegisteredModel,
    "_set_registered_model_tag": model_registry_pb2.SetRegisteredModelTag,
    "_delete_registered_model_tag": model_registry_pb2.DeleteRegisteredModelTag,
    "_set_registered_model_alias": model_registry_pb2.SetRegisteredModelAlias,
    "_delete_registered_model_alias": model_registry_pb2.DeleteRegisteredModelAlias,
    "_create_model_version": model_registry_pb2.CreateModelVersion,
    "_update_model_version": model_registry_pb2.UpdateModelVersion,
    "_delete_model_version": model_registry_pb2.DeleteModelVersion,
    "_set_model_version_tag": model_registry_pb2.SetModelVersionTag,
    "_delete_model_version_tag": model_registry_pb2.DeleteModelVersionTag,
}
_READING: dict[str, Callable[[], Any]] = {
    "_get_run": service_pb2.GetRun,
    "_get_registered_model": model_registry_pb2.GetRegisteredModel,
    "_get_model_version": model_registry_pb2.GetModelVersion,
    "_get_model_version_by_alias": model_registry_pb2.GetModelVersionByAlias,
    "_get_model_version_download_uri": model_registry_pb2.GetModelVersionDownloadUri,
}
_OF_PATH = (
    "_delete_logged_model",
    "_set_logged_model_tags",
    "_delete_logged_model_tag",
    "_log_logged_model_params",
)
"""Their model's id is in the path, and the handler takes it from there."""
_NEW_MODEL = "_create_registered_model"
_OF_MODELS = {name for name in _MESSAGES if "registered_model" in name or "model_version" in name} - {
    _NEW_MODEL
}


GATHERED = frozenset({*_MESSAGES, *_OF_PATH})
"""The actions of which `gather` knows what they name."""


def gather(action: str, user: str, role: Role) -> tuple[Asked, Known]:
    """The current Flask request, and what is known of what it names.

    Raises:
        MlflowException: it names something that there isn't, or can't be read: as the handler would say.
    """
    if action in _OF_PATH:
        return _of_model(action, user, role, str((flask.request.view_args or {}).get("model_id", "")))
    message = handlers._get_request_message(_MESSAGES[action]())
    if action == "_finalize_logged_model":
        return _of_model(action, user, role, message.model_id)
    if action in ("_create_experiment", _NEW_MODEL):
        return _new(action, user, role, message), Known()
    if action in _OF_MODELS:
        return _of_registered(action, user, role, message)
    if run_id := _text(message, "run_id") or _text(message, "run_uuid"):
        return _of_run(action, user, role, run_id, _tags(message), _entries_of(message))
    experiment = _experiment(message.experiment_id)
    new_name = _text(message, "new_name")
    model = _registered(experiment) if action == "_delete_experiment" else None
    known = Known(aliases={alias: str(of) for alias, of in model.aliases.items()} if model else {})
    return (
        Asked(
            action,
            user,
            role,
            model=experiment,
            experiment=experiment,
            new_name=new_name,
            tags=_tags(message),
        ),
        known,
    )


def see(action: str) -> None:
    """That what is to be read is there. Everybody may read everything, so "there is none" tells nobody anything, and
    clients that wait for a first champion go by it; MLflow's authentication would answer that it is forbidden.

    Raises:
        MlflowException: there is no such run or registered model.
    """
    if action not in _READING:
        return
    message = handlers._get_request_message(_READING[action]())
    if name := _text(message, "name"):
        handlers._get_model_registry_store().get_registered_model(name)
    elif run_id := _text(message, "run_id") or _text(message, "run_uuid"):
        handlers._get_tracking_store().get_run(run_id)


def of_file(action: str, user: str, role: Role, place: Place) -> tuple[Asked, Known]:
    """The same of a file that is to be written at `place`; callable from any thread.

    Raises:
        MlflowException: there is no such run or logged model.
    """
    if place.model_id:
        return _of_model(action, user, role, place.model_id, place.experiment_id)
    return _of_run(action, user, role, place.run_id, experiment_id=place.experiment_id)


def _of_run(
    action: str,
    user: str,
    role: Role,
    run_id: str,
    tags: tuple[str, ...] = (),
    entries_of: tuple[str, ...] = (),
    experiment_id: str | None = None,
) -> tuple[Asked, Known]:
    run = handlers._get_tracking_store().get_run(run_id)
    info, experiment = run.info, _experiment(run.info.experiment_id)
    _same_experiment(experiment_id, info.experiment_id, f"run {info.run_id}")
    versions: tuple[str, ...] = ()
    spare = ledger = False
    if action in ("_delete_run", "_update_run"):
        spare = _is_spare(experiment.removesuffix(LEDGER_SUFFIX), run.data.params)
        ledger = not spare and any(key.startswith(ENTRY) for key in run.data.params)
        found = handlers._get_model_registry_store().search_model_versions(f"run_id='{info.run_id}'")
        versions = tuple(f"{one.name} version {one.version}" for one in found)
    return (
        Asked(action, user, role, experiment=experiment, tags=tags, entries_of=entries_of),
        Known(
            run_ended=info.status in _ENDED, run_is_spare=spare, run_is_ledger=ledger, run_versions=versions
        ),
    )


def _of_model(
    action: str, user: str, role: Role, model_id: str, experiment_id: str | None = None
) -> tuple[Asked, Known]:
    model = handlers._get_tracking_store().get_logged_model(model_id)
    _same_experiment(experiment_id, model.experiment_id, f"logged model {model.model_id}")
    return (
        Asked(action, user, role, experiment=_experiment(model.experiment_id)),
        Known(model_ready=model.status is LoggedModelStatus.READY),
    )


def _of_registered(action: str, user: str, role: Role, message: Any) -> tuple[Asked, Known]:
    store = handlers._get_model_registry_store()
    model = store.get_registered_model(message.name)
    source = _text(message, "source")
    asked = Asked(
        action,
        user,
        role,
        model=model.name,
        alias=_text(message, "alias"),
        new_name=_text(message, "new_name"),
        source=source,
        tags=_tags(message),
    )
    version = _text(message, "version")
    ready = False
    if source.startswith("models:/m-"):
        found = handlers._get_tracking_store().get_logged_model(source.removeprefix("models:/"))
        ready = found.status is LoggedModelStatus.READY
    return asked, Known(
        aliases={alias: str(of) for alias, of in model.aliases.items()},
        # As the registry writes it: it takes `07` for version 7.
        version=str(store.get_model_version(model.name, version).version) if version else "",
        model_ready=ready,
    )


def _new(action: str, user: str, role: Role, message: Any) -> Asked:
    location = _text(message, "artifact_location")
    return Asked(action, user, role, new_name=message.name, artifact_location=location, tags=_tags(message))


def _is_spare(name: str, params: Mapping[str, str]) -> bool:
    """Whether a run with these parameters isn't the ledger of the registered model `name`: it has one entry, and
    that isn't the one which the ledger ends with."""
    entries = [value for key, value in params.items() if key.startswith(ENTRY)]
    if len(entries) != 1:
        return False
    model = _registered(name)
    head = str((model.tags if model else {}).get(HEAD_TAG, ""))
    return head != f"1:{hashlib.sha256(entries[0].encode()).hexdigest()}"


def _entries_of(message: Any) -> tuple[str, ...]:
    """Whom entries of a ledger name, of parameters that are to be written; empty for one that can't be read."""
    params = getattr(message, "params", None) or [message]
    written = [(_text(one, "key"), _text(one, "value")) for one in params]
    return tuple(_who(value) for key, value in written if key.startswith(ENTRY))


def _who(entry: str) -> str:
    try:
        found = json.loads(entry)
    except ValueError:
        return ""
    return str(found.get("who", "")) if isinstance(found, dict) else ""


def _registered(name: str) -> Any:
    """The registered model of that name; None where there is none."""
    try:
        return handlers._get_model_registry_store().get_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        return None


def _experiment(experiment_id: str) -> str:
    return str(handlers._get_tracking_store().get_experiment(experiment_id).name)


def _same_experiment(said: str | None, is_in: str, what: str) -> None:
    if said is not None and said != str(is_in):
        raise MlflowException.invalid_parameter_value(f"{what} is in experiment {is_in}, not in {said}")


def _text(message: Any, name: str) -> str:
    return str(getattr(message, name, ""))


def _tags(message: Any) -> tuple[str, ...]:
    """Keys of the tags that a message sets or deletes."""
    several = [str(tag.key) for tag in getattr(message, "tags", ())]
    one = _text(message, "key") if type(message).__name__.endswith("Tag") else ""
    return tuple(several + ([one] if one else []))


def sign_run(user: str) -> str | None:
    """Make the current request for a new run one of `user`, whatever it said; the reason why that can't be, else None.

    MLflow reads the body by Flask's, which is parsed once and kept: what is changed here is what the handler gets.
    """
    body = flask.request.get_json(force=True, silent=True)
    if not isinstance(body, dict):
        return "a new run is asked for by a JSON object"
    tags = body.get("tags") or []
    if not isinstance(tags, list):
        return "the tags of a new run are a list"
    body.pop("userId", None)
    body["user_id"] = user
    kept = [tag for tag in tags if not (isinstance(tag, dict) and tag.get("key") == USER_TAG)]
    body["tags"] = [*kept, {"key": USER_TAG, "value": user}]
    return None
