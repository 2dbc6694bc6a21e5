"""CustomResourceDefinitions from pydantic models: structural OpenAPI v3 schemas, as API servers take them.

References are resolved, what may be left out isn't required and has no null, exclusive bounds are in the old form
(`exclusiveMinimum: true`), and each model's rules come as `x-kubernetes-validations`. What has no place in a structural
schema is an error here, not at the API server.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, get_args, get_origin

from pydantic import BaseModel

from switchboard.api._base import Api, Rule

Schema = dict[str, Any]

_KEPT = (
    *("type", "format", "enum", "pattern", "description", "default"),
    *("minimum", "maximum", "minLength", "maxLength", "minItems", "maxItems"),
)
_LIST_KEYS = {"conditions": "type", "schedules": "name"}
"""Lists whose items have a key, so that several may write them, each its own items."""


def structural(model: type[BaseModel]) -> Schema:
    """The schema of a model's objects.

    Raises:
        ValueError: something in it has no structural form.
    """
    whole = model.model_json_schema(by_alias=True, mode="validation")
    made = _convert(whole, whole.get("$defs", {}), model.__name__)
    _add_rules(made, model)
    return made


def _convert(node: Mapping[str, Any], definitions: Mapping[str, Any], where: str) -> Schema:
    if "$ref" in node:
        target = definitions[str(node["$ref"]).rpartition("/")[2]]
        beside = {key: value for key, value in node.items() if key != "$ref"}
        return _convert({**target, **beside}, definitions, where)
    if "anyOf" in node:
        choices = [one for one in node["anyOf"] if one.get("type") != "null"]
        if len(choices) != 1:
            raise ValueError(f"{where}: {len(choices)} types; a structural schema has one")
        beside = {key: value for key, value in node.items() if key not in ("anyOf", "default")}
        return _convert({**choices[0], **beside}, definitions, where)
    made: Schema = {key: _without_nulls(node[key]) for key in _KEPT if node.get(key) is not None}
    if "description" in made:
        made["description"] = " ".join(made["description"].partition("\n\n")[0].split())
    if "type" not in made:
        if "enum" not in made and "const" not in node:
            raise ValueError(f"{where}: no type")
        made |= {"type": "string", "enum": made.get("enum", [node.get("const")])}
    for old, new in (("exclusiveMinimum", "minimum"), ("exclusiveMaximum", "maximum")):
        if old in node:
            made |= {new: node[old], old: True}
    if made["type"] == "object":
        _object(made, node, definitions, where)
    if made["type"] == "array":
        made["items"] = _convert(node["items"], definitions, f"{where}[]")
    if made["type"] == "integer":
        made["format"] = "int32" if node.get("maximum", 2**31) < 2**31 else "int64"
    return made


def _without_nulls(value: Any) -> Any:
    """What has no value isn't there: API servers take a null for something else."""
    if isinstance(value, Mapping):
        return {key: _without_nulls(inner) for key, inner in value.items() if inner is not None}
    return value


def _object(made: Schema, node: Mapping[str, Any], definitions: Mapping[str, Any], where: str) -> None:
    if isinstance(values := node.get("additionalProperties"), Mapping):
        made["additionalProperties"] = _convert(values, definitions, f"{where}.*")
        return
    made["properties"] = {
        name: _convert(value, definitions, f"{where}.{name}")
        for name, value in node.get("properties", {}).items()
    }
    for name, key in _LIST_KEYS.items():
        if made["properties"].get(name, {}).get("type") == "array":
            made["properties"][name] |= {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": [key]}
    if required := node.get("required"):
        made["required"] = list(required)


def _add_rules(made: Schema, model: type[BaseModel]) -> None:
    """A model's rules, and those of the models in it."""
    if issubclass(model, Api) and model.rules:
        made["x-kubernetes-validations"] = [_validation(rule) for rule in model.rules]
    for name, field in model.model_fields.items():
        inner = _model_in(field.annotation)
        if inner is None:
            continue
        place = made["properties"][field.alias or name]
        _add_rules(place["items"] if place["type"] == "array" else place, inner)


def _validation(rule: Rule) -> Schema:
    return {
        "rule": rule.cel,
        "message": rule.message,
        "fieldPath": f".{rule.field}",
        "reason": "FieldValueInvalid",
    }


def _model_in(annotation: Any) -> type[BaseModel] | None:
    """The model of a field: itself, or in `… | None`, a tuple or a list."""
    if isinstance(annotation, type) and get_origin(annotation) is None:
        return annotation if issubclass(annotation, BaseModel) else None
    if get_origin(annotation) is Literal:
        return None
    found = [one for one in map(_model_in, get_args(annotation)) if one is not None]
    if len(found) > 1:
        raise ValueError(f"{annotation}: more than one model")
    return found[0] if found else None


def definition(
    *,
    group: str,
    version: str,
    kind: str,
    plural: str,
    short_names: Sequence[str],
    spec: type[Api],
    status: type[Api],
    columns: Sequence[tuple[str, str, str]],
    scale: tuple[str, str, str] | None = None,
    rules: Sequence[Rule] = (),
) -> Schema:
    """The CustomResourceDefinition. `columns` are name, type and JSON path; `scale` the paths of the wanted number, of
    the number there is, and of the selector; `rules` are those over the whole object, of whose metadata they see the
    name."""
    subresources: Schema = {"status": {}}
    if scale is not None:
        wanted, there, selector = scale
        subresources["scale"] = {
            "specReplicasPath": wanted,
            "statusReplicasPath": there,
            "labelSelectorPath": selector,
        }
    whole: Schema = {
        "type": "object",
        "required": ["spec"],
        "properties": {
            "apiVersion": {"type": "string"},
            "kind": {"type": "string"},
            "metadata": {"type": "object"},
            "spec": structural(spec),
            "status": structural(status),
        },
    }
    if rules:
        whole["x-kubernetes-validations"] = [_validation(rule) for rule in rules]
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{plural}.{group}"},
        "spec": {
            "group": group,
            "scope": "Namespaced",
            "names": {
                "kind": kind,
                "listKind": f"{kind}List",
                "plural": plural,
                "singular": kind.lower(),
                "shortNames": list(short_names),
                "categories": ["switchboard"],
            },
            "versions": [
                {
                    "name": version,
                    "served": True,
                    "storage": True,
                    "schema": {"openAPIV3Schema": whole},
                    "subresources": subresources,
                    "additionalPrinterColumns": [
                        {"name": name, "type": type_, "jsonPath": path} for name, type_, path in columns
                    ],
                }
            ],
        },
    }
