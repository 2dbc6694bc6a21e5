"""`kubectl exec`, `cp`, `run -i` and `port-forward`, as upstream tries them; probes of redirects and of gRPC."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp

from switchboard.kube import Object
from tests.infra.local.behaviours.cluster import Space
from tests.infra.local.behaviours.manifests import (
    FOREVER,
    POD_IP,
    http_server,
    over,
    pod,
    ready,
    sh,
    status_of,
    terminated,
)
from tests.infra.local.behaviours.scenario import behaviour

PATIENT = {"periodSeconds": 1, "failureThreshold": 60, "timeoutSeconds": 20}


@behaviour(
    "[sig-cli] Kubectl client Simple pod should support exec",
    "[sig-cli] Kubectl client Simple pod should support exec using resource/name",
    "[sig-cli] Kubectl client Simple pod should return command exit codes execing into a container with a "
    "successful command",
    "[sig-cli] Kubectl client Simple pod should return command exit codes execing into a container with a "
    "failing command",
    "[sig-node] Pods should support remote command execution over websockets [Conformance] [NodeConformance]",
)
async def test_exec(space: Space) -> None:
    await space.pod(pod("p", FOREVER))
    await space.until("p", ready)
    assert (
        await space.kubectl("exec", "p", "--", "echo", "running", "in", "container")
        == "running in container\n"
    )
    assert await space.kubectl("exec", "pod/p", "--", "true") == ""
    # A lot of input, to see that all of it comes back.
    much = "".join(f"line {number}\n" for number in range(20_000))
    assert await space.kubectl("exec", "-i", "p", "--", "cat", stdin=much) == much
    failed = await space.kubectl("exec", "p", "--", "sh", "-c", "exit 42", ok=False)
    assert "exit code 42" in failed


@behaviour("[sig-cli] Kubectl client Kubectl copy should copy a file from a running Pod")
async def test_copy(space: Space) -> None:
    probe = {"exec": {"command": ["test", "-e", "/tmp/d/written"]}, **PATIENT}
    script = "mkdir -p /tmp/d; seq 100000 > /tmp/d/f; touch /tmp/d/written; " + FOREVER
    await space.pod(pod("p", sh(script, readinessProbe=probe)))
    await space.until("p", ready)
    target = space.cluster.plane.layout.directory / f"copied-{space.name}"
    await space.kubectl("cp", "p:/tmp/d/f", str(target))
    assert target.read_text() == "".join(f"{n}\n" for n in range(1, 100_001))
    target.unlink()


@asynccontextmanager
async def forwarded(space: Space, pod_port: str) -> AsyncIterator[int]:
    """The local port of a `kubectl port-forward` to the pod `p`."""
    arguments = ("-n", space.name, "port-forward", "pod/p", f":{pod_port}")
    async with space.cluster.kubectl_running(*arguments) as process:
        assert process.stdout is not None
        line = (await asyncio.wait_for(process.stdout.readline(), 60)).decode()
        yield int(line.split("->")[0].rsplit(":", 1)[1])


@behaviour("[sig-cli] Kubectl client Simple pod should return command exit codes should support port-forward")
async def test_port_forward(space: Space) -> None:
    server = http_server(readinessProbe={"tcpSocket": {"port": "http"}, **PATIENT})
    await space.pod(pod("p", server))
    await space.until("p", ready)
    async with forwarded(space, "8080") as port, aiohttp.ClientSession() as session:
        for _ in range(2):
            async with session.get(f"http://127.0.0.1:{port}/") as response:
                assert response.status == 200


WAITS_FOR_A_REQUEST = """
import os, signal, socket, sys
signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
server = socket.create_server((sys.argv[1], 0))
print(server.getsockname()[1], flush=True)
open("/tmp/listens", "w").close()
while True:
    client, _ = server.accept()
    print("a client came and sent", len(client.recv(3)), "bytes", flush=True)
    client.close()
"""


async def _told_nothing(space: Space, host: str) -> tuple[bytes, str]:
    """What a client gets that says nothing to a server on `host`, and what that server printed."""
    listens = {"exec": {"command": ["test", "-e", "/tmp/listens"]}, **PATIENT}
    server = http_server(readinessProbe=listens)
    server |= {"command": ["python3", "-S", "-c", WAITS_FOR_A_REQUEST, host], "ports": []}
    await space.pod(pod("p", server))
    await space.until("p", ready)
    pod_port = await space.first_word("p")
    async with forwarded(space, pod_port) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write_eof()
        got = await asyncio.wait_for(reader.read(), 60)
        writer.close()
    # Not deleted: then its log would go with it. The command itself ends with the container.
    await space.kubectl("exec", "p", "--", "kill", "1", ok=False)
    await space.until("p", over)
    return got, await space.log("p")


@behaviour(
    "[sig-cli] Kubectl Port forwarding With a server listening on 0.0.0.0 that expects a client request "
    "should support a client that connects, sends NO DATA, and disconnects",
)
async def test_port_forward_without_data(space: Space) -> None:
    got, printed = await _told_nothing(space, "0.0.0.0")
    assert got == b""
    assert printed.splitlines()[1:] == ["a client came and sent 0 bytes"]


@behaviour(
    "[sig-cli] Kubectl Port forwarding With a server listening on localhost that expects a client request "
    "should support a client that connects, sends NO DATA, and disconnects",
    differs="pods share the machine's loopback: only what listens on the pod's own address (or all) is reached; "
    "the connection is closed at once, and kubectl says why",
)
async def test_port_forward_to_localhost(space: Space) -> None:
    got, printed = await _told_nothing(space, "localhost")
    assert got == b""
    assert printed.splitlines()[1:] == [], "nobody came"


@behaviour(
    "[sig-cli] Kubectl client Simple pod Kubectl run running a successful command",
    "[sig-cli] Kubectl client Simple pod Kubectl run running a failing command",
)
async def test_run(space: Space) -> None:
    run = ("run", "--image=busybox", "--restart=Never", "--pod-running-timeout=2m0s", "-i", "--rm")
    await space.kubectl(*run, "good", "--", "sh", "-c", "sleep 1; exit 0")
    failed = await space.kubectl(*run, "bad", "--", "sh", "-c", "sleep 1; exit 42", ok=False)
    assert "terminated (Error)" in failed or "exit code 42" in failed
    await space.gone("good")
    await space.gone("bad")


@behaviour(
    "[sig-node] Probing container should *not* be restarted with a non-local redirect http liveness probe "
    "[NodeConformance]",
    "[sig-node] Probing container should be restarted with a local redirect http liveness probe "
    "[NodeConformance]",
    differs="a redirect is a yes, wherever it leads: it is not followed",
)
async def test_redirects(space: Space) -> None:
    code = (
        "import http.server as h, os\n"
        "class H(h.BaseHTTPRequestHandler):\n"
        "  def do_GET(self):\n"
        "    self.send_response(302); self.send_header('Location', '/healthz'); self.end_headers()\n"
        "h.ThreadingHTTPServer((os.environ['POD_IP'], 8080), H).serve_forever()"
    )
    probe = {"httpGet": {"path": "/redirect", "port": 8080}, **PATIENT, "failureThreshold": 1}
    startup = {"tcpSocket": {"port": 8080}, **PATIENT}
    server = http_server(livenessProbe=probe, startupProbe=startup) | {
        "command": ["python3", "-S", "-c", code]
    }
    await space.pod(pod("p", server, restartPolicy="Always"))
    await space.until("p", ready)
    await asyncio.sleep(3)
    assert status_of(await space.get("p"))["restartCount"] == 0


GRPC = """
import grpc, os, sys, time
from concurrent import futures
started = time.monotonic()
def check(request, context):
    return b"\\x08\\x01" if time.monotonic() - started < float(sys.argv[1]) else b"\\x08\\x02"
methods = {"Check": grpc.unary_unary_rpc_method_handler(check)}
handler = grpc.method_handlers_generic_handler("grpc.health.v1.Health", methods)
server = grpc.server(futures.ThreadPoolExecutor(2))
server.add_generic_rpc_handlers((handler,))
server.add_insecure_port(os.environ["POD_IP"] + ":5000")
server.start()
server.wait_for_termination()
"""


def grpc_server(healthy_s: float) -> Object:
    """A server that is healthy for so long."""
    probe = {"grpc": {"port": 5000}, "periodSeconds": 1, "timeoutSeconds": 20}
    return {
        "name": "main",
        "image": "switchboard.dev/switchboard:0.1.0",
        "command": ["python", "-c", GRPC, str(healthy_s)],
        "env": [POD_IP],
        "startupProbe": {"tcpSocket": {"port": 5000}, **PATIENT},
        "livenessProbe": {**probe, "failureThreshold": 1},
    }


@behaviour(
    "[sig-node] Probing container should *not* be restarted with a GRPC liveness probe [Conformance] "
    "[NodeConformance]",
    "[sig-node] Probing container should be restarted with a GRPC liveness probe [Conformance] "
    "[NodeConformance]",
)
async def test_grpc(space: Space) -> None:
    await space.pod(pod("good", grpc_server(9999), restartPolicy="Always"))
    await space.pod(pod("bad", grpc_server(1), restartPolicy="Always"))
    await space.until("bad", lambda p: status_of(p)["restartCount"] >= 1)
    await space.until("good", ready)
    await asyncio.sleep(2)
    assert status_of(await space.get("good"))["restartCount"] == 0


@behaviour(
    "[sig-node] Containers Lifecycle when Running a pod with init containers and regular containers, "
    "restartPolicy=Never when A regular container has a PreStop hook when A regular container fails a "
    "liveness probe when a pod is terminating because its liveness probe fails should execute readiness "
    "probe while in preStop, but not liveness [NodeConformance]",
    differs="a container that is being ended isn't asked for its readiness any more: it is unready from there on",
)
async def test_probes_while_it_ends(space: Space) -> None:
    probes = {
        "readinessProbe": {"exec": {"command": ["sh", "-c", "echo ready >> /tmp/asked"]}, **PATIENT},
        "livenessProbe": {
            "exec": {"command": ["false"]},
            **PATIENT,
            "initialDelaySeconds": 1,
            "failureThreshold": 1,
        },
    }
    hook = {
        "preStop": {
            "exec": {"command": ["sh", "-c", "rm /tmp/asked; sleep 3; ls /tmp/asked > /proc/1/fd/1 2>&1"]}
        }
    }
    script = "trap 'exit 0' TERM; sleep inf & wait"
    body = pod("p", sh(script, lifecycle=hook, **probes), terminationGracePeriodSeconds=30)
    made = await space.pod(body)
    await space.until("p", lambda p: terminated(p))
    assert "No such file" in await space.log("p"), "nobody asked while it ended"
    assert not ready(space.seen(made)[-1])
