"""What each role may ask the tracking server for, by the names of MLflow's handlers; all else is refused.

A name is the same for every path of its handler, and one that a newer MLflow adds is in no list.
"""

from __future__ import annotations

from collections.abc import Mapping

from switchboard.registry_users import Role

UPLOAD = "upload"
"""A file is written through the artifact proxy: the one action that isn't a handler of MLflow's Flask application."""


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


READS = _names(
    """
    _get_experiment _get_experiment_by_name _search_experiments _get_run _search_runs _get_metric_history
    _list_artifacts _search_logged_models _get_logged_model _list_logged_model_artifacts
    _get_registered_model _search_registered_models _get_latest_versions _get_model_version _search_model_versions
    _get_model_version_by_alias _get_model_version_download_uri
    _download_artifact _list_artifacts_mlflow_artifacts _get_presigned_download_url
    _get_server_info _graphql _search_evaluation_datasets_handler _get_dataset_handler
    _search_traces_v3 _get_trace_info_v3 _list_scorers _list_scorer_versions
    get_metric_history_bulk_interval_handler serve_get_metric_history_bulk
    serve_get_metric_history_bulk_interval serve_search_datasets serve_get_logged_model_artifact
    serve_model_version_artifact serve_artifacts serve_get_ui_telemetry
    serve serve_static_file static version health get_current_user list_current_user_permissions
    """
)
"""What changes nothing (MLflow's GraphQL has no mutation that does), and the pages of its web interface."""

_WRITING = _names(
    """
    _create_run _update_run _set_tag _delete_tag _log_param _log_metric _log_batch _log_model _log_inputs _log_outputs
    _create_experiment _set_experiment_tag _delete_experiment_tag
    _set_registered_model_tag _delete_registered_model_tag _update_registered_model
    _set_model_version_tag _delete_model_version_tag _update_model_version
    _set_registered_model_alias _delete_registered_model_alias
    """
) | {UPLOAD}
_MAKING = _names(
    """
    _update_experiment _delete_run _create_registered_model _create_model_version _delete_model_version
    _create_logged_model _finalize_logged_model _delete_logged_model _set_logged_model_tags _delete_logged_model_tag
    _log_logged_model_params
    """
)
_REMOVING = _names(
    """
    _delete_experiment _restore_experiment _delete_run _restore_run _delete_registered_model _rename_registered_model
    _delete_model_version
    """
)

ALLOWED: Mapping[Role, frozenset[str]] = {
    Role.ADMIN: READS | _REMOVING,
    # Of two who begin a ledger at once, one takes its run back.
    Role.RELEASE: READS | _WRITING | {"_delete_run"},
    Role.TRAINER: READS | _WRITING | _MAKING,
    Role.READER: READS,
}
"""What a role may do at all; `models.access.rules` takes some of it away again."""
