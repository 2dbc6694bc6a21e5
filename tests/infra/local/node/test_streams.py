"""exec, cp, attach and port-forward by the real kubectl, and what they say when they can't."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import pty
import re
import struct
import termios
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from infra.local import toolchain
from infra.local.runtime.runtime import VIEWERS_MOST
from tests.infra.local.node.conftest import RunningNode, Space, is_ready, main, wait

DEADLINE_S = 120.0
ECHO = """
import os, socket
server = socket.create_server((os.environ["IP"], 7000))
while True:
    peer, _ = server.accept()
    if os.fork() == 0:
        while data := peer.recv(65536):
            peer.sendall(data.upper())
        os._exit(0)
    peer.close()
"""
POD_IP = [{"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}]


@dataclass(frozen=True)
class Kubectl:
    """The real kubectl in one namespace."""

    program: Path
    kubeconfig: Path
    namespace: str

    async def start(self, *words: str, **streams: Any) -> asyncio.subprocess.Process:
        found = {name: asyncio.subprocess.PIPE for name in ("stdin", "stdout", "stderr")}
        return await asyncio.create_subprocess_exec(
            self.program,
            f"--kubeconfig={self.kubeconfig}",
            f"--namespace={self.namespace}",
            *words,
            **{**found, **streams},
        )

    async def __call__(self, *words: str, stdin: bytes = b"") -> tuple[int, bytes, str]:
        """Exit code, output and what it said on stderr."""
        process = await self.start(*words)
        try:
            async with asyncio.timeout(DEADLINE_S):
                out, err = await process.communicate(stdin)
        finally:
            if process.returncode is None:
                process.kill()
        return process.returncode or 0, out, err.decode()


@pytest.fixture
def kubectl(node: RunningNode, space: Space) -> Kubectl:
    return Kubectl(toolchain.locate(["kubectl"]).path("kubectl"), node.plane.kubeconfig, space.name)


@contextlib.asynccontextmanager
async def ending(process: asyncio.subprocess.Process) -> AsyncIterator[asyncio.subprocess.Process]:
    """Have it ended, and reaped, at the end."""
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def said(stream: asyncio.StreamReader | None, pattern: str) -> re.Match[str]:
    """Read until the pattern is there."""
    assert stream is not None
    text = ""
    try:
        async with asyncio.timeout(DEADLINE_S):
            while (found := re.search(pattern, text)) is None:
                more = await stream.read(4096)
                assert more, f"it ended without {pattern!r}: {text}"
                text += more.decode()
    except TimeoutError:
        raise AssertionError(f"it never said {pattern!r}: {text!r}") from None
    return found


async def test_exec(space: Space, kubectl: Kubectl) -> None:
    limits = {"resources": {"limits": {"memory": "64Mi"}}}
    await space.run("p", "sleep", "inf", pod={"securityContext": {"runAsUser": 4321}}, env=POD_IP, **limits)
    await space.until("p", is_ready)
    script = "echo $IP; id -u; readlink /proc/self/ns/pid /proc/1/ns/pid; echo apart >&2; exit 3"
    code, out, err = await kubectl("exec", "p", "--", "sh", "-c", script)
    ip, uid, own, first = out.decode().split()
    assert (code, ip, uid, own) == (3, (await space.get("p"))["status"]["podIP"], "4321", first)
    assert err.splitlines() == ["apart", "command terminated with exit code 3"]
    group = "cat /proc/self/cgroup | grep memory; cat /proc/1/cgroup | grep memory"
    _, out, _ = await kubectl("exec", "p", "--", "sh", "-c", group)
    mine, theirs = out.split()
    assert mine == theirs
    assert b"main" in mine
    # What is written to it comes back whole, and its end is told.
    many = os.urandom(3_000_000)
    code, out, _ = await kubectl("exec", "-i", "p", "-c", "main", "--", "cat", stdin=many)
    assert (code, out == many) == (0, True)
    assert (await kubectl("exec", "-i", "p", "--", "head", "-c", "1", stdin=many))[:2] == (0, many[:1])
    # A child in the background doesn't hold it up.
    assert (await kubectl("exec", "p", "--", "sh", "-c", "sleep 1000 & echo done"))[:2] == (0, b"done\n")


async def test_exec_that_cannot_be(space: Space, kubectl: Kubectl) -> None:
    await space.run("p", "sleep", "inf")
    await space.run("never", "true", image="nosuch:1")
    await space.until("p", is_ready)
    code, _, err = await kubectl("exec", "p", "--", "nosuch")
    assert code == 127
    assert "exec: 'nosuch': executable file not found in $PATH" in err
    code, _, err = await kubectl("exec", "p", "--", "/etc/hosts")
    assert code == 126
    assert "Permission denied" in err
    await space.until("never", lambda pod: pod["status"]["containerStatuses"][0]["state"]["waiting"])
    code, _, err = await kubectl("exec", "never", "--", "true")
    assert code == 1
    assert re.search('container "main" in pod "never" is not running: (ErrImagePull|ImagePullBackOff)', err)
    code, _, err = await kubectl("exec", "p", "--", "sh", "-c", "kill -9 $$")
    assert code == 137


async def test_a_terminal_with_its_size(space: Space, kubectl: Kubectl) -> None:
    await space.run("p", "sleep", "inf")
    await space.until("p", is_ready)
    near, far = pty.openpty()
    fcntl.ioctl(far, termios.TIOCSWINSZ, struct.pack("HHHH", 33, 111, 0, 0))
    process = await kubectl.start("exec", "-it", "p", "--", "sh", stdin=far, stdout=far, stderr=far)
    os.close(far)
    async with ending(process):
        os.set_blocking(near, False)
        screen = asyncio.StreamReader()
        transport, _ = await asyncio.get_running_loop().connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(screen), os.fdopen(near, "rb", buffering=0, closefd=False)
        )
        try:
            await said(screen, r"[#$] $")
            os.write(near, b"tty; stty size; echo $TERM\n")
            await said(screen, r"/dev/pts/0\r\n33 111\r\nxterm")
            fcntl.ioctl(near, termios.TIOCSWINSZ, struct.pack("HHHH", 44, 122, 0, 0))
            process.send_signal(28)  # SIGWINCH, as a terminal sends it
            os.write(near, b"while [ \"$(stty size)\" != '44 122' ]; do sleep 0.1; done; echo resi''zed\n")
            await said(screen, "resized")
            os.write(near, b"echo sleep''ing; sleep 1000\n")
            await said(screen, "sleeping")
            back = asyncio.create_task(said(screen, r"\^C\s+[#$] $"))
            while not back.done():  # the shell misses one that comes while it starts the program
                os.write(near, b"\x03")
                await asyncio.wait({back}, timeout=0.2)
            await back
            os.write(near, b"exit 5\n")
            async with asyncio.timeout(DEADLINE_S):
                assert await process.wait() == 5
        finally:
            transport.close()
            os.close(near)


@pytest.mark.parametrize("unread", [0, 500_000, 20_000_000])
async def test_a_client_that_goes_takes_its_command_along(
    space: Space, kubectl: Kubectl, unread: int, tmp_path: Path
) -> None:
    """Also where it has sent more than its command reads, or than anybody keeps."""
    await space.run("p", "sleep", "inf")
    await space.until("p", is_ready)
    (tmp_path / "input").write_bytes(bytes(unread))
    words = ("exec", "-i", "p", "--", "sh", "-c", "echo begun; sleep 1234")
    with (tmp_path / "input").open("rb") as stdin:
        process = await kubectl.start(*words, stdin=stdin)
    async with ending(process):
        await said(process.stdout, "begun")

    async def alone() -> bool:
        _, out, _ = await kubectl("exec", "p", "--", "sh", "-c", "cat /proc/[0-9]*/cmdline | tr '\\0' ' '")
        return b"sleep 1234" not in out

    await wait(alone, "the command goes on although its client has gone")


async def test_viewers_leave_room_for_probes(node: RunningNode, space: Space, kubectl: Kubectl) -> None:
    probe = {"exec": {"command": ["true"]}, "periodSeconds": 1, "failureThreshold": 1, "timeoutSeconds": 20}
    await space.run("p", "sleep", "inf", readinessProbe=probe)
    pod = await space.until("p", is_ready)
    runtime, run = node.agent.context.runtime, main(pod)["containerID"].removeprefix("switchboard://")
    held = [
        runtime.open(run, ["sleep", "1000"], stdin=False, stderr=False, tty=False)
        for _ in range(VIEWERS_MOST)
    ]
    for words in (("exec", "p", "--", "true"), ("attach", "p")):
        code, _, err = await kubectl(*words)
        assert code == 1
        assert 'container "main" in pod "p" has 56 commands and viewers already' in err
    assert (await runtime.exec(run, ["true"], DEADLINE_S)).exit_code == 0
    assert is_ready(await space.get("p"))
    for session in held:
        session.close()
    assert (await kubectl("exec", "p", "--", "true"))[0] == 0


async def test_cp(space: Space, kubectl: Kubectl, tmp_path: Path) -> None:
    await space.run("p", "sleep", "inf")
    await space.until("p", is_ready)
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "file").write_bytes(os.urandom(1_000_000))
    assert (await kubectl("cp", str(tmp_path / "there"), "p:/tmp/place"))[0] == 0
    assert (await kubectl("cp", "p:/tmp/place/file", str(tmp_path / "back")))[0] == 0
    assert (tmp_path / "back").read_bytes() == (tmp_path / "there" / "file").read_bytes()


async def test_attach(space: Space, kubectl: Kubectl) -> None:
    script = "while read line; do echo got $line; done; echo bye"
    await space.run("p", "sh", "-c", script, pod={"restartPolicy": "Never"}, stdin=True, stdinOnce=True)
    await space.until("p", is_ready)
    watching = await kubectl.start("attach", "p")
    async with ending(watching), ending(await kubectl.start("attach", "-i", "p")) as typing:
        assert typing.stdin is not None
        typing.stdin.write(b"one\n")
        await said(typing.stdout, "got one")
        seeing = asyncio.create_task(said(watching.stdout, "got two"))
        while not seeing.done():  # nobody tells when the other one has joined
            typing.stdin.write(b"two\n")
            await asyncio.wait({seeing}, timeout=0.1)
        await seeing
        typing.stdin.close()  # its only input, so the program's ends too
        await said(typing.stdout, "bye")
        async with asyncio.timeout(DEADLINE_S):
            assert await typing.wait() == 0
            assert await watching.wait() == 0
    await space.until("p", lambda pod: pod["status"]["phase"] == "Succeeded")
    lines = (await space.log("p")).splitlines()
    assert (lines[:2], lines[-1]) == (["got one", "got two"], "bye")


async def test_run_with_a_terminal(space: Space, kubectl: Kubectl) -> None:
    await space.run("p", "sh", stdin=True, tty=True, pod={"restartPolicy": "Never"})
    await space.until("p", is_ready)
    async with ending(await kubectl.start("attach", "-i", "p")) as process:
        assert process.stdin is not None
        process.stdin.write(b"tty\n")
        await said(process.stdout, r"/dev/pts/0\r\n")
        process.stdin.write(b"exit 0\n")
        async with asyncio.timeout(DEADLINE_S):
            await process.wait()
    await space.until("p", lambda pod: pod["status"]["phase"] == "Succeeded")


async def test_port_forward(space: Space, kubectl: Kubectl) -> None:
    await space.run(
        "p",
        "python3",
        "-c",
        ECHO,
        env=POD_IP,
        readinessProbe={"tcpSocket": {"port": 7000}, "periodSeconds": 1},
    )
    await space.until("p", is_ready)
    async with ending(await kubectl.start("port-forward", "p", ":7000")) as process:
        port = int((await said(process.stdout, r"127.0.0.1:(\d+) -> 7000")).group(1))

        async def ask(text: bytes) -> bytes:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(text)
            writer.write_eof()
            answer = await reader.read()
            writer.close()
            return answer

        async with asyncio.timeout(DEADLINE_S):
            answers = await asyncio.gather(*(ask(b"%d:" % n + b"abc" * 100_000) for n in range(10)))
        assert answers == [b"%d:" % n + b"ABC" * 100_000 for n in range(10)]
        async with asyncio.timeout(DEADLINE_S):
            assert await ask(b"again") == b"AGAIN"  # the tunnel outlives its connections


async def test_port_forward_to_a_port_where_nobody_listens(space: Space, kubectl: Kubectl) -> None:
    await space.run("p", "sleep", "inf")
    await space.until("p", is_ready)
    async with ending(await kubectl.start("port-forward", "p", ":7001")) as process:
        port = int((await said(process.stdout, r"127.0.0.1:(\d+) -> 7001")).group(1))
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        await said(process.stderr, r"error forwarding port 7001 to pod \S+: [\d.]+:7001: connection refused")
        writer.close()


async def test_an_agent_s_restart_ends_streams_and_leaves_the_pod(
    node: RunningNode, space: Space, kubectl: Kubectl
) -> None:
    await space.run("p", "sleep", "inf")
    pod = await space.until("p", is_ready)
    forward = await kubectl.start("port-forward", "p", ":7002")
    command = await kubectl.start("exec", "p", "--", "sh", "-c", "echo begun; sleep 1235")
    async with ending(forward), ending(command):
        await said(forward.stdout, "-> 7002")
        await said(command.stdout, "begun")
        async with asyncio.timeout(DEADLINE_S):
            await node.restart()
            assert await forward.wait() == 1
            assert await command.wait() != 0
    script = "while cat /proc/[0-9]*/cmdline | tr '\\0' ' ' | grep -q '[s]leep 1235'; do sleep 0.1; done"
    assert (await kubectl("exec", "p", "--", "sh", "-c", script))[0] == 0
    again = await space.get("p")
    assert main(again)["containerID"] == main(pod)["containerID"]
    assert main(again)["restartCount"] == 0
