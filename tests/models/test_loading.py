"""Loading a model from a real registry, and what happens when that, the network or the disk fails."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from models import training
from models.classifier import Prediction
from models.loading import Reference, current_version, load, parse
from models.registry import set_alias
from models.rest import FILES_TAG
from models.store import Copy, Store
from models.training import Trained
from switchboard.errors import SwitchboardError
from switchboard.paths import ROOT
from tests.fixtures_mlflow import Cuttable, MlflowProcess
from tests.models.conftest import SMALL, Register

TEXTS = ["I lost my card", "我的卡丢了", "what is the meaning of life"]


@pytest.mark.parametrize(
    ("uri", "expected"),
    [
        ("models:/chat-intent@champion", Reference("chat-intent", alias="champion")),
        ("models:/chat-intent/7", Reference("chat-intent", version="7")),
        ("models:/a.b_c/12", Reference("a.b_c", version="12")),
    ],
)
def test_uris(uri: str, expected: Reference) -> None:
    assert parse(uri) == expected
    assert str(expected) == uri


@pytest.mark.parametrize(
    "uri",
    [
        "", "chat-intent", "models:/", "models:/x", "models:/x@", "models:/x/", "models:/x/latest", "models:/x/0",
        "models:/x/../y/1", "models:/..@champion", "models:/x@../../etc", "models:/x@a@b", "runs:/abc/model",
        "models:/x/1\n",
    ],
)  # fmt: skip
def test_what_is_no_uri(uri: str, tmp_path: Path) -> None:
    with pytest.raises(SwitchboardError, match="is not a model uri"):
        load(uri, tmp_path, timeout_s=1, tracking_uri="http://127.37.0.254:9")


def test_loads_the_champion(
    mlflow_server: str, register: Register, model_name: str, small: Trained, tmp_path: Path
) -> None:
    made = register(alias="champion")
    model = load(f"models:/{model_name}@champion", tmp_path, timeout_s=120, tracking_uri=mlflow_server)
    assert (model.name, model.version, model.run_id) == (model_name, made.version, made.run_id)
    assert model.source == "registry"
    assert model.predict(TEXTS) == small.classifier.predict(TEXTS)
    assert all(isinstance(found, Prediction) for found in model.predict(TEXTS))
    by_version = load(
        f"models:/{model_name}/{made.version}", tmp_path, timeout_s=120, tracking_uri=mlflow_server
    )
    assert by_version.digest == model.digest
    assert current_version(f"models:/{model_name}@champion", tracking_uri=mlflow_server) == made.version


def test_a_copy_on_disk_is_not_downloaded_again(
    link: Cuttable, register: Register, model_name: str, tmp_path: Path
) -> None:
    register(alias="champion")
    uri = f"models:/{model_name}@champion"
    load(uri, tmp_path, timeout_s=120, tracking_uri=link.url)
    first = link.accepted
    model = load(uri, tmp_path, timeout_s=120, tracking_uri=link.url)
    assert link.accepted - first == 1, "only the alias is asked for"
    assert model.source == "registry"


def test_a_moved_alias_is_followed(
    mlflow_server: str, register: Register, model_name: str, tmp_path: Path
) -> None:
    uri = f"models:/{model_name}@champion"
    first = register(alias="champion")
    before = load(uri, tmp_path, timeout_s=120, tracking_uri=mlflow_server)
    other = training.Params(**{**SMALL.__dict__, "seed": 5})
    second = register(training.train(training.load_corpus(other), other), alias="champion")
    after = load(uri, tmp_path, timeout_s=120, tracking_uri=mlflow_server)
    assert (before.version, after.version) == (first.version, second.version)
    assert before.digest != after.digest
    set_alias(model_name, "champion", first.version, tracking_uri=mlflow_server)
    back = load(uri, tmp_path, timeout_s=120, tracking_uri=mlflow_server)
    assert back.digest == before.digest
    assert Store(tmp_path, model_name).history("champion") == [first.version, second.version]


@pytest.mark.parametrize("fault", ["down", "hang"])
def test_registry_away_the_copy_serves(
    link: Cuttable, register: Register, model_name: str, tmp_path: Path, fault: str
) -> None:
    register(alias="champion")
    uri = f"models:/{model_name}@champion"
    before = load(uri, tmp_path, timeout_s=120, tracking_uri=link.url)
    getattr(link, fault)()
    model = load(uri, tmp_path, timeout_s=60, tracking_uri=link.url)
    assert model.source == "disk"
    assert (model.version, model.run_id, model.digest) == (before.version, before.run_id, before.digest)
    assert model.predict(TEXTS) == before.predict(TEXTS)
    with pytest.raises(SwitchboardError, match="can't resolve"):
        current_version(uri, tracking_uri=link.url, timeout_s=0.5)


def test_registry_away_and_no_copy(link: Cuttable, tmp_path: Path) -> None:
    link.down()
    with pytest.raises(SwitchboardError, match=r"no answer from MLflow.*no usable copy.*\n.*status"):
        load("models:/m@champion", tmp_path, timeout_s=0.5, tracking_uri=link.url)


def test_no_address_but_a_copy(
    mlflow_server: str, register: Register, model_name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    register(alias="champion")
    uri = f"models:/{model_name}@champion"
    load(uri, tmp_path, timeout_s=120, tracking_uri=mlflow_server)
    # mlflow's own set_tracking_uri (in `register`) leaves it in the environment.
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert load(uri, tmp_path, timeout_s=5).source == "disk"


def test_waits_for_a_registry_that_comes_later(
    link: Cuttable, register: Register, model_name: str, tmp_path: Path
) -> None:
    register(alias="champion")
    link.down()
    with _Later(0.5, link.up):
        model = load(f"models:/{model_name}@champion", tmp_path, timeout_s=120, tracking_uri=link.url)
    assert model.source == "registry"


def test_waits_for_a_champion_that_comes_later(
    mlflow_server: str, register: Register, model_name: str, tmp_path: Path
) -> None:
    made = register()
    with _Later(0.5, lambda: set_alias(model_name, "champion", made.version, tracking_uri=mlflow_server)):
        model = load(f"models:/{model_name}@champion", tmp_path, timeout_s=120, tracking_uri=mlflow_server)
    assert model.version == made.version


@pytest.mark.parametrize("uri", ["models:/{}@nobody", "models:/{}/99", "models:/no-such-model@champion"])
def test_what_the_registry_does_not_have(
    mlflow_server: str, register: Register, model_name: str, tmp_path: Path, uri: str
) -> None:
    register()
    with pytest.raises(SwitchboardError, match=r"not found(.|\n)*models train --register"):
        load(uri.format(model_name), tmp_path, timeout_s=3, tracking_uri=mlflow_server)


def _artifact(mlflow: MlflowProcess, run_version: str, model_name: str) -> Path:
    """The file of that version on the server's own disk."""
    import mlflow as client

    client.set_tracking_uri(mlflow.url)
    uri = client.MlflowClient().get_model_version_download_uri(model_name, run_version)
    path = mlflow.artifacts / uri.removeprefix("mlflow-artifacts:/").lstrip("/")
    found = path / "artifacts" / "classifier" / "classifier.npz"
    assert found.exists()
    return found


def _flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)


def test_a_damaged_download_is_never_used(
    mlflow_process: MlflowProcess, register: Register, model_name: str, small: Trained, tmp_path: Path
) -> None:
    made = register(small, alias="champion")
    _flip(_artifact(mlflow_process, made.version, model_name))
    with pytest.raises(SwitchboardError, match="damaged in the registry"):
        load(f"models:/{model_name}@champion", tmp_path, timeout_s=60, tracking_uri=mlflow_process.url)
    assert Store(tmp_path, model_name).get(made.version) is None


def test_a_damaged_new_champion_leaves_the_old_one_serving(
    mlflow_process: MlflowProcess, register: Register, model_name: str, small: Trained, tmp_path: Path
) -> None:
    uri = f"models:/{model_name}@champion"
    first = register(alias="champion")
    load(uri, tmp_path, timeout_s=120, tracking_uri=mlflow_process.url)
    second = register(small, alias="champion")
    path = _artifact(mlflow_process, second.version, model_name)
    intact = path.read_bytes()
    _flip(path)
    model = load(uri, tmp_path, timeout_s=120, tracking_uri=mlflow_process.url)
    assert (model.version, model.source) == (first.version, "disk")
    path.write_bytes(intact)
    healed = load(uri, tmp_path, timeout_s=120, tracking_uri=mlflow_process.url)
    assert (healed.version, healed.source) == (second.version, "registry")


def test_a_tampered_copy_is_downloaded_again(
    mlflow_server: str, register: Register, model_name: str, tmp_path: Path
) -> None:
    uri = f"models:/{model_name}@champion"
    made = register(alias="champion")
    good = load(uri, tmp_path, timeout_s=120, tracking_uri=mlflow_server)
    kept = tmp_path / model_name / made.version / "classifier.npz"
    _flip(kept)
    again = load(uri, tmp_path, timeout_s=120, tracking_uri=mlflow_server)
    assert (again.source, again.digest) == ("registry", good.digest)


def test_a_copy_tampered_with_its_manifest_is_downloaded_again(
    mlflow_server: str, register: Register, model_name: str, tmp_path: Path
) -> None:
    """Who changes both fools the manifest, not the registry's hashes."""
    uri = f"models:/{model_name}@champion"
    made = register(alias="champion")
    good = load(uri, tmp_path, timeout_s=120, tracking_uri=mlflow_server)
    folder = tmp_path / model_name / made.version
    settings = json.loads((folder / "classifier.json").read_text())
    files = {
        "classifier.npz": (folder / "classifier.npz").read_bytes(),
        "classifier.json": json.dumps({**settings, "threshold": 0.0}).encode(),
    }
    for path in folder.iterdir():
        path.unlink()
    folder.rmdir()
    Store(tmp_path, model_name).put(Copy.of(model_name, made.version, made.run_id, files))
    again = load(uri, tmp_path, timeout_s=120, tracking_uri=mlflow_server)
    assert again.digest == good.digest


def test_registry_away_and_the_newest_copy_tampered(
    link: Cuttable, register: Register, model_name: str, tmp_path: Path
) -> None:
    uri = f"models:/{model_name}@champion"
    first = register(alias="champion")
    load(uri, tmp_path, timeout_s=120, tracking_uri=link.url)
    second = register(alias="champion")
    load(uri, tmp_path, timeout_s=120, tracking_uri=link.url)
    link.down()
    _flip(tmp_path / model_name / second.version / "classifier.npz")
    assert load(uri, tmp_path, timeout_s=5, tracking_uri=link.url).version == first.version
    _flip(tmp_path / model_name / first.version / "classifier.npz")
    with pytest.raises(SwitchboardError, match="no usable copy"):
        load(uri, tmp_path, timeout_s=0.5, tracking_uri=link.url)


def test_a_folder_that_cannot_be_written_costs_only_the_copy(
    mlflow_server: str, register: Register, model_name: str, tmp_path: Path
) -> None:
    register(alias="champion")
    (tmp_path / "cache").write_text("a file where a folder should be")
    model = load(
        f"models:/{model_name}@champion", tmp_path / "cache", timeout_s=120, tracking_uri=mlflow_server
    )
    assert model.source == "registry"
    assert model.predict(TEXTS)[0].intent


def test_a_version_of_somebody_else_is_refused(
    mlflow_server: str, register: Register, model_name: str, tmp_path: Path
) -> None:
    import mlflow

    made = register()
    mlflow.set_tracking_uri(mlflow_server)
    mlflow.MlflowClient().delete_model_version_tag(model_name, made.version, FILES_TAG)
    with pytest.raises(SwitchboardError, match="not registered by Switchboard"):
        load(f"models:/{model_name}/{made.version}", tmp_path, timeout_s=60, tracking_uri=mlflow_server)


def test_a_serving_process_does_without_mlflow(
    mlflow_server: str, register: Register, model_name: str, tmp_path: Path
) -> None:
    register(alias="champion")
    code = (
        "import sys; from pathlib import Path; from models.loading import load;"
        f"m = load('models:/{model_name}@champion', Path({str(tmp_path)!r}), timeout_s=60);"
        "print(m.predict(['I lost my card'])[0].intent in ('card_lost', 'handover'));"
        "print(sorted({'mlflow', 'pandas', 'sklearn', 'scipy', 'skops', 'yaml', 'requests'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env={**os.environ, "MLFLOW_TRACKING_URI": mlflow_server},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split("\n")[:2] == ["True", "[]"]


class _Later:
    """Do something after a while, in a thread, within a `with`."""

    def __init__(self, after_s: float, what: object) -> None:
        import threading

        self._timer = threading.Timer(after_s, what)  # type: ignore[arg-type]

    def __enter__(self) -> None:
        self._timer.start()

    def __exit__(self, *_: object) -> None:
        self._timer.join()
