"""The Pulumi program: it lays the hybrid cloud out as the stack file says.

Sites are data; what runs in a site follows from its role. Core services and the first champion come up in the
private site, model servers, gateways and edges in the public ones.
"""

from __future__ import annotations

import sys
from pathlib import Path

# Pulumi runs this file as a script, its folder first on the path: a module of ours would hide one of the standard
# library's with the same name. The packages are beside that folder.
sys.path.pop(0)
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import pulumi

from infra import config, identity, stack_secrets
from infra.components.program import deploy
from switchboard.errors import SwitchboardError
from switchboard.paths import state_dir

try:
    stack = config.load(pulumi.get_stack())
    state = state_dir(pulumi.get_stack())
    for warning in identity.verify(stack, state, applying=not pulumi.runtime.is_dry_run()):
        pulumi.log.warn(warning)
    values = stack_secrets.read(stack, state)
except SwitchboardError as error:
    raise pulumi.RunError(str(error)) from None
deploy(stack, state=state, secrets=values)
