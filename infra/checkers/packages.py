"""Runs the checkers that are Python packages, in one process of their own environment: they load for seconds.

    python -I packages.py 1.37 FOLDER…      # a folder is a site's rendered objects

Prints a JSON list of what they say: checker, check, site folder, file, resource, message and, where the object itself
makes an exception, its reason. It is a program by itself: nothing of Switchboard is to be had there.
"""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

Said = dict[str, Any]

_NO_REASON = "No comment provided"
"""What checkov says for an exception without a reason."""


def checkov(folder: str) -> Iterator[Said]:
    """What checkov finds in a site. Its severities come from its vendor's service, so all that it finds counts."""
    from checkov.kubernetes.runner import Runner  # type: ignore[import-not-found]
    from checkov.runner_filter import RunnerFilter  # type: ignore[import-not-found]

    # A site at a time: checks of how objects relate would find another site's NetworkPolicies.
    report = Runner().run(root_folder=folder, runner_filter=RunnerFilter(framework=["kubernetes"]))
    for record in [*report.failed_checks, *report.skipped_checks]:
        reason = record.check_result.get("suppress_comment")
        yield {
            "checker": "checkov",
            "check": record.check_id,
            "folder": folder,
            "file": record.file_path.lstrip("/"),
            "resource": record.resource,
            "message": record.check_name,
            "exception": "" if reason == _NO_REASON else reason,
        }
    for path in report.parsing_errors:
        yield {
            "checker": "checkov",
            "check": "parse",
            "folder": folder,
            "file": str(Path(path).relative_to(folder)) if Path(path).is_absolute() else path,
            "resource": "",
            "message": "checkov can't read it",
            "exception": None,
        }


def kubernetes_validate(folder: str, version: str) -> Iterator[Said]:
    """Where objects aren't as the API's schema has them, unknown fields included; custom ones by their definitions."""
    import kubernetes_validate as validator  # type: ignore[import-not-found]
    import yaml

    paths = [path for path in sorted(Path(folder).rglob("*.yaml")) if path.name != "kustomization.yaml"]
    manifests = {path: yaml.safe_load(path.read_text(encoding="utf-8")) for path in paths}
    custom = _custom(manifests.values())
    for path, manifest in manifests.items():
        try:
            if (schema := custom.get((manifest.get("apiVersion"), manifest.get("kind")))) is not None:
                _validate_custom(manifest, schema)
            else:
                validator.validate(manifest, version, strict=True)
            continue
        except _Invalid as error:
            message = str(error)
        except validator.ValidationError as error:
            where = ".".join(map(str, error.path))
            message = f"{where}: {error.message}" if where else error.message
        except validator.SchemaNotFoundError as error:
            message = f"there is no schema of Kubernetes {version} for it: {error}"
        yield {
            "checker": "kubernetes-validate",
            "check": "schema",
            "folder": folder,
            "file": str(path.relative_to(folder)),
            "resource": f"{manifest.get('kind')} {manifest.get('metadata', {}).get('name')}",
            "message": message,
            "exception": None,
        }


class _Invalid(Exception):
    pass


def _custom(manifests: Iterable[dict[str, Any]]) -> dict[tuple[str, str], dict[str, Any]]:
    """The schemas of the definitions among these objects, by the API version and kind that they define."""
    return {
        (f"{spec['group']}/{version['name']}", spec["names"]["kind"]): _closed(
            version["schema"]["openAPIV3Schema"]
        )
        for manifest in manifests
        if manifest.get("kind") == "CustomResourceDefinition"
        for spec in [manifest["spec"]]
        for version in spec["versions"]
    }


def _closed(schema: Any, name: str = "") -> Any:
    """A structural schema that takes no other fields than those it names (an API server drops them without a word)."""
    if isinstance(schema, list):
        return [_closed(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    made = {key: _closed(value, key) for key, value in schema.items()}
    if name != "properties" and "properties" in made and "additionalProperties" not in made:
        made["additionalProperties"] = False
    return made


def _validate_custom(manifest: dict[str, Any], schema: dict[str, Any]) -> None:
    import jsonschema  # type: ignore[import-untyped, unused-ignore]

    try:
        # A structural schema's dialect, in which an exclusive bound is a flag beside it.
        jsonschema.Draft4Validator(schema).validate(manifest)
    except jsonschema.ValidationError as error:
        where = ".".join(map(str, error.path))
        raise _Invalid(f"{where}: {error.message}" if where else error.message) from None


def main(version: str, folders: list[str]) -> None:
    """Run both over all folders."""
    logging.disable(logging.WARNING)
    said = [one for folder in folders for one in (*checkov(folder), *kubernetes_validate(folder, version))]
    json.dump(said, sys.stdout)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
