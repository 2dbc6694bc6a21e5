"""A service of chat and voice that can misbehave as the real one can't be made to: slow, wrong, refusing."""

from __future__ import annotations

import io
import itertools
import json
import threading
import time
import wave
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

HOST = "127.38.0.5"


@dataclass
class Remote:
    url: str = ""
    status: int = 200
    delay_s: float = 0.0
    answer: dict[str, Any] = field(default_factory=dict)
    every: int = 1
    """Misbehaves at the first request of every so many only."""
    asked: list[dict[str, Any]] = field(default_factory=list)
    sessions: set[str] = field(default_factory=set)
    keys: list[str] = field(default_factory=list)
    arms: set[str | None] = field(default_factory=set)
    listens: bool = True
    """There is a voice service, too."""
    heard: list[tuple[str, float]] = field(default_factory=list)
    """Of each recording its language, and its length in seconds."""
    forget_after: int | None = None
    """From this request on it takes everything for something else."""


@pytest.fixture
def remote() -> Iterator[Remote]:
    state = Remote()
    counter = itertools.count()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True
        """Or a body waits for its headers' acknowledgement: up to 40 ms."""

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if self.path == "/v1/voice":
                asked = self.listened(body)
            else:
                asked = json.loads(body)
                state.asked.append(asked)
            state.sessions.add(self.headers["X-Session-Id"])
            state.keys.append(self.headers["Idempotency-Key"])
            state.arms.add(self.headers["X-Switchboard-Arm"])
            bad = next(counter) % state.every == 0
            if bad:
                time.sleep(state.delay_s)
            status = state.status if bad else 200
            if "transcript" in asked and not state.listens:
                status = 404
            document: dict[str, Any] = {"error": {"code": "overloaded", "message": ""}}
            if status == 200:
                document = {"intent": "greeting", "confidence": 1.0, "answer": "Hello!", "handover": False}
                put = len(state.asked) + len(state.heard)
                if state.forget_after is not None and put > state.forget_after:
                    document["intent"] = "balance"
                document |= {
                    **asked,
                    "model_version": "1",
                    **(state.answer if bad else {}),
                }
            body = json.dumps(document).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def listened(self, body: bytes) -> dict[str, Any]:
            assert self.headers["Content-Type"] == "audio/wav"
            language = self.headers["Content-Language"]
            with wave.open(io.BytesIO(body)) as audio:
                assert (audio.getframerate(), audio.getsampwidth(), audio.getnchannels()) == (8000, 2, 1)
                state.heard.append((language, audio.getnframes() / audio.getframerate()))
            return {"language": language, "transcript": "hello there"}

        def log_message(self, format: str, *args: object) -> None:
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        request_queue_size = 128
        """Of the usual 5, a busy machine lets customers wait for a second or three until they come again."""

    server = Server((HOST, 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    state.url = f"http://{HOST}:{server.server_port}"
    yield state
    server.shutdown()
    server.server_close()
    thread.join()
