"""The real `pulumi` with this plugin: what a platform engineer does all day."""

from __future__ import annotations

import base64
import json
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from infra.local import toolchain
from infra.plugin.kinds import BUILT_IN
from switchboard.kube import DEPLOYMENTS
from tests.conftest import ControlPlane, run_apart
from tests.infra.plugin.conftest import deployment
from tests.infra.plugin.project import Project, config_map, diagnostics, in_cluster, namespace

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


@pytest.fixture
def project(tmp_path: Path, control_plane: ControlPlane) -> Iterator[Project]:
    found = Project(tmp_path, control_plane, PROGRAM)
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
    for hidden in (b"hunter2", b'"hunter2"'):
        for shape in (hidden, base64.b64encode(hidden).rstrip(b"=")):
            assert shape.decode() not in project.checkpoint()
    name = state["settings"]["outputs"]["metadata"]["name"]
    assert state["settings"]["id"] == f"{project.wanted['namespace']}/{name}"
    assert "hunter2" not in json.dumps(state)
    assert "5 unchanged" in project.up()

    # What somebody changed by hand is shown, and put right.
    kubectl_patch(project, name, '[{"op": "remove", "path": "/data/a"}]')
    drift = project.run("refresh", "--preview-only", "--diff", "--stack", "t")
    assert "~ 1 to update" in drift
    assert '- a: "1"' in drift
    assert "- a" not in project.run("preview", "--diff", "--stack", "t")
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
    rest, _ = process.communicate(timeout=250)
    assert process.returncode != 0
    assert "cancelled" in rest, seen + rest
    state = project.state()
    assert state["web"]["outputs"]["metadata"]["uid"]
    assert any("cancelled" in error for error in state["web"]["initErrors"])
    project.want(deployment={"pulumi.com/skipAwait": "true"})
    assert "~ 1 updated" in project.up()
    assert "initErrors" not in project.state()["web"]


def test_imports_recover_inputs_and_leave_no_difference(objects: Project) -> None:
    by_hand = {
        "config-map": {"apiVersion": "v1", "kind": "ConfigMap", "data": {"a": "1"}},
        "deployment": {"apiVersion": "apps/v1", "kind": "Deployment", "spec": deployment(replicas=0)["spec"]},
        "secret": {
            "apiVersion": "v1",
            "kind": "Secret",
            "data": {"k": base64.b64encode(b"hunter2").decode()},
        },
    }
    for name, body in by_hand.items():
        obj = {**body, "metadata": {"name": name, "namespace": namespace(objects), "labels": {"by": "hand"}}}
        kind = BUILT_IN[body["apiVersion"], body["kind"]]
        run_apart(in_cluster(objects, lambda kube, kind=kind, obj=obj: kube.create(kind, obj)))  # type: ignore[misc]

    # One by the command, the others by the option: then nothing is left to do.
    deploy = f"{namespace(objects)}/deployment"
    command = (
        "import",
        "kubernetes:apps/v1:Deployment",
        "deployment",
        deploy,
        "--yes",
        "--generate-code=false",
    )
    objects.run(*command, "--protect=false", "--stack", "t")
    assert (
        objects.state()["deployment"]["inputs"]["spec"]["template"]["spec"]["containers"][0]["image"]
        == "busybox:1"
    )
    inputs = objects.state()["deployment"]["inputs"]
    labels = {"by": "hand"}
    objects.want(
        objects=[
            {
                "kind": "Deployment",
                "name": "deployment",
                "ambient": True,
                "args": {"metadata": inputs["metadata"], "spec": inputs["spec"]},
            },
            {
                "kind": "ConfigMap",
                "name": "config-map",
                "args": {"metadata": {"name": "config-map", "labels": labels}, "data": {"a": "1"}},
                "options": {"import_": f"{namespace(objects)}/config-map"},
            },
            {
                "kind": "Secret",
                "name": "secret",
                "args": {
                    "metadata": {"name": "secret", "labels": labels},
                    "data": by_hand["secret"]["data"],
                    "type": "Opaque",
                },
                "options": {"import_": f"{namespace(objects)}/secret"},
            },
        ]
    )
    imported = objects.up()
    assert "= 2 imported" in imported
    assert "warning" not in imported
    for clear in (b"hunter2", base64.b64encode(b"hunter2").rstrip(b"=")):
        assert clear.decode() not in objects.checkpoint()
    objects.run("preview", "--refresh", "--expect-no-changes", "--stack", "t")
    # What was imported is changed like any other.
    changed = objects.wanted["objects"][1]
    del changed["options"]
    changed["args"]["data"] = {"a": "2"}
    objects.want()
    assert "+-1 replaced" in objects.up()


def test_what_can_t_exist_yet_is_previewed_and_made_in_one_go(objects: Project) -> None:
    group = f"{namespace(objects)}.switchboard.dev"
    names = {"kind": "Lamp", "plural": "lamps", "singular": "lamp", "listKind": "LampList"}
    schema = {"type": "object", "x_kubernetes_preserve_unknown_fields": True}
    version = {"name": "v1", "served": True, "storage": True, "schema": {"open_apiv3_schema": schema}}
    definition = {
        "kind": "CustomResourceDefinition",
        "name": "lamps",
        "args": {
            "metadata": {"name": f"lamps.{group}"},
            "spec": {"group": group, "scope": "Namespaced", "names": names, "versions": [version]},
        },
    }
    lamp = {
        "kind": "CustomResource",
        "name": "desk",
        "args": {
            "api_version": f"{group}/v1",
            "kind": "Lamp",
            "metadata": {"name": "desk"},
            "spec": {"on": True},
        },
        "options": {"depends_on": ["lamps"]},
    }
    objects.want(objects=[definition, lamp])
    assert "+ 4 to create" in objects.run("preview", "--stack", "t")
    assert "+ 4 created" in objects.up()
    assert objects.state()["desk"]["id"] == f"{namespace(objects)}/desk"
    assert "- 4 deleted" in objects.run("destroy", "--yes", "--skip-preview", "--stack", "t")


def test_an_operator_keeps_the_replicas_that_the_program_ignores(objects: Project) -> None:
    """Whatever else `up` changes, before and after a refresh: its next apply is no conflict."""
    web = deployment(replicas=2, skipAwait="true")
    labels = {"match_labels": web["spec"]["selector"]["matchLabels"]}
    item = {
        "kind": "Deployment",
        "name": "web",
        "args": {"metadata": web["metadata"], "spec": {**web["spec"], "selector": labels}},
        "options": {"ignore_changes": ["spec.replicas"]},
    }

    def up(image: str) -> str:
        web["spec"]["template"]["spec"]["containers"][0]["image"] = image
        objects.want(objects=[item])
        return objects.up()

    def scale(replicas: int, *, force: bool = False) -> None:
        body = {"metadata": {"name": "web", "namespace": namespace(objects)}, "spec": {"replicas": replicas}}
        run_apart(
            in_cluster(
                objects, lambda kube: kube.apply(DEPLOYMENTS, body, field_manager="operator", force=force)
            )
        )

    def live() -> tuple[int, str]:
        found = run_apart(in_cluster(objects, lambda kube: kube.get(DEPLOYMENTS, "web", namespace(objects))))
        return found["spec"]["replicas"], found["spec"]["template"]["spec"]["containers"][0]["image"]

    assert "+ 3 created" in up("busybox:1")
    assert live() == (2, "busybox:1")
    scale(5, force=True)  # the field is the program's until the operator takes it
    assert "3 unchanged" in up("busybox:1")
    assert "~ 1 updated" in up("busybox:2")
    assert live() == (5, "busybox:2")
    scale(7)
    objects.run("refresh", "--yes", "--skip-preview", "--stack", "t")
    assert "~ 1 updated" in up("busybox:3")
    assert live() == (7, "busybox:3")
    scale(1)
    objects.run("preview", "--refresh", "--expect-no-changes", "--stack", "t")


def test_one_failure_is_one_line_and_the_rest_is_kept(objects: Project) -> None:
    good = objects.wanted["kubeconfig"]
    document = yaml.safe_load(Path(good).read_text())
    document["users"][0]["user"] = {"token": "guessed"}
    objects.want(kubeconfig=json.dumps(document), objects=[config_map("a", {"x": "1"})])
    said = objects.fails("up", "--yes", "--skip-preview", "--stack", "t")
    (line,) = [line for line in diagnostics(said) if "ConfigMap" not in line and "credential" in line]
    assert "refused the credential of context 'public' (the given kubeconfig)" in line

    objects.want(kubeconfig=good, objects=[config_map("a", {"x": "1"}), config_map("b", {"x": 1})])  # type: ignore[dict-item]
    said = objects.fails("up", "--yes", "--skip-preview", "--stack", "t")
    (line,) = [line for line in diagnostics(said) if "data.x" in line]
    assert f"ConfigMap {namespace(objects)}/b: data.x: expected string, got 1" in line
    assert set(objects.state()) >= {"a"}
    assert "b" not in objects.state()
    objects.want(objects=[config_map("a", {"x": "1"}), config_map("b", {"x": "1"})])
    assert "+ 1 created" in objects.up()
