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
import signal
import subprocess
import threading
import time
import urllib.error
import urllib.request
import uuid
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psutil
import pytest
import requests
import yaml

from switchboard.outputs import StackOutputs
from switchboard.paths import ROOT
from tests.clouds import COMMAND, USUAL, Cloud, ask, is_ready, post, until
from tests.conftest import free_networks

pytestmark = pytest.mark.timeout(1500)

PATIENT_S = 60.0
"""A customer who isn't to notice anything: what a busy machine takes for an answer is no failure."""


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cloud]:
    """The local stack's twin on other addresses, up; cleaned at the end."""
    stack = f"test-{os.getpid()}"
    document = yaml.safe_load((ROOT / "Pulumi.local.yaml").read_text())
    networks = iter(free_networks(4))
    for site in document["config"]["switchboard:sites"]:
        site["embedded"]["network"] = next(networks)
        site["embedded"]["services"] = next(networks)
    # What a test's questions took is let go before the next.
    scaling = document["config"]["switchboard:modelServers"][0]["scaling"]
    assert scaling["minReplicas"] == USUAL
    scaling |= {"stabilizationSeconds": 10, "headroom": {"price": 0}}
    # The gate has tests of its own, and takes half a minute.
    document["config"]["switchboard:releases"] = {"gate": False}
    file = ROOT / f"Pulumi.{stack}.yaml"
    file.write_text(yaml.safe_dump(document, sort_keys=False))
    state = tmp_path_factory.mktemp("cloud")
    environ = {**os.environ, "SWITCHBOARD_STACK": stack, "SWITCHBOARD_STATE": str(state)}
    try:
        done = subprocess.run(
            [*COMMAND, "up"], cwd=ROOT, env=environ, capture_output=True, text=True, timeout=840
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


def test_mlflow_asks_who_you_are_and_the_environment_says_it(cloud: Cloud) -> None:
    """As `eval "$(switchboard env)"` makes it: a trainer, who doesn't move the champion that training has set."""
    url = f"{cloud.status()['endpoints']['mlflow']}/api/2.0/mlflow/registered-models/alias"
    champion = {"name": "chat-intent", "alias": "champion"}
    assert requests.get(url, champion, timeout=60).status_code == 401
    logins = {}
    for user in ("trainer", "release"):
        lines = cloud.run("infra", "credentials", user).stdout.splitlines()
        given = dict(shlex.split(line)[1].split("=", 1) for line in lines)
        logins[user] = (given["MLFLOW_TRACKING_USERNAME"], given["MLFLOW_TRACKING_PASSWORD"])
    assert "MLFLOW_TRACKING_USERNAME=trainer" in cloud.run("env").stdout
    version = requests.get(url, champion, auth=logins["trainer"], timeout=60).json()["model_version"]
    moved = {**champion, "version": version["version"]}
    refused = requests.post(url, json=moved, auth=logins["trainer"], timeout=60)
    assert refused.status_code == 403 and "only a release moves it" in refused.text
    assert requests.post(url, json=moved, auth=logins["release"], timeout=60).status_code == 200
    run = requests.get(
        url.replace("registered-models/alias", "runs/get"),
        {"run_id": version["run_id"]},
        auth=logins["trainer"],
        timeout=60,
    ).json()["run"]
    assert run["info"]["user_id"] == "trainer"
    kept = Path(cloud.environ["SWITCHBOARD_STATE"], cloud.stack, "pulumi")
    texts = [path.read_bytes() for path in kept.rglob("*") if path.is_file()]
    assert texts
    assert not [
        user for user, (_, password) in logins.items() if any(password.encode() in text for text in texts)
    ]


def test_up_again_is_quick_work_and_answers(cloud: Cloud) -> None:
    cloud.until_chat_is_usual()
    long_ago = time.time() - 30  # what is younger may be there for a moment only, as a probe is
    there = cloud.started()
    assert len(there) > 30
    before = {pid for pid, started in there.items() if started < long_ago}
    done = cloud.up()
    assert "Switchboard:" in done.stdout
    assert before <= set(cloud.started())


def test_two_at_once_is_a_clear_error(cloud: Cloud) -> None:
    first = subprocess.Popen([*COMMAND, "up"], cwd=ROOT, env=cloud.environ, stdout=-1, stderr=-1, text=True)
    try:
        lock = Path(cloud.environ["SWITCHBOARD_STATE"]) / f"{cloud.stack}.lock"
        until(lambda: f"pid {first.pid}," in lock.read_text(), deadline_s=300, what="the first has the lock")
        first.send_signal(signal.SIGSTOP)  # so that it isn't through before the second has begun
        try:
            second = cloud.run("up", check=False)
        finally:
            first.send_signal(signal.SIGCONT)
    finally:
        out, err = first.communicate(timeout=600)
    assert first.returncode == 0, out + err
    assert second.returncode == 1
    assert f"pid {first.pid}" in second.stderr
    assert "Traceback" not in second.stderr


def test_of_two_pulumis_at_once_the_second_is_told_and_the_first_goes_on(cloud: Cloud) -> None:
    """Two of our commands; a bare `pulumi up`, which Pulumi itself refuses, is in the tests of `infra.pulumi_cli`."""
    words = ["pulumi", "--", "up", "--yes", "--skip-preview", "--non-interactive"]
    folder = Path(cloud.environ["SWITCHBOARD_STATE"]) / cloud.stack / "pulumi" / ".pulumi" / "locks"
    first = subprocess.Popen([*COMMAND, *words], cwd=ROOT, env=cloud.environ, stdout=-1, stderr=-1, text=True)
    holders: list[int] = []

    def has_its_lock() -> bool:
        for path in folder.rglob("*.json"):
            with contextlib.suppress(OSError, ValueError):  # gone by now, or written in part
                holders.append(int(json.loads(path.read_text())["pid"]))
        return bool(holders)

    try:
        until(has_its_lock, deadline_s=300, what="Pulumi has its lock")
        pulumi = holders[0]
        os.kill(pulumi, signal.SIGSTOP)
        try:
            seconds = [cloud.run("up", check=False), cloud.run(*words, check=False)]
            told = cloud.run("doctor", check=False).stdout
        finally:
            os.kill(pulumi, signal.SIGCONT)
    finally:
        out, err = first.communicate(timeout=600)
    assert first.returncode == 0, out + err
    assert "unchanged" in out
    for second in seconds:
        assert second.returncode == 1
        named = rf"error: `switchboard pulumi -- up .*` \(pid {first.pid}, \S+ on .*, since 20"
        assert re.search(named, second.stderr)
        assert len(second.stderr.strip().splitlines()) == 2, "the error and the next step"
    assert f"(pid {pulumi}, " in told, "the doctor names both"
    cloud.until_healthy()


def test_the_doctor_finds_nothing_wrong_with_a_cloud_that_is_well(cloud: Cloud) -> None:
    cloud.until_healthy()
    cloud.until_chat_is_usual()
    report = json.loads(cloud.run("doctor", "--output", "json", check=False).stdout)
    about = ("sites/", "state/", "stack/", "leftovers/this", "tools/")
    found = [each for each in report["findings"] if each["check"].startswith(about)]
    assert len(found) > 20
    assert [each for each in found if each["status"] in ("failed", "warning")] == []
    assert report["seconds"] < 120


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
    cloud.until_healthy()


def kill(cloud: Cloud, *words: str) -> None:
    """The one process of the public site with these words in its command."""
    found = []
    for process in cloud.processes():
        with contextlib.suppress(psutil.NoSuchProcess):  # it was there for a moment only
            command = " ".join(process.cmdline())
            found += [process] if all(word in command for word in (*words, "/sites/public")) else []
    (process,) = found
    process.send_signal(signal.SIGKILL)
    process.wait(60)


def test_a_killed_control_plane_is_started_again_by_its_supervisor(cloud: Cloud, gateways: list[str]) -> None:
    kill(cloud, "/bin/kube-apiserver")
    assert ask(gateways[0], "I lost my card").status == 200, "customers don't notice"
    cloud.until_healthy()


def test_what_nobody_supervises_is_told_and_repaired(cloud: Cloud, gateways: list[str]) -> None:
    kill(cloud, "infra.local.supervisor")
    kill(cloud, "/bin/kube-apiserver")
    assert ask(gateways[0], "I lost my card").status == 200, "customers don't notice"
    assert cloud.status()["healthy"] is False
    cloud.up()
    cloud.until_healthy()


def test_every_chat_pod_is_deleted_in_turn_and_nobody_notices(cloud: Cloud, gateways: list[str]) -> None:
    stop = threading.Event()
    answers: list[str] = []

    def customer(url: str) -> None:
        session = str(uuid.uuid4())
        while not stop.is_set():
            try:
                answer = ask(url, "What is my balance?", session=session, timeout_s=PATIENT_S)
            except OSError as error:
                answers.append(f"{url}: {error!r}")
            else:
                answers.append("200" if answer.status == 200 else f"{url}: {answer.status} {answer.body}")

    def ready() -> bool:
        """By the pods: a Deployment's status tells of one that is gone only once its controller has noticed."""
        served = Counter(
            pod["metadata"]["labels"]["app.kubernetes.io/name"] for pod in cloud.serving_chat_pods()
        )
        return all(
            served[item["metadata"]["name"]] >= item["spec"]["replicas"]
            for item in cloud.serving("deployments", "-l", "switchboard.dev/model-server=chat")
        )

    with ThreadPoolExecutor(6) as pool:
        customers = [pool.submit(customer, url) for url in gateways * 2]
        try:
            pods = cloud.serving("pods", "-l", "switchboard.dev/model-server=chat")
            assert len(pods) >= 4
            for name in (pod["metadata"]["name"] for pod in pods):
                # By now it may be gone by itself: the operator sizes the servers to these customers.
                cloud.kubectl(
                    "public", "delete", "pod", "-n", "switchboard-serving", "--ignore-not-found", name
                )
                until(ready, deadline_s=300, what=f"another is there for {name}")
            until(lambda: len(answers) > 500, deadline_s=300, what="many answers")
        finally:
            stop.set()
        for one in customers:
            one.result()
    others = Counter(re.sub(r"'request_id': '[^']*'", "", answer) for answer in answers if answer != "200")
    assert others == Counter(), cloud.status()


def test_a_release_reaches_everybody_and_nobody_notices(
    cloud: Cloud, gateways: list[str], tmp_path: Path
) -> None:
    """All of it: gateways, replicas, operator, Prometheus, MLflow with its users, the API server's word on who asks."""
    trained = json.loads(
        cloud.user("models", "train", "--register", "--alias", "challenger", "-o", "json").stdout
    )
    version = trained["registered"]["version"]
    champion = str(ask(gateways[0], "What is my balance?").body["model_version"])
    release = {
        "apiVersion": "switchboard.dev/v1alpha1",
        "kind": "ModelRelease",
        "metadata": {
            "name": "test",
            "namespace": "switchboard-serving",
            "annotations": {"switchboard.dev/requested-by": "switchboard-admin"},
        },
        "spec": {
            "server": "chat",
            "version": int(version),
            "reason": "to see it",
            "shadow": {"percent": 50, "seconds": 10},
            "steps": [{"weight": 20, "holdSeconds": 10}, {"weight": 50, "holdSeconds": 10}],
            "keepWarmSeconds": 1,
            # Wide, since what takes its time here is the way, not the judge.
            "metrics": [
                *({"name": name, "margin": 0.3} for name in ("failed", "slow", "fallback", "handoff")),
                *({"name": "restarts", "margin": 3000}, {"name": "grew", "margin": 50}),
            ],
        },
    }
    file = tmp_path / "release.json"
    stop = threading.Event()
    answers: list[str] = []

    def customer(number: int) -> None:
        while not stop.wait(0.2):
            try:
                answer = ask(
                    gateways[number % len(gateways)],
                    "What is my balance?",
                    session=str(uuid.uuid4()),
                    timeout_s=PATIENT_S,
                )
            except OSError as error:
                answers.append(repr(error))
            else:
                said = answer.body.get("model_version") if answer.status == 200 else answer.body
                answers.append(f"{answer.status} {said}")

    with ThreadPoolExecutor(8) as pool:
        customers = [pool.submit(customer, number) for number in range(8)]
        try:
            claimed = {**release["metadata"], "annotations": {"switchboard.dev/requested-by": "somebody"}}
            file.write_text(json.dumps({**release, "metadata": claimed}))
            cloud.kubectl("public", "create", "-f", str(file), check=False)
            assert cloud.serving("modelreleases") == [], "one's own name, and nobody else's"
            file.write_text(json.dumps(release))
            cloud.kubectl("public", "create", "-f", str(file))
            watched = cloud.user("canary", "watch", "test", check=False)
            assert watched.returncode == 0, watched.stdout + watched.stderr

            def promoted() -> bool:
                (found,) = cloud.serving("modelreleases")
                return bool(
                    found["status"]["phase"] == "Promoted" and not found["metadata"].get("finalizers")
                )

            until(promoted, deadline_s=300, what="all of it is over")
        finally:
            stop.set()
        for one in customers:
            one.result()
    assert set(answers) == {f"200 {champion}", f"200 {version}"}, Counter(answers)
    assert {ask(url, "What is my balance?").body["model_version"] for url in gateways} == {version}
    assert [one["metadata"]["name"] for one in cloud.serving("modelservers") if "candidate" in str(one)] == []
    ledger = json.loads(cloud.user("models", "history", "chat-intent", "-o", "json").stdout)
    last = ledger["standings"][-1]
    said = (last["version"], last["entry"]["who"], last["entry"]["why"])
    assert said == (version, "switchboard-admin", "to see it")
    assert ledger["problems"] == []
    cloud.kubectl("public", "delete", "modelrelease", "test", "-n", "switchboard-serving")


def test_what_was_deleted_behind_pulumis_back_is_told_and_made_again(cloud: Cloud) -> None:
    cloud.kubectl("private", "delete", "deployment", "alertmanager", "-n", "switchboard-core")
    done = cloud.run("status", check=False)
    assert done.returncode == 1
    assert "deployment/alertmanager" in done.stdout and "missing" in done.stdout
    cloud.up()
    cloud.until_healthy()


def test_kubectl_reads_the_job_and_its_log(cloud: Cloud) -> None:
    assert "Complete" in cloud.kubectl("private", "get", "jobs", "-n", "switchboard-core")
    log = cloud.kubectl("private", "logs", "-n", "switchboard-core", "job/train-chat-intent")
    assert "champion" in log


def test_prometheus_sees_every_replica(cloud: Cloud) -> None:
    url = cloud.status()["endpoints"]["prometheus"]

    def seen() -> int:
        query = f'{url}/api/v1/query?query=count(up{{model_server="chat"}}==1)'
        with urllib.request.urlopen(query, timeout=60) as response:
            result = json.load(response)["data"]["result"]
        return int(result[0]["value"][1]) if result else 0

    def all_seen() -> bool:
        there = len(cloud.serving_chat_pods())
        return there >= 4 and seen() == there

    until(all_seen, deadline_s=300, what="all replicas federated")


def test_kubectl_shows_model_servers_and_why_they_have_their_size(cloud: Cloud) -> None:
    cloud.until_chat_is_usual()

    def shown() -> list[list[str]]:
        lines = cloud.kubectl("public", "get", "ms", "-n", "switchboard-serving").splitlines()
        return [line.split() for line in lines]

    # What its status says follows its pods by some seconds.
    until(
        lambda: ["2", "2"] in [row[3:5] for row in shown() if row[0] == "chat"], deadline_s=300, what="2 of 2"
    )
    head, *rows = shown()
    assert head == ["NAME", "MODEL", "REVISION", "READY", "DESIRED", "LOAD", "MODE", "AGE"]
    assert {row[0] for row in rows} == {"chat", "chat-cn-beijing", "chat-cn-hongkong"}

    def are_ready() -> bool:
        servers = cloud.serving("modelservers")
        conditions = [{one["type"]: one for one in server["status"]["conditions"]} for server in servers]
        assert all(
            {"Ready", "ScalingActive", "AbleToScale", "ScalingLimited"} <= set(one) for one in conditions
        )
        return all(
            one["Ready"]["status"] == "True"
            and one["Ready"]["observedGeneration"] == server["metadata"]["generation"]
            for server, one in zip(servers, conditions, strict=True)
        )

    until(are_ready, deadline_s=300, what="all are said to be ready")


def test_up_that_changes_the_image_returns_when_the_new_one_serves(cloud: Cloud, gateways: list[str]) -> None:
    def change(values: dict[str, Any]) -> None:
        values["switchboard:images"]["overrides"] = {"chat": new}

    new = "switchboard.dev/switchboard:0.1.1"
    with cloud.changed(change):
        assert "3 updated" in cloud.pulumi("up", "--yes", "--skip-preview")
        pods = [*cloud.chat_pods(), *cloud.chat_pods(tier="edge")]
        fresh = [pod for pod in pods if pod["spec"]["containers"][0]["image"] == new and is_ready(pod)]
        assert len(fresh) >= 4
        staying = [pod for pod in pods if not pod["metadata"].get("deletionTimestamp")]
        assert {pod["spec"]["containers"][0]["image"] for pod in staying} == {new}
        assert ask(gateways[0], "I lost my card").status == 200


def test_core_replicas_go_when_nobody_asks_and_come_back_for_who_asks_first(
    cloud: Cloud, gateways: list[str]
) -> None:
    def change(values: dict[str, Any]) -> None:
        server = values["switchboard:modelServers"][0]
        server["scaling"] |= {"minReplicas": 0, "idleSeconds": 30}
        server["availabilityException"] = "Nobody asks here at night, and who does may wait."

    with cloud.changed(change):
        assert "1 updated" in cloud.pulumi("up", "--yes", "--skip-preview")
        until(lambda: not cloud.chat_pods(), deadline_s=300, what="the core has no replica")
        cloud.until_healthy()  # none is what is wanted
        assert [ask(url, "I lost my card").status for url in gateways[1:]] == [200, 200], "edges keep theirs"
        assert cloud.chat_pods() == []
        with ThreadPoolExecutor(8) as pool:  # all are held until a replica is there
            held = [
                pool.submit(ask, gateways[0], text, session=str(uuid.uuid4()), timeout_s=120)
                for text in ("I lost my card", "我的卡丢了，怎么办？") * 4
            ]
            answers = [one.result() for one in held]
        assert [(one.status, one.body.get("intent")) for one in answers] == [(200, "card_lost")] * 8
        assert any(map(is_ready, cloud.chat_pods()))


def test_an_up_that_was_killed_is_finished_by_the_next(cloud: Cloud) -> None:
    log = Path(cloud.environ["SWITCHBOARD_STATE"]) / cloud.stack / "logs" / "pulumi-up.log"
    log.unlink(missing_ok=True)  # the last run's
    with cloud.asking_for(replicas=3):
        killed = subprocess.Popen(
            [*COMMAND, "up"], cwd=ROOT, env=cloud.environ, stdout=-3, stderr=-3, start_new_session=True
        )
        try:
            until(
                lambda: log.exists() and "ModelServer public-chat updating" in log.read_text(),
                deadline_s=300,
                what="Pulumi is updating the chat servers",
            )
            assert killed.poll() is None, "it was to be killed in the middle"
        finally:
            os.killpg(killed.pid, signal.SIGKILL)  # with its child, Pulumi
            killed.wait(60)
        locks = Path(cloud.environ["SWITCHBOARD_STATE"]) / cloud.stack / "pulumi" / ".pulumi" / "locks"
        assert list(locks.rglob("*.json")), "a killed Pulumi leaves its lock"
        cloud.up()
        assert list(locks.rglob("*.json")) == []
        cloud.until_healthy()
        until(lambda: cloud.chat_is(3), deadline_s=300, what="three serve")
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
    cloud.until_healthy()


def test_destroy_leaves_nothing_and_up_makes_it_again(cloud: Cloud) -> None:
    cloud.pulumi("destroy", "--yes", "--skip-preview")
    for site in ("private", "public"):
        namespaces = cloud.kubectl(site, "get", "namespaces", "-o", "name").split()
        assert not [name for name in namespaces if "switchboard" in name]
        assert cloud.kubectl(site, "get", "pv", "-o", "name").split() == []
        assert "switchboard" not in cloud.kubectl(site, "get", "crd", "-o", "name")
    cloud.up()
    cloud.until_healthy()
