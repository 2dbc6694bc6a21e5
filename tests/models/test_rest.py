"""The REST client against servers that misbehave (real ones are in the tests of loading)."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from models import rest
from models.rest import Denied, NotFound, Refused, Registry, Unreachable, Version
from switchboard.errors import SwitchboardError
from tests.fixtures_mlflow import HOST

Answer = Callable[[BaseHTTPRequestHandler], None]


class Hostile:
    """A server that answers every GET by `answer`."""

    def __init__(self) -> None:
        self.answer: Answer = lambda handler: None
        self.seen: list[dict[str, str]] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.seen.append(dict(self.headers))
                outer.answer(self)

            def log_message(self, *args: object) -> None:
                pass

        self._server = ThreadingHTTPServer((HOST, 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://{HOST}:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def hostile() -> Iterator[Hostile]:
    server = Hostile()
    yield server
    server.close()


def reply(status: int, body: bytes, length: int | None = None) -> Answer:
    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(status)
        handler.send_header("Content-Length", str(len(body) if length is None else length))
        handler.end_headers()
        handler.wfile.write(body)

    return answer


@pytest.mark.parametrize(
    ("status", "body", "expected"),
    [
        (200, b"<html>not mlflow</html>", Unreachable),
        (200, b"[1]", Unreachable),
        (500, b"{}", Unreachable),
        (503, b"busy", Unreachable),
        (429, b'{"error_code": "REQUEST_LIMIT_EXCEEDED", "message": "slow down"}', Unreachable),
        (404, b'{"error_code": "RESOURCE_DOES_NOT_EXIST", "message": "no such model"}', NotFound),
        (400, b'{"error_code": "INVALID_PARAMETER_VALUE", "message": "alias x not found"}', NotFound),
        (400, b'{"error_code": "INVALID_PARAMETER_VALUE", "message": "bad name"}', Refused),
        (401, b"who are you", Denied),
        (403, b"[]", Denied),
        (403, b'{"error_code": "PERMISSION_DENIED", "message": "alias x not found"}', Denied),
        (302, b"", Refused),
    ],
)
def test_what_an_answer_means(hostile: Hostile, status: int, body: bytes, expected: type) -> None:
    hostile.answer = reply(status, body)
    with pytest.raises(expected):
        Registry(hostile.url).version_of_alias("m", "a")


def test_an_answer_that_breaks_off(hostile: Hostile) -> None:
    hostile.answer = reply(200, b"half", length=100)
    with pytest.raises(Unreachable):
        Registry(hostile.url).artifact("x", max_bytes=1000, deadline=time.monotonic() + 5)


def test_an_answer_that_never_ends(hostile: Hostile) -> None:
    stop = threading.Event()

    def drip(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.end_headers()
        while not stop.wait(0.05):
            handler.wfile.write(b"x")

    hostile.answer = drip
    try:
        with pytest.raises(Unreachable, match="within its time"):
            Registry(hostile.url).artifact("x", max_bytes=1000, deadline=time.monotonic() + 0.5)
    finally:
        stop.set()


def test_an_answer_that_is_too_large(hostile: Hostile) -> None:
    hostile.answer = reply(200, b"x" * 2000)
    with pytest.raises(Refused, match="larger than 1000"):
        Registry(hostile.url).artifact("x", max_bytes=1000, deadline=time.monotonic() + 5)


def test_nobody_there() -> None:
    with pytest.raises(Unreachable, match=r"no answer from MLflow at http://127\.37\.0\.254:9"):
        Registry("http://127.37.0.254:9").models()
    assert not Registry("http://127.37.0.254:9").healthy()


@pytest.mark.parametrize(
    ("env", "expected"),
    [
        ({}, None),
        ({"MLFLOW_TRACKING_TOKEN": "abc"}, "Bearer abc"),
        ({"MLFLOW_TRACKING_USERNAME": "u", "MLFLOW_TRACKING_PASSWORD": "p"}, "Basic dTpw"),
    ],
)
def test_authentication(
    hostile: Hostile, monkeypatch: pytest.MonkeyPatch, env: dict[str, str], expected: str | None
) -> None:
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    hostile.answer = reply(200, b"{}")
    assert Registry(hostile.url).models() == []
    assert hostile.seen[0].get("Authorization") == expected


def test_proxies_of_the_environment_are_not_asked(hostile: Hostile, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.37.0.254:9")
    hostile.answer = reply(200, b"{}")
    assert Registry(hostile.url).models() == []


@pytest.mark.parametrize("uri", ["", "sqlite:///x.db", "file:///etc", "mlflow:5000"])
def test_an_address_that_is_none(uri: str) -> None:
    with pytest.raises(SwitchboardError, match="address of MLflow"):
        rest.tracking_uri(uri)


def test_the_address_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://mlflow:5000/")
    assert rest.tracking_uri() == "http://mlflow:5000"
    assert rest.tracking_uri("http://other:1") == "http://other:1"


@pytest.mark.parametrize(
    "tag", ["", "{", "[]", '{"a": 1}', '{"a": {"sha256": "x"}}', '{"a": {"sha256": "x", "size": "y"}}']
)
def test_a_version_of_somebody_else_has_no_files(tag: str) -> None:
    assert Version("m", "1", "", "READY", 0, tags={rest.FILES_TAG: tag}).files() == {}


LOGIN = {"MLFLOW_TRACKING_USERNAME": "li", "MLFLOW_TRACKING_PASSWORD": "hunter2"}


@pytest.mark.parametrize(
    ("env", "status", "body", "says", "step"),
    [
        ({}, 401, b"", "asks who you are", "MLFLOW_TRACKING_USERNAME"),
        (LOGIN, 401, b"hunter2", "doesn't know the user li", "switchboard infra credentials li"),
        (
            LOGIN,
            403,
            b'{"message": "only a release moves it"}',
            "(li): only a release moves it",
            "infra/README.md",
        ),
    ],
)
def test_who_is_refused_is_told_why_and_what_to_do(
    hostile: Hostile,
    monkeypatch: pytest.MonkeyPatch,
    env: dict[str, str],
    status: int,
    body: bytes,
    says: str,
    step: str,
) -> None:
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    hostile.answer = reply(status, body)
    with pytest.raises(Denied) as caught:
        Registry(hostile.url).models()
    assert says in str(caught.value)
    assert step in caught.value.next_step
    assert "hunter2" not in f"{caught.value}{caught.value.next_step}"
    assert len(hostile.seen) == 1, "it isn't asked again"


def test_a_password_goes_nowhere_else(hostile: Hostile, monkeypatch: pytest.MonkeyPatch) -> None:
    """Python's own client would follow a redirection, and take the password along."""
    for name, value in LOGIN.items():
        monkeypatch.setenv(name, value)

    def elsewhere(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(307)
        handler.send_header("Location", f"{hostile.url}/elsewhere")
        handler.send_header("Content-Length", "0")
        handler.end_headers()

    hostile.answer = elsewhere
    with pytest.raises(Refused):
        Registry(hostile.url).models()
    assert len(hostile.seen) == 1


@pytest.mark.parametrize("uri", ["http://li:hunter2@mlflow:5000", "https://hunter2@mlflow"])
def test_a_password_in_an_address_is_refused_and_not_repeated(uri: str) -> None:
    with pytest.raises(SwitchboardError, match="holds a user or a password") as caught:
        rest.tracking_uri(uri)
    assert "hunter2" not in str(caught.value)
