"""Probes: the counting, and the asking of real listeners."""

from __future__ import annotations

import asyncio
import ssl
import sys
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import grpc.aio
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from infra.local.node.probes import Answer, Prober, Tally, Timing, _tls, ask, first_wait, initial_delay_left
from infra.local.runtime.spec import ExecResult
from tests.infra.local.node.pods import container

HOST = "127.0.0.1"


@pytest.mark.parametrize(
    ("answers", "timing", "verdicts"),
    [
        ("+", Timing(), [True]),
        ("---", Timing(), [None, None, False]),
        ("--+--", Timing(), [None, None, True, True, True]),
        ("+---", Timing(), [True, True, True, False]),
        ("---+", Timing(successes=2), [None, None, False, False]),
        ("---++", Timing(successes=2), [None, None, False, False, True]),
        ("-", Timing(failures=1), [False]),
    ],
)
def test_thresholds(answers: str, timing: Timing, verdicts: list[bool | None]) -> None:
    tally, found = Tally(), []
    for answer in answers:
        tally = tally.add(answer == "+", timing)
        found.append(tally.verdict)
    assert found == verdicts


def test_defaults_are_kubernetes_own() -> None:
    assert Timing.of({}) == Timing(0, 10, 1, 1, 3)
    assert Timing.of({"periodSeconds": 2, "failureThreshold": 7, "initialDelaySeconds": 4}) == Timing(
        4, 2, 1, 1, 7
    )


def test_the_initial_delay_counts_from_the_start_of_the_container() -> None:
    assert initial_delay_left(Timing(initial_delay_s=10), ran_s=4) == 6
    assert initial_delay_left(Timing(initial_delay_s=10), ran_s=40) == 0


@pytest.mark.parametrize(("ran_s", "waits_s"), [(0, 0), (9, 0), (11, 2.5)])
def test_what_an_agent_finds_running_is_not_asked_all_at_once(ran_s: float, waits_s: float) -> None:
    assert first_wait(Timing(period_s=10), ran_s, share=0.25) == waits_s


async def respond(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer /200, /404 and so on with that status, and /slow never."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode()
    path = head.split(" ")[1]
    if path == "/slow":
        await reader.read()
    elif path == "/garbage":
        writer.write(b"hello\r\n")
    elif path == "/header":
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n" if "X-Me: yes" in head else b"HTTP/1.1 400 No\r\n\r\n")
    else:
        writer.write(f"HTTP/1.1 {path[1:]} Some\r\nContent-Length: 0\r\n\r\n".encode())
    writer.close()


@pytest.fixture
async def http() -> AsyncIterator[int]:
    server = await asyncio.start_server(respond, HOST, 0)
    yield server.sockets[0].getsockname()[1]
    server.close()


@pytest.fixture
async def https(tmp_path: Path) -> AsyncIterator[int]:
    """As `http`, with a certificate that nobody signed and that names nobody."""
    key, name, now = ec.generate_private_key(ec.SECP256R1()), x509.Name([]), datetime.now(UTC)
    builder = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
    day = timedelta(days=1)
    cert = builder.not_valid_before(now - day).not_valid_after(now + day).sign(key, hashes.SHA256())
    kind, plain = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    pem = serialization.Encoding.PEM
    (tmp_path / "pair").write_bytes(cert.public_bytes(pem) + key.private_bytes(pem, kind, plain))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "pair")
    server = await asyncio.start_server(respond, HOST, 0, ssl=context)
    yield server.sockets[0].getsockname()[1]
    server.close()


@pytest.fixture
async def grpc_health() -> AsyncIterator[int]:
    """A gRPC server that is healthy, whose service `sick` is not, and whose service `slow` never answers."""

    async def check(question: bytes, context: grpc.aio.ServicerContext) -> bytes:
        if b"slow" in question:
            await asyncio.Event().wait()
        if b"unknown" in question:
            await context.abort(grpc.StatusCode.NOT_FOUND, "no such service")
        return b"\x08\x02" if question == b"\x0a\x04sick" else b"\x08\x01"

    server = grpc.aio.server()
    handlers = {"Check": grpc.unary_unary_rpc_method_handler(check)}
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler("grpc.health.v1.Health", handlers),)
    )
    port = server.add_insecure_port(f"{HOST}:0")
    await server.start()
    yield port
    await server.stop(None)


async def execute(argv: list[str], timeout_s: float) -> ExecResult:
    return ExecResult(int(argv[0]), b"said", timed_out=argv[0] == "124")


async def one(port: int = 0, **probe: Any) -> Answer:
    body = container(ports=[{"name": "http", "containerPort": port}])
    patient = {"timeoutSeconds": 60, **probe}  # a busy machine may take longer than the second that it has
    return await ask(patient, body, HOST, execute)


@pytest.mark.parametrize(
    ("path", "ok"), [("/200", True), ("/302", True), ("/404", False), ("/503", False), ("/garbage", False)]
)
async def test_http(http: int, path: str, ok: bool) -> None:
    assert (await one(http, httpGet={"path": path, "port": "http"})).ok is ok
    assert (await one(httpGet={"path": path.removeprefix("/"), "port": http})).ok is ok


async def test_http_headers_and_deadline(http: int) -> None:
    headers = [{"name": "X-Me", "value": "yes"}]
    assert (await one(httpGet={"path": "/header", "port": http, "httpHeaders": headers})).ok
    slow = await one(httpGet={"path": "/slow", "port": http}, timeoutSeconds=1)
    assert slow == Answer(False, "no answer within 1 s")


async def test_tcp_and_what_is_wrong(http: int) -> None:
    assert (await one(tcpSocket={"port": http})).ok
    assert "refused" in (await one(tcpSocket={"port": 1})).message
    assert "no port named 'x'" in (await one(tcpSocket={"port": "x"})).message
    other = await ask({"udp": {"port": http}}, container(), HOST, execute)
    assert "of the kind udp are not supported" in other.message


@pytest.mark.parametrize(
    ("service", "why"),
    [
        ("", ""),
        ("well", ""),
        ("long" * 50, ""),
        ("sick", "service 'sick' is not serving"),
        ("unknown", "no such service"),
        ("slow", "no answer within 1 s"),
    ],
)
async def test_grpc(grpc_health: int, service: str, why: str) -> None:
    more = {"timeoutSeconds": 1} if service == "slow" else {}
    answer = await one(grpc={"port": grpc_health, "service": service}, **more)
    assert answer.ok is (why == "")
    assert answer.message.endswith(why)


async def test_grpc_where_nobody_listens() -> None:
    answer = await one(grpc={"port": 1})
    assert not answer.ok
    assert f"gRPC probe of {HOST}:1 failed" in answer.message


async def test_the_library_is_loaded_beside_the_event_loop() -> None:
    """In a process of its own, where no probe has asked for it yet."""
    script = """
import asyncio, sys, threading
from infra.local.node.probes import ask
found = []
class Watch:
    def find_spec(self, name, *more):
        if name == "grpc":
            found.append(threading.current_thread() is threading.main_thread())
sys.meta_path.insert(0, Watch())
async def main():
    return await asyncio.gather(*(ask({"grpc": {"port": 1}}, {}, "127.0.0.1", None) for _ in range(3)))
for answer in asyncio.run(main()):
    assert answer.message.startswith("gRPC probe of 127.0.0.1:1 failed"), answer
assert found and not any(found), found
"""
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", script)
    assert await asyncio.wait_for(process.wait(), timeout=120) == 0


async def test_https_probes_share_a_context(https: int) -> None:
    for _ in range(2):
        assert (await one(httpGet={"path": "/200", "port": https, "scheme": "HTTPS"})).ok
    assert _tls() is _tls()


async def test_exec() -> None:
    assert (await one(exec={"command": ["0"]})).ok
    assert await one(exec={"command": ["1"]}) == Answer(False, "said")
    assert "timed out" in (await one(exec={"command": ["124"]})).message


async def test_a_prober_tells_changes_only_and_a_startup_probe_ends() -> None:
    answers = iter([1, 0, 0])
    verdicts: list[bool] = []
    failures: list[str] = []

    async def flaky(argv: list[str], timeout_s: float) -> ExecResult:
        return ExecResult(next(answers), b"no")

    probe = {"exec": {"command": ["x"]}, "periodSeconds": 0.01}
    prober = Prober(
        "startup", probe, container(), HOST, flaky, lambda ok, _: verdicts.append(ok), failures.append
    )
    await asyncio.wait_for(prober.run(ran_s=0), timeout=60)
    assert verdicts == [True]
    assert failures == ["no"]


@pytest.mark.parametrize(
    ("kind", "fails_first", "asks", "told"),
    [
        ("readiness", 2, 3, [True]),
        ("startup", 2, 3, [True]),
        ("readiness", 1000, 5, []),
        ("liveness", 1000, 1, []),
    ],
)
async def test_a_container_that_starts_is_looked_at_early(
    kind: Any, fails_first: int, asks: int, told: list[bool]
) -> None:
    """Long before its period is over; looks that fail count for nothing and are not told."""
    asked = 0
    enough = asyncio.Event()
    verdicts: list[bool] = []
    failures: list[str] = []

    async def slow_starter(argv: list[str], timeout_s: float) -> ExecResult:
        nonlocal asked
        asked += 1
        if asked == asks:
            enough.set()
        return ExecResult(int(asked <= fails_first), b"no")

    probe = {"exec": {"command": ["x"]}, "periodSeconds": 1000, "failureThreshold": 2}
    prober = Prober(
        kind, probe, container(), HOST, slow_starter, lambda ok, _: verdicts.append(ok), failures.append
    )
    task = asyncio.create_task(prober.run(ran_s=0))
    await asyncio.wait_for(enough.wait(), timeout=120)
    await asyncio.sleep(0.2)  # long enough for another look, where there is one
    task.cancel()
    assert (verdicts, failures) == (told, ["no"])
    assert asked == asks or not told
    assert (asked == 1) == (kind == "liveness")
