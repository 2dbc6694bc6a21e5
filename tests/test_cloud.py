"""The whole cloud, brought up once by the real command and used as its users would.

It is a stack of its own beside whatever else runs on the machine: its own loopback ranges, state and stack file.
Every test leaves it up, so they run in any order.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

from switchboard.outputs import StackOutputs
from switchboard.paths import ROOT
from tests.conftest import free_networks

COMMAND = [sys.executable, "-m", "switchboard.cli"]
pytestmark = pytest.mark.timeout(900)


@dataclass(frozen=True)
class Answer:
    status: int
    body: dict[str, Any]
    headers: dict[str, str]


@dataclass(frozen=True)
class Cloud:
    """A running cloud of the stack `stack`; `first_up` is what its first `up` printed."""

    stack: str
    environ: dict[str, str]
    first_up: str

    def run(
        self, *words: str, check: bool = True, timeout_s: float = 300
    ) -> subprocess.CompletedProcess[str]:
        """A `switchboard` command on this stack."""
        done = subprocess.run(
            [*COMMAND, *words], cwd=ROOT, env=self.environ, capture_output=True, text=True, timeout=timeout_s
        )
        assert not check or done.returncode == 0, f"{words}: {done.stdout}{done.stderr}"
        return done

    def up(self) -> subprocess.CompletedProcess[str]:
        return self.run("up")

    def status(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.run("status", "--output", "json", check=False).stdout)
        return found

    def pulumi(self, *words: str) -> str:
        return self.run("pulumi", "--", *words, "--non-interactive", "--color", "never").stdout

    def kubectl(self, site: str, *words: str, check: bool = True) -> str:
        environment = dict(
            line.removeprefix("export ").split("=", 1) for line in self.run("env").stdout.splitlines()
        )
        environ = {**self.environ, **{name: shlex.split(value)[0] for name, value in environment.items()}}
        kubectl = shutil.which("kubectl", path=environ["PATH"])
        assert kubectl is not None
        done = subprocess.run(
            [kubectl, "--context", site, *words], env=environ, capture_output=True, text=True, timeout=120
        )
        assert not check or done.returncode == 0, done.stderr
        return done.stdout

    def chat_pods(self) -> dict[str, bool]:
        """The pods of the core's chat servers, those that are ending too: name → ready."""
        listed = json.loads(
            self.kubectl(
                "public", "get", "pods", "-n", "switchboard-serving", "-o", "json",
                "-l", "switchboard.dev/model-server=chat,switchboard.dev/tier=core",
            )
        )  # fmt: skip
        return {
            pod["metadata"]["name"]: {"type": "Ready", "status": "True"}.items()
            <= next((c for c in pod["status"].get("conditions", ()) if c["type"] == "Ready"), {}).items()
            for pod in listed["items"]
        }

    @contextlib.contextmanager
    def asking_for(self, replicas: int) -> Iterator[None]:
        """The stack file asks for so many chat replicas; afterwards the cloud is as it was before."""
        file = ROOT / f"Pulumi.{self.stack}.yaml"
        before = file.read_text()
        document = yaml.safe_load(before)
        server = document["config"]["switchboard:modelServers"][0]
        usual = {f"chat-{index}": True for index in range(server["replicas"])}
        server["replicas"] = replicas
        file.write_text(yaml.safe_dump(document, sort_keys=False))
        try:
            yield
        finally:
            file.write_text(before)
            self.up()
            until(lambda: self.chat_pods() == usual, deadline_s=90, what="the usual replicas, and only those")

    def processes(self) -> list[psutil.Process]:
        """All processes of this stack: its state folder in their words, or in one of its control groups."""
        found = []
        for process in psutil.process_iter():
            try:
                words = [*process.cmdline(), *process.environ().values()]
                groups = Path(f"/proc/{process.pid}/cgroup").read_text()
            except (psutil.Error, OSError):
                continue
            ours = any(self.environ["SWITCHBOARD_STATE"] in word for word in words)
            if process.pid != os.getpid() and (ours or f"/{self.stack}/" in groups):
                found.append(process)
        return found


def ask(
    url: str, text: str, *, key: str | None = None, session: str = "test", timeout_s: float = 15
) -> Answer:
    """One chat request, whatever its answer's status."""
    return post(
        f"{url}/v1/chat", json.dumps({"text": text}).encode(), session=session, key=key, timeout_s=timeout_s
    )


def post(
    url: str,
    body: bytes,
    *,
    session: str | None = "test",
    key: str | None = None,
    content_type: str = "application/json",
    timeout_s: float = 15,
) -> Answer:
    headers = {"Content-Type": content_type}
    if session is not None:
        headers["X-Session-Id"] = session
    if key is not None:
        headers["Idempotency-Key"] = key
    request = urllib.request.Request(url, data=body, headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=timeout_s) as response:
            return Answer(response.status, json.load(response), dict(response.headers))
    except urllib.error.HTTPError as error:
        return Answer(error.code, json.loads(error.read()), dict(error.headers))


def until(condition: Callable[[], bool], *, deadline_s: float, what: str) -> None:
    """Wait until `condition` holds."""
    end = time.monotonic() + deadline_s
    while not condition():
        assert time.monotonic() < end, f"{what}: not within {deadline_s:.0f} s"
        time.sleep(0.2)


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cloud]:
    """The local stack's twin on other addresses, up; cleaned at the end."""
    stack = f"test-{os.getpid()}"
    document = yaml.safe_load((ROOT / "Pulumi.local.yaml").read_text())
    networks = iter(free_networks(4))
    for site in document["config"]["switchboard:sites"]:
        site["embedded"]["network"] = next(networks)
        site["embedded"]["services"] = next(networks)
    file = ROOT / f"Pulumi.{stack}.yaml"
    file.write_text(yaml.safe_dump(document, sort_keys=False))
    state = tmp_path_factory.mktemp("cloud")
    environ = {**os.environ, "SWITCHBOARD_STACK": stack, "SWITCHBOARD_STATE": str(state)}
    try:
        done = subprocess.run(
            [*COMMAND, "up"], cwd=ROOT, env=environ, capture_output=True, text=True, timeout=600
        )
        found = Cloud(stack, environ, done.stdout + done.stderr)
        assert done.returncode == 0, found.first_up
        yield found
    finally:
        cleaned = subprocess.run([*COMMAND, "clean"], cwd=ROOT, env=environ, capture_output=True, text=True)
        file.unlink()
        assert cleaned.returncode == 0, cleaned.stderr


@pytest.fixture
def gateways(cloud: Cloud) -> list[str]:
    endpoints = cloud.status()["endpoints"]
    return [endpoints["gateway"], *endpoints["edges"].values()]


def test_up_shows_its_steps_and_the_answer(cloud: Cloud) -> None:
    assert "Customer:" in cloud.first_up
    assert "Switchboard:" in cloud.first_up
    assert "card_lost" in cloud.first_up
    for words in ("pulumi up", "control plane", "a customer's question"):
        assert words in cloud.first_up


def test_status_has_the_promised_form(cloud: Cloud) -> None:
    found = cloud.status()
    assert found["healthy"] is True
    assert found["endpoints"]["gateway"].startswith("http://127.")
    assert set(found["endpoints"]["edges"]) == {"cn-beijing", "cn-hongkong"}
    assert found["endpoints"]["mlflow"] and found["endpoints"]["prometheus"]
    for site in ("private", "public"):
        assert Path(found["sites"][site]["kubeconfig"]).is_file()
    text = cloud.run("status").stdout
    assert "healthy" in text
    for address in (found["endpoints"]["gateway"], "edge-beijing-1"):
        assert address in text


@pytest.mark.parametrize(
    ("text", "language", "intent"),
    [("I lost my card yesterday", "en", "card_lost"), ("我的卡丢了，怎么办？", "zh", "card_lost")],
    ids=["en", "zh"],
)
def test_a_question_is_answered_at_every_gateway(
    gateways: list[str], text: str, language: str, intent: str
) -> None:
    for url in gateways:
        answer = ask(url, text)
        assert answer.status == 200
        assert answer.body["intent"] == intent
        assert answer.body["language"] == language
        assert answer.body["answer"]
        assert 0 < answer.body["confidence"] <= 1


@pytest.mark.parametrize(
    ("body", "content_type", "session"),
    [
        (b"", "application/json", "s"),
        (b'{"text": ""}', "application/json", "s"),
        (b'{"text": "   "}', "application/json", "s"),
        (b'{"text": 7}', "application/json", "s"),
        (b'{"text": null}', "application/json", "s"),
        (b"{}", "application/json", "s"),
        (b"[]", "application/json", "s"),
        (b'{"text": "hi"', "application/json", "s"),
        (b"hello", "text/plain", "s"),
        (b'{"text": "\xff\xfe"}', "application/json", "s"),
        (json.dumps({"text": "x" * 8193}).encode(), "application/json", "s"),
        (json.dumps({"text": "x" * 5_000_000}).encode(), "application/json", "s"),
        (b'{"text": "hi", "language": "tlh"}', "application/json", "s"),
        (b'{"text": "hi"}', "application/json", None),
    ],
)
def test_bad_requests_are_4xx_with_a_json_error(
    gateways: list[str], body: bytes, content_type: str, session: str | None
) -> None:
    answer = post(f"{gateways[-1]}/v1/chat", body, content_type=content_type, session=session)
    assert 400 <= answer.status < 500, answer
    assert answer.body["error"]["message"]


def test_a_turn_retried_is_answered_once(gateways: list[str]) -> None:
    key = str(uuid.uuid4())
    session = str(uuid.uuid4())
    first, second = (ask(gateways[0], "What is my balance?", key=key, session=session) for _ in range(2))
    assert first.status == second.status == 200
    assert first.body == second.body


def test_unknown_paths_are_json_too(gateways: list[str]) -> None:
    answer = post(f"{gateways[0]}/v1/nothing", b"{}")
    assert answer.status == 404
    assert answer.body["error"]["message"]


def test_pulumi_up_on_an_unchanged_stack_changes_nothing(cloud: Cloud) -> None:
    output = cloud.pulumi("up", "--yes", "--skip-preview")
    assert "unchanged" in output
    for word in ("created", "updated", "replaced", "deleted"):
        assert word not in output


def test_one_component_is_previewed_alone(cloud: Cloud) -> None:
    file = ROOT / f"Pulumi.{cloud.stack}.yaml"
    before = file.read_text()
    document = yaml.safe_load(before)
    document["config"]["switchboard:images"]["overrides"] = {"gateway": "switchboard.dev/switchboard:0.2.0"}
    file.write_text(yaml.safe_dump(document, sort_keys=False))
    try:
        steps = json.loads(cloud.pulumi("preview", "--json"))["steps"]
    finally:
        file.write_text(before)
    changed = {step["urn"].rpartition("::")[2]: step["op"] for step in steps if step["op"] != "same"}
    gateways = ("public-gateway", "public-gateway-cn-beijing", "public-gateway-cn-hongkong")
    assert changed == dict.fromkeys(gateways, "update")


def test_other_tools_read_the_stacks_outputs(cloud: Cloud) -> None:
    outputs = StackOutputs.parse(cloud.pulumi("stack", "output", "--json"))
    endpoints = cloud.status()["endpoints"]
    assert outputs.endpoints.gateways == {"public": endpoints["gateway"]}
    assert outputs.endpoints.edges == endpoints["edges"] == outputs.sites["public"].edges
    for name in ("mlflow", "prometheus", "alertmanager"):
        assert getattr(outputs.endpoints, name) == getattr(outputs.sites["private"], name) == endpoints[name]
    assert outputs.model_servers["chat"].path == "/v1/chat"
    for name, site in outputs.sites.items():
        assert site.context == name
        assert site.kubeconfig is not None
        assert Path(site.kubeconfig).exists()


def test_up_again_is_quick_work_and_answers(cloud: Cloud) -> None:
    before = {process.pid for process in cloud.processes()}
    assert len(before) > 30
    done = cloud.up()
    assert "Switchboard:" in done.stdout
    assert before <= {process.pid for process in cloud.processes()}


def test_two_at_once_is_a_clear_error(cloud: Cloud) -> None:
    first = subprocess.Popen([*COMMAND, "up"], cwd=ROOT, env=cloud.environ, stdout=-1, stderr=-1, text=True)
    try:
        lock = Path(cloud.environ["SWITCHBOARD_STATE"]) / f"{cloud.stack}.lock"
        until(lambda: str(first.pid) in lock.read_text(), deadline_s=30, what="the first has the lock")
        second = cloud.run("up", check=False)
    finally:
        out, err = first.communicate(timeout=300)
    assert first.returncode == 0, out + err
    assert second.returncode == 1
    assert f"pid {first.pid}" in second.stderr
    assert "Traceback" not in second.stderr


def test_of_two_pulumis_at_once_the_second_is_told_and_the_first_goes_on(cloud: Cloud) -> None:
    """Two of our commands; a bare `pulumi up`, which Pulumi itself refuses, is in the tests of `infra.pulumi_cli`."""
    words = ["pulumi", "--", "up", "--yes", "--skip-preview", "--non-interactive"]
    folder = Path(cloud.environ["SWITCHBOARD_STATE"]) / cloud.stack / "pulumi" / ".pulumi" / "locks"
    first = subprocess.Popen([*COMMAND, *words], cwd=ROOT, env=cloud.environ, stdout=-1, stderr=-1, text=True)
    try:
        until(lambda: bool(list(folder.rglob("*.json"))), deadline_s=60, what="Pulumi has its lock")
        pulumi = int(json.loads(next(folder.rglob("*.json")).read_text())["pid"])
        os.kill(pulumi, signal.SIGSTOP)
        try:
            seconds = [cloud.run("up", check=False), cloud.run(*words, check=False)]
            told = cloud.run("doctor", check=False).stdout
        finally:
            os.kill(pulumi, signal.SIGCONT)
    finally:
        out, err = first.communicate(timeout=300)
    assert first.returncode == 0, out + err
    assert "unchanged" in out
    for second in seconds:
        assert second.returncode == 1
        named = rf"error: `switchboard pulumi -- up .*` \(pid {first.pid}, \S+ on .*, since 20"
        assert re.search(named, second.stderr)
        assert len(second.stderr.strip().splitlines()) == 2, "the error and the next step"
    assert f"(pid {pulumi}, " in told, "the doctor names both"
    assert cloud.status()["healthy"]


def test_the_doctor_finds_nothing_wrong_with_a_cloud_that_is_well(cloud: Cloud) -> None:
    report = json.loads(cloud.run("doctor", "--output", "json", check=False).stdout)
    about = ("sites/", "state/", "stack/", "leftovers/this", "tools/")
    found = [each for each in report["findings"] if each["check"].startswith(about)]
    assert len(found) > 20
    assert [each for each in found if each["status"] in ("failed", "warning")] == []
    assert report["seconds"] < 30


def test_the_doctor_names_an_agent_that_is_stopped(cloud: Cloud) -> None:
    record = Path(cloud.environ["SWITCHBOARD_STATE"]) / cloud.stack / "sites/public/run/node-public-1.json"
    pid = int(json.loads(record.read_text())["pid"])
    os.kill(pid, signal.SIGSTOP)
    try:
        done = cloud.run("doctor", check=False)
    finally:
        os.kill(pid, signal.SIGCONT)
    assert done.returncode == 1
    assert f"stopped, and waiting to be continued: node-public-1 (pid {pid})" in done.stdout
    assert f"  → `kill -CONT {pid}`" in done.stdout


def kill(cloud: Cloud, *words: str) -> None:
    """The one process of the public site with these words in its command."""
    (process,) = [
        process
        for process in cloud.processes()
        if all(word in " ".join(process.cmdline()) for word in (*words, "/sites/public"))
    ]
    process.send_signal(signal.SIGKILL)
    process.wait(10)


def test_a_killed_control_plane_is_started_again_by_its_supervisor(cloud: Cloud, gateways: list[str]) -> None:
    kill(cloud, "/bin/kube-apiserver")
    assert ask(gateways[0], "I lost my card").status == 200, "customers don't notice"
    until(lambda: bool(cloud.status()["healthy"]), deadline_s=60, what="healthy again")


def test_what_nobody_supervises_is_told_and_repaired(cloud: Cloud, gateways: list[str]) -> None:
    kill(cloud, "infra.local.supervisor")
    kill(cloud, "/bin/kube-apiserver")
    assert ask(gateways[0], "I lost my card").status == 200, "customers don't notice"
    assert cloud.status()["healthy"] is False
    cloud.up()
    until(lambda: bool(cloud.status()["healthy"]), deadline_s=60, what="healthy again")


def test_every_chat_pod_is_deleted_in_turn_and_nobody_notices(cloud: Cloud, gateways: list[str]) -> None:
    stop = threading.Event()
    answers: list[int | str] = []

    def customer(url: str) -> None:
        session = str(uuid.uuid4())
        while not stop.is_set():
            try:
                answers.append(ask(url, "What is my balance?", session=session).status)
            except OSError as error:
                answers.append(repr(error))

    def ready() -> bool:
        listed = json.loads(
            cloud.kubectl("public", "get", "statefulset", "-n", "switchboard-serving", "-o", "json")
        )
        return all(
            item["status"].get("readyReplicas", 0) == item["spec"]["replicas"] for item in listed["items"]
        )

    with ThreadPoolExecutor(6) as pool:
        customers = [pool.submit(customer, url) for url in gateways * 2]
        try:
            pods = cloud.kubectl(
                "public", "get", "pods", "-n", "switchboard-serving", "-o", "name",
                "-l", "switchboard.dev/model-server=chat",
            ).split()  # fmt: skip
            assert len(pods) == 4
            for pod in pods:
                cloud.kubectl("public", "delete", "-n", "switchboard-serving", pod)
                until(ready, deadline_s=120, what=f"{pod} is back")
        finally:
            stop.set()
        for one in customers:
            one.result()
    assert len(answers) > 500
    assert [answer for answer in answers if answer != 200] == []


def test_what_was_deleted_behind_pulumis_back_is_told_and_made_again(cloud: Cloud) -> None:
    cloud.kubectl("private", "delete", "deployment", "alertmanager", "-n", "switchboard-core")
    done = cloud.run("status", check=False)
    assert done.returncode == 1
    assert "deployment/alertmanager" in done.stdout and "missing" in done.stdout
    cloud.up()
    until(lambda: bool(cloud.status()["healthy"]), deadline_s=60, what="healthy again")


def test_kubectl_reads_the_job_and_its_log(cloud: Cloud) -> None:
    assert "Complete" in cloud.kubectl("private", "get", "jobs", "-n", "switchboard-core")
    log = cloud.kubectl("private", "logs", "-n", "switchboard-core", "job/train-chat-intent")
    assert "champion" in log


def test_prometheus_sees_every_replica(cloud: Cloud) -> None:
    url = cloud.status()["endpoints"]["prometheus"]

    def seen() -> int:
        query = f'{url}/api/v1/query?query=count(up{{model_server="chat"}}==1)'
        with urllib.request.urlopen(query, timeout=10) as response:
            result = json.load(response)["data"]["result"]
        return int(result[0]["value"][1]) if result else 0

    until(lambda: seen() == 4, deadline_s=90, what="four replicas federated")


def test_a_changed_number_changes_the_cloud_and_back(cloud: Cloud) -> None:
    with cloud.asking_for(replicas=3):
        assert "1 updated" in cloud.pulumi("up", "--yes", "--skip-preview")
        assert cloud.chat_pods() == {"chat-0": True, "chat-1": True, "chat-2": True}


def test_an_up_that_was_killed_is_finished_by_the_next(cloud: Cloud) -> None:
    log = Path(cloud.environ["SWITCHBOARD_STATE"]) / cloud.stack / "logs" / "pulumi-up.log"
    log.unlink(missing_ok=True)  # the last run's
    with cloud.asking_for(replicas=3):
        killed = subprocess.Popen(
            [*COMMAND, "up"], cwd=ROOT, env=cloud.environ, stdout=-3, stderr=-3, start_new_session=True
        )
        try:
            until(
                lambda: log.exists() and "StatefulSet public-chat updating" in log.read_text(),
                deadline_s=120,
                what="Pulumi is updating the chat servers",
            )
            assert killed.poll() is None, "it was to be killed in the middle"
        finally:
            os.killpg(killed.pid, signal.SIGKILL)  # with its child, Pulumi
            killed.wait(10)
        locks = Path(cloud.environ["SWITCHBOARD_STATE"]) / cloud.stack / "pulumi" / ".pulumi" / "locks"
        assert list(locks.rglob("*.json")), "a killed Pulumi leaves its lock"
        cloud.up()
        assert list(locks.rglob("*.json")) == []
        until(lambda: bool(cloud.status()["healthy"]), deadline_s=60, what="healthy")
        assert cloud.chat_pods() == {"chat-0": True, "chat-1": True, "chat-2": True}
        output = cloud.pulumi("up", "--yes", "--skip-preview")
        assert "pending" not in output
        assert not [word for word in ("created", "updated", "replaced", "deleted") if word in output]
        left = [process.name() for process in cloud.processes() if process.name().startswith("pulumi")]
        assert left == []


def test_down_leaves_nothing_and_up_goes_on_with_the_same_data(cloud: Cloud) -> None:
    claims = cloud.kubectl("private", "get", "pvc", "-A", "-o", "jsonpath={.items[*].spec.volumeName}")
    cloud.run("down")
    assert cloud.processes() == []
    assert cloud.environ["SWITCHBOARD_STATE"] not in Path("/proc/self/mountinfo").read_text()
    groups = [path for path in Path("/sys/fs/cgroup").rglob(f"*/{cloud.stack}") if path.is_dir()]
    assert groups == []
    cloud.up()
    assert (
        cloud.kubectl("private", "get", "pvc", "-A", "-o", "jsonpath={.items[*].spec.volumeName}") == claims
    )
    until(lambda: bool(cloud.status()["healthy"]), deadline_s=60, what="healthy again")


def test_destroy_leaves_nothing_and_up_makes_it_again(cloud: Cloud) -> None:
    cloud.pulumi("destroy", "--yes", "--skip-preview")
    for site in ("private", "public"):
        namespaces = cloud.kubectl(site, "get", "namespaces", "-o", "name").split()
        assert not [name for name in namespaces if "switchboard" in name]
        assert cloud.kubectl(site, "get", "pv", "-o", "name").split() == []
    cloud.up()
    until(lambda: bool(cloud.status()["healthy"]), deadline_s=60, what="healthy again")
