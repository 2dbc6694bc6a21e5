"""The pack as Pulumi runs it: what each rule refuses in a real preview, and the whole stack passing it."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from infra import pulumi_cli, pulumi_output
from infra.local import toolchain
from infra.plugin.install import install_in_home
from infra.plugin.servicer import VERSION
from infra.policy.rules import RULES
from switchboard.paths import ROOT
from tests.conftest import ControlPlane

PACK = ROOT / "infra" / "policy"

# Each object breaks one rule, or several where one can't be broken alone.
PROGRAM = """
import asyncio
import json
from pathlib import Path

import pulumi
import pulumi_kubernetes as k8s

given = json.loads(Path(__file__).with_name("given.json").read_text())
DIGEST = "registry.bank.example/chat@sha256:" + 64 * "a"
REGION = "topology.kubernetes.io/region"


def later(value):
    '''An output that isn't known before the update.'''
    loop = asyncio.get_event_loop()
    known, result = loop.create_future(), loop.create_future()
    known.set_result(not pulumi.runtime.is_dry_run())
    result.set_result(value)
    return pulumi.Output(set(), result, known)


sites = {
    name: k8s.Provider(name, kubeconfig=given["kubeconfig"], namespace="default") for name in ("private", "public")
}
options = {name: pulumi.ResourceOptions(provider=provider) for name, provider in sites.items()}


def meta(name, role="public", **labels):
    own = {"switchboard.dev/site": role, "switchboard.dev/site-role": role, **labels}
    return {"name": given["prefix"] + name, "labels": own, "annotations": {"pulumi.com/skipAwait": "true"}}


def workload(name, site="public", *, image=DIGEST, data="internal", regions=None, container=None, pod=None):
    labels = {"app": name, "switchboard.dev/data-class": data, REGION: "cn-shenzhen"}
    about = {"labels": labels, "annotations": {"switchboard.dev/data-regions": regions} if regions else {}}
    described = meta(name, site, **{"switchboard.dev/data-class": data})
    described["annotations"].update(about["annotations"])
    spec = {
        "tolerations": [
            {"key": f"node.kubernetes.io/{why}", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 30}
            for why in ("not-ready", "unreachable")
        ],
        "securityContext": {"runAsNonRoot": True, "runAsUser": 10001},
        "containers": [
            {
                "name": "app",
                "image": image,
                "securityContext": {"allowPrivilegeEscalation": False},
                "resources": {"limits": {"cpu": "1", "memory": "1Gi"}},
                **(container or {}),
            }
        ],
        **(pod or {}),
    }
    return k8s.apps.v1.Deployment(
        name,
        metadata=described,
        spec={"selector": {"matchLabels": {"app": name}}, "template": {"metadata": about, "spec": spec}},
        opts=options[site],
    )
"""

FAULTY = """
workload("good", data="customer", regions="cn-shanghai,cn-shenzhen")
workload("secrets", "private", data="restricted", regions="cn-shenzhen")
workload("leak", data="restricted", regions="cn-shenzhen")
workload("abroad", data="customer", regions="cn-beijing")
workload("root", pod={"securityContext": {}})
workload("greedy", container={"resources": {"limits": {"cpu": "1"}}})
workload("floating", image="chat:1.0")
workload("slow", pod={"tolerations": []})
# Without a provider of a site it goes where the current context leads, whatever it says of itself.
k8s.core.v1.ConfigMap("stray", metadata=meta("stray", "private", **{"switchboard.dev/data-class": "restricted"}))
k8s.rbac.v1.ClusterRole(
    "wide", metadata=meta("wide"), rules=[{"apiGroups": [""], "resources": ["pods"], "verbs": ["*"]}],
    opts=options["public"],
)


def server(name, *, image=DIGEST, minimum=2, labelled="customer", **spec):
    '''A ModelServer, of which the cluster has no definition yet.'''
    about = {"switchboard.dev/data-class": labelled, REGION: "cn-shenzhen"}
    return k8s.apiextensions.CustomResource(
        name,
        api_version="switchboard.dev/v1alpha1",
        kind="ModelServer",
        metadata=meta(name, **about),
        spec={
            "model": {"name": "m", "alias": "champion", "registry": later("http://mlflow:5000")},
            "image": image,
            "dataRegions": ["cn-shenzhen"],
            "scaling": {"minReplicas": minimum, "maxReplicas": 6},
            **spec,
        },
        opts=options["public"],
    )


server("well")
server("mislabelled", labelled="internal")
server("alone", minimum=1, capacity={"startSeconds": 20})
server("tagged", image="chat:1.0")
# Not known yet: neither refused nor in the way of the others.
workload("unknown", image=later("chat:1.0"), data=later("restricted"))
"""

REFUSED = {
    ("private-data", "leak"),
    ("private-data", "stray"),
    ("data-region", "stray"),
    ("data-region", "abroad"),
    ("container-user", "root"),
    ("container-limits", "greedy"),
    ("image-digest", "floating"),
    ("recovery-budget", "slow"),
    ("rbac-wildcards", "wide"),
    ("model-server", "mislabelled"),
    ("spare-replica", "alone"),
    # By the Deployment that the operator would make of it.
    ("image-digest", "tagged"),
}

UNKNOWN_UNTIL_UP = """
workload("unknown", image=later("chat:1.0"))
"""


class Project:
    """A Pulumi project whose sites are all the tests' own cluster, in a folder, home and backend of its own."""

    def __init__(self, folder: Path, control_plane: ControlPlane) -> None:
        tools = toolchain.locate(["pulumi", "pulumi-language-python", "pulumi-analyzer-policy-python"])
        self.folder = folder / "project"
        self.folder.mkdir()
        self.prefix = f"policy-{folder.name}-".lower().replace("_", "-")[:40]
        self._write("given.json", {"kubeconfig": str(control_plane.kubeconfig), "prefix": self.prefix})
        runtime = {"name": "python", "options": {"virtualenv": sys.prefix}}
        self._write("Pulumi.yaml", {"name": "switchboard", "runtime": runtime})
        sites = [
            {"name": "private", "role": "private", "region": "cn-shenzhen"},
            {"name": "public", "role": "public", "region": "cn-shenzhen"},
        ]
        self._write("Pulumi.t.yaml", {"config": {"switchboard:sites": sites}})
        home, backend = folder / "home", folder / "backend"
        backend.mkdir()
        install_in_home(home, VERSION)
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
        self.run("stack", "init", "t")

    def _write(self, name: str, document: Any) -> None:
        (self.folder / name).write_text(json.dumps(document))  # which is YAML too

    def program(self, text: str) -> None:
        (self.folder / "__main__.py").write_text(PROGRAM + text)

    def run(self, *arguments: str, succeeds: bool = True) -> str:
        done = subprocess.run(
            [self.pulumi, *arguments, "--non-interactive", "--color", "never", "--stack", "t"]
            if arguments[0] != "stack"
            else [self.pulumi, *arguments, "--non-interactive"],
            cwd=self.folder,
            env=self.environ,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=500,
        )
        assert (done.returncode == 0) is succeeds, done.stdout
        return done.stdout


def refused(output: str) -> set[tuple[str, str]]:
    """Rule and resource of each violation that Pulumi shows."""
    found = re.findall(r"\[mandatory\]\s+(\S+)\s+\(kubernetes:\S+: ([a-z-]+)\)", output)
    return set(found)


@pytest.fixture
def project(tmp_path: Path, control_plane: ControlPlane) -> Project:
    return Project(tmp_path, control_plane)


def test_a_preview_refuses_what_breaks_a_rule_and_nothing_else(project: Project) -> None:
    assert {rule for rule, _ in REFUSED} == set(RULES)
    project.program(FAULTY)
    output = project.run("preview", "--policy-pack", str(PACK), succeeds=False)
    assert refused(output) == REFUSED, output


def test_what_a_preview_could_not_know_is_refused_at_the_update(project: Project) -> None:
    project.program(UNKNOWN_UNTIL_UP)
    assert "✅ switchboard@" in project.run("preview", "--policy-pack", str(PACK))
    output = project.run("up", "--yes", "--skip-preview", "--policy-pack", str(PACK), succeeds=False)
    assert refused(output) == {("image-digest", "unknown")}, output
    # And `switchboard up` tells it in a line and its mend.
    (violation,) = pulumi_output.violations(output.splitlines())
    assert violation.policy == "image-digest"
    assert "container app has the image chat:1.0" in violation.what
    assert (violation.mend or "").startswith("name it by its digest")
    # It was refused before it was made.
    exported = json.loads(project.run("stack", "export", "--stack", "t"))
    kinds = [resource["type"] for resource in exported["deployment"].get("resources") or []]
    assert not [kind for kind in kinds if kind.startswith("kubernetes:")], kinds


THEIRS = """
from pulumi_policy import EnforcementLevel, PolicyPack, ResourceValidationPolicy


def validate(args, report):
    if "ConfigMap" in args.resource_type:
        report("no ConfigMaps here")


PolicyPack(
    name="theirs",
    enforcement_level=EnforcementLevel.ADVISORY,
    policies=[ResourceValidationPolicy(name="no-config-maps", description="None.", validate=validate)],
)
"""


def test_a_pack_of_the_user_s_is_asked_beside_ours(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """By `switchboard pulumi`, with settings for theirs, and its path from the user's folder."""
    pack = project.folder / "theirs"
    pack.mkdir()
    runtime = {"name": "python", "options": {"virtualenv": sys.prefix}}
    (pack / "PulumiPolicy.yaml").write_text(json.dumps({"runtime": runtime}))
    (pack / "__main__.py").write_text(THEIRS)
    (project.folder / "theirs.json").write_text('{"all": "mandatory"}')
    monkeypatch.chdir(project.folder)
    arguments = ["preview", "--policy-pack", "theirs", "--policy-pack-config", "theirs.json"]
    project.program(FAULTY)
    output = project.run(*pulumi_cli.with_policies(arguments), succeeds=False)
    assert refused(output) == REFUSED | {("no-config-maps", "stray")}, output
