"""A real tracking server that asks who you are, and every way around it that we could think of."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import requests

from tests.fixtures_mlflow import Guarded
from tests.models.access.conftest import AJAX, API, FILES, Client, Clients, Model, fill


@pytest.mark.parametrize("path", ["/health", "/livez"])
def test_probes_alone_are_for_everybody(clients: Clients, path: str) -> None:
    assert clients(None)("GET", path).text == "OK"
    assert clients(None)("HEAD", path).status_code == 200


@pytest.mark.parametrize("authorization", [None, "Basic eDp5", "Bearer x", "Basic YWRtaW46"])
@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/"),
        ("GET", "/version"),
        ("GET", "/healthy"),
        ("GET", "/health/../version"),
        ("POST", "/health"),
        ("GET", "/livez/"),
        ("GET", "/static-files/index.html"),
        ("GET", "/favicon.ico"),
        ("GET", "/graphql"),
        ("POST", "/graphql"),
        ("GET", "/api/3.0/mlflow/server-info"),
        ("GET", "/ajax-api/3.0/mlflow/server-info"),
        ("GET", f"{API}/registered-models/search"),
        ("GET", f"{AJAX}/registered-models/search"),
        ("POST", f"{API}/registered-models/alias"),
        ("DELETE", f"{AJAX}/registered-models/alias"),
        ("POST", f"{API}/runs/search"),
        ("GET", f"{FILES}/1/x"),
        ("PUT", f"{FILES}/1/x"),
        ("DELETE", f"{FILES}/1/x"),
        ("PUT", "/ajax-api/2.0/mlflow-artifacts/artifacts/1/x"),
        ("POST", "/api/2.0/mlflow-artifacts/mpu/create/1/x"),
        ("GET", "/api/2.0/mlflow-artifacts/presigned/1/x"),
        ("GET", "/get-artifact"),
        ("GET", "/model-versions/get-artifact"),
        ("POST", f"{AJAX}/upload-artifact"),
        ("GET", f"{AJAX}/gateway-proxy"),
        ("POST", "/gateway/mlflow/v1/chat/completions"),
        ("POST", "/v1/traces"),
        ("GET", "/ajax-api/3.0/jobs/1"),
        ("GET", "/ajax-api/3.0/mlflow/assistant/config"),
        ("GET", "/ajax-api/3.0/mlflow/mcp-servers"),
        ("GET", f"{API}/users/list"),
        ("POST", f"{API}/users/create"),
        ("GET", "/signup"),
        ("OPTIONS", f"{API}/registered-models/alias"),
        ("HEAD", "/"),
        ("GET", "/nothing"),
    ],
)
def test_every_path_asks_who_you_are(
    clients: Clients, method: str, path: str, authorization: str | None
) -> None:
    headers = {"Authorization": authorization} if authorization else {}
    answer = clients(None)(method, path, headers=headers)
    assert answer.status_code == 401, answer.text[:200]
    assert answer.headers["WWW-Authenticate"].startswith("Basic")


def test_two_users_in_one_request_are_nobody(guarded: Guarded) -> None:
    import http.client

    host, port = guarded.url.removeprefix("http://").split(":")
    connection = http.client.HTTPConnection(host, int(port), timeout=120)
    connection.putrequest("GET", "/version")
    for user in ("trainer", "release"):
        header = requests.auth._basic_auth_str(user, guarded.passwords[user])
        connection.putheader("Authorization", header)
    connection.endheaders()
    assert connection.getresponse().status == 401


ALIAS = {"name": "NAME", "alias": "champion", "version": "2"}
PLAIN = {"name": "NAME"}
VERSION = {"name": "NAME", "version": "1"}
RUN = {"run_id": "LEDGER_RUN"}
TAG = {"key": "k", "value": "v"}


@pytest.mark.parametrize(
    ("user", "method", "path", "body"),
    [
        # The champion, by every way to the alias.
        ("trainer", "POST", f"{API}/registered-models/alias", ALIAS),
        ("trainer", "POST", f"{AJAX}/registered-models/alias", ALIAS),
        ("li", "POST", f"{API}/registered-models/alias", ALIAS),
        ("admin", "POST", f"{API}/registered-models/alias", ALIAS),
        ("serving", "POST", f"{API}/registered-models/alias", ALIAS),
        ("trainer", "POST", f"{API}/registered-models/alias", {**ALIAS, "alias": "previous"}),
        ("trainer", "POST", f"{API}/registered-models/alias", '"{\\"name\\":\\"NAME\\",\\"alias\\":\\"champion\\",'
         '\\"version\\":\\"2\\"}"'),
        ("trainer", "DELETE", f"{API}/registered-models/alias", {"name": "NAME", "alias": "champion"}),
        ("admin", "DELETE", f"{AJAX}/registered-models/alias", {"name": "NAME", "alias": "champion"}),
        # The champion, by taking what it is of.
        ("admin", "DELETE", f"{API}/registered-models/delete", PLAIN),
        ("admin", "DELETE", f"{AJAX}/registered-models/delete", PLAIN),
        ("trainer", "DELETE", f"{API}/registered-models/delete", PLAIN),
        ("admin", "POST", f"{API}/registered-models/rename", {"name": "NAME", "new_name": "other"}),
        ("trainer", "POST", f"{AJAX}/registered-models/rename", {"name": "NAME", "new_name": "other"}),
        ("trainer", "DELETE", f"{API}/model-versions/delete", VERSION),
        ("trainer", "DELETE", f"{API}/model-versions/delete", {"name": "NAME", "version": "01"}),
        ("admin", "DELETE", f"{AJAX}/model-versions/delete", VERSION),
        ("trainer", "POST", f"{API}/model-versions/transition-stage", {**VERSION, "stage": "Archived"}),
        # Its contents.
        ("trainer", "PUT", f"{FILES}/EXPERIMENT/models/MODEL/artifacts/MLmodel", b"x"),
        ("release", "PUT", f"{FILES}/EXPERIMENT/models/MODEL/artifacts/MLmodel", b"x"),
        ("trainer", "PUT", "/ajax-api/2.0/mlflow-artifacts/artifacts/EXPERIMENT/models/MODEL/artifacts/new", b"x"),
        ("trainer", "PUT", f"{FILES}/EXPERIMENT/RUN/artifacts/..%2f..%2fmodels/MODEL/artifacts/MLmodel", b"x"),
        ("trainer", "PUT", f"{FILES}/EXPERIMENT/RUN/artifacts/%252e%252e/%252e%252e/models/MODEL/artifacts/x", b"x"),
        ("trainer", "PUT", f"{FILES}/EXPERIMENT/models%2fMODEL/artifacts/MLmodel", b"x"),
        ("trainer", "PUT", f"{FILES}/EXPERIMENT/models/MODEL%252fartifacts/MLmodel", b"x"),
        ("trainer", "PUT", f"{FILES}//EXPERIMENT/models/MODEL/artifacts/MLmodel", b"x"),
        ("trainer", "DELETE", f"{FILES}/EXPERIMENT/models/MODEL/artifacts/MLmodel", None),
        ("admin", "DELETE", f"{FILES}/EXPERIMENT/models/MODEL/artifacts", None),
        ("trainer", "POST", "/api/2.0/mlflow-artifacts/mpu/create/EXPERIMENT/models/MODEL/artifacts", {"path": "x"}),
        ("trainer", "POST", f"{API}/artifacts/presigned-upload-url", {"path": "x"}),
        ("trainer", "POST", f"{AJAX}/upload-artifact?run_uuid=RUN&path=x", b"x"),
        ("trainer", "DELETE", f"{API}/logged-models/MODEL", None),
        ("trainer", "PATCH", f"{API}/logged-models/MODEL", {"model_id": "MODEL", "status": 1}),
        ("trainer", "PATCH", f"{API}/logged-models/m-{32 * '0'}", {"model_id": "MODEL", "status": 1}),
        ("trainer", "POST", f"{API}/model-versions/set-tag", {**VERSION, "key": "switchboard.files", "value": "{}"}),
        ("release", "POST", f"{API}/model-versions/set-tag", {**VERSION, "key": "switchboard.files", "value": "{}"}),
        ("trainer", "DELETE", f"{API}/model-versions/delete-tag", {**VERSION, "key": "switchboard.files"}),
        ("trainer", "POST", f"{AJAX}/model-versions/set-tag", {**VERSION, **TAG}),
        ("trainer", "PATCH", f"{API}/model-versions/update", {**VERSION, "description": "x"}),
        ("trainer", "POST", f"{API}/model-versions/create", {"name": "NAME", "source": "runs:/RUN/x"}),
        ("trainer", "POST", f"{API}/model-versions/create", {"name": "NAME", "source": "models:/NAME/1"}),
        ("trainer", "POST", f"{API}/registered-models/set-tag", {**PLAIN, "key": "mlflow.prompt.is_prompt"}),
        ("trainer", "POST", f"{API}/runs/delete", {"run_id": "RUN"}),
        ("admin", "POST", f"{AJAX}/runs/delete", {"run_id": "RUN"}),
        # The ledger.
        ("trainer", "POST", f"{API}/runs/create", {"experiment_id": "LEDGER"}),
        ("admin", "POST", f"{API}/runs/create", {"experiment_id": "LEDGER"}),
        ("trainer", "POST", f"{API}/runs/create", {"experimentId": "LEDGER"}),
        ("trainer", "POST", f"{AJAX}/runs/create-promptlab-run", {"experiment_id": "LEDGER"}),
        ("trainer", "POST", f"{API}/logged-models", {"experiment_id": "LEDGER", "name": "x"}),
        ("trainer", "POST", f"{API}/runs/set-tag", {"run_id": "OPEN_RUN", **TAG}),
        ("release", "POST", f"{API}/runs/set-tag", {**RUN, **TAG}),
        ("release", "POST", f"{API}/runs/set-tag", {"run_uuid": "LEDGER_RUN", **TAG}),
        ("release", "POST", f"{AJAX}/runs/delete-tag", {**RUN, "key": "mlflow.user"}),
        ("release", "POST", f"{API}/runs/log-batch", {**RUN, "tags": [TAG]}),
        ("trainer", "POST", f"{API}/runs/log-parameter", {**RUN, **TAG}),
        ("chen", "POST", f"{API}/runs/log-parameter", {**RUN, "key": "entry.9", "value": '{"who":"li"}'}),
        ("chen", "POST", f"{API}/runs/log-parameter", {**RUN, "key": "entry.9", "value": "who"}),
        ("chen", "POST", f"{API}/runs/log-batch",
         {"run_id": "OPEN_RUN", "params": [{"key": "entry.9", "value": '{"who":"li"}'}]}),
        ("trainer", "POST", f"{API}/registered-models/set-tag", {**PLAIN, "key": "switchboard.ledger_head"}),
        ("release", "POST", f"{API}/runs/log-metric", {**RUN, "key": "k", "value": 1, "timestamp": 1}),
        ("release", "POST", f"{API}/runs/outputs", {**RUN, "models": [{"model_id": "MODEL", "step": 1}]}),
        ("release", "POST", f"{API}/runs/update", {**RUN, "status": "RUNNING"}),
        ("release", "POST", f"{API}/runs/update", {"runId": "LEDGER_RUN", "status": "RUNNING"}),
        ("release", "POST", f"{API}/runs/delete", RUN),
        ("admin", "POST", f"{API}/runs/delete", RUN),
        ("trainer", "POST", f"{API}/runs/delete", RUN),
        ("release", "PUT", f"{FILES}/LEDGER/LEDGER_RUN/artifacts/evidence.json", b"x"),
        ("trainer", "PUT", f"{FILES}/LEDGER/OPEN_RUN/artifacts/x", b"x"),
        ("admin", "POST", f"{API}/experiments/delete", {"experiment_id": "LEDGER"}),
        ("trainer", "POST", f"{API}/experiments/update", {"experiment_id": "LEDGER", "new_name": "x"}),
        ("release", "POST", f"{API}/experiments/update", {"experiment_id": "LEDGER", "new_name": "x"}),
        ("trainer", "POST", f"{API}/experiments/update", {"experiment_id": "EXPERIMENT", "new_name": "x-releases"}),
        ("trainer", "POST", f"{API}/experiments/set-experiment-tag", {"experiment_id": "LEDGER", **TAG}),
        ("trainer", "POST", f"{API}/experiments/create", {"name": "y-releases"}),
        ("trainer", "POST", f"{API}/experiments/create",
         {"name": "z", "artifact_location": "mlflow-artifacts:/EXPERIMENT/models/MODEL/artifacts"}),
        # Who made a run.
        ("trainer", "POST", f"{API}/runs/set-tag", {"run_id": "RUN", "key": "mlflow.user", "value": "release"}),
        ("trainer", "POST", f"{API}/runs/log-batch",
         {"run_id": "RUN", "tags": [{"key": "mlflow.user", "value": "release"}]}),
        ("trainer", "POST", f"{API}/runs/delete-tag", {"run_id": "RUN", "key": "mlflow.user"}),
        # Users and what else there is.
        ("admin", "POST", f"{API}/users/create", {"username": "x", "password": "x" * 20}),
        ("admin", "PATCH", f"{API}/users/update-password", {"username": "release", "password": "x" * 20}),
        ("trainer", "PATCH", f"{API}/users/update-password", {"username": "trainer", "password": "x" * 20}),
        ("admin", "PATCH", f"{API}/users/update-admin", {"username": "trainer", "is_admin": True}),
        ("admin", "DELETE", f"{API}/users/delete", {"username": "release"}),
        ("admin", "POST", "/api/3.0/mlflow/roles/assign", {"username": "trainer", "role_id": 1}),
        ("admin", "GET", "/signup", None),
        ("trainer", "POST", f"{API}/webhooks", {"name": "x", "url": "https://x.example"}),
        ("trainer", "POST", "/v1/traces", b""),
        ("admin", "POST", "/v1/traces", b""),
        ("admin", "GET", "/ajax-api/3.0/mlflow/assistant/config", None),
        ("admin", "GET", "/ajax-api/3.0/mlflow/mcp-servers", None),
        ("admin", "PUT", f"{FILES}/", b"x"),
        ("admin", "POST", f"{API}/experiments/delete", {"experiment_id": "EXPERIMENT"}),
        ("trainer", "POST", "/gateway/mlflow/v1/chat/completions", {"model": "x"}),
        ("trainer", "GET", "/ajax-api/3.0/mlflow/assistant/config", None),
        ("trainer", "POST", "/api/3.0/mlflow/gateway/secrets/create", {"secret_name": "x"}),
        ("serving", "POST", f"{API}/runs/create", {"experiment_id": "EXPERIMENT"}),
        ("serving", "PUT", f"{FILES}/EXPERIMENT/RUN/artifacts/x", b"x"),
        ("wu", "POST", f"{API}/registered-models/create", {"name": "x"}),
        ("wu", "POST", f"{API}/registered-models/alias", {**ALIAS, "alias": "challenger"}),
    ],
)  # fmt: skip
def test_a_way_around_is_refused(
    clients: Clients, model: Model, user: str, method: str, path: str, body: Any
) -> None:
    answer = clients(user)(method, fill(path, model), fill(body, model))
    assert answer.status_code == 403, (answer.status_code, answer.text[:300])
    champion = clients("serving")(
        "GET", f"{API}/registered-models/alias", {"name": model.name, "alias": "champion"}
    )
    assert champion.json()["model_version"]["version"] == "1"


@pytest.mark.parametrize(
    ("user", "method", "path", "body"),
    [
        ("trainer", "POST", f"{API}/registered-models/alias", {**ALIAS, "alias": "challenger"}),
        ("trainer", "POST", f"{API}/runs/set-tag", {"run_id": "RUN", **TAG}),
        ("trainer", "PUT", f"{FILES}/EXPERIMENT/RUN/artifacts/notes/说明 1.txt", b"x"),
        ("trainer", "POST", f"{API}/model-versions/set-tag", {"name": "NAME", "version": "2", **TAG}),
        ("trainer", "GET", f"{FILES}?path=EXPERIMENT/RUN/artifacts", None),
        ("li", "POST", f"{API}/runs/create", {"experiment_id": "EXPERIMENT"}),
        ("release", "POST", f"{API}/model-versions/set-tag", {**VERSION, **TAG}),
        ("release", "POST", f"{API}/runs/set-tag", {"run_id": "OPEN_RUN", **TAG}),
        ("release", "PUT", f"{FILES}/EXPERIMENT/RUN/artifacts/report.html", b"x"),
        ("serving", "GET", f"{API}/registered-models/get", PLAIN),
        ("serving", "GET", f"{API}/model-versions/get-download-uri", VERSION),
        ("serving", "GET", f"{FILES}/EXPERIMENT/models/MODEL/artifacts/MLmodel", None),
        ("wu", "GET", f"{API}/runs/get", {"run_id": "LEDGER_RUN"}),
        ("wu", "POST", f"{API}/runs/search", {"experiment_ids": ["LEDGER"]}),
        ("wu", "GET", "/", None),
        ("wu", "GET", "/version", None),
        ("wu", "GET", "/static-files/index.html", None),
        ("wu", "GET", f"{API}/users/current", None),
        ("wu", "GET", "/api/3.0/mlflow/server-info", None),
        ("wu", "POST", "/graphql", {"query": "{ test(inputString: \"x\") { output } }"}),
        ("admin", "GET", f"{API}/registered-models/search", {}),
    ],
)  # fmt: skip
def test_what_is_allowed_works(
    clients: Clients, model: Model, user: str, method: str, path: str, body: Any
) -> None:
    answer = clients(user)(method, fill(path, model), fill(body, model))
    assert answer.status_code == 200, (answer.status_code, answer.text[:300])


@pytest.mark.parametrize("user", ["serving", "trainer", "release", "admin"])
@pytest.mark.parametrize(
    ("path", "query"),
    [
        ("registered-models/alias", {"name": "no-such", "alias": "champion"}),
        ("registered-models/get", {"name": "no-such"}),
        ("model-versions/get", {"name": "no-such", "version": "1"}),
        ("runs/get", {"run_id": 32 * "0"}),
        ("experiments/get-by-name", {"experiment_name": "no-such"}),
    ],
)
def test_what_is_not_there_is_not_there(
    clients: Clients, user: str, path: str, query: dict[str, str]
) -> None:
    """A replica that waits for its first champion goes by it; "forbidden" would end it."""
    assert clients(user)("GET", f"{API}/{path}", query).status_code == 404


@pytest.mark.parametrize(
    "said",
    [
        {},
        {"user_id": "release"},
        {"userId": "release"},
        {"tags": [{"key": "mlflow.user", "value": "release"}]},
        {"tags": [{"key": "mlflow.user", "value": "a"}, TAG, {"key": "mlflow.user", "value": "b"}]},
    ],
)  # fmt: skip
@pytest.mark.parametrize("path", [API, AJAX])
def test_a_run_is_of_who_made_it(clients: Clients, model: Model, said: dict[str, Any], path: str) -> None:
    body = {"experiment_id": model.experiment_id, "start_time": 1, **said}
    run = clients("li")("POST", f"{path}/runs/create", body).json()["run"]
    assert run["info"]["user_id"] == "li"
    tags = [(tag["key"], tag["value"]) for tag in run["data"]["tags"] if tag["key"] in ("mlflow.user", "k")]
    assert sorted(tags) == sorted(
        [("mlflow.user", "li")] + ([("k", "v")] if len(said.get("tags", [])) == 3 else [])
    )


def test_a_request_is_bounded(guarded: Guarded, clients: Clients) -> None:
    trainer = clients("trainer")
    long = trainer(
        "POST", f"{API}/runs/set-tag", b"x" * (17 << 20), headers={"Content-Type": "application/json"}
    )
    assert long.status_code == 413

    def parts() -> Iterator[bytes]:
        yield b"{}"

    assert (
        trainer.session.post(f"{guarded.url}{API}/runs/set-tag", data=parts(), timeout=120).status_code == 411
    )


def test_a_ledger_grows_and_nothing_of_it_changes(clients: Clients, model: Model) -> None:
    """As `switchboard` keeps it: entries are parameters of one run, whose last is a tag of the registered model."""
    release, person = clients("release"), clients("chen")
    made = release("POST", f"{API}/runs/create", {"experiment_id": model.ledger_id, "start_time": 1}).json()
    run = made["run"]["info"]["run_id"]
    release("POST", f"{API}/runs/update", {"run_id": run, "status": "FINISHED"}).raise_for_status()

    def write(client: Client, number: int, who: str) -> int:
        entry = {"run_id": run, "key": f"entry.{number}", "value": json.dumps({"who": who})}
        return client("POST", f"{API}/runs/log-parameter", entry).status_code

    assert write(release, 1, "li") == 200, "the operator writes who asked for the release"
    digest = hashlib.sha256(json.dumps({"who": "li"}).encode()).hexdigest()
    head = {"name": model.name, "key": "switchboard.ledger_head", "value": f"1:{digest}"}
    assert release("POST", f"{API}/registered-models/set-tag", head).status_code == 200
    assert release("POST", f"{API}/runs/delete", {"run_id": run}).status_code == 403
    assert write(release, 1, "wu") == 400, "MLflow takes no other value"
    assert write(person, 2, "chen") == 200
    assert write(person, 3, "li") == 403
    assert release("POST", f"{API}/runs/delete", {"run_id": run}).status_code == 403
    ended = {"run_id": run, "status": "KILLED"}
    assert release("POST", f"{API}/runs/update", ended).status_code == 403, "nobody would read it any more"
    # Another that began it at the same time steps back.
    spare = release("POST", f"{API}/runs/create", {"experiment_id": model.ledger_id, "start_time": 1}).json()
    spare_run = spare["run"]["info"]["run_id"]
    entry = {"run_id": spare_run, "key": "entry.1", "value": json.dumps({"who": "wu"})}
    assert release("POST", f"{API}/runs/log-parameter", entry).status_code == 200
    assert release("POST", f"{API}/runs/delete", {"run_id": spare_run}).status_code == 200


def test_a_release_moves_the_champion_and_back(clients: Clients, model: Model) -> None:
    release, path = clients("release"), f"{API}/registered-models/alias"
    for version in ("2", "1"):
        answer = release("POST", path, {"name": model.name, "alias": "champion", "version": version})
        assert answer.status_code == 200, answer.text
    assert release("POST", path, {"name": model.name, "alias": "previous", "version": "2"}).status_code == 200
    assert release("DELETE", path, {"name": model.name, "alias": "previous"}).status_code == 200


def test_a_file_is_judged_when_all_of_it_is_there(guarded: Guarded, clients: Clients, model: Model) -> None:
    """One that was begun before its model was ready, and is finished after a version was made of it."""
    trainer = clients("trainer")
    body = {"experiment_id": model.experiment_id, "name": "slow"}
    made = trainer("POST", f"{API}/logged-models", body).json()["model"]["info"]["model_id"]
    place = f"{model.experiment_id}/models/{made}/artifacts/weights"
    assert trainer("PUT", f"{FILES}/{place}", b"right").status_code == 200
    began, ready = threading.Event(), threading.Event()

    def slowly() -> Iterator[bytes]:
        yield b"wrong"
        began.set()
        assert ready.wait(120)
        yield b" weights"

    with ThreadPoolExecutor(1) as pool:
        begun = pool.submit(trainer.session.put, f"{guarded.url}{FILES}/{place}", data=slowly(), timeout=300)
        assert began.wait(120)
        answer = trainer(
            "PATCH", f"{API}/logged-models/{made}", {"model_id": made, "status": "LOGGED_MODEL_READY"}
        )
        assert answer.status_code == 200, answer.text
        ready.set()
        late = begun.result()
    assert late.status_code == 403 and "is ready stays as it is" in late.text, late.text
    assert trainer("GET", f"{FILES}/{place}").content == b"right"


@pytest.mark.parametrize("alias", ["champion\n2026-01-01 all is well", "x" * 100_000])
def test_words_of_a_client_are_bounded_and_one_line_of_the_log(
    guarded: Guarded, clients: Clients, model: Model, alias: str
) -> None:
    body = {"name": model.name, "alias": alias}
    answer = clients("trainer")("DELETE", f"{API}/registered-models/alias", body)
    assert answer.status_code == 403
    assert len(answer.content) < 2000
    lines = guarded.log.read_text().splitlines()
    assert not [line for line in lines if line.startswith("2026-01-01") or len(line) > 5000]


def test_no_password_is_in_the_server_s_log(guarded: Guarded, model: Model) -> None:
    log = guarded.log.read_text()
    assert [user for user, password in guarded.passwords.items() if password in log] == []
