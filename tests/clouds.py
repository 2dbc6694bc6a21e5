"""A whole cloud of a stack of its own, made by the real command, and how its users ask it."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import shlex
import shutil
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import yaml

from switchboard.paths import ROOT

USUAL = 2
"""So many replicas has the core's chat while nobody asks it."""
COMMAND = [sys.executable, "-m", "switchboard.cli"]


@dataclass(frozen=True)
class Answer:
    status: int
    body: dict[str, Any]
    headers: dict[str, str]


@dataclass(frozen=True)
class Cloud:
    """A running cloud of the stack `stack`; `first_up` is what its first `up` printed."""

    stack: str
    environ: dict[str, str]
    first_up: str

    def run(
        self, *words: str, check: bool = True, timeout_s: float = 600
    ) -> subprocess.CompletedProcess[str]:
        """A `switchboard` command on this stack."""
        done = subprocess.run(
            [*COMMAND, *words], cwd=ROOT, env=self.environ, capture_output=True, text=True, timeout=timeout_s
        )
        assert not check or done.returncode == 0, f"{words}: {done.stdout}{done.stderr}"
        if words[0] in ("up", "down", "pulumi"):  # which may give services other addresses
            vars(self).pop("_shell", None)
        return done

    def up(self) -> subprocess.CompletedProcess[str]:
        return self.run("up")

    def status(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.run("status", "--output", "json", check=False).stdout)
        return found

    def until_healthy(self) -> None:
        """Until its own command says so, and what it says if that doesn't come about."""
        said: list[dict[str, Any]] = []

        def healthy() -> bool:
            said[:] = [self.status()]
            return bool(said[0]["healthy"])

        try:
            until(healthy, deadline_s=300, what="healthy")
        except AssertionError as error:
            raise AssertionError(f"{error}\n{json.dumps(said, indent=1)}") from None

    def pulumi(self, *words: str) -> str:
        return self.run("pulumi", "--", *words, "--non-interactive", "--color", "never").stdout

    @functools.cached_property
    def _shell(self) -> dict[str, str]:
        """The environment as `eval "$(switchboard env)"` makes it; asked again once the stack may have changed."""
        exports = (line.removeprefix("export ").split("=", 1) for line in self.run("env").stdout.splitlines())
        return {**self.environ, **{name: shlex.split(value)[0] for name, value in exports}}

    def user(self, *words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """A `switchboard` command of somebody who has said `eval "$(switchboard env)"`."""
        done = subprocess.run(
            [*COMMAND, *words], cwd=ROOT, env=self._shell, capture_output=True, text=True, timeout=900
        )
        assert not check or done.returncode == 0, f"{words}: {done.stdout}{done.stderr}"
        return done

    def kubectl(self, site: str, *words: str, check: bool = True) -> str:
        kubectl = shutil.which("kubectl", path=self._shell["PATH"])
        assert kubectl is not None
        done = subprocess.run(
            [kubectl, "--context", site, *words],
            env=self._shell,
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert not check or done.returncode == 0, done.stderr
        return done.stdout

    def serving(self, *words: str) -> list[dict[str, Any]]:
        """Objects of the public site's namespace, by kubectl's words."""
        listed = json.loads(self.kubectl("public", "get", "-n", "switchboard-serving", "-o", "json", *words))
        items: list[dict[str, Any]] = listed["items"]
        return items

    def chat_pods(self, *, tier: str = "core") -> list[dict[str, Any]]:
        """The pods of a tier's chat servers, those that are ending too."""
        return self.serving("pods", "-l", f"switchboard.dev/model-server=chat,switchboard.dev/tier={tier}")

    def serving_chat_pods(self) -> list[dict[str, Any]]:
        """Of all tiers, those that are ready and not about to end."""
        pods = self.serving("pods", "-l", "switchboard.dev/model-server=chat")
        return [pod for pod in pods if is_ready(pod) and not pod["metadata"].get("deletionTimestamp")]

    def chat_is(self, replicas: int) -> bool:
        """Whether the core's chat has so many pods, all ready, and no others."""
        pods = self.chat_pods()
        return len(pods) == replicas and all(map(is_ready, pods))

    def until_chat_is_usual(self) -> None:
        """Until it has its usual replicas, and only those; what the operator says of it, if it doesn't get them.

        Somebody asks meanwhile: an end of all traffic isn't believed for minutes.
        """
        gateway = self.status()["endpoints"]["gateway"]

        def usual() -> bool:
            ask(gateway, "I lost my card")
            return self.chat_is(USUAL)

        try:
            until(usual, deadline_s=300, what="the usual replicas, and only those")
        except AssertionError as error:
            (server,) = (
                one["status"] for one in self.serving("modelservers") if one["metadata"]["name"] == "chat"
            )
            pods = [(one["metadata"]["name"], is_ready(one)) for one in self.chat_pods()]
            logs = self.kubectl(
                "public",
                "logs",
                *("-n", "switchboard-serving", "-l", "app.kubernetes.io/component=operator"),
                *("--tail", "30", "--prefix"),
                check=False,
            )
            raise AssertionError(f"{error}\n{json.dumps(server, indent=1)}\n{pods}\n{logs}") from None

    @contextlib.contextmanager
    def changed(self, change: Callable[[dict[str, Any]], None]) -> Iterator[None]:
        """The stack file with a change of its `config:`; afterwards the cloud is as it was before."""
        file = ROOT / f"Pulumi.{self.stack}.yaml"
        before = file.read_text()
        document = yaml.safe_load(before)
        change(document["config"])
        file.write_text(yaml.safe_dump(document, sort_keys=False))
        try:
            yield
        finally:
            file.write_text(before)
            self.up()
            self.until_chat_is_usual()

    def asking_for(self, replicas: int) -> contextlib.AbstractContextManager[None]:
        """The stack file asks for so many chat replicas at the least."""

        def change(values: dict[str, Any]) -> None:
            values["switchboard:modelServers"][0]["scaling"]["minReplicas"] = replicas

        return self.changed(change)

    def processes(self) -> list[psutil.Process]:
        """All processes of this stack: its state folder in their words, or in one of its control groups."""
        found = []
        for process in psutil.process_iter():
            try:
                words = [*process.cmdline(), *process.environ().values()]
                groups = Path(f"/proc/{process.pid}/cgroup").read_text()
            except (psutil.Error, OSError):
                continue
            ours = any(self.environ["SWITCHBOARD_STATE"] in word for word in words)
            if process.pid != os.getpid() and (ours or f"/{self.stack}/" in groups):
                found.append(process)
        return found

    def started(self) -> dict[int, float]:
        """When each of its processes was started (seconds since the epoch), by id."""
        found = {}
        for process in self.processes():
            with contextlib.suppress(psutil.NoSuchProcess):
                found[process.pid] = process.create_time()
        return found


def is_ready(pod: dict[str, Any]) -> bool:
    return any(
        one["type"] == "Ready" and one["status"] == "True" for one in pod["status"].get("conditions", ())
    )


def ask(
    url: str, text: str, *, key: str | None = None, session: str = "test", timeout_s: float = 60
) -> Answer:
    """One chat request, whatever its answer's status."""
    return post(
        f"{url}/v1/chat", json.dumps({"text": text}).encode(), session=session, key=key, timeout_s=timeout_s
    )


def post(
    url: str,
    body: bytes,
    *,
    session: str | None = "test",
    key: str | None = None,
    content_type: str = "application/json",
    timeout_s: float = 60,
) -> Answer:
    headers = {"Content-Type": content_type}
    if session is not None:
        headers["X-Session-Id"] = session
    if key is not None:
        headers["Idempotency-Key"] = key
    request = urllib.request.Request(url, data=body, headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=timeout_s) as response:
            return Answer(response.status, json.load(response), dict(response.headers))
    except urllib.error.HTTPError as error:
        return Answer(error.code, json.loads(error.read()), dict(error.headers))


def until(condition: Callable[[], bool], *, deadline_s: float, what: str) -> None:
    """Wait until `condition` holds.

    The pause is longer than it takes to ask, or the questions would take the processor time that is waited for.
    """
    end = time.monotonic() + deadline_s
    while True:
        begun = time.monotonic()
        if condition():
            return
        assert time.monotonic() < end, f"{what}: not within {deadline_s:.0f} s"
        time.sleep(max(0.2, 2 * (time.monotonic() - begun)))
