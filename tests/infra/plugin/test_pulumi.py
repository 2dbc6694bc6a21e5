"""The real `pulumi` with this plugin: what a platform engineer does all day."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from infra.local import toolchain
from infra.plugin.install import install_in_home
from infra.plugin.servicer import VERSION
from tests.conftest import ControlPlane

PROGRAM = """
import json
from pathlib import Path

import pulumi
import pulumi_kubernetes as k8s

want = json.loads(Path(__file__).with_name("want.json").read_text())
cluster = k8s.Provider("cluster", kubeconfig=want["kubeconfig"])
options = pulumi.ResourceOptions(provider=cluster)
ns = k8s.core.v1.Namespace("apps", metadata={"name": want["namespace"]}, opts=options)
settings = k8s.core.v1.ConfigMap(
    "settings", metadata={"namespace": ns.metadata.name}, data=want["settings"], opts=options
)
k8s.core.v1.Secret(
    "keys", metadata={"name": "keys", "namespace": ns.metadata.name}, string_data={"k": "hunter2"}, opts=options
)
if want.get("deployment"):
    labels = {"app": "web", "settings": settings.metadata.name}
    k8s.apps.v1.Deployment(
        "web",
        metadata={"name": "web", "namespace": ns.metadata.name, "annotations": want["deployment"]},
        spec={
            "selector": {"match_labels": {"app": "web"}},
            "template": {
                "metadata": {"labels": labels},
                "spec": {"containers": [{"name": "app", "image": "busybox:1"}]},
            },
        },
        opts=options,
    )
pulumi.export("settings", settings.metadata.name)
pulumi.export("data", settings.data)
"""


class Project:
    """A Pulumi project of its own, with its own home, backend and plugin."""

    def __init__(self, folder: Path, control_plane: ControlPlane) -> None:
        tools = toolchain.locate(["pulumi", "pulumi-language-python"])
        self.folder = folder / "project"
        self.folder.mkdir()
        (self.folder / "__main__.py").write_text(PROGRAM)
        python = Path(sys.prefix)
        (self.folder / "Pulumi.yaml").write_text(
            json.dumps(
                {"name": "trial", "runtime": {"name": "python", "options": {"virtualenv": str(python)}}}
            )
        )
        home, backend = folder / "home", folder / "backend"
        backend.mkdir()
        install_in_home(home, VERSION)
        self.pulumi = str(tools.path("pulumi"))
        self.environ = {
            **os.environ,
            "PATH": os.pathsep.join([*map(str, tools.bin_dirs), os.environ["PATH"]]),
            "PULUMI_HOME": str(home),
            "PULUMI_BACKEND_URL": backend.as_uri(),
            "PULUMI_CONFIG_PASSPHRASE": "test",
            "PULUMI_SKIP_UPDATE_CHECK": "true",
            "PULUMI_DISABLE_AUTOMATIC_PLUGIN_ACQUISITION": "true",
            "TMPDIR": str(folder),
        }
        self.wanted: dict[str, Any] = {
            "kubeconfig": str(control_plane.kubeconfig),
            "namespace": f"p-{uuid.uuid4().hex[:8]}",
            "settings": {"a": "1"},
        }
        self.want()

    def want(self, **changes: Any) -> None:
        self.wanted |= changes
        (self.folder / "want.json").write_text(json.dumps(self.wanted))

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [self.pulumi, *arguments, "--non-interactive", "--color", "never"],
            cwd=self.folder,
            env=self.environ,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def run(self, *arguments: str) -> str:
        process = self.start(*arguments)
        out, _ = process.communicate(timeout=240)
        assert process.returncode == 0, out
        return out

    def up(self) -> str:
        return self.run("up", "--yes", "--skip-preview", "--stack", "t")

    def state(self) -> dict[str, Any]:
        exported = json.loads(self.run("stack", "export", "--stack", "t"))
        return {item["urn"].rpartition("::")[2]: item for item in exported["deployment"].get("resources", [])}


@pytest.fixture
def project(tmp_path: Path, control_plane: ControlPlane) -> Iterator[Project]:
    found = Project(tmp_path, control_plane)
    found.run("stack", "init", "t")
    yield found
    found.run("destroy", "--yes", "--skip-preview", "--stack", "t")


def kubectl_patch(project: Project, name: str, patch: str) -> None:
    tools = toolchain.locate(["kubectl"])
    command = [
        tools.path("kubectl"),
        "--kubeconfig",
        project.wanted["kubeconfig"],
        "-n",
        project.wanted["namespace"],
    ]
    subprocess.run(
        [*command, "patch", "configmap", name, "--type=json", "-p", patch], check=True, capture_output=True
    )


def test_a_stack_s_life(project: Project) -> None:
    preview = project.run("preview", "--stack", "t")
    assert "+ 5 to create" in preview
    diagnostics = preview.partition("Diagnostics:")[2]
    assert diagnostics.count("stand-in for Pulumi's Kubernetes plugin") == 1

    created = project.up()
    assert "+ 5 created" in created
    assert "warning" not in created
    state = project.state()
    name = state["settings"]["outputs"]["metadata"]["name"]
    assert state["settings"]["id"] == f"{project.wanted['namespace']}/{name}"
    assert "hunter2" not in json.dumps(state)
    assert "5 unchanged" in project.up()

    # What somebody changed by hand is shown, and put right.
    kubectl_patch(project, name, '[{"op": "remove", "path": "/data/a"}]')
    assert "~ 1 updated" in project.run("refresh", "--yes", "--skip-preview", "--stack", "t")
    assert "+ a" in project.run("preview", "--diff", "--stack", "t")
    assert "+-1 replaced" in project.up()

    # A deployment that refers to what isn't there before the update.
    project.want(settings={"a": "2"}, deployment={"pulumi.com/skipAwait": "true"})
    assert "+ 1 to create" in project.run("preview", "--stack", "t")
    changed = project.up()
    assert "+ 1 created" in changed
    assert "+-1 replaced" in changed
    state = project.state()
    labels = state["web"]["outputs"]["spec"]["template"]["metadata"]["labels"]
    assert labels["settings"] == state["settings"]["outputs"]["metadata"]["name"] != name


def test_ctrl_c_ends_a_wait_and_the_next_run_goes_on(project: Project) -> None:
    project.want(deployment={"pulumi.com/timeoutSeconds": "300"})
    process = project.start("up", "--yes", "--skip-preview", "--stack", "t")
    assert process.stdout is not None
    seen = ""
    for line in process.stdout:
        seen += line
        if "0 of 1 replicas available" in line:
            break
    process.send_signal(signal.SIGINT)
    # Long before the wait's own end.
    rest, _ = process.communicate(timeout=150)
    assert process.returncode != 0
    assert "cancelled" in rest, seen + rest
    state = project.state()
    assert state["web"]["outputs"]["metadata"]["uid"]
    assert any("cancelled" in error for error in state["web"]["initErrors"])
    project.want(deployment={"pulumi.com/skipAwait": "true"})
    assert "~ 1 updated" in project.up()
    assert "initErrors" not in project.state()["web"]
