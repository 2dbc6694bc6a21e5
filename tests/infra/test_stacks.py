"""`staging` and `production` as the platform engineer sees them: the real `pulumi` on the committed stack files.

All contexts lead to one real control plane, which the `kubectl` of these tests makes out to be one for each context;
where secrets are kept is a passphrase, as the bank's Vault isn't here.
"""

from __future__ import annotations

import base64
import json
import os
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from infra import config
from infra.declared import declare
from infra.local import toolchain
from infra.local.toolchain import lookup
from infra.plugin.install import install_in_home
from infra.plugin.servicer import VERSION
from switchboard.paths import ROOT
from tests.conftest import ControlPlane

SECRETS = {key: f"hunter2-{key}-{32 * 'x'}" for key in config.SECRETS}
STACKS = ("staging", "production")


class Project:
    """The project in a folder of its own, with one of the committed stacks."""

    def __init__(self, folder: Path, stack: str, control_plane: ControlPlane) -> None:
        tools = toolchain.locate(["pulumi", "pulumi-language-python", "kubectl"])
        self.stack, self.folder = stack, folder
        self.kubectl, self.pulumi = str(tools.path("kubectl")), str(tools.path("pulumi"))
        self.file = folder / f"Pulumi.{stack}.yaml"
        document = yaml.safe_load((ROOT / self.file.name).read_text())
        document.pop("secretsprovider", None)
        self.file.write_text(yaml.safe_dump(document, sort_keys=False))
        runtime = {"name": "python", "options": {"virtualenv": sys.prefix}}
        (folder / "Pulumi.yaml").write_text(
            json.dumps({"name": config.PROJECT, "main": str(ROOT / "infra"), "runtime": runtime})
        )
        install_in_home(folder / "home", VERSION)
        self.backend = folder / "backend"
        self.backend.mkdir()
        sites = document["config"]["switchboard:sites"]
        contexts = [site["cluster"]["context"] for site in sites]
        self.environ = {
            **os.environ,
            "PATH": os.pathsep.join([*map(str, tools.bin_dirs), os.environ["PATH"]]),
            "KUBECONFIG": str(_kubeconfig(folder / "kubeconfig", control_plane, contexts)),
            "PULUMI_HOME": str(folder / "home"),
            "PULUMI_BACKEND_URL": self.backend.as_uri(),
            "PULUMI_CONFIG_PASSPHRASE": "correct horse battery staple",
            "PULUMI_SKIP_UPDATE_CHECK": "true",
            "PULUMI_DISABLE_AUTOMATIC_PLUGIN_ACQUISITION": "true",
            "SWITCHBOARD_STACK_FILE": str(self.file),
            "SWITCHBOARD_STATE": str(folder / "state"),
        }
        own = self._uid()
        self.uids = {site["name"]: f"{own[:-1]}{number}" for number, site in enumerate(sites)}
        """By site, as the stack file and `switchboard` know them."""
        tools_of_tests = folder / "tools"
        tools_of_tests.mkdir()
        answers = {site["cluster"]["context"]: self.uids[site["name"]] for site in sites}
        _write_kubectl(tools_of_tests / "kubectl", self.kubectl, own, answers)
        before = os.environ.get(lookup.HAND_BUILT)
        self.environ[lookup.HAND_BUILT] = os.pathsep.join(
            [str(tools_of_tests), *([before] if before else [])]
        )
        self.run("stack", "init", stack)
        self.file_without_secrets = self.file.read_text()

    def run(self, *words: str, fails: bool = False) -> str:
        """What Pulumi printed."""
        done = subprocess.run(
            [self.pulumi, *words, "--non-interactive", "--color", "never"],
            cwd=self.folder, env=self.environ, capture_output=True, text=True, timeout=500,
        )  # fmt: skip
        assert (done.returncode != 0) == fails, done.stdout + done.stderr
        return done.stdout + done.stderr

    def set_secrets(self) -> None:
        pairs = [
            word for key, value in SECRETS.items() for word in ("--secret", f"switchboard:{key}={value}")
        ]
        self.run("config", "set-all", "--stack", self.stack, *pairs)

    def set_ids(self, uids: dict[str, str]) -> None:
        """Put `cluster.id`s of sites into the stack file, by the command that the error names."""
        for index, site in enumerate(config.load(self.stack).sites):
            if site.name in uids:
                path = f"switchboard:sites[{index}].cluster.id"
                self.run("config", "set", "--stack", self.stack, "--path", path, uids[site.name])

    def _uid(self) -> str:
        words = [self.kubectl, "get", "namespace", "kube-system", "-o", "jsonpath={.metadata.uid}"]
        return subprocess.run(words, env=self.environ, capture_output=True, text=True, check=True).stdout

    def all_text(self) -> str:
        """All that Pulumi keeps, and the stack file."""
        files = [path for path in self.backend.rglob("*") if path.is_file()]
        return "\n".join(path.read_text() for path in [self.file, *files])


def _write_kubectl(file: Path, kubectl: str, own: str, answers: Mapping[str, str]) -> None:
    """A program that is `kubectl`, but for the UID of the cluster: each context has another one.

    Two sites may not be one cluster, and a control plane for each of a stack's costs its time and memory.
    """
    cases = "\n".join(f'  *" --context {context} "*) uid={uid};;' for context, uid in answers.items())
    file.write_text(
        f"""#!/bin/sh
uid={own}
case " $* " in
{cases}
esac
answer=$({kubectl} "$@") || exit
printf '%s\n' "$answer" | sed "s/{own}/$uid/"
"""
    )
    file.chmod(0o755)


def _kubeconfig(file: Path, control_plane: ControlPlane, contexts: list[str]) -> Path:
    document: dict[str, Any] = yaml.safe_load(control_plane.kubeconfig.read_text())
    only = document["contexts"][0]["context"]
    document["contexts"] = [{"name": name, "context": only} for name in contexts]
    document["current-context"] = contexts[0]
    file.write_text(yaml.safe_dump(document))
    return file


@pytest.fixture(scope="module")
def staging(tmp_path_factory: pytest.TempPathFactory, control_plane: ControlPlane) -> Project:
    return Project(tmp_path_factory.mktemp("staging"), "staging", control_plane)


@pytest.fixture(scope="module")
def production(tmp_path_factory: pytest.TempPathFactory, control_plane: ControlPlane) -> Project:
    return Project(tmp_path_factory.mktemp("production"), "production", control_plane)


@pytest.fixture(autouse=True)
def _as_committed(request: pytest.FixtureRequest) -> Iterator[None]:
    """Each test starts from the committed file."""
    yield
    for name in STACKS:
        if name in request.fixturenames:
            project: Project = request.getfixturevalue(name)
            project.file.write_text(project.file_without_secrets)


def _expected(stack: str) -> Counter[str]:
    """How many objects of each kind the program declares."""
    return Counter(one.kind for one in declare(config.load(stack), name=stack))


def _clear(text: str) -> list[str]:
    """The secrets that are in `text`, as they are or in base64."""
    encoded = {value: base64.b64encode(value.encode()).decode().rstrip("=") for value in SECRETS.values()}
    return [value for value, other in encoded.items() if value in text or other in text]


@pytest.mark.parametrize("stack", STACKS)
def test_a_preview_shows_every_object_and_no_secret(stack: str, request: pytest.FixtureRequest) -> None:
    project: Project = request.getfixturevalue(stack)
    # On new clusters, which know no ModelServers yet; other tests of the same control plane may have told it of them.
    names = [f"{kind}.switchboard.dev" for kind in ("modelservers", "modelreleases")]
    words = ["delete", "crd", *names, "--ignore-not-found", "--timeout=300s"]
    subprocess.run([project.kubectl, *words], env=project.environ, check=True, capture_output=True)
    project.set_secrets()
    *named, last = project.uids
    # One is not named yet: a preview warns, and tells what to do.
    project.set_ids({site: project.uids[site] for site in named})
    # With the policies, which refuse nothing of it: a violation would fail the preview.
    policies = ("--policy-pack", str(ROOT / "infra" / "policy"))
    shown = project.run("preview", "--stack", stack, "--diff", "--show-secrets=false", *policies)
    expected = _expected(stack)
    found = Counter(re.findall(r"^ *\+ kubernetes:[\w./]+:(\w+): \(create\)", shown, re.MULTILINE))
    assert found == expected
    command = f"pulumi config set --path 'switchboard:sites[{len(named)}].cluster.id' {project.uids[last]}"
    assert command in shown
    assert shown.count("the stack file names none") == 1
    assert _clear(shown + project.all_text()) == []
    assert min(found["ModelServer"], found["CustomResourceDefinition"]) > 0
    # All addresses are known before there is a load balancer.
    assert "http://mlflow.private." in shown
    assert "address-known-after-up" not in shown


def test_without_secrets_the_command_that_sets_one_is_named(staging: Project) -> None:
    shown = staging.run("preview", "--stack", "staging", fails=True)
    assert "the secret switchboard:mlflowDatabasePassword is not set" in shown
    assert "`pulumi config set --secret switchboard:mlflowDatabasePassword`" in shown
    assert "Traceback" not in shown


def test_another_cluster_than_the_stack_file_s_is_refused(staging: Project) -> None:
    staging.set_secrets()
    other = "0f0e0d0c-0000-4000-8000-000000000000"
    staging.set_ids({**staging.uids, "public": other})
    shown = staging.run("up", "--yes", "--stack", "staging", fails=True)
    refusal = (
        f"site public: context bank-staging-public is cluster {staging.uids['public']}, the stack file names {other}; "
        "nothing was sent"
    )
    assert refusal in shown
    assert "Traceback" not in shown
    assert "kubernetes:" not in shown


def test_so_it_is_before_a_command_that_runs_no_program(staging: Project) -> None:
    staging.set_ids({**staging.uids, "private": "0f0e0d0c-0000-4000-8000-000000000000"})
    words = [
        sys.executable,
        "-m",
        "switchboard.cli",
        "pulumi",
        "--stack",
        "staging",
        "--",
        "destroy",
        "--yes",
    ]
    done = subprocess.run(words, cwd=ROOT, env=staging.environ, capture_output=True, text=True, timeout=500)
    assert done.returncode == 1
    assert "the stack file names 0f0e0d0c-0000-4000-8000-000000000000; nothing was sent" in done.stderr
    assert "Destroying" not in done.stdout


def test_up_refuses_a_cluster_that_nothing_names(staging: Project) -> None:
    staging.set_secrets()
    shown = staging.run("up", "--yes", "--skip-preview", "--stack", "staging", fails=True)
    assert "the stack file names none; nothing was sent" in shown
    assert "kubernetes:" not in shown


def test_one_component_is_applied_alone_and_its_secrets_are_encrypted(staging: Project) -> None:
    staging.set_secrets()
    staging.set_ids(staging.uids)
    # On a stack that was never applied, what holds it has to be named as well.
    parts = ("infra:Site::*", "providers:kubernetes::*", "Namespace::private-switchboard-core")
    wanted = (*parts, "infra:Mlflow::mlflow", "Secret::mlflow-store")
    targets = [word for part in wanted for word in ("--target", f"**{part}")]
    try:
        shown = staging.run("up", "--yes", "--skip-preview", "--stack", "staging", *targets)
        assert Counter(re.findall(r"^ \+  kubernetes:[\w./]+:(\w+) \S+ created", shown, re.MULTILINE)) == {
            "Secret": 1, "Namespace": 1,
        }  # fmt: skip
        words = [staging.kubectl, "get", "secret", "-n", "switchboard-core", "-o", "json"]
        listed = subprocess.run(words, env=staging.environ, capture_output=True, check=True).stdout
        (made,) = json.loads(listed)["items"]
        data = {key: base64.b64decode(value).decode() for key, value in made["data"].items()}
        assert data["AWS_SECRET_ACCESS_KEY"] == SECRETS["mlflowArtifactsSecretKey"]
        assert SECRETS["mlflowDatabasePassword"] in data["MLFLOW_BACKEND_STORE_URI"]
        kept = staging.all_text()
        assert made["metadata"]["name"] in kept
        assert _clear(shown + kept) == []
    finally:  # for the other tests of the stack nothing was ever applied
        staging.run("destroy", "--yes", "--skip-preview", "--stack", "staging")


def test_two_sites_that_are_one_cluster_are_refused(
    staging: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    staging.set_secrets()
    monkeypatch.delitem(staging.environ, lookup.HAND_BUILT)  # with a kubectl that tells the truth
    shown = staging.run("preview", "--stack", "staging", fails=True)
    assert "sites private and public are one cluster, " in shown
    assert "contexts bank-staging-private and bank-staging-public lead to it; nothing was sent" in shown
    assert "Traceback" not in shown
    assert "kubernetes:" not in shown
