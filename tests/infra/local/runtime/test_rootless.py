"""Without root: the same containers in a user namespace, and a clear word about what can't be had there."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from switchboard.paths import ROOT

UID = 65534
PYTHON = shutil.which("python3", path="/usr/bin:/usr/local/bin")

PROGRAM = """
import asyncio, json, os, sys
from pathlib import Path
from infra.local.runtime import *
from infra.local.runtime.record import Folder

async def main(folder):
    runtime, image, out = Runtime(folder / "containers"), resolve("debian:12"), {}
    def spec(id, script, **more):
        return ContainerSpec(id, image, ("/bin/sh", "-c", script), folder / f"{id}.log", f"switchboard/x/{id}", **more)
    (folder / "volume").mkdir()
    script = "id -u; id -G; touch /volume/written /x; ls /root /home; echo end; sleep 1000"
    mounts = (Mount(folder / "volume", "/volume"),)
    await runtime.start(spec("app", script, uid=10001, gid=10001, supplemental_groups=(10001,), mounts=mounts,
                             read_only_root=True, limits=Limits(64 << 20)))
    while "F end" not in (folder / "app.log").read_text():
        await asyncio.sleep(0.02)
    out["exec"] = (await runtime.exec("app", ["id", "-u"], 60)).text
    session = runtime.open("app", ["tty"], stdin=True, stderr=False, tty=True)
    await session.joined()
    await session.ended()
    out["tty"] = os.read(session.stdout, 100).decode()
    session.close()
    out["memory"] = (await runtime.stats("app")).memory_bytes
    os.kill(Folder(folder / "containers" / "app").read_raw()["shim"], 9)
    end = await runtime.wait("app")
    out["killed"] = [end.exit_code, end.reason]
    out["app"] = [line.split(" ", 3)[3] for line in (folder / "app.log").read_text().splitlines()]
    out["owner"] = (folder / "volume" / "written").stat().st_uid
    await runtime.start(spec("root", "id -u; exit 3"))
    out["root"] = [(await runtime.wait("root")).exit_code, (folder / "root.log").read_text().split()[-1]]
    try:
        await runtime.start(spec("groups", "true", uid=1, gid=1, supplemental_groups=(5,)))
    except StartError as error:
        out["groups"] = [error.reason, error.message]
    await runtime.close()
    await cleanup(folder / "containers")
    out["left"] = leftovers(folder / "containers")
    print(json.dumps(out))

async def and_clean_up(folder):
    try:
        await main(folder)
    finally:
        await cleanup(folder / "containers")

asyncio.run(and_clean_up(Path(sys.argv[1])))
"""


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> dict[str, object]:
    """What the program saw, run as a user without rights (or as ourselves, when we are one)."""
    command = [sys.executable]
    base = tmp_path_factory.mktemp("rootless")
    if os.geteuid() == 0:
        if shutil.which("setpriv") is None or PYTHON is None:
            pytest.skip("needs setpriv and an interpreter that other users can read")
        command = ["setpriv", f"--reuid={UID}", f"--regid={UID}", "--clear-groups", PYTHON]
        base = Path("/tmp") / f"switchboard-rootless-{os.getpid()}"  # pytest's own is closed to other users
        base.mkdir(mode=0o755)
        os.chown(base, UID, UID)
    if Path("/proc/sys/user/max_user_namespaces").read_text().strip() == "0":
        pytest.skip("user namespaces are switched off")
    probe = subprocess.run([*command, "-c", "import sys; sys.exit(sys.version_info < (3, 11))"], cwd=ROOT)
    if probe.returncode != 0:
        pytest.skip("that user has no Python ≥ 3.11, or can't read the checkout")
    environment = {"PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1", "PATH": os.environ["PATH"]}
    try:
        done = subprocess.run(
            [*command, "-c", PROGRAM, str(base)],
            cwd="/",
            env=environment,
            capture_output=True,
            text=True,
            timeout=300,
        )
        if "user namespace can't be made" in done.stderr:
            pytest.skip("user namespaces are not allowed here")
        assert done.returncode == 0, done.stderr
        assert done.stderr.count("not enforced here") == 1  # that limits don't hold is said, once
        found: dict[str, object] = json.loads(done.stdout)
        return found
    finally:
        if os.geteuid() == 0:
            shutil.rmtree(base, ignore_errors=True)


def test_the_pods_user_is_honoured_by_mapping(seen: dict[str, object]) -> None:
    lines = seen["app"]
    assert isinstance(lines, list)
    assert lines[0] == lines[1] == "10001"
    assert any("Read-only file system" in line for line in lines)
    assert "end" in lines
    assert seen["owner"] == (UID if os.geteuid() == 0 else os.geteuid())
    assert (seen["exec"], seen["tty"]) == ("10001\n", "/dev/pts/0\r\n")
    assert seen["root"] == [3, "0"]


def test_usage_is_known_without_cgroups(seen: dict[str, object]) -> None:
    assert isinstance(seen["memory"], int)
    assert seen["memory"] > 100_000


def test_dies_with_its_shim_and_leaves_nothing(seen: dict[str, object]) -> None:
    killed = seen["killed"]
    assert isinstance(killed, list)
    assert killed[0] == 137
    assert "shim was killed" in killed[1]
    assert seen["left"] == []


def test_what_cannot_be_honoured_is_said(seen: dict[str, object]) -> None:
    groups = seen["groups"]
    assert isinstance(groups, list)
    assert groups[0] == "CreateContainerConfigError"
    assert "without root" in groups[1]
