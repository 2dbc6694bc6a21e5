"""`switchboard loadtests run`: real Locust runs, short ones, and what they leave."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import psutil
import pytest
import yaml
from typer.testing import CliRunner

from loadtests import cli_run, probing, verdict
from loadtests import spoken as said
from loadtests.cli import app
from loadtests.conversations import Question
from loadtests.scenario import load
from loadtests.spoken import recordings
from models import corpus
from switchboard import questions, requests
from switchboard.errors import SwitchboardError
from tests.loadtests.conftest import Remote
from tests.loadtests.test_histograms import read as logged
from tests.pods import until

LONG_S = 120.0


@pytest.fixture(autouse=True)
def plain(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for variable in ("KUBECONFIG", "SWITCHBOARD_GATEWAY_URL", "SWITCHBOARD_EDGE_URLS", "SWITCHBOARD_STACK"):
        monkeypatch.delenv(variable, raising=False)
    usual = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, usual)


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A busy machine sends late: whether that was too late is asked where it is meant."""
    monkeypatch.setattr(verdict, "LATE_P99_MS", 60_000.0)


def scenario(folder: Path, **changes: Any) -> str:
    document = {
        "summary": "A test.",
        "load": [{"rate": 20, "for": "5s"}],
        "claims": {"availability": 0.9, "latency": {"p90": "5s"}},
        **changes,
    }
    file = folder / "own.yaml"
    file.write_text(yaml.safe_dump(document))
    return str(file)


def run(*arguments: str) -> tuple[int, dict[str, Any]]:
    found = CliRunner().invoke(app, ["run", *arguments, "--output", "json"], catch_exceptions=False)
    return found.exit_code, json.loads(found.stdout)


def refused_once(remote: Remote) -> None:
    """It misbehaves at the first of so many: that was this one, and what is looked at before a run is answered."""
    with pytest.raises(questions.Refused):
        questions.put(remote.url, "hello there", language="en")


def test_a_scenario_that_holds_and_what_it_leaves(remote: Remote, tmp_path: Path) -> None:
    out = tmp_path / "new" / "out"
    code, found = run(scenario(tmp_path), "--target", remote.url, "--out", str(out), "--questions", "0")
    assert code == 0, found
    assert found["verdict"]["outcome"] == "pass"
    assert [one["answer"] for one in found["verdict"]["findings"]] == ["holds", "holds"]
    assert json.loads((out / "result.json").read_text()) == found
    with (out / "requests.csv").open() as file:
        each = requests.read(file)
    assert len(each) == found["figures"]["total"] == found["figures"]["offered"]
    assert sum(one.get_total_count() for one in logged(out / "latency.hlog")) == len(each)
    assert 60 <= len(each) <= 150  # a hundred by chance
    assert found["figures"]["late_p99_ms"] is not None
    assert "Load test own: pass" in (out / "report.html").read_text()
    assert ElementTree.parse(out / "junit.xml").getroot().get("failures") == "0"  # noqa: S314 - our own


def test_people_are_told_in_words(remote: Remote, tmp_path: Path) -> None:
    found = CliRunner().invoke(
        app,
        ["run", scenario(tmp_path), "--target", remote.url, "--out", str(tmp_path), "--questions", "0"],
        catch_exceptions=False,
    )
    assert found.exit_code == 0
    assert "✓ availability ≥ 90 %: 0 of" in found.stdout
    assert found.stdout.splitlines()[-2:] == ["pass", f"report: {tmp_path / 'report.html'}"]


def test_what_fails_twice_has_failed_and_what_fails_once_is_told_beside_it(
    remote: Remote, tmp_path: Path
) -> None:
    remote.status, remote.every = 503, 3
    refused_once(remote)
    claims = {"availability": 0.9}
    code, found = run(
        scenario(tmp_path, claims=claims), "--target", remote.url, "--out", str(tmp_path), "--questions", "0"
    )
    figures = found["figures"]
    assert figures["retried"] > figures["failed"] > 0
    assert set(figures["failures"]) == {"503 overloaded"}
    assert code == {"pass": 0, "fail": 1, "not proven": 2}[found["verdict"]["outcome"]]


def test_a_claim_that_is_refuted(remote: Remote, tmp_path: Path) -> None:
    remote.status, remote.every = 503, 2
    refused_once(remote)
    wanted = scenario(tmp_path, claims={"availability": 0.97})
    # Every second try fails, so about a quarter of all requests does.
    code, found = run(wanted, "--target", remote.url, "--out", str(tmp_path), "--questions", "0")
    assert (code, found["verdict"]["outcome"]) == (1, "fail")
    assert ElementTree.parse(tmp_path / "junit.xml").getroot().get("failures") == "1"  # noqa: S314 - our own


def test_a_generator_that_was_late_says_nothing(
    remote: Remote, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verdict, "LATE_P99_MS", 0.0)
    code, found = run(scenario(tmp_path), "--target", remote.url, "--out", str(tmp_path), "--questions", "0")
    assert (code, found["verdict"]["outcome"]) == (3, "invalid")
    assert found["verdict"]["sentence"].startswith("invalid: the generator was late")


def test_where_the_first_address_is_lost_the_other_answers(remote: Remote, tmp_path: Path) -> None:
    """An edge that isn't there: its customers are answered at the core, once they have asked anew."""
    edges = ["--edge", f"cn-beijing={remote.url}"]
    wanted = scenario(tmp_path, users={"chat": 1, "edge": 1, "tester": 1})
    code, found = run(
        wanted, "--target", remote.url, *edges, "--out", str(tmp_path), "--questions", "0", "--seed", "7"
    )
    assert (code, found["seed"]) == (0, 7)
    with (tmp_path / "requests.csv").open() as file:
        who = {one.who.rsplit(" ", 1)[0] for one in requests.read(file)}
    assert who == {"chat", "edge cn-beijing", "tester"}
    assert "candidate" in remote.arms
    assert None in remote.arms


def test_callers_upload_what_they_say(remote: Remote, tmp_path: Path) -> None:
    wanted = scenario(tmp_path, users={"voice": 1}, claims={"availability": 0.9, "latency": {"p90": "3s"}})
    remote.answer, remote.delay_s = (
        {},
        0.5,
    )  # slower than what is written may be, and in time for what is spoken
    code, found = run(wanted, "--target", remote.url, "--out", str(tmp_path), "--questions", "0")
    assert (code, found["figures"]["failed"]) == (0, 0)
    assert found["figures"]["seconds_within_level"] > 0
    with (tmp_path / "requests.csv").open() as file:
        each = requests.read(file)
    assert {one.who for one in each} == {"voice en", "voice zh"}
    # Each recording was put once before, and the first one twice.
    assert len(remote.heard) == len(each) + len(recordings()) + 1
    assert all(0.5 < length_s < 10 for _, length_s in remote.heard)


def test_callers_need_someone_who_listens(remote: Remote, tmp_path: Path) -> None:
    remote.listens = False
    wanted = scenario(tmp_path, users={"chat": 1, "voice": 1})
    with pytest.raises(SwitchboardError, match="has no voice service"):
        run(wanted, "--target", remote.url, "--out", str(tmp_path), "--questions", "0")
    assert len(remote.asked) == 1, "before any load"


def test_a_recording_that_is_not_understood_any_more_has_failed(
    remote: Remote, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """This service takes everything for a greeting, and from some time on for something else."""
    greetings = [
        Question("Is there an actual human I could chat with?", "en", "greeting", "en-human"),
        Question("我想直接跟客服说", "zh", "greeting", "zh-human"),
    ]
    for module in (probing, said):
        monkeypatch.setattr(module, "recordings", lambda: greetings)
    remote.forget_after = 10
    code, found = run(
        *(scenario(tmp_path, users={"voice": 1}, claims={"availability": 0.9}), "--target", remote.url),
        *("--out", str(tmp_path), "--questions", "0"),
    )
    assert code == 1
    assert set(found["figures"]["failures"]) == {"asked for greeting, answered balance"}


def test_one_that_does_not_say_what_it_heard_has_failed(remote: Remote, tmp_path: Path) -> None:
    remote.answer, remote.every = {"transcript": 5}, 3
    code, found = run(
        *(scenario(tmp_path, users={"voice": 1}, claims={"availability": 0.9}), "--target", remote.url),
        *("--out", str(tmp_path), "--questions", "0"),
    )
    assert code != 0
    assert set(found["figures"]["failures"]) == {"the answer's transcript is missing or of the wrong type"}


def test_several_processes_tell_of_the_last_request_too(remote: Remote, tmp_path: Path) -> None:
    """Which is answered long after the load has ended."""
    remote.delay_s = 1.5
    wanted = scenario(tmp_path, users={"voice": 1}, claims={"availability": 0.9})
    code, found = run(
        *(wanted, "--target", remote.url, "--out", str(tmp_path), "--questions", "0", "--processes", "2")
    )
    figures = found["figures"]
    assert (code, figures["failed"], figures["total"]) == (0, 0, figures["offered"])


@contextlib.contextmanager
def listening() -> Iterator[set[str]]:
    """Where this process's Locusts listen meanwhile."""
    found: set[str] = set()
    ended = threading.Event()

    def look() -> None:
        while not ended.wait(0.2):
            for child in psutil.Process().children(recursive=True):
                with contextlib.suppress(psutil.Error):
                    if "locust" not in child.cmdline():
                        continue
                    sockets = child.net_connections("tcp")
                    found.update(one.laddr.ip for one in sockets if one.status == psutil.CONN_LISTEN)

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield found
    finally:
        ended.set()
        thread.join()


def test_several_processes_make_one_run(remote: Remote, tmp_path: Path) -> None:
    with listening() as addresses:
        code, found = run(
            *(scenario(tmp_path), "--target", remote.url, "--out", str(tmp_path)),
            *("--questions", "0", "--processes", "2"),
        )
    assert code == 0, found
    assert addresses == {"127.0.0.1"}
    assert found["figures"]["total"] == found["figures"]["offered"]
    assert len(remote.asked) == found["figures"]["total"] + 1  # and that before the run
    assert 60 <= found["figures"]["total"] <= 150


def test_known_questions_are_to_be_answered_right(
    remote: Remote, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """This service calls everything a greeting, until it changes its mind."""
    held_out = (
        corpus.Example("hello there", "greeting", "en", "a"),
        corpus.Example("I lost my card", "card_lost", "en", "b"),
    )
    monkeypatch.setattr(corpus, "handwritten", lambda name: held_out)
    code, found = run(scenario(tmp_path), "--target", remote.url, "--out", str(tmp_path))
    assert code == 0, found
    remote.forget_after = len(remote.asked) + 3 + 10  # what is looked at before, and ten requests
    code, found = run(scenario(tmp_path), "--target", remote.url, "--out", str(tmp_path))
    assert code == 1, found
    assert set(found["figures"]["failures"]) == {"asked for greeting, answered balance"}


@contextlib.contextmanager
def begun(wanted: str, remote: Remote, folder: Path, **env: str) -> Iterator[subprocess.Popen[str]]:
    """A run in a process of its own, with a report in `folder`."""
    command = [*(sys.executable, "-m", "switchboard.cli", "loadtests", "run", wanted)]
    command += ["--target", remote.url, "--out", str(folder), "--questions", "0"]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, env={**os.environ, **env}) as child:
        try:
            yield child
        finally:
            child.kill()


def test_ctrl_c_leaves_a_report_of_a_part(remote: Remote, tmp_path: Path) -> None:
    async def under_way() -> bool:
        return len(remote.asked) > 30

    wanted = scenario(tmp_path, load=[{"rate": 20, "for": "10m"}])
    with begun(wanted, remote, tmp_path / "out") as child:
        asyncio.run(until(under_way, LONG_S))
        child.send_signal(signal.SIGINT)
        out, err = child.communicate(timeout=LONG_S)
    assert "Traceback" not in err
    assert "ended before its time" in out
    found = json.loads((tmp_path / "out" / "result.json").read_text())
    assert found["verdict"]["partial"]
    # On a machine so busy that it sends late, such a part is invalid; nothing of it is refuted.
    outcome = verdict.Outcome(found["verdict"]["outcome"])
    assert outcome is not verdict.Outcome.FAILED
    assert child.returncode == verdict.CODES[outcome], err
    assert found["figures"]["total"] >= 30
    assert "The run was ended before its time" in (tmp_path / "out" / "report.html").read_text()


def test_ctrl_c_before_anybody_has_asked(remote: Remote, tmp_path: Path) -> None:
    """Locust takes its time to begin, here until it is told to end."""
    slow = "import sys, time\nif 'locust' in sys.orig_argv:\n    time.sleep(120)\n"
    (tmp_path / "sitecustomize.py").write_text(slow)
    with begun(scenario(tmp_path), remote, tmp_path / "out", PYTHONPATH=str(tmp_path)) as child:

        async def begins() -> bool:
            return any("locust" in one.cmdline() for one in psutil.Process(child.pid).children())

        asyncio.run(until(begins, LONG_S))
        child.send_signal(signal.SIGINT)
        _, err = child.communicate(timeout=LONG_S)
    assert child.returncode == 3
    assert "ended before the first request" in err
    assert "Traceback" not in err


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["smoke"], "which gateway"),
        (["nothing", "--target", "http://127.0.0.1:1"], "there is no scenario nothing"),
        (["smoke", "--target", "http://127.38.0.5:1"], "doesn't answer"),
        (["smoke", "--target", "http://192.0.2.1"], "isn't on this machine"),
        (["smoke", "--target", "http://[::1"], "is no address"),
    ],
)
def test_bad_input_is_said_before_any_load(arguments: list[str], says: str) -> None:
    with pytest.raises(SwitchboardError, match=says) as raised:
        CliRunner().invoke(app, ["run", *arguments], catch_exceptions=False)
    assert raised.value.exit_code == 3


def test_edges_are_named(remote: Remote, tmp_path: Path) -> None:
    wanted = scenario(tmp_path, users={"edge": 1})
    for more, says in (([], "no --edge is given"), (["--edge", "beijing"], "isn't REGION=URL")):
        with pytest.raises(SwitchboardError, match=says):
            CliRunner().invoke(app, ["run", wanted, "--target", remote.url, *more], catch_exceptions=False)


def test_a_scenario_without_edges_asks_none(remote: Remote, tmp_path: Path) -> None:
    """Those that the environment names may be away."""
    found = cli_run._edges(load(scenario(tmp_path)), ["cn-beijing=http://127.38.0.5:1"])
    assert found == {}


def test_a_report_needs_a_folder(remote: Remote, tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("")
    with pytest.raises(SwitchboardError, match=r"--out .*taken can't be a folder: File exists"):
        run(scenario(tmp_path), "--target", remote.url, "--out", str(tmp_path / "taken"))


def test_who_claims_something_of_replicas_needs_to_see_them(remote: Remote, tmp_path: Path) -> None:
    wanted = scenario(tmp_path, claims={"availability": 0.9, "scaleDown": True})
    with pytest.raises(SwitchboardError, match="there is no kubeconfig to see them by"):
        run(wanted, "--target", remote.url, "--out", str(tmp_path))


def test_questions_are_of_the_held_out_set() -> None:
    """Written by another hand, and never trained on."""
    found = [Question(one.text, one.language, one.intent) for one in corpus.handwritten(name="fresh")]
    assert {one.language for one in found} == {"en", "zh"}
    assert len(found) > 200


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--stack", "staging"], "nobody has said that the stack staging may be broken"),
        (["--stack", "staging", "--yes-break", "production"], "the stack staging may be broken"),
        (["--yes-break", "production"], "the stack local may be broken"),
        (["--stack", "staging", "--yes-break", "staging"], "can't read the kubeconfig"),
        ([], "can't read the kubeconfig"),
    ],
)
def test_nothing_is_broken_without_a_word_and_a_way(
    remote: Remote, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], says: str
) -> None:
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "nowhere"))
    wanted = scenario(tmp_path, load=[{"rate": 1, "for": "2m"}], faults=["kill-pod"])
    with pytest.raises(SwitchboardError, match=says):
        run(wanted, "--target", remote.url, "--out", str(tmp_path), "--questions", "0", *arguments)
    assert len(remote.asked) == 1  # what is looked at before


def test_what_is_local_breaks_no_cluster_elsewhere(
    remote: Remote, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The target may be a forwarded port, and kubectl's current context whatever it was last."""
    entry = {"cluster": {"server": "https://192.0.2.1:6443"}, "name": "far"}
    context = {"name": "far", "context": {"cluster": "far", "user": "me"}}
    document = {"clusters": [entry], "contexts": [context], "current-context": "far"}
    document["users"] = [{"name": "me", "user": {"token": "t"}}]
    (tmp_path / "config").write_text(yaml.safe_dump({"apiVersion": "v1", "kind": "Config", **document}))
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "config"))
    wanted = scenario(tmp_path, load=[{"rate": 1, "for": "3m"}], faults=["roll-out-broken"])
    with pytest.raises(SwitchboardError, match="the cluster of the current context isn't on this machine"):
        run(wanted, "--target", remote.url, "--out", str(tmp_path), "--questions", "0")


def test_edges_are_those_of_the_environment(
    remote: Remote, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SWITCHBOARD_EDGE_URLS", f"cn-beijing={remote.url} cn-hongkong={remote.url}")
    wanted = scenario(tmp_path, users={"edge": 1}, load=[{"rate": 20, "for": "3s"}])
    code, _ = run(wanted, "--target", remote.url, "--out", str(tmp_path), "--questions", "0")
    assert code == 0
    with (tmp_path / "requests.csv").open() as file:
        who = {one.who.rsplit(" ", 1)[0] for one in requests.read(file)}
    assert who == {"edge cn-beijing", "edge cn-hongkong"}
