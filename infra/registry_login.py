"""A user's name and password for MLflow, out of their Secret in the private site: for whoever may read Secrets there.

Asked by kubectl, which knows every way to log in. The values go to standard output for a shell to take, and nowhere
else: no file, no log, no error has them.
"""

from __future__ import annotations

import base64
import json
import subprocess

from infra import config
from infra.local.layout import SiteLayout
from infra.local.toolchain import lookup
from infra.namespaces import CORE_NAMESPACE
from switchboard.errors import SwitchboardError
from switchboard.paths import state_dir
from switchboard.registry_users import PASSWORD, SERVICES, USERNAME, Login, secret_name

TIMEOUT_S = 30.0


def variables(login: Login) -> dict[str, str]:
    """What MLflow's clients read, and ours."""
    return {"MLFLOW_TRACKING_USERNAME": login.user, "MLFLOW_TRACKING_PASSWORD": login.password}


def read(stack_name: str, user: str) -> Login:
    """The login of `user` in a stack that is applied.

    Raises:
        SwitchboardError: there is no such user, or their Secret can't be read.
    """
    stack = config.load(stack_name)
    names = [*SERVICES, *(person.name for person in stack.mlflow_users)]
    if user not in names:
        raise SwitchboardError(
            f"stack {stack_name} has no MLflow user {user!r}: it has {', '.join(names)}",
            "people are in the stack file: switchboard:mlflowUsers",
        )
    words = [*_kubectl(stack.private, stack_name), "get", "secret", secret_name(user), "--output", "json"]
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=TIMEOUT_S)
    except subprocess.TimeoutExpired:
        raise _unread(stack.private.name, user, f"no answer within {TIMEOUT_S:.0f} s") from None
    if done.returncode != 0:
        lines = done.stderr.strip().splitlines()
        raise _unread(stack.private.name, user, lines[-1] if lines else "kubectl failed")
    try:
        data = json.loads(done.stdout)["data"]
        return Login(*(base64.b64decode(data[key], validate=True).decode() for key in (USERNAME, PASSWORD)))
    except (ValueError, KeyError, TypeError):
        raise _unread(stack.private.name, user, "it isn't one of a user") from None


def _kubectl(site: config.Site, stack_name: str) -> list[str]:
    found = lookup.find("kubectl")
    if found is None:
        raise SwitchboardError("kubectl is missing", "`switchboard infra toolchain build` makes it")
    words = [str(found.path), "--namespace", CORE_NAMESPACE, f"--request-timeout={TIMEOUT_S / 2:.0f}s"]
    if site.embedded is not None:
        layout = SiteLayout(site, state_dir(stack_name))
        return [*words, "--kubeconfig", str(layout.kubeconfig), "--context", site.name]
    if site.cluster is None:
        raise ValueError(f"site {site.name} is nowhere")  # the stack file's types see to it
    if site.cluster.kubeconfig is not None:
        words += ["--kubeconfig", str(site.cluster.kubeconfig.expanduser())]
    return [*words, "--context", site.cluster.context]


def _unread(site: str, user: str, reason: str) -> SwitchboardError:
    return SwitchboardError(
        f"the Secret {secret_name(user)} of site {site} can't be read: {reason}",
        "it is there once the stack is applied, for whoever may read Secrets in that site's namespace",
    )
