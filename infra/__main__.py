"""The Pulumi program: it lays the hybrid cloud out as the stack file says.

Sites are data; what runs in a site follows from its role. Core services and the first champion come up in the
private site, model servers, gateways and edges in the public ones.
"""

from __future__ import annotations

import sys
from pathlib import Path

# Pulumi runs this file as a script; the packages are beside its folder.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import pulumi

from infra import config
from infra.components.program import deploy
from switchboard.errors import SwitchboardError
from switchboard.paths import state_dir

try:
    stack = config.load(pulumi.get_stack())
except SwitchboardError as error:
    raise pulumi.RunError(str(error)) from None
deploy(stack, state=state_dir(pulumi.get_stack()))
