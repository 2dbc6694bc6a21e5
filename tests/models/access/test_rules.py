"""Who may do what, as a table: the decision alone, without a server."""

from __future__ import annotations

import pytest
from mlflow.server import app
from mlflow.server.auth import __dict__ as auth

from models.access.actions import ALLOWED, READS, UPLOAD
from models.access.asked import GATHERED
from models.access.rules import RULES, Asked, Known, place_of, refusal
from models.rest import BOOTSTRAP_TAG, CODE_TAG, DATA_TAG, FILES_TAG
from switchboard.registry_users import Role

ADMIN, RELEASE, TRAINER, READER = Role.ADMIN, Role.RELEASE, Role.TRAINER, Role.READER
SET, UNSET = "_set_registered_model_alias", "_delete_registered_model_alias"
NONE, SERVED = Known(), Known(aliases={"champion": "3"}, version="3")
BEFORE = Known(aliases={"previous": "2"})
OTHER = Known(aliases={"champion": "3"}, version="4")
M = "m-" + 32 * "0"


def asks(role: Role, action: str, **more: object) -> Asked:
    return Asked(action, f"the {role}", role, **{"model": "m", **more})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("asked", "known", "says"),
    [
        # The champion is a release's; the very first one may be set by whoever trains it.
        (asks(RELEASE, SET, alias="champion"), SERVED, None),
        (asks(RELEASE, SET, alias="previous"), SERVED, None),
        (asks(TRAINER, SET, alias="champion"), NONE, None),
        (asks(TRAINER, SET, alias="champion"), SERVED, "only a release moves it"),
        (asks(TRAINER, SET, alias="champion"), BEFORE, "has had a champion before"),
        (asks(TRAINER, SET, alias="Champion"), NONE, "by releases alone"),
        (asks(TRAINER, SET, alias="champion "), NONE, "by releases alone"),
        (asks(TRAINER, SET, alias="previous"), NONE, "by releases alone"),
        (asks(TRAINER, SET, alias="challenger"), Known(aliases={"challenger": "1"}), None),
        (asks(TRAINER, SET, alias="stable"), NONE, None),
        (asks(TRAINER, SET, alias="stable"), Known(aliases={"stable": "1"}), "only a release moves it"),
        (asks(ADMIN, SET, alias="champion"), NONE, "is for release or trainer"),
        (asks(READER, SET, alias="challenger"), NONE, "is for release or trainer"),
        (asks(RELEASE, UNSET, alias="champion"), SERVED, None),
        (asks(TRAINER, UNSET, alias="champion"), SERVED, "by releases alone"),
        (asks(TRAINER, UNSET, alias="challenger"), SERVED, None),
        # What would take it away with it.
        (asks(ADMIN, "_delete_registered_model"), SERVED, "has a champion (version 3)"),
        (asks(ADMIN, "_delete_registered_model"), BEFORE, "has a previous"),
        (asks(ADMIN, "_delete_registered_model"), NONE, None),
        (asks(ADMIN, "_rename_registered_model", new_name="n"), SERVED, "has a champion"),
        (asks(TRAINER, "_rename_registered_model", new_name="n"), NONE, "is for admin"),
        (asks(RELEASE, "_delete_registered_model"), NONE, "is for admin"),
        (asks(TRAINER, "_delete_model_version"), SERVED, "is champion: it can't be deleted"),
        (asks(ADMIN, "_delete_model_version"), SERVED, "is champion: it can't be deleted"),
        (asks(TRAINER, "_delete_model_version"), OTHER, None),
        (asks(RELEASE, "_transition_stage"), NONE, "isn't offered"),
        # What a version is made of.
        (asks(TRAINER, "_set_model_version_tag", tags=(FILES_TAG,)), OTHER, "stays"),
        (asks(RELEASE, "_set_model_version_tag", tags=(FILES_TAG,)), SERVED, "stays"),
        (asks(TRAINER, "_set_model_version_tag", tags=("switchboard.commit",)), OTHER, "stays"),
        (asks(TRAINER, "_set_model_version_tag", tags=("switchboard.gate.accuracy",)), OTHER, None),
        (asks(TRAINER, "_set_model_version_tag", tags=("gate",)), OTHER, None),
        (asks(TRAINER, "_set_model_version_tag", tags=("gate",)), SERVED, "only releases write to it"),
        (asks(RELEASE, "_set_model_version_tag", tags=("report",)), SERVED, None),
        (asks(TRAINER, "_update_model_version"), SERVED, "only releases write to it"),
        (asks(TRAINER, "_create_model_version", source=f"models:/{M}"), Known(model_ready=True), None),
        (asks(TRAINER, "_create_model_version", source=f"models:/{M}"), NONE, "isn't ready"),
        (asks(TRAINER, "_create_model_version", source="runs:/1/x"), NONE, "of a logged model"),
        (asks(TRAINER, "_create_model_version", source="models:/m/3"), NONE, "of a logged model"),
        (asks(TRAINER, "_create_model_version", source="s3://elsewhere/x"), NONE, "of a logged model"),
        (asks(TRAINER, "_set_registered_model_tag", tags=("mlflow.prompt.is_prompt",)), NONE, "make a prompt"),
        (asks(TRAINER, UPLOAD), Known(model_ready=True), "stays as it is"),
        (asks(TRAINER, UPLOAD), NONE, None),
        (asks(READER, UPLOAD), NONE, "is for release or trainer"),
        (asks(TRAINER, "_finalize_logged_model"), Known(model_ready=True), "stays as it is"),
        (asks(TRAINER, "_delete_logged_model"), Known(model_ready=True), "stays as it is"),
        (asks(TRAINER, "_delete_run"), Known(run_versions=("m version 3",)), "m version 3 was made of"),
        (asks(TRAINER, "_delete_run"), NONE, None),
        # Who made a run.
        (asks(TRAINER, "_set_tag", tags=("mlflow.user",)), NONE, "nobody changes it"),
        (asks(RELEASE, "_log_batch", tags=("x", "mlflow.user")), NONE, "nobody changes it"),
        (asks(TRAINER, "_delete_tag", tags=("mlflow.user",)), NONE, "nobody changes it"),
        (asks(TRAINER, "_set_tag", tags=("note",)), NONE, None),
        # The ledger.
        (asks(RELEASE, "_create_run", experiment="m-releases"), NONE, None),
        (asks(TRAINER, "_create_run", experiment="m-releases"), NONE, "only releases write it"),
        (asks(TRAINER, "_create_run", experiment="m"), NONE, None),
        (asks(RELEASE, "_set_tag", experiment="m-releases"), Known(run_ended=True), "stays as it is"),
        (asks(RELEASE, "_log_batch", experiment="m-releases"), Known(run_ended=True), "stays as it is"),
        (asks(RELEASE, "_log_param", experiment="m-releases"), Known(run_ended=True), None),
        (asks(RELEASE, "_log_param", experiment="m-releases", entries_of=("the release",)), NONE, None),
        (asks(RELEASE, "_log_param", experiment="m-releases", entries_of=("li",)), NONE, "says who by the user's name"),
        (asks(RELEASE, "_log_batch", experiment="m-releases", entries_of=("",)), NONE, "says who by the user's name"),
        (Asked("_log_param", "release", RELEASE, experiment="m-releases", entries_of=("li",)), NONE, None),
        (asks(RELEASE, "_delete_run", experiment="m-releases"), NONE, "it stays"),
        (asks(RELEASE, "_delete_run", experiment="m-releases"), Known(run_is_spare=True, run_ended=True), None),
        (asks(ADMIN, "_delete_run", experiment="m-releases"), Known(run_is_spare=True), "only releases write it"),
        (asks(RELEASE, "_delete_run", experiment="m"), NONE, "no runs of training"),
        (asks(RELEASE, "_set_registered_model_tag", tags=("switchboard.ledger_head",)), NONE, None),
        (asks(TRAINER, "_set_registered_model_tag", tags=("switchboard.ledger_head",)), NONE, "by releases alone"),
        (asks(RELEASE, "_delete_registered_model_tag", tags=("switchboard.ledger_head",)), NONE, "and stays"),
        (asks(TRAINER, "_create_registered_model", tags=("switchboard.ledger_head",)), NONE, "by releases alone"),
        (asks(RELEASE, "_update_run", experiment="m-releases"), Known(run_ended=True), "stays as it is"),
        (asks(RELEASE, "_update_run", experiment="m-releases"), NONE, None),
        (asks(RELEASE, "_update_run", experiment="m-releases"), Known(run_is_ledger=True), "it stays open"),
        (asks(RELEASE, "_set_model_version_tag", tags=("switchboard.release",)), NONE, None),
        (asks(TRAINER, "_set_model_version_tag", tags=("switchboard.release",)), NONE, "make another version"),
        (asks(RELEASE, "_set_tag", experiment="m-releases", tags=("mlflow.user",)), NONE, "nobody changes"),
        (asks(RELEASE, UPLOAD, experiment="m-releases"), Known(run_ended=True), "stays as it is"),
        (asks(RELEASE, UPLOAD, experiment="m-releases"), NONE, None),
        (asks(TRAINER, "_delete_run", experiment="m-releases"), NONE, "only releases write it"),
        (asks(ADMIN, "_delete_run", experiment="m-releases"), NONE, "only releases write it"),
        (asks(ADMIN, "_delete_experiment", experiment="m-releases"), NONE, "only releases write it"),
        (asks(ADMIN, "_delete_experiment", experiment="m"), NONE, None),
        (asks(ADMIN, "_delete_experiment", experiment="m"), SERVED, "has a champion"),
        (asks(TRAINER, "_update_experiment", experiment="m-releases"), NONE, "only releases write it"),
        (asks(TRAINER, "_create_logged_model", experiment="m-releases"), NONE, "only releases write it"),
        (asks(TRAINER, "_create_experiment", new_name="m-releases"), NONE, "only releases make them"),
        (asks(RELEASE, "_create_experiment", new_name="m-releases"), NONE, None),
        (asks(TRAINER, "_update_experiment", experiment="x", new_name="m-releases"), NONE, "take another"),
        (asks(TRAINER, "_create_experiment", new_name="x", artifact_location="mlflow-artifacts:/1"), NONE, "leave"),
        # Everything else.
        (asks(ADMIN, "create_user"), NONE, "isn't offered"),
        (asks(ADMIN, "update_user_password"), NONE, "isn't offered"),
        (asks(ADMIN, "_create_gateway_secret"), NONE, "isn't offered"),
        (asks(RELEASE, "_create_webhook"), NONE, "isn't offered"),
        (asks(READER, "_create_presigned_upload_url"), NONE, "isn't offered"),
        (asks(READER, "_get_run"), NONE, None),
    ],
)  # fmt: skip
def test_who_may_do_what(asked: Asked, known: Known, says: str | None) -> None:
    found = refusal(asked, known)
    assert (found is None) if says is None else (found is not None and says in found), found


@pytest.mark.parametrize("tag", [FILES_TAG, DATA_TAG, CODE_TAG, BOOTSTRAP_TAG])
def test_what_a_version_is_made_with_stays(tag: str) -> None:
    assert refusal(asks(RELEASE, "_set_model_version_tag", tags=(tag,)), SERVED)


def test_actions_are_handlers_of_the_mlflow_that_is_installed() -> None:
    """One that MLflow renames would be refused to everybody."""
    handlers = set(app.view_functions) | {name for name, found in auth.items() if callable(found)}
    named = set().union(*ALLOWED.values()) | set(RULES) - {UPLOAD}
    assert named - handlers - {UPLOAD} == set()


def test_what_is_no_read_has_its_facts_gathered() -> None:
    """A rule that were asked without facts would let through what it is for."""
    assert set().union(*ALLOWED.values()) - READS - {UPLOAD} == set(GATHERED)


@pytest.mark.parametrize(
    ("path", "owner"),
    [
        (f"1/models/{M}/artifacts/MLmodel", M),
        (f"1/models/{M}/artifacts/a/b c/文.txt", M),
        (f"12/{32 * 'a'}/artifacts/x", 32 * "a"),
        (f"1/models/{M}/artifacts/../../../x", None),
        (f"1/{32 * 'a'}/artifacts/../../models/{M}/artifacts/MLmodel", None),
        (f"/1/models/{M}/artifacts/x", None),
        (f"1//models/{M}/artifacts/x", None),
        (f"1/./models/{M}/artifacts/x", None),
        (f"1/models/{M}%2fartifacts/x", None),
        (f"1/{32 * 'a'}/artifacts/%2e%2e/x", None),
        (f"1/{32 * 'a'}/artifacts/a\\b", None),
        (f"1/{32 * 'a'}/artifacts/a\nb", None),
        (f"1/models/{M}/artifacts", None),
        (f"1/models/{M.upper()}/artifacts/x", None),
        ("1/traces/tr-1/artifacts/x", None),
        ("x", None),
    ],
)
def test_whose_file_a_path_is(path: str, owner: str | None) -> None:
    found = place_of(path)
    assert (found.model_id or found.run_id if found else None) == owner
