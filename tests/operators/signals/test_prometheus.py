"""A Prometheus that is slow, gone or talks nonsense: the operator gets a sentence, in time, and never an error."""

from __future__ import annotations

import asyncio
import json
import math
import subprocess
import sys
import textwrap
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest

from operators.servers.server import SETTLED_S
from operators.settings import TICK_S
from operators.signals import prometheus, query
from operators.signals.prometheus import TIMEOUT_S as USUAL_TIMEOUT_S
from operators.signals.prometheus import WAIT_S as USUAL_WAIT_S
from operators.signals.prometheus import Prometheus
from operators.signals.values import Key, Seen
from tests.pods import until

HOST = "127.37.0.3"
WINDOWS = (6,)
LONG_S = 60.0
"""Far more than anything here takes, on a busy machine too."""
BRIEF_S = 0.3

Reply = Callable[[asyncio.StreamWriter], Awaitable[None]]


@dataclass
class Server:
    """Reads a request, then does what it is told."""

    reply: Reply
    url: str = ""
    asked: list[bytes] = field(default_factory=list)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            length = next(
                int(line[15:]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:")
            )
            self.asked.append(await reader.readexactly(length))
            await self.reply(writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()


@asynccontextmanager
async def serving(reply: Reply) -> AsyncIterator[Server]:
    made = Server(reply)
    server = await asyncio.start_server(made.serve, HOST, 0)
    made.url = f"http://{HOST}:{server.sockets[0].getsockname()[1]}"
    try:
        yield made
    finally:
        server.close()


def http(body: bytes | str, status: str = "200 OK", *, length: int | None = None) -> bytes:
    raw = body.encode() if isinstance(body, str) else body
    size = len(raw) if length is None else length
    return (
        f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {size}\r\n\r\n".encode()
        + raw
    )


def says(raw: bytes) -> Reply:
    async def reply(writer: asyncio.StreamWriter) -> None:
        writer.write(raw)
        await writer.drain()

    return reply


def result(*series: Any) -> str:
    return json.dumps({"status": "success", "data": {"resultType": "vector", "result": list(series)}})


RATE = {
    "metric": {"signal": "arrived 6", "envoy_local_http_ratelimit_prefix": "chat"},
    "value": [1767600000, "12.5"],
}
GOOD = says(http(result(RATE)))


async def silent(_: asyncio.StreamWriter) -> None:
    await asyncio.Event().wait()


def drips(raw: bytes) -> Reply:
    """A byte each tenth of a second."""

    async def reply(writer: asyncio.StreamWriter) -> None:
        for number in range(len(raw)):
            writer.write(raw[number : number + 1])
            await writer.drain()
            await asyncio.sleep(0.1)

    return reply


async def close(_: asyncio.StreamWriter) -> None:
    return


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """By default nobody's patience ends: who has none says whose it is, and so which of the two ends first."""
    monkeypatch.setattr(prometheus, "TIMEOUT_S", LONG_S)
    monkeypatch.setattr(prometheus, "WAIT_S", LONG_S)


def test_what_comes_too_late_is_given_up_in_a_tick() -> None:
    assert USUAL_TIMEOUT_S < USUAL_WAIT_S < TICK_S


async def look(client: Prometheus) -> Seen | str:
    async with asyncio.timeout(2 * LONG_S):
        return await client.look(WINDOWS, [], 7.0)


async def test_an_answer() -> None:
    async with serving(GOOD) as server:
        seen = await look(Prometheus(server.url))
        assert isinstance(seen, Seen)
        assert (seen.at, seen.source, seen.traffic[Key("chat"), 6].rate) == (7.0, "prometheus", 12.5)
        assert server.asked[0].startswith(b"query=")


BAD = [
    pytest.param(close, "Remote end closed connection without response", id="closes"),
    pytest.param(says(http(result(RATE), length=9999)), "IncompleteRead", id="closes in the middle"),
    pytest.param(says(http("no", "503 Service Unavailable")), "HTTP Status Code 503", id="an error"),
    pytest.param(
        says(http('{"status": "error"}', "422 x")), "HTTP Status Code 422", id="a query that it can't"
    ),
    pytest.param(says(http("x" * 100_000, "400 x")), "HTTP Status Code 400", id="a long error"),
    pytest.param(says(b"SSH-2.0-OpenSSH_9.2\r\n"), "SSH-2.0", id="another protocol"),
    pytest.param(says(b"\xff\xfe" * 1000), "Prometheus: ", id="noise"),
    pytest.param(says(http("<html>")), "expected value", id="no JSON"),
    pytest.param(says(http(b"\xff\xfe\xfd")), "expected value", id="no text"),
    pytest.param(says(http("[" * 100_000)), "recursion", id="a deep hole"),
    pytest.param(says(http("null")), "NoneType", id="null"),
    pytest.param(says(http('{"data": 5}')), "int", id="another document"),
    pytest.param(says(http('{"data": {}}')), "result", id="no result"),
    pytest.param(says(http('{"data": {"result": 5}}')), "int", id="a number"),
    pytest.param(says(http(result("a", 5))), "str", id="series that are none"),
    pytest.param(says(http(result({"metric": [1], "value": [1, "1"]}))), "list", id="labels that are none"),
]


@pytest.mark.parametrize(("reply", "words"), BAD)
async def test_what_is_no_answer_is_a_sentence(reply: Reply, words: str) -> None:
    async with serving(reply) as server:
        found = await look(Prometheus(server.url))
        assert isinstance(found, str)
        assert words in found
        assert found.startswith("Prometheus")
        assert len(found) < 250
        assert "\n" not in found


@pytest.mark.parametrize(
    ("whose", "reply", "words"),
    [
        pytest.param("TIMEOUT_S", silent, "Read timed out", id="silent"),
        pytest.param(
            "WAIT_S", drips(http(result(RATE))), "Prometheus gave no answer in 0.3 s", id="a byte at a time"
        ),
    ],
)
async def test_what_comes_too_late_is_a_sentence(
    monkeypatch: pytest.MonkeyPatch, whose: str, reply: Reply, words: str
) -> None:
    monkeypatch.setattr(prometheus, whose, BRIEF_S)
    async with serving(reply) as server:
        found = await look(Prometheus(server.url))
        assert isinstance(found, str)
        assert words in found
        assert "\n" not in found


@pytest.mark.parametrize("url", [f"http://{HOST}:1", "http://", "http://name.invalid:9090"])
async def test_nobody_there(url: str) -> None:
    found = await look(Prometheus(url))
    assert isinstance(found, str)
    assert " object at 0x" not in found
    assert "label_replace" not in found


async def test_it_recovers_as_soon_as_the_server_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prometheus, "TIMEOUT_S", BRIEF_S)
    async with serving(silent) as server:
        client = Prometheus(server.url)
        assert isinstance(await look(client), str)
        server.reply = GOOD
        await until(lambda: answers(client), LONG_S)


async def answers(client: Prometheus) -> bool:
    return isinstance(await look(client), Seen)


async def asked(server: Server, times: int) -> None:
    """Until that many questions have come to it, and then: no more."""
    await until(lambda: len(server.asked) >= times, LONG_S)
    assert len(server.asked) == times


async def test_one_that_drips_is_not_asked_again_before_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prometheus, "WAIT_S", 0.2)
    async with serving(drips(b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 10_000)) as server:
        client = Prometheus(server.url)
        assert "gave no answer" in str(await look(client))
        for _ in range(5):
            assert await look(client) == "Prometheus hasn't answered the question before this one yet"
        await asked(server, 1)

        monkeypatch.setattr(prometheus, "GIVEN_UP_S", 0.0)
        for number in range(2, prometheus.MOST_OPEN + 1):
            assert "gave no answer" in str(await look(client))
            await asked(server, number)
        before = threading.active_count()
        for _ in range(5):  # threads are as few as questions
            assert "hasn't answered" in str(await look(client))
        assert threading.active_count() <= before


async def test_after_a_question_that_was_given_up_it_is_asked_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prometheus, "WAIT_S", 0.2)
    monkeypatch.setattr(prometheus, "GIVEN_UP_S", 0.0)
    async with serving(drips(b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 10_000)) as server:
        client = Prometheus(server.url)
        assert isinstance(await look(client), str)
        await asked(server, 1)
        server.reply = GOOD
        monkeypatch.setattr(prometheus, "WAIT_S", LONG_S)
        assert isinstance(await look(client), Seen)  # though the first one is still dripping


async def test_a_silent_one_does_not_hold_up_the_end_of_the_process() -> None:
    async with serving(drips(b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 10_000)) as server:
        program = f"""
            import asyncio
            from operators.signals import prometheus, query
            from operators.signals.values import Key

            async def main():
                prometheus.WAIT_S = 0.2
                client = prometheus.Prometheus({server.url!r})
                asking = asyncio.create_task(client.histories([Key("chat")], 600, 0.0))
                print(await client.look((6,), [], 0.0))
                asking.cancel()

            asyncio.run(main())
        """
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", textwrap.dedent(program), stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        async with asyncio.timeout(LONG_S):
            out, err = await process.communicate()
        assert (out.decode().strip(), err.decode(), process.returncode) == (
            "Prometheus gave no answer in 0.2 s",
            "",
            0,
        )


def measures(cpu: str) -> str:
    """What replicas of chat take; two are measured, and they answer nine requests a second."""
    found = {"cpu": cpu, "answered": "9", "measured": "2"}
    return result(
        *(
            {"metric": {"signal": name, "model_server": "chat"}, "value": [0, value]}
            for name, value in found.items()
        )
    )


def answers_both(server: Server, measured: Reply) -> Reply:
    """The look as ever, and what is measured as it is told."""

    async def reply(writer: asyncio.StreamWriter) -> None:
        await (measured if b"process_cpu" in server.asked[-1] else GOOD)(writer)

    return reply


async def measured(client: Prometheus, now: float) -> tuple[float | None, float | None, int | None]:
    """What a look says that replicas take, answer, and how many are measured."""
    async with asyncio.timeout(2 * LONG_S):
        seen = await client.look(WINDOWS, [], now)
    assert isinstance(seen, Seen)
    found = seen.traffic[Key("chat"), 6]
    assert found.rate == 12.5
    return found.cpu, found.answered, found.measured


UNASKED = (None, None, None)


async def test_what_is_measured_is_in_the_look_after_its_answer_and_asked_anew_when_it_may_be_new() -> None:
    async with serving(GOOD) as server:
        server.reply = answers_both(server, says(http(measures("0.5"))))
        client = Prometheus(server.url)
        assert await measured(client, 0.0) == UNASKED
        await until(lambda: arrived(client), LONG_S)
        assert await measured(client, 2.0) == (0.5, 9.0, 2)
        assert await measured(client, 4.0) == UNASKED
        await asked(server, 4)
        assert await measured(client, 10.0) == UNASKED
        await until(lambda: arrived(client), LONG_S)
        assert await measured(client, 12.0) == (0.5, 9.0, 2)
        await asked(server, 7)


async def arrived(client: Prometheus) -> bool:
    return math.isfinite(client._measured[0])


async def test_no_look_waits_for_what_is_measured() -> None:
    async with serving(GOOD) as server:
        server.reply = answers_both(server, silent)
        client = Prometheus(server.url)
        for now in (0.0, 2.0, 4.0):
            assert await measured(client, now) == UNASKED


async def test_what_was_measured_too_long_ago_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    async with serving(GOOD) as server:
        server.reply = answers_both(server, says(http(measures("0.5"))))
        client = Prometheus(server.url)
        assert await measured(client, 0.0) == UNASKED
        await until(lambda: arrived(client), LONG_S)
        monkeypatch.setattr(prometheus, "MEASURE_KEPT_S", 0.0)
        assert await measured(client, 2.0) == UNASKED


def test_what_a_start_took_is_in_nothing_that_counts() -> None:
    assert query.CPU_WINDOW_S + prometheus.MEASURE_KEPT_S <= SETTLED_S


@pytest.mark.parametrize(("reply", "_"), BAD)
async def test_measures_that_are_none_spoil_no_look_and_are_asked_for_again(reply: Reply, _: str) -> None:
    async with serving(GOOD) as server:
        server.reply = answers_both(server, reply)
        client = Prometheus(server.url)
        assert await measured(client, 0.0) == UNASKED
        await asked(server, 2)
        server.reply = answers_both(server, says(http(measures("0.5"))))

        async def known() -> bool:
            return await measured(client, 2.0) == (0.5, 9.0, 2)

        await until(known, LONG_S)


KEYS = [Key("chat"), Key("chat", "edge", "cn-beijing"), Key("voice")]


def history(*values: Any) -> Reply:
    metric = {"signal": "arrived 10", "envoy_local_http_ratelimit_prefix": "chat"}
    return says(http(result({"metric": metric, "values": list(values)})))


async def test_histories() -> None:
    async with serving(history([960, "1"], [970, "NaN"], [990, "2.5"], [1000, "3"], [5000, "9"])) as server:
        found = await Prometheus(server.url).histories(KEYS, 40, 1007.0)
        assert found == {Key("chat"): pytest.approx([1, float("nan"), float("nan"), 2.5, 3], nan_ok=True)}


@pytest.mark.parametrize(
    "reply",
    [
        pytest.param(close, id="closes"),
        pytest.param(says(http("no", "500 x")), id="an error"),
        pytest.param(says(http("{}")), id="another document"),
        pytest.param(history([1e400, "1"]), id="no time"),
        pytest.param(history(["when", "1"]), id="a word for a time"),
        pytest.param(history([960, "much"]), id="a word"),
        pytest.param(history([960]), id="no value"),
        pytest.param(history(5), id="no pair"),
        pytest.param(says(http(result({"metric": {"envoy_cluster_name": 5}}))), id="a name that is none"),
    ],
)
async def test_histories_that_are_none(reply: Reply) -> None:
    async with serving(reply) as server:
        found = await Prometheus(server.url).histories(KEYS, 40, 1007.0)
        assert isinstance(found, str)
        assert found.startswith("Prometheus: ")


async def test_histories_hold_up_no_look_and_are_asked_for_once() -> None:
    async def reply(writer: asyncio.StreamWriter) -> None:
        await (silent if b"start=" in server.asked[-1] else GOOD)(writer)

    async with serving(reply) as server:
        client = Prometheus(server.url)
        asking = asyncio.create_task(client.histories(KEYS, 40, 1007.0))
        await asked(server, 1)
        assert "before these" in str(await client.histories(KEYS, 40, 1007.0))
        assert isinstance(await look(client), Seen)
        asking.cancel()  # its caller's patience is at its end; the thread's isn't
        await asyncio.wait([asking])
        assert "before these" in str(await client.histories(KEYS, 40, 1007.0))
