"""The decision: may this user do this? Pure functions of what is asked for, by whom, and what is known of it.

Only a release moves `champion` and `previous`, and so nothing else may take them away either: no deletion, no other
name, no other files under the version that they mean. A ledger is written by releases alone, and what is written stays.
An action is named as MLflow's handler is, so it is the same by whichever path it is asked for (`/api`, `/ajax-api`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from models.access.actions import ALLOWED, READS, UPLOAD
from switchboard.registry_users import (
    CHALLENGER,
    CHAMPION,
    GATE_TAG,
    LEDGER_SUFFIX,
    OPERATOR,
    PREVIOUS,
    RELEASE_TAG,
    Role,
)

USER_TAG = "mlflow.user"
PROMPT_TAGS = "mlflow.prompt."
"""A registered model with such tags is a prompt to MLflow, and no model any more."""
OWN_TAGS = "switchboard."
"""Switchboard's own tags: given to a version when it is made (what its files are, where they come from), but for those
of the gate and of releases; on a registered model what a ledger ends with."""
PROTECTED = (CHAMPION, PREVIOUS)


@dataclass(frozen=True)
class Asked:
    """What a request asks for; what it doesn't say is empty."""

    action: str
    user: str
    role: Role
    model: str = ""
    alias: str = ""
    experiment: str = ""
    """The name of the experiment that is meant, by itself or by its run or model."""
    new_name: str = ""
    source: str = ""
    artifact_location: str = ""
    tags: tuple[str, ...] = ()
    """Keys of tags that are set or deleted."""
    entries_of: tuple[str, ...] = ()
    """Whom entries of a ledger name that are to be written."""


@dataclass(frozen=True)
class Known:
    """What the registry says of it, as it is now."""

    aliases: Mapping[str, str] = field(default_factory=dict)
    """Of the registered model: alias → version."""
    version: str = ""
    """The version that is meant, as the registry writes it."""
    run_ended: bool = False
    run_is_ledger: bool = False
    """A run of a ledger that has the entries."""
    run_is_spare: bool = False
    """A run of a ledger that isn't the ledger: of two who began it at once, one steps back."""
    run_versions: tuple[str, ...] = ()
    """The versions that were made of the run."""
    model_ready: bool = False
    """The logged model is whole."""


Rule = Callable[[Asked, Known], str | None]


def refusal(asked: Asked, known: Known) -> str | None:
    """Why it isn't allowed, in a sentence; None where it is."""
    if (why := not_allowed(asked)) is not None:
        return why
    if asked.experiment.endswith(LEDGER_SUFFIX) and asked.action not in READS:
        return _ledger(asked, known)
    rule = RULES.get(asked.action)
    return rule(asked, known) if rule is not None else None


def not_allowed(asked: Asked) -> str | None:
    """Why nobody of this role may do this, whatever is known; None where that isn't so."""
    if asked.action in ALLOWED[asked.role]:
        return None
    may = [str(role) for role, actions in ALLOWED.items() if asked.action in actions]
    if not may:
        return f"{_what(asked)} isn't offered by this server"
    return f"{asked.user} has the role {asked.role}, and {_what(asked)} is for {' or '.join(may)}"


def _what(asked: Asked) -> str:
    return asked.action.strip("_").replace("_", " ")


def _ledger(asked: Asked, known: Known) -> str | None:
    """Releases write it; what is finished stays as it is, and so does the experiment."""
    name = asked.experiment
    if asked.role is not Role.RELEASE:
        return f"{name} is a ledger: only releases write it, and {asked.user} has the role {asked.role}"
    if asked.action == "_update_run" and known.run_is_ledger:
        return f"this run is the ledger {name}: it stays open"  # whoever ended it would hide it
    if asked.action == "_delete_run":
        return None if known.run_is_spare else f"this run is the ledger {name}: it stays"
    if known.run_ended and asked.action != "_log_param":
        return f"what is written in the ledger {name} stays as it is: entries are only added"
    if asked.user != OPERATOR and (others := [one for one in asked.entries_of if one != asked.user]):
        return f"an entry of the ledger {name} says who by the user's name, {asked.user}, not {others[0]!r}"
    return RULES[asked.action](asked, known) if asked.action in RULES else None


def _set_alias(asked: Asked, known: Known) -> str | None:
    if asked.role is Role.RELEASE or asked.alias == CHALLENGER:
        return None
    named = f"{asked.model}@{asked.alias}"
    plain = asked.alias.strip().casefold()
    if plain == PREVIOUS or (plain in PROTECTED and plain != asked.alias):
        return f"{named} is set by releases alone, and {asked.user} has the role {asked.role}"
    if asked.alias in known.aliases:
        return f"{named} is version {known.aliases[asked.alias]}: only a release moves it (switchboard canary start)"
    if asked.alias == CHAMPION and PREVIOUS in known.aliases:
        return f"{asked.model} has had a champion before: only a release sets the next one"
    return None


def _delete_alias(asked: Asked, known: Known) -> str | None:
    if asked.role is Role.RELEASE or asked.alias == CHALLENGER:
        return None
    return f"{asked.model}@{asked.alias} is taken away by releases alone, and {asked.user} has the role {asked.role}"


def _remove_model(asked: Asked, known: Known) -> str | None:
    """Also of the experiment of the same name, in which its versions were trained."""
    held = [alias for alias in PROTECTED if alias in known.aliases]
    if held:
        return f"{asked.model} has a {held[0]} (version {known.aliases[held[0]]}), which customers may be served by"
    return None


def _delete_version(asked: Asked, known: Known) -> str | None:
    if held := _aliases_of(known):
        return f"{asked.model} version {known.version} is {' and '.join(held)}: it can't be deleted"
    return None


def _change_version(asked: Asked, known: Known) -> str | None:
    free = (GATE_TAG, RELEASE_TAG) if asked.role is Role.RELEASE else (GATE_TAG,)
    if fixed := [tag for tag in asked.tags if tag.startswith(OWN_TAGS) and not tag.startswith(free)]:
        return f"{fixed[0]} is given when a version is made, and stays: make another version"
    if prompt := _prompt(asked):
        return prompt
    served = [alias for alias in _aliases_of(known) if alias in PROTECTED]
    if served and asked.role is not Role.RELEASE:
        return f"{asked.model} version {known.version} is {' and '.join(served)}: only releases write to it"
    return None


def _create_version(asked: Asked, known: Known) -> str | None:
    if not re.fullmatch(r"models:/m-[0-9a-f]{32}", asked.source):
        return "a version is made of a logged model, by its id (models:/m-…): its files can't be changed afterwards"
    if not known.model_ready:
        return f"{asked.source} isn't ready: finish its upload first, as its files may still be changed"
    return _prompt(asked)


def _prompt(asked: Asked, known: Known | None = None) -> str | None:
    if any(tag.startswith(PROMPT_TAGS) for tag in asked.tags):
        return f"tags that begin with {PROMPT_TAGS} make a prompt of a model, and this registry is for models"
    return None


def _tag_model(asked: Asked, known: Known) -> str | None:
    own = [tag for tag in asked.tags if tag.startswith(OWN_TAGS)]
    if own and (asked.role is not Role.RELEASE or asked.action != "_set_registered_model_tag"):
        return f"{own[0]} of a registered model is written by releases alone, and stays"
    return _prompt(asked)


def _create_experiment(asked: Asked, known: Known) -> str | None:
    if asked.artifact_location:
        return "the server chooses where an experiment's files are: leave artifact_location out"
    if asked.new_name.endswith(LEDGER_SUFFIX) and asked.role is not Role.RELEASE:
        return f"experiments whose names end in {LEDGER_SUFFIX} are ledgers: only releases make them"
    return None


def _rename_experiment(asked: Asked, known: Known) -> str | None:
    if asked.new_name.endswith(LEDGER_SUFFIX):
        return f"names that end in {LEDGER_SUFFIX} are those of ledgers: take another"
    return None


def _delete_run(asked: Asked, known: Known) -> str | None:
    if asked.role is Role.RELEASE:
        return "releases delete no runs of training"
    if known.run_versions:
        return f"{known.run_versions[0]} was made of this run: it stays, as what the version is judged by"
    return None


def _tag_run(asked: Asked, known: Known) -> str | None:
    if USER_TAG in asked.tags:
        return f"{USER_TAG} says who made the run: the server sets it, and nobody changes it"
    return None


def _change_logged_model(asked: Asked, known: Known) -> str | None:
    if known.model_ready:
        return "a logged model that is ready stays as it is: versions are made of it; log another one"
    return None


RULES: Mapping[str, Rule] = {
    "_set_registered_model_alias": _set_alias,
    "_delete_registered_model_alias": _delete_alias,
    "_delete_registered_model": _remove_model,
    "_rename_registered_model": _remove_model,
    "_delete_experiment": _remove_model,
    "_create_registered_model": _tag_model,
    "_set_registered_model_tag": _tag_model,
    "_delete_registered_model_tag": _tag_model,
    "_delete_model_version": _delete_version,
    "_set_model_version_tag": _change_version,
    "_delete_model_version_tag": _change_version,
    "_update_model_version": _change_version,
    "_create_model_version": _create_version,
    "_create_experiment": _create_experiment,
    "_update_experiment": _rename_experiment,
    "_delete_run": _delete_run,
    "_set_tag": _tag_run,
    "_delete_tag": _tag_run,
    "_log_batch": _tag_run,
    "_finalize_logged_model": _change_logged_model,
    "_delete_logged_model": _change_logged_model,
    "_log_logged_model_params": _change_logged_model,
    UPLOAD: _change_logged_model,
}


def _aliases_of(known: Known) -> list[str]:
    return sorted(alias for alias, version in known.aliases.items() if version == known.version)


_ARTIFACT = re.compile(
    r"(?P<experiment>[0-9]+)/(?:models/(?P<model>m-[0-9a-f]{32})|(?P<run>[0-9a-f]{32}))/artifacts/.+"
)


@dataclass(frozen=True)
class Place:
    """Whose file an artifact's path is: a logged model's or a run's (the other is empty)."""

    experiment_id: str
    model_id: str
    run_id: str


def place_of(path: str) -> Place | None:
    """The owner of a file to be written at `path` of the artifact proxy; None for a path that isn't plain.

    MLflow decodes a path several times over, so one with anything left to decode may be another one to it.

    >>> place_of("7/models/m-0123456789abcdef0123456789abcdef/artifacts/MLmodel").experiment_id
    '7'
    >>> place_of("7/../8/x") is None, place_of("7/models/m-0123456789abcdef0123456789abcdef%2fartifacts/x") is None
    (True, True)
    """
    parts = path.split("/")
    if (
        "%" in path
        or "\\" in path
        or not path.isprintable()
        or any(part in ("", ".", "..") for part in parts)
    ):
        return None
    found = _ARTIFACT.fullmatch(path)
    if found is None:
        return None
    return Place(found["experiment"], found["model"] or "", found["run"] or "")
