"""What `switchboard render` writes: all that is declared, none of its secrets, and files that a cluster takes."""

from __future__ import annotations

import copy
import json
import subprocess
import time
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from infra import config
from infra.cli import app
from infra.declared import ADDRESS_LATER, Declared, declare
from infra.local import toolchain
from infra.plugin.wire import Secret
from infra.render import LEFT_OUT, MADE, MARKER, Rendered, render, without_secrets, write
from switchboard.errors import SwitchboardError
from switchboard.registry_users import SERVICES
from tests.conftest import ControlPlane

STACKS = ("local", "staging", "production")
PLANTED = "hunter2-planted"


@pytest.fixture(scope="module", params=STACKS)
def stack(request: pytest.FixtureRequest) -> tuple[str, list[Declared], Rendered]:
    objects = declare(config.load(request.param), name=request.param)
    return request.param, objects, render(request.param, objects)


def texts(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): path.read_text()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_every_object_has_a_file_that_says_the_same(stack: tuple[str, list[Declared], Rendered]) -> None:
    name, objects, rendered = stack
    loaded = config.load(name)
    assert {path.partition("/")[0] for path in rendered.files} == {site.name for site in loaded.sites}
    manifests = [
        yaml.safe_load(text)
        for path, text in rendered.files.items()
        if "kustomization" not in path and f"/{MADE}/" not in path
    ]
    assert len(manifests) == len(objects) > 30
    for one, manifest in zip(objects, manifests, strict=True):
        assert manifest["kind"] == one.kind
        if one.kind != "Secret":
            assert manifest == one.revealed()


def test_it_is_the_same_each_time(stack: tuple[str, list[Declared], Rendered]) -> None:
    name, _, rendered = stack
    assert render(name, declare(config.load(name), name=name)).files == rendered.files


def test_a_kustomization_names_all_of_a_site_but_secrets(stack: tuple[str, list[Declared], Rendered]) -> None:
    _, _, rendered = stack
    listed = {
        f"{path.partition('/')[0]}/{one}"
        for path, text in rendered.files.items()
        if path.endswith("/kustomization.yaml")
        for one in yaml.safe_load(text)["resources"]
    }
    written = {path for path in rendered.files if not path.endswith("kustomization.yaml")}
    assert listed == {path for path in written if "/secret-" not in path and f"/{MADE}/" not in path}
    assert any("/_cluster/namespace-" in path for path in listed)


def test_what_the_operator_makes_is_shown_and_not_applied(
    stack: tuple[str, list[Declared], Rendered],
) -> None:
    _, objects, rendered = stack
    servers = [one for one in objects if one.kind == "ModelServer"]
    assert servers
    for one in servers:
        folder = f"{one.site}/{MADE}/switchboard-serving"
        text = rendered.files[f"{folder}/deployment-{one.name}.yaml"]
        assert text.startswith(f"# the operator makes it of ModelServer {one.name}\n")
        deployment = yaml.safe_load(text)
        assert deployment["spec"]["replicas"] == one.revealed()["spec"]["scaling"].get("minReplicas", 1)
        assert {
            f"{folder}/persistentvolumeclaim-{one.name}-models.yaml",
            f"{folder}/poddisruptionbudget-{one.name}.yaml",
        } <= set(rendered.files)
    assert len([path for path in rendered.files if f"/{MADE}/" in path]) == 3 * len(servers)


def test_only_a_stack_without_a_domain_has_addresses_that_nobody_knows_yet(
    stack: tuple[str, list[Declared], Rendered],
) -> None:
    name, _, rendered = stack
    holding = {path for path, text in rendered.files.items() if ADDRESS_LATER in text}
    assert {place.file for place in rendered.unknown} == holding
    assert bool(holding) is (config.load(name).domain is None)


def test_no_secret_is_in_any_file(tmp_path: Path) -> None:
    """Planted in every way in which a program may hold one."""
    meta = {"name": "planted", "namespace": "apps", "labels": {}}
    objects = [
        Declared("a", {"kind": "Secret", "metadata": meta, "stringData": Secret({"password": PLANTED})}),
        Declared("b", {"kind": "Secret", "metadata": meta, "data": {"password": PLANTED, "user": PLANTED}}),
        Declared("c", {"kind": "Secret", "metadata": meta, "data": {"password": Secret(PLANTED)}}),
        Declared(
            "d",
            {
                "kind": "Secret",
                "metadata": {
                    **meta,
                    "annotations": {
                        "kubectl.kubernetes.io/last-applied-configuration": PLANTED,
                        "kept": "yes",
                    },
                },
            },
        ),
        Declared("e", {"kind": "ConfigMap", "metadata": meta, "data": {"url": Secret(f"pg://{PLANTED}@db")}}),
        Declared(
            "f",
            {"kind": "Pod", "metadata": meta, "spec": {"containers": [{"args": ["-p", Secret(PLANTED)]}]}},
        ),
        Declared("g", {"kind": "ConfigMap", "metadata": meta, "data": Secret({"a": PLANTED})}),
    ]
    rendered = render("t", objects)
    write(rendered, tmp_path)
    assert all(PLANTED not in text for text in texts(tmp_path).values())
    assert PLANTED not in json.dumps(rendered.summary())
    assert {(place.file[0], place.field) for place in rendered.left_out} == {
        ("a", "stringData.password"),
        ("b", "data.password"),
        ("b", "data.user"),
        ("c", "data.password"),
        ("e", "data.url"),
        ("f", "spec.containers[0].args[1]"),
        ("g", "data"),
    }
    assert "# left out, a secret: data.user\n" in rendered.files["b/apps/secret-planted.yaml"]
    assert yaml.safe_load(rendered.files["d/apps/secret-planted.yaml"])["metadata"]["annotations"] == {
        "kept": "yes"
    }
    assert (
        yaml.safe_load(rendered.files["f/apps/pod-planted.yaml"])["spec"]["containers"][0]["args"][1]
        == LEFT_OUT
    )


def test_the_stack_s_own_secrets_are_marked_through_the_whole_program() -> None:
    objects = declare(config.load("staging"), name="staging")
    rendered = render("staging", objects)
    secrets = [one for one in objects if one.kind == "Secret"]
    held: list[tuple[str, str]] = [
        item for one in secrets for item in one.revealed()["stringData"].items() if item[0] != "username"
    ]
    # The store's three, the list of users, and a password for each user in the private site and two in the public one.
    assert len(held) == 3 + 1 + len(SERVICES) + 2 + 2, (
        "the last two are the seeds by which evidence is signed"
    )
    everything = "".join(rendered.files.values())
    assert not [key for key, value in held if value in everything]


def test_what_is_rendered_is_not_changed() -> None:
    manifest = {"kind": "Secret", "metadata": {"name": "x"}, "data": {"a": Secret("b")}}
    before = copy.deepcopy(manifest)
    without_secrets(manifest)
    assert manifest == before


@pytest.mark.parametrize(
    ("objects", "reason"),
    [
        ([("a", "x"), ("a", "x")], "two objects would be written as s/a/configmap-x.yaml"),
        ([("a", "x/../../y")], "its name has a slash"),
        ([("../..", "y")], "its name has a slash"),
    ],
)
def test_what_can_t_be_written_is_named(objects: list[tuple[str, str]], reason: str) -> None:
    declared = [
        Declared("s", {"kind": "ConfigMap", "metadata": {"namespace": namespace, "name": name}})
        for namespace, name in objects
    ]
    with pytest.raises(SwitchboardError, match=reason.replace("/", "/")):
        render("t", declared)


def some(*names: str, stack: str = "t") -> Rendered:
    return Rendered(stack=stack, files={f"s/{name}.yaml": f"kind: {name}\n" for name in names})


def test_a_second_render_removes_what_isn_t_there_any_more_and_nothing_else(tmp_path: Path) -> None:
    write(some("a", "b", "c/d"), tmp_path)
    (tmp_path / "s" / "note.txt").write_text("a person's own")
    write(some("a"), tmp_path)
    assert set(texts(tmp_path)) == {"s/a.yaml", "s/note.txt", MARKER}
    assert not (tmp_path / "s" / "c").exists()


def test_folders_of_others_are_respected(tmp_path: Path) -> None:
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "mine.txt").write_text("mine")
    with pytest.raises(SwitchboardError, match="holds files that no render wrote"):
        write(some("a"), tmp_path / "notes")
    with pytest.raises(SwitchboardError, match="it is a file"):
        write(some("a"), tmp_path / "notes" / "mine.txt", force=True)
    write(some("a"), tmp_path / "notes", force=True)
    assert set(texts(tmp_path / "notes")) == {"s/a.yaml", "mine.txt", MARKER}
    with pytest.raises(SwitchboardError, match="holds stack t, not other"):
        write(some("b", stack="other"), tmp_path / "notes")


def test_a_marker_that_somebody_edited_removes_nothing_outside(tmp_path: Path) -> None:
    outside = tmp_path / "precious.yaml"
    outside.write_text("precious")
    folder = tmp_path / "out"
    write(some("a"), folder)
    (folder / MARKER).write_text(json.dumps({"stack": "t", "files": ["../precious.yaml", str(outside)]}))
    write(some("b"), folder)
    assert outside.read_text() == "precious"
    (folder / MARKER).write_text("{")
    with pytest.raises(SwitchboardError, match="no render wrote"):
        write(some("b"), folder)


@pytest.mark.parametrize("rest", ["a", "b"])
def test_behind_a_link_nothing_is_written_or_removed(rest: str, tmp_path: Path) -> None:
    folder, elsewhere = tmp_path / "out", tmp_path / "elsewhere"
    write(some("a", "b"), folder)
    (folder / "s").rename(elsewhere)
    (folder / "s").symlink_to(elsewhere)
    before = texts(elsewhere)
    with pytest.raises(SwitchboardError, match="out/s is a link"):
        write(Rendered(stack="t", files={f"t/{rest}.yaml": "kind: changed\n"}), folder)
    with pytest.raises(SwitchboardError, match="out/s is a link"):
        write(Rendered(stack="t", files={f"s/{rest}.yaml": "kind: changed\n"}), folder)
    assert texts(elsewhere) == before
    assert not (folder / "t").exists(), "nothing is done by halves"


def test_a_linked_file_is_not_written_through(tmp_path: Path) -> None:
    precious, folder = tmp_path / "precious.yaml", tmp_path / "out"
    precious.write_text("precious")
    (folder / "s").mkdir(parents=True)
    (folder / "s" / "a.yaml").symlink_to(precious)
    with pytest.raises(SwitchboardError, match=r"a\.yaml is a link"):
        write(some("a"), folder, force=True)
    assert precious.read_text() == "precious"


def test_the_folder_itself_may_be_a_link(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "out").symlink_to(tmp_path / "real")
    write(some("a"), tmp_path / "out")
    write(some("b"), tmp_path / "out")
    assert set(texts(tmp_path / "real")) == {"s/b.yaml", MARKER}


def test_the_command(tmp_path: Path) -> None:
    out = tmp_path / "new" / "staging"
    done = CliRunner().invoke(app, ["render", "--stack", "staging", "--out", str(out), "--output", "json"])
    assert done.exit_code == 0, done.output
    said = json.loads(done.stdout)
    assert sorted(texts(out)) == sorted([*said["files"], MARKER])
    assert len(said["left_out"]) == 3 + 1 + 2 * (len(SERVICES) + 2) + 2 and said["unknown"] == []
    text = CliRunner().invoke(app, ["render", "--stack", "staging", "--out", str(out)]).stdout
    assert "files of stack staging" in text
    assert "left out, a secret: private/switchboard-core/secret-mlflow-store-" in text


def test_a_real_cluster_takes_all_of_it(tmp_path: Path, control_plane: ControlPlane) -> None:
    """Site by site: namespaces first, since a dry run of what is in one needs it."""
    kubectl = [
        str(toolchain.locate(["kubectl"]).path("kubectl")),
        "--kubeconfig",
        str(control_plane.kubeconfig),
    ]
    command = [*kubectl, "apply", "--server-side", "--field-manager=render-test", "--force-conflicts"]
    production = render("production", declare(config.load("production"), name="production"))
    write(production, tmp_path)
    namespaces = sorted(tmp_path.glob("*/_cluster/namespace-*.yaml"))
    # Gone for good before and after: other tests have the same cluster, and begin without them.
    delete = [*kubectl, "delete", "--ignore-not-found", "--timeout=300s"]
    for path in namespaces:
        subprocess.run([*delete, "-f", str(path)], check=True, capture_output=True)
        subprocess.run([*command, "-f", str(path)], check=True, capture_output=True)
    # What is defined for the whole cluster comes first, as of a real one.
    for path in tmp_path.glob("*/_cluster/customresourcedefinition-*.yaml"):
        subprocess.run([*command, "-f", str(path)], check=True, capture_output=True)
        wait = [*kubectl, "wait", "--for=condition=Established", "--timeout=300s", "-f", str(path)]
        subprocess.run(wait, check=True, capture_output=True)
        # What is established is not served at once.
        name = yaml.safe_load(path.read_text())["metadata"]["name"]
        while subprocess.run([*kubectl, "get", name, "-A"], capture_output=True).returncode:
            time.sleep(0.2)
    try:
        for site in ("private", "south"):
            done = subprocess.run(
                [*command, "--dry-run=server", "-k", str(tmp_path / site)], capture_output=True, text=True
            )
            assert done.returncode == 0, done.stderr
            resources = yaml.safe_load((tmp_path / site / "kustomization.yaml").read_text())["resources"]
            assert done.stdout.count("serverside-applied (server dry run)") == len(resources)
            assert "Warning" not in done.stderr, done.stderr
        for secret in tmp_path.glob("*/*/secret-*.yaml"):
            subprocess.run([*command, "--dry-run=server", "-f", str(secret)], check=True, capture_output=True)
    finally:
        for path in namespaces:
            subprocess.run([*delete, "-f", str(path)], capture_output=True)
