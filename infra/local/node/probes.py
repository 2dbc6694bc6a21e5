"""Startup, readiness and liveness probes: the counting (pure) and the asking (exec, HTTP, TCP, gRPC).

A probe is asked of the pod's own address. One task a probe; `Tally` turns single answers into a verdict by the
thresholds, so that one slow answer doesn't take a pod out of service.
"""

from __future__ import annotations

import asyncio
import functools
import importlib
import random
import ssl
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from infra.local.node.podspec import named_port
from infra.local.runtime.spec import ExecResult
from switchboard.kube import Object

FIRST_LOOK_S = 0.05
LOOKS_GROW = 1.5
EARLY_LOOKS_S = 60.0

Exec = Callable[[list[str], float], Awaitable[ExecResult]]


@dataclass(frozen=True)
class Answer:
    """One answer to a probe; `message` says what was wrong."""

    ok: bool
    message: str = ""


@dataclass(frozen=True)
class Timing:
    """When a probe is asked, and how many like answers count."""

    initial_delay_s: float = 0.0
    period_s: float = 10.0
    timeout_s: float = 1.0
    successes: int = 1
    failures: int = 3

    @classmethod
    def of(cls, probe: Mapping[str, Any]) -> Timing:
        return cls(
            initial_delay_s=float(probe.get("initialDelaySeconds") or 0),
            period_s=float(probe.get("periodSeconds") or 10),
            timeout_s=float(probe.get("timeoutSeconds") or 1),
            successes=int(probe.get("successThreshold") or 1),
            failures=int(probe.get("failureThreshold") or 3),
        )


@dataclass(frozen=True)
class Tally:
    """How many answers of one sort came in a row; `verdict` changes when they reach the threshold."""

    verdict: bool | None = None
    last: bool | None = None
    run: int = 0
    succeeded: bool = False

    def add(self, ok: bool, timing: Timing) -> Tally:
        run = self.run + 1 if ok == self.last else 1
        needed = timing.successes if ok else timing.failures
        return Tally(ok if run >= needed else self.verdict, ok, run, self.succeeded or ok)


def initial_delay_left(timing: Timing, ran_s: float) -> float:
    """How long to wait before the first answer of a container that has run for `ran_s` (< 0: a clock put back)."""
    return max(0.0, timing.initial_delay_s - max(0.0, ran_s))


def first_wait(timing: Timing, ran_s: float, share: float) -> float:
    """How long to wait before the first answer of a container that an agent finds running.

    A share (0 to 1) of the period: an agent that comes back should not ask everything at once, then and ever after.
    """
    return share * timing.period_s if ran_s > timing.period_s else 0.0


async def ask(probe: Mapping[str, Any], one: Object, pod_ip: str, execute: Exec) -> Answer:
    """Ask once; never raises (but for cancellation): what goes wrong is the answer."""
    timeout_s = Timing.of(probe).timeout_s
    try:
        if action := probe.get("exec"):
            return await _exec(action, execute, timeout_s)
        if action := probe.get("httpGet"):
            async with asyncio.timeout(timeout_s):
                return await http_get(action, one, pod_ip)
        if action := probe.get("tcpSocket"):
            async with asyncio.timeout(timeout_s):
                return await _tcp(action, one, pod_ip)
        if action := probe.get("grpc"):
            return await _grpc(action, pod_ip, timeout_s)
    except TimeoutError:
        return Answer(False, f"no answer within {timeout_s:g} s")
    except ConnectionRefusedError:
        return Answer(False, f"connection refused by {pod_ip}")
    except Exception as error:
        return Answer(False, str(error) or type(error).__name__)
    return Answer(False, f"probes of the kind {', '.join(probe)} are not supported by the embedded cloud")


async def _exec(action: Mapping[str, Any], execute: Exec, timeout_s: float) -> Answer:
    result = await execute(list(action["command"]), timeout_s)
    if result.timed_out:
        return Answer(False, f"command timed out after {timeout_s:g} s")
    return Answer(result.exit_code == 0, result.text.strip()[-1024:] or f"exit code {result.exit_code}")


async def http_get(action: Mapping[str, Any], one: Object, pod_ip: str) -> Answer:
    """One GET; 200-399 is a yes. Written on bare streams: a node asks this all day, for every pod."""
    host = action.get("host") or pod_ip
    port = named_port(one, action["port"])
    scheme: Literal["HTTP", "HTTPS"] = action.get("scheme") or "HTTP"
    path = action.get("path") or "/"
    path = path if path.startswith("/") else "/" + path
    headers = {"Host": f"{host}:{port}", "User-Agent": "kube-probe/switchboard", "Accept": "*/*"}
    headers |= {h["name"]: h.get("value") or "" for h in action.get("httpHeaders") or []}
    request = f"GET {path} HTTP/1.1\r\n" + "".join(f"{k}: {v}\r\n" for k, v in headers.items())
    reader, writer = await asyncio.open_connection(host, port, ssl=_tls() if scheme == "HTTPS" else None)
    try:
        writer.write((request + "Connection: close\r\n\r\n").encode())
        first = (await reader.readline()).decode(errors="replace").split(" ", 2)
        if len(first) < 2 or not first[0].startswith("HTTP/") or not first[1].isdigit():
            return Answer(False, "the answer is not HTTP")
        status = int(first[1])
        return Answer(200 <= status < 400, f"HTTP probe failed with statuscode: {status}")
    finally:
        writer.close()


async def _tcp(action: Mapping[str, Any], one: Object, pod_ip: str) -> Answer:
    _, writer = await asyncio.open_connection(action.get("host") or pod_ip, named_port(one, action["port"]))
    writer.close()
    return Answer(True)


_libraries: dict[str, Any] = {}
_SERVING = b"\x08\x01"


async def _grpc(action: Mapping[str, Any], pod_ip: str, timeout_s: float) -> Answer:
    """One grpc.health.v1.Health/Check, its two small messages by hand.

    The library is loaded by the first pod that needs it: it costs an agent 20 MB. In a thread, since it takes
    long enough to keep other pods waiting.
    """
    if "grpc" not in _libraries:
        _libraries["grpc"] = await asyncio.to_thread(importlib.import_module, "grpc")  # with `grpc.aio`
    grpc = _libraries["grpc"]
    address, service = f"{pod_ip}:{action['port']}", (action.get("service") or "").encode()
    size = len(service)
    length = bytes([size]) if size < 0x80 else bytes([size & 0x7F | 0x80, size >> 7])
    question = b"\x0a" + length + service if service else b""  # field 1 of HealthCheckRequest
    async with grpc.aio.insecure_channel(address) as channel:
        check = channel.unary_unary("/grpc.health.v1.Health/Check")
        try:
            said = await check(question, timeout=timeout_s)
        except grpc.aio.AioRpcError as error:
            late = error.code() is grpc.StatusCode.DEADLINE_EXCEEDED
            why = f"no answer within {timeout_s:g} s" if late else error.details() or error.code().name
            return Answer(False, f"gRPC probe of {address} failed: {why}")
    serving = said == _SERVING
    return Answer(
        serving, "" if serving else f"gRPC probe of {address}: service {service.decode()!r} is not serving"
    )


@functools.cache
def _tls() -> ssl.SSLContext:
    """One for all probes: to make it costs more than to ask."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE  # as a kubelet: a probe asks whether it lives, not who it is
    return context


@dataclass
class Prober:
    """Asks one probe again and again; `on_verdict(ok, message)` is called when the verdict changes.

    A failed verdict of a liveness or startup probe ends the prober: the container is stopped and a new run gets
    probers of its own. A startup probe that succeeds ends it too.

    Until a container has answered once, in its first minute it is also looked at between the periods, so that it is
    ready soon after it could be; such a look counts only when it succeeds, and says nothing when it fails.
    """

    kind: Literal["startup", "readiness", "liveness"]
    probe: Mapping[str, Any]
    one: Object
    pod_ip: str
    execute: Exec
    on_verdict: Callable[[bool, str], None]
    on_failure: Callable[[str], None]
    known: bool | None = None

    async def run(self, ran_s: float) -> None:
        """Until it is cancelled, or over; the container has run for `ran_s` already."""
        timing = Timing.of(self.probe)
        tally = Tally(verdict=self.known)
        await asyncio.sleep(initial_delay_left(timing, ran_s) or first_wait(timing, ran_s, random.random()))  # noqa: S311
        loop = asyncio.get_running_loop()
        due = loop.time()
        patient_from = due + EARLY_LOOKS_S - ran_s
        answer = await self._ask()
        while True:
            if not answer.ok:
                self.on_failure(answer.message)
            before, tally = tally.verdict, tally.add(answer.ok, timing)
            if tally.verdict is not None and tally.verdict != before:
                self.on_verdict(tally.verdict, answer.message)
                if self.kind == "startup" or (self.kind == "liveness" and not tally.verdict):
                    return
            due = max(due + timing.period_s, loop.time())
            if self.kind != "liveness" and not tally.verdict and not tally.succeeded:
                early = await self._look_early(min(due, patient_from))
                if early is not None:
                    answer, due = early, loop.time()
                    continue
            await asyncio.sleep(due - loop.time())
            answer = await self._ask()

    async def _ask(self) -> Answer:
        return await ask(self.probe, self.one, self.pod_ip, self.execute)

    async def _look_early(self, due: float) -> Answer | None:
        """Ask again and again, at growing intervals, before the next answer is due; the first success."""
        loop, wait_s = asyncio.get_running_loop(), FIRST_LOOK_S
        while loop.time() + 2 * wait_s < due:
            await asyncio.sleep(wait_s)
            if (answer := await self._ask()).ok:
                return answer
            wait_s *= LOOKS_GROW
        return None
