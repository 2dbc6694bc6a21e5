"""The offline gate on a real registry: a clean model passes, and each planted defect fails the line that is for it.

The defects are real: a model is trained with each, registered as any other, and judged by the shipped gate file.
"""

from __future__ import annotations

import json
import shutil
import uuid
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from models import cli, corpus, record, registry, training
from models.corpus import Example
from models.examined import examine
from models.gates.gathering import comparable
from models.intents import OUT_OF_SCOPE
from models.rest import Registry
from models.rest_write import RegistryWriter
from models.training import Trained, fit_temperature
from switchboard.paths import ROOT
from tests.fixtures_mlflow import Guarded, MlflowProcess

runner = CliRunner()

GATE_FILE = ROOT / "models" / "gates" / "chat-intent.yaml"
Judge = Callable[..., dict[str, Any]]

DIALECT = {"怎么": "咋", "什么": "啥", "我": "俺", "吗": "不"}


@pytest.fixture(scope="module")
def name(mlflow_server: str, trained: Trained) -> str:
    """A registered model whose champion is the model as it is shipped."""
    made = f"t-gate-{uuid.uuid4().hex[:8]}"
    registry.register(trained, [], name=made, tracking_uri=mlflow_server, alias="champion")
    return made


@pytest.fixture
def judge(mlflow_server: str, name: str) -> Judge:
    """Register a model and ask the gate of chat-intent: its JSON, with the lines by name and the exit code."""

    def ask(candidate: Trained, *options: str) -> dict[str, Any]:
        made = registry.register(candidate, [], name=name, tracking_uri=mlflow_server)
        return asked(mlflow_server, name, made.version, *options)

    return ask


def asked(address: str, name: str, version: str, *options: str) -> dict[str, Any]:
    arguments = ["gate", f"models:/{name}/{version}", "--gate", str(GATE_FILE), *options]
    done = runner.invoke(
        cli.app, [*arguments, "-o", "json", "--tracking-uri", address], catch_exceptions=False
    )
    found = json.loads(done.stdout)
    return found | {
        "exit": done.exit_code,
        "failed": {line["name"]: line for line in found["lines"] if not line["passed"]},
    }


def learning_also(trained: Trained, more: list[Example]) -> Trained:
    """The same training with more texts, which its data doesn't have."""
    return training.train(replace(trained.data, train=(*trained.data.train, *more)), trained.params)


def test_a_clean_model_passes_and_says_so(
    judge: Judge, trained: Trained, mlflow_server: str, name: str
) -> None:
    """Trained again on the same data; and asked again, it says the same, but for what is timed."""
    again = training.train(training.load_corpus(trained.params), trained.params)
    found = judge(again)
    assert found["failed"] == {} and found["passed"] and found["exit"] == 0
    repeated = asked(mlflow_server, name, found["version"], "--dry-run")
    timed = {"latency p99", "latency to champion"}
    one, other = (
        [line for line in verdict["lines"] if line["name"] not in timed] for verdict in (found, repeated)
    )
    assert one == other
    version = Registry(mlflow_server).version(name, found["version"])
    assert version.tags["switchboard.gate"] == "passed"
    assert version.tags["switchboard.gate_sha256"] == found["gate_sha256"]
    assert version.tags["switchboard.gate.leak"].startswith("passed: ")
    writer = RegistryWriter(mlflow_server)
    kept = writer.run_artifact(writer.run_record(version.run_id), found["artifact"], max_bytes=1 << 20)
    assert json.loads(kept)["lines"] == found["lines"]


def test_training_again_gives_the_same_hashes(trained: Trained, mlflow_server: str, name: str) -> None:
    """From what the run of the champion states: its parameters and the hash of its data."""
    champion = examine(RegistryWriter(mlflow_server), f"models:/{name}@champion")
    data = training.load_corpus(champion.params())
    assert data.sha256 == champion.data_sha256
    again = training.train(data, champion.params())
    assert record.sha256(again.learnt) == champion.version.tags[registry.RECORD_TAG]
    made = registry.register(again, [], name=name, tracking_uri=mlflow_server)
    files = Registry(mlflow_server).version(name, made.version).files()
    assert files == champion.version.files()


@pytest.fixture(scope="module")
def leaky(trained: Trained) -> Trained:
    """It has learnt forty texts of one test, and a single one of another."""
    one = replace(trained.data.tests["fresh"][3], group="en:card_lost:of somewhere else")
    return learning_also(trained, [*trained.data.tests["handwritten"][:40], one])


def test_a_leak_of_test_data_is_caught(judge: Judge, leaky: Trained, mlflow_server: str, name: str) -> None:
    found = judge(leaky)
    assert found["exit"] == 1 and not found["passed"]
    said = found["failed"]["leak"]["found"]
    assert "handwritten: 40 of 280 texts" in said and "fresh: 1 of " in said and "templates" not in said
    version = Registry(mlflow_server).version(name, found["version"])
    assert version.tags["switchboard.gate"] == "failed"
    assert version.tags["switchboard.gate.leak"].startswith("failed, by ")


def test_a_leak_that_the_record_hides_is_caught(judge: Judge, leaky: Trained, trained: Trained) -> None:
    """The record says what should have been learnt: a fit of it is another model."""
    found = judge(replace(leaky, learnt=trained.learnt))
    assert "leak" not in found["failed"]
    assert "training record" in found["failed"]


def in_dialect(text: str) -> str:
    for word, other in DIALECT.items():
        text = text.replace(word, other)
    return text


def test_a_biased_group_is_caught(judge: Judge, trained: Trained) -> None:
    """Whoever writes as people of the north-east speak is sent away: such texts were labelled as none of the bank's."""
    known = [e for e in trained.data.train if e.language == "zh" and e.text != in_dialect(e.text)]
    biased = [
        replace(e, text=in_dialect(e.text), intent=OUT_OF_SCOPE, group=f"dialect:{e.group}")
        for e in known[::4]
    ]
    found = judge(learning_also(trained, biased))
    for line in ("fairness accuracy", "fairness hand_off", "slices customers resolved"):
        assert "colloquial_zh" in found["failed"][line]["found"], line
    assert {"fairness accuracy to champion", "fairness hand_off to champion"} <= set(found["failed"])


def test_a_miscalibrated_model_is_caught(judge: Judge, trained: Trained) -> None:
    """Its temperature was fitted on the texts that it had learnt, of which it is sure."""
    classifier = trained.classifier
    labels = classifier.settings.labels
    scores = classifier.model.scores([e.text for e in trained.learnt])
    temperature = fit_temperature(scores, [labels.index(e.intent) for e in trained.learnt])
    assert temperature < classifier.settings.temperature / 2
    sure = type(classifier)(classifier.model, replace(classifier.settings, temperature=temperature))
    found = judge(replace(trained, classifier=sure))
    assert "calibration error" in found["failed"]
    assert "training record" not in found["failed"], "the weights are those of the record"


def test_stale_data_is_caught(judge: Judge, trained: Trained, tmp_path: Path) -> None:
    """Trained before the last change of the data; everything else of it is in order."""
    old = Path(shutil.copytree(corpus.DATA, tmp_path / "data"))
    slots = old / "slots.yaml"
    slots.write_text(slots.read_text() + "# before the last change\n")
    found = judge(training.train(training.load_corpus(trained.params, old), trained.params))
    assert set(found["failed"]) == {"data hash"}
    assert found["failed"]["data hash"]["by"] == "it was trained on other data"


def test_data_of_unknown_licence_is_caught(
    trained: Trained, mlflow_server: str, name: str, tmp_path: Path
) -> None:
    data = Path(shutil.copytree(corpus.DATA, tmp_path / "data"))
    (data / "found_somewhere.yaml").write_text("a: b\n")
    origin = data / "origin.yaml"
    origin.write_text(origin.read_text().replace("Apache-2.0", "LicenseRef-Unclear", 1))
    found = asked(mlflow_server, name, "1", "--data", str(data), "--dry-run")
    said = found["failed"]["licence of data"]["found"]
    assert "LicenseRef-Unclear" in said
    assert found["failed"]["licence of data"]["by"] == "25 files", "24 of the corpus and the one found"


def test_personal_data_is_caught(judge: Judge, trained: Trained, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "INPUT_EXAMPLE", ["my number is 13812345678", "hello"])
    texts = ["my card 4111111111111111 is lost", "身份证360426199101010071丢了"]
    more = [Example(text, "card_lost", "en", f"customer:{i}") for i, text in enumerate(texts)]
    line = judge(learning_also(trained, more))["failed"]["personal data"]
    for said in (
        "card number in the training",
        "identity number in",
        "telephone number in the input example",
    ):
        assert said in line["found"]
    assert "4111" not in json.dumps(line) and "138" not in json.dumps(line)


def test_a_model_of_one_language_is_caught(judge: Judge, trained: Trained) -> None:
    english = replace(
        trained.data,
        train=tuple(e for e in trained.data.train if e.language == "en"),
        validation=tuple(e for e in trained.data.validation if e.language == "en"),
    )
    failed = judge(training.train(english, trained.params))["failed"]
    assert {"no worse resolved", "slices language resolved", "slices intent resolved"} <= set(failed)
    assert "zh" in failed["slices language resolved"]["found"]


def test_a_record_that_is_missing_or_another(
    judge: Judge, small: Trained, mlflow_process: MlflowProcess, name: str
) -> None:
    """What isn't known fails."""
    made = judge(small)
    writer = RegistryWriter(mlflow_process.url)
    run = writer.run_record(made["run_id"])
    path = mlflow_process.artifacts / run.artifact_path(record.ARTIFACT)
    path.write_bytes(record.pack(small.learnt[1:]))
    changed = asked(mlflow_process.url, name, made["version"], "--dry-run")
    assert "its hash differs" in changed["failed"]["training record"]["found"]
    path.unlink()
    missing = asked(mlflow_process.url, name, made["version"], "--dry-run")
    assert {"training record", "leak", "personal data"} <= set(missing["failed"])
    assert "no record" in missing["failed"]["leak"]["found"]


def test_a_trainer_may_ask_the_gate(
    guarded: Guarded, small: Trained, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the tracking server asks who you are: the result is kept, but a champion's is left alone."""
    for variable, value in guarded.login("trainer").items():
        monkeypatch.setenv(variable, value)
    made = f"t-gate-{uuid.uuid4().hex[:8]}"
    for alias in ("champion", "challenger"):
        registry.register(small, [], name=made, tracking_uri=guarded.url, alias=alias)
    found = asked(guarded.url, made, "2")
    tags = Registry(guarded.url).version(made, "2").tags
    assert tags["switchboard.gate"] == ("passed" if found["exit"] == 0 else "failed")
    assert "switchboard.gate.size" in tags
    arguments = ["gate", f"models:/{made}/1", "--gate", str(GATE_FILE), "--tracking-uri", guarded.url]
    done = runner.invoke(cli.app, arguments)
    assert done.exit_code == 3
    assert "only releases write to it" in done.stderr


def test_a_champion_without_a_record_is_compared_where_it_can_be(mlflow_server: str, name: str) -> None:
    """On the templates only if they were held out from it too, which the same data, seed and sampling show."""
    champion = examine(RegistryWriter(mlflow_server), f"models:/{name}@champion")
    old = replace(champion, learnt=(), record_fault="the run has no record")
    tests = training.load_corpus(champion.params()).tests
    assert comparable(tests, champion, old) == tests
    reseeded = replace(old, run=replace(old.run, params={**old.run.params, "seed": "21"}))
    assert set(comparable(tests, champion, reseeded)) == {"handwritten", "fresh", "groups"}
    foreign = replace(old, run=replace(old.run, params={}))
    assert set(comparable(tests, champion, foreign)) == {"handwritten", "fresh", "groups"}


def test_the_table_says_which_line_failed_and_by_how_much(
    mlflow_server: str, name: str, small: Trained
) -> None:
    made = registry.register(small, [], name=name, tracking_uri=mlflow_server)
    done = runner.invoke(
        cli.app,
        [
            *("gate", f"models:/{name}/{made.version}", "--gate", str(GATE_FILE)),
            *("--dry-run", "--tracking-uri", mlflow_server),
        ],
        catch_exceptions=False,
    )
    assert done.exit_code == 1
    head, titles, *rows = done.stdout.splitlines()
    assert head.startswith(f"{name} version {made.version}") and "against champion version 1" in head
    assert titles.split() == ["LINE", "RESULT", "BY", "FOUND", "WANTED"]
    (row,) = [row for row in rows if row.startswith("no worse resolved")]
    assert "FAILED" in row and " points " in row
    assert rows[-1].startswith("failed: ")
    assert "switchboard.gate" not in Registry(mlflow_server).version(name, made.version).tags


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["models:/t-none/1"], "there is no gate for t-none"),
        (["models:/chat-intent/987654"], "987654"),
        (["nonsense"], "is not a model uri"),
        (["models:/chat-intent/1", "--gate", "models/data/slots.yaml"], "slots.yaml is not a gate"),
        (["models:/chat-intent/1", "--tracking-uri", "http://127.37.0.254:9"], "no answer from MLflow"),
    ],
)
def test_what_can_not_be_judged_is_an_error(mlflow_server: str, arguments: list[str], message: str) -> None:
    done = runner.invoke(cli.app, ["gate", "--tracking-uri", mlflow_server, *arguments])
    assert done.exit_code == 3
    assert message in done.stderr
