"""The shell of `rules` around MLflow's server: who asks (401), may they (403), and only then MLflow.

Two gates, because MLflow has two halves. `Guard` is the outermost: an ASGI application that lets nobody in without a
password, except for probes (`/health` is MLflow's own, `/livez` this one's), and decides what MLflow serves natively
(files). `decide` is a hook inside of its
Flask application, where a request has been routed to its handler, by which it is known whatever its path was.
"""

from __future__ import annotations

import functools
import json
import logging
import re
from collections.abc import Callable, Iterable

import anyio
import anyio.to_thread
import flask
from mlflow.exceptions import MlflowException
from starlette.routing import BaseRoute, Match, Mount
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from models.access import asked, rules
from models.access.actions import READS, UPLOAD
from models.access.users import HASHES_AT_ONCE, User, Users

log = logging.getLogger(__name__)

LIVE = "/livez"
PROBES = ("/health", LIVE)
MAX_BODY_BYTES = 16 << 20
"""Of what isn't a file: MLflow holds it in memory."""
MAX_FILE_BYTES = 4 << 30
_FILES = re.compile(r"/(?:ajax-)?api/2\.0/mlflow-artifacts/artifacts/(?P<path>.+)", re.DOTALL)
_SERVER_INFO = re.compile(r"/(?:ajax-)?api/3\.0/mlflow/server-info")
_HEADER = b"authorization"
MAX_WORDS = 500
"""Of a sentence that says why not."""

Refusal = tuple[int, str, str]
"""A status, MLflow's code for it, and why."""


class Guard:
    """MLflow's application behind the question who you are; `routes` are those that it serves natively."""

    def __init__(self, app: ASGIApp, users: Users, routes: Iterable[BaseRoute]) -> None:
        self._app, self._users = app, users
        self._native = [route for route in routes if not isinstance(route, Mount)]
        self._hashing = anyio.CapacityLimiter(HASHES_AT_ONCE)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1008})
            return
        if scope["path"] in PROBES and scope["method"] in ("GET", "HEAD"):
            await self._probe(scope, receive, send)
            return
        given = [value for name, value in scope["headers"] if name == _HEADER]
        header = given[0] if len(given) == 1 else None
        user = self._users.remembered(header)
        if user is None:
            # Who guesses waits here for a hash, and holds no thread that others need.
            user = await anyio.to_thread.run_sync(self._users.of, header, limiter=self._hashing)
        if user is None:
            await _answer(send, 401, "UNAUTHENTICATED", _who_are_you(header))
            return
        if (file := _FILES.fullmatch(scope["path"])) is not None and scope["method"] == "PUT":
            await self._write(functools.partial(_written, user, file["path"]), scope, receive, send)
            return
        refused = self._refusal(scope, user, file is not None)
        if refused is not None:
            await _answer(send, *refused)
            return
        await self._app(scope, receive, send)

    async def _probe(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] == LIVE:
            # No more than that this process still takes turns: busy is no reason to end it.
            await _send(send, 200, b"OK", [(b"content-type", b"text/plain")])
        else:
            await self._app(scope, receive, send)

    async def _write(
        self, check: Callable[[], Refusal | None], scope: Scope, receive: Receive, send: Send
    ) -> None:
        """Of a file: `check` says whether it may be written, before its first byte and after its last, since what it
        belongs to may have become whole meanwhile. MLflow puts a file in its place when all of it is there."""
        refused = await anyio.to_thread.run_sync(check)
        if refused is not None:
            await _answer(send, *refused)
            return

        late: list[Refusal] = []
        size = 0

        async def checked() -> Message:
            nonlocal size
            message = await receive()
            size += len(message.get("body", b""))
            if size > MAX_FILE_BYTES:
                late.append(
                    (413, "INVALID_PARAMETER_VALUE", f"a file has at most {MAX_FILE_BYTES >> 30} GiB")
                )
                return {"type": "http.disconnect"}
            last = message["type"] == "http.request" and not message.get("more_body", False)
            if last and (refused := await anyio.to_thread.run_sync(check)) is not None:
                late.append(refused)
                return {"type": "http.disconnect"}  # to MLflow the client has gone before the end
            return message

        async def unless_late(message: Message) -> None:
            if not late:
                await send(message)

        try:
            await self._app(scope, checked, unless_late)
        except Exception:  # what becomes of a request whose client has gone is no news
            if not late:
                raise
        if late:
            await _answer(send, *late[0])

    def _refusal(self, scope: Scope, user: User, file: bool) -> Refusal | None:
        """Of what MLflow serves natively; the rest is decided where it is routed."""
        path, method = scope["path"], scope["method"]
        if (too_large := _too_large(scope)) is not None:
            return too_large
        if (file and method in ("GET", "HEAD")) or _SERVER_INFO.fullmatch(path):
            return None
        if any(route.matches(scope)[0] is Match.FULL for route in self._native):
            return _forbidden(user, method, path, f"{method} {path} isn't offered by this server")
        return None


def _written(user: User, path: str) -> Refusal | None:
    """Of a file that is to be written."""
    place = rules.place_of(path)
    if place is None:
        why = "a file belongs to a run or a logged model: <experiment>/<run>/artifacts/… without `%`, `\\` or `..`"
        return _forbidden(user, "PUT", path, why)
    try:
        why_not = rules.refusal(*asked.of_file(UPLOAD, user.name, user.role, place))
    except MlflowException as error:
        return error.get_http_status_code(), str(error.error_code), error.message
    return _forbidden(user, "PUT", path, why_not) if why_not is not None else None


def decide(users: Users) -> Callable[[], flask.Response | None]:
    """The hook for MLflow's Flask application: refuses, or lets the handler go on."""

    def hook() -> flask.Response | None:
        action = flask.request.endpoint
        if action is None or action == "health":  # nothing is there, as MLflow will say; or anybody may ask
            return None
        header = flask.request.headers.get("Authorization")
        user = users.of(header.encode("latin-1", "replace") if header is not None else None)
        if user is None:  # the guard, which lets nobody in, isn't in front of this
            return _flask_answer(401, "UNAUTHENTICATED", _who_are_you(None))
        try:
            why = _why_not(action, user)
        except MlflowException as error:
            return _flask_answer(error.get_http_status_code(), str(error.error_code), error.message)
        if why is None:
            return None
        return _flask_answer(*_forbidden(user, flask.request.method, flask.request.path, why))

    return hook


def _why_not(action: str, user: User) -> str | None:
    """The reason to refuse; what has no facts (`asked.gather`) is in no role's list but READS."""
    plain = rules.Asked(action, user.name, user.role)
    if (why := rules.not_allowed(plain)) is not None:
        return why
    if action in READS:
        asked.see(action)
        return None
    if action == "_create_run" and (why := asked.sign_run(user.name)) is not None:
        return why
    return rules.refusal(*asked.gather(action, user.name, user.role))


def _who_are_you(header: bytes | None) -> str:
    if header is None:
        return (
            "MLflow asks who you are: give a user's name and password (MLFLOW_TRACKING_USERNAME, …_PASSWORD)"
        )
    return "MLflow doesn't know this user, or the password is wrong"


def _forbidden(user: User, method: str, path: str, why: str) -> Refusal:
    # Names in it are the client's own words.
    why = why[:MAX_WORDS] if why.isprintable() else repr(why[:MAX_WORDS])
    log.warning("refused to %s (%s): %s %.200r: %s", user.name, user.role, method, path, why)
    return 403, "PERMISSION_DENIED", why


def _flask_answer(status: int, code: str, message: str) -> flask.Response:
    response = flask.Response(_body(code, message), status, mimetype="application/json")
    if status == 401:
        response.headers["WWW-Authenticate"] = 'Basic realm="mlflow"'
    return response


def _body(code: str, message: str) -> bytes:
    """As MLflow's own errors are, so that its client shows the sentence."""
    return json.dumps({"error_code": code, "message": message}).encode()


async def _answer(send: Send, status: int, code: str, message: str) -> None:
    headers = [(b"content-type", b"application/json"), (b"cache-control", b"no-store")]
    if status == 401:
        headers.append((b"www-authenticate", b'Basic realm="mlflow"'))
    await _send(send, status, _body(code, message), headers)


async def _send(send: Send, status: int, body: bytes, headers: list[tuple[bytes, bytes]]) -> None:
    length = (b"content-length", str(len(body)).encode())
    await send({"type": "http.response.start", "status": status, "headers": [*headers, length]})
    await send({"type": "http.response.body", "body": body})


def _too_large(scope: Scope) -> Refusal | None:
    """Of a request that isn't a file; a server holds a body to the length that is announced."""
    announced = {name: value for name, value in scope["headers"]}
    length = announced.get(b"content-length", b"0")
    if b"transfer-encoding" in announced:
        return 411, "INVALID_PARAMETER_VALUE", "say how long the request is (Content-Length)"
    if not length.isdigit() or int(length) > MAX_BODY_BYTES:
        return 413, "INVALID_PARAMETER_VALUE", f"a request has at most {MAX_BODY_BYTES >> 20} MiB"
    return None
