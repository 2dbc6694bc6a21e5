"""Stack files: where they are, and how they are read."""

from __future__ import annotations

import os
import re
from collections.abc import Hashable
from pathlib import Path
from typing import Any

import yaml

from infra.config.stack import PROJECT, Stack, parse
from switchboard.errors import SwitchboardError
from switchboard.paths import ROOT


def stack_file(stack: str) -> Path:
    """The file of that stack's configuration: in the checkout, or where `$SWITCHBOARD_STACK_FILE` says.

    The variable counts only for the stack that it is named after (`…/Pulumi.<stack>.yaml`): tests have stacks of
    their own, and hand the place on to the processes that they start.
    """
    name = f"Pulumi.{stack}.yaml"
    own = Path(os.environ.get("SWITCHBOARD_STACK_FILE", ""))
    return own if own.name == name else ROOT / name


def load(stack: str) -> Stack:
    """The stack from its file.

    Raises:
        SwitchboardError: the file is missing, can't be read, isn't UTF-8 or YAML, or holds a wrong key or value.
    """
    path = stack_file(stack)
    try:
        document = yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)  # noqa: S506 - it is a SafeLoader
    except FileNotFoundError:
        stacks = ", ".join(sorted(p.name.split(".")[1] for p in ROOT.glob("Pulumi.*.yaml"))) or "none"
        raise SwitchboardError(
            f"no stack {stack!r}: {path.name} is missing", f"stacks here: {stacks}"
        ) from None
    except OSError as error:
        raise SwitchboardError(f"can't read {path}: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise SwitchboardError(
            f"{path.name} is not UTF-8: byte {error.object[error.start]:#04x} at position {error.start}"
        ) from None
    except yaml.YAMLError as error:
        raise SwitchboardError(f"{path.name} is not YAML: {_problem(error)}") from None
    except _Twice as error:
        raise SwitchboardError(f"{path.name}: {error}", "keep one of the two") from None
    config = document.get("config") if isinstance(document, dict) else None
    if not isinstance(config, dict):
        raise SwitchboardError(f"{path.name}: it has no `config:` section")
    values: dict[str, Any] = {}
    for key, value in config.items():
        prefix, _, name = str(key).partition(":")
        if prefix == PROJECT:
            values[name] = value
        elif prefix not in ("pulumi", "kubernetes"):
            raise SwitchboardError(f"{path.name}: unknown key {key}; Switchboard's begin with {PROJECT}:")
    return parse(values, path.name)


class _Twice(Exception):
    pass


class _Loader(yaml.SafeLoader):
    """YAML whose mappings have each key once; by itself PyYAML takes the last and says nothing.

    A time of day (`18:30`) is a text, as Pulumi reads it; to PyYAML's YAML 1.1 it is a number of minutes.
    """

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: dict[tuple[str, str], yaml.ScalarNode] = {}
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                continue
            if (first := seen.setdefault((key.tag, key.value), key)) is not key:
                lines = f"lines {first.start_mark.line + 1} and {key.start_mark.line + 1}"
                raise _Twice(f"the key {key.value} is there twice ({lines})")
        return super().construct_mapping(node, deep)

    def construct_yaml_int(self, node: yaml.ScalarNode) -> int | str:  # type: ignore[override]
        return str(node.value) if ":" in node.value else super().construct_yaml_int(node)


_Loader.add_constructor("tag:yaml.org,2002:int", _Loader.construct_yaml_int)


def _problem(error: yaml.YAMLError) -> str:
    """What is wrong and where, without the text there, which may be a secret."""
    if not isinstance(error, yaml.MarkedYAMLError) or error.problem_mark is None:
        return "it can't be read"
    # Names of anchors, aliases and tags are text of the file; what is expected (one character, `<stream end>`) isn't.
    problem = re.sub(r"'[^'<]{2,}'", "'…'", error.problem or "it can't be read")
    return f"{problem} (line {error.problem_mark.line + 1}, column {error.problem_mark.column + 1})"
