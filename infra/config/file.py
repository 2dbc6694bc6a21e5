"""Stack files: where they are, and how they are read."""

from __future__ import annotations

import os
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
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
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
        raise SwitchboardError(f"{path.name} is not YAML: {' '.join(str(error).split())}") from None
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
