"""A Pulumi project of a test's own, run by the real `pulumi` with this plugin."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import uuid
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from infra.local import toolchain
from infra.plugin.install import install_in_home
from infra.plugin.servicer import VERSION
from switchboard.kube import Credentials, Kube
from tests.conftest import ControlPlane

OBJECTS = """
import json
from pathlib import Path

import pulumi
from pulumi_kubernetes import Provider
from pulumi_kubernetes.apiextensions import CustomResource
from pulumi_kubernetes.apps.v1 import Deployment
from pulumi_kubernetes.core.v1 import ConfigMap, Secret
from pulumi_kubernetes.apiextensions.v1 import CustomResourceDefinition
from pulumi_kubernetes.rbac.v1 import Role

kinds = (ConfigMap, Secret, Deployment, Role, CustomResource, CustomResourceDefinition)
KINDS = {k.__name__: k for k in kinds}
want = json.loads(Path(__file__).with_name("want.json").read_text())
settings = {"kubeconfig": want["kubeconfig"], "namespace": want["namespace"], **want.get("provider", {})}
provider = Provider("cluster", **settings)
made = {}
for item in want.get("objects", []):
    options = {**item.get("options", {}), "provider": None if item.get("ambient") else provider}
    if "depends_on" in options:
        options["depends_on"] = [made[name] for name in options["depends_on"]]
    kind = KINDS[item["kind"]]
    made[item["name"]] = kind(item["name"], **item["args"], opts=pulumi.ResourceOptions(**options))
"""
"""Declares the objects that `want.json` lists, with a provider that has its settings."""


class Project:
    """A Pulumi project of its own, with its own home, backend and plugin."""

    def __init__(self, folder: Path, control_plane: ControlPlane, program: str = OBJECTS) -> None:
        tools = toolchain.locate(["pulumi", "pulumi-language-python"])
        self.folder = folder / "project"
        self.folder.mkdir()
        (self.folder / "__main__.py").write_text(program)
        python = Path(sys.prefix)
        (self.folder / "Pulumi.yaml").write_text(
            json.dumps(
                {"name": "trial", "runtime": {"name": "python", "options": {"virtualenv": str(python)}}}
            )
        )
        home, backend = folder / "home", folder / "backend"
        backend.mkdir()
        install_in_home(home, VERSION)
        self.backend = backend
        self.pulumi = str(tools.path("pulumi"))
        self.environ = {
            **os.environ,
            "PATH": os.pathsep.join([*map(str, tools.bin_dirs), os.environ["PATH"]]),
            "KUBECONFIG": str(control_plane.kubeconfig),
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
        out, _ = process.communicate(timeout=500)
        assert process.returncode == 0, out
        return out

    def up(self) -> str:
        return self.run("up", "--yes", "--skip-preview", "--stack", "t")

    def fails(self, *arguments: str) -> str:
        process = self.start(*arguments)
        out, _ = process.communicate(timeout=500)
        assert process.returncode != 0, out
        assert "Traceback" not in out
        return out

    def checkpoint(self) -> str:
        """The state's file as it is on the disk."""
        return (self.backend / ".pulumi" / "stacks" / "trial" / "t.json").read_text()

    def state(self) -> dict[str, Any]:
        exported = json.loads(self.run("stack", "export", "--stack", "t"))
        return {item["urn"].rpartition("::")[2]: item for item in exported["deployment"].get("resources", [])}


def namespace(project: Project) -> str:
    return str(project.wanted["namespace"])


async def in_cluster(project: Project, work: Callable[[Kube], Awaitable[Any]]) -> Any:
    async with Kube(Credentials.from_kubeconfig(Path(project.environ["KUBECONFIG"]))) as kube:
        return await work(kube)


def config_map(name: str, data: dict[str, str], **options: Any) -> dict[str, Any]:
    return {
        "kind": "ConfigMap",
        "name": name,
        "args": {"metadata": {"name": name}, "data": data},
        "options": options,
    }


def diagnostics(output: str) -> list[str]:
    """The lines of Pulumi's last word, after what it showed on the way."""
    return output.partition("Diagnostics:")[2].splitlines()
