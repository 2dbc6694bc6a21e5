"""The runtime of one node: starts containers, watches them, and finds them again after a restart.

It relies on one shim process a container (`shim`), which does what is to be done inside and outlives this object
and its process. All state is in files (`record`), so that two things hold at any moment: what runs can be found from
the folder alone, and what ended is known with its exit code, whether anybody was looking or not.
"""

from __future__ import annotations

import asyncio
import compileall
import contextlib
import errno
import logging
import marshal
import os
import signal
import sys
from collections import Counter
from collections.abc import Coroutine, Sequence
from pathlib import Path
from typing import Any, Literal

from infra.local.runtime import cgroups, sessions
from infra.local.runtime.plan import check, environment, shim_plan
from infra.local.runtime.proctree import tree_stats
from infra.local.runtime.record import Folder, Record
from infra.local.runtime.sessions import Session
from infra.local.runtime.spec import (
    ContainerSpec,
    ContainerState,
    ExecResult,
    ExitStatus,
    NoSuchContainer,
    StartError,
    Stats,
)

log = logging.getLogger(__name__)

SHIM = Path(__file__).with_name("shim.py")
START_TIMEOUT_S = 30.0
VIEWERS_MOST = 56
"""Of a container's `commands.MOST`: those that last as long as their client likes. Probes and hooks have the rest."""
_GRACE_S = 10.0
_SHIM_COMMAND = (sys.executable, "-I", "-S", "-B", str(SHIM))
_SHIM_MODULES = ("supervise.py", "commands.py", "door.py", "sandbox.py", "crilog.py")


class Runtime:
    """The containers of one node, kept in one folder; for one event loop at a time."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory.absolute()
        self.directory.mkdir(parents=True, exist_ok=True)
        self._rootless = os.geteuid() != 0
        self._ends: dict[str, asyncio.Future[ExitStatus]] = {}
        self._watched: dict[str, int] = {}
        self._live_cgroups: dict[str, str] = {}
        self._tasks: set[asyncio.Task[Any]] = set()
        self._viewers: Counter[str] = Counter()
        self._unenforced_said = False
        # A shim compiles nothing itself; where the result can't be kept, it starts slower.
        for module in _SHIM_MODULES:
            with contextlib.suppress(OSError):
                compileall.compile_file(SHIM.with_name(module), quiet=2)

    async def start(self, spec: ContainerSpec) -> ContainerState:
        """Start a container; returns when its program has been executed. Raises StartError, and leaves nothing then.

        The log's folder is made if it is missing.
        """
        check(spec, os.geteuid(), os.getegid())
        folder = Folder(self.directory / spec.id)
        before = self._live_cgroups.get(spec.cgroup)
        self._live_cgroups[spec.cgroup] = spec.id  # before it is made: an earlier run must not remove it now
        preparing = asyncio.create_task(asyncio.to_thread(self._prepare, folder, spec))
        try:
            lock, record = await asyncio.shield(preparing)
        except StartError:
            self._live_cgroups.pop(spec.cgroup)
            if before is not None:
                self._live_cgroups[spec.cgroup] = before
            raise
        except asyncio.CancelledError:
            lock, record = await preparing
            os.close(lock)
            await self._undo(folder, record)
            raise
        try:
            plan = shim_plan(
                spec, folder.path, record.placement.join_files, record.placement.oom_file, self._rootless
            )
            answer = await self._spawn(folder, plan, lock)
        except BaseException as error:
            await asyncio.shield(self._undo(folder, record))
            if isinstance(error, OSError):
                raise StartError("CreateContainerError", f"the shim can't be started: {error}") from error
            raise
        first, _, rest = answer.partition("\n")
        if first != "ok":
            said = rest or _tail(folder.path / "shim.log") or "the shim ended without a word"
            await self._undo(folder, record)
            raise StartError(first or "RunContainerError", said)
        self._say_unenforced(spec, record, rest)
        self._watch(folder)
        return folder.state()

    async def adopt(self) -> list[ContainerState]:
        """All containers of the folder, after a restart of the agent; exits meanwhile are known."""
        folders = await asyncio.to_thread(self._folders)
        return [await self._adopt_one(folder) for folder in folders]

    async def wait(self, id: str) -> ExitStatus:
        """Wait for its end; any number of waiters, also after the end and for adopted containers.

        A container whose shim was killed dies with it: 137, with the reason in `ExitStatus.reason`.
        """
        folder = self._folder(id)
        if id not in self._ends:
            state = folder.state()
            if state.exit is not None:
                return state.exit
            self._watch(folder)
        return await asyncio.shield(self._ends[id])

    async def signal(self, id: str, sig: int) -> None:
        """Send a signal to its first process; nothing happens when it has ended already.

        As PID 1 it ignores signals that it has no handler for, except SIGKILL: so do other runtimes' containers.
        """
        pidfd = self._folder(id).open_program()
        if pidfd is None:
            return
        try:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(pidfd, sig)
        finally:
            os.close(pidfd)

    async def kill(self, id: str) -> None:
        """SIGKILL the whole container (the kernel ends a PID namespace with its first process); waits for the end."""
        await self.signal(id, signal.SIGKILL)
        await self.wait(id)

    async def exec(self, id: str, argv: Sequence[str], timeout_s: float) -> ExecResult:
        """Run a command inside the container, as its user, in its cgroup.

        At the deadline the command and its process group are killed (`timed_out`). Raises NoSuchContainer when the
        container doesn't run, ValueError for a command without words or of more than 128 KiB.
        """
        session = sessions.run(self.directory / id, argv, timeout_s=timeout_s)
        try:
            async with asyncio.timeout(timeout_s + _GRACE_S):
                return await session.collect()
        except TimeoutError:
            return ExecResult(137, b"", True)
        finally:
            session.close()

    def open(self, id: str, argv: Sequence[str], *, stdin: bool, stderr: bool, tty: bool) -> Session:
        """Run a command inside the container with streams of its own; raises as `exec` does, and OSError (no room)."""
        errors: Literal["apart", "none"] = "apart" if stderr else "none"
        self._check_room(id)
        return self._count(id, sessions.run(self.directory / id, argv, stdin=stdin, errors=errors, tty=tty))

    def attach(self, id: str, *, stdin: bool, tty: bool) -> Session:
        """Join the streams of the container's own program (`tty`: it has a terminal).

        Raises NoSuchContainer, OSError (no room).
        """
        self._check_room(id)
        return self._count(id, sessions.join(self.directory / id, stdin=stdin, tty=tty))

    def has_room(self, id: str) -> bool:
        """Whether `open` and `attach` let in one more."""
        return self._viewers[id] < VIEWERS_MOST

    def _check_room(self, id: str) -> None:
        if not self.has_room(id):
            raise OSError(f"{VIEWERS_MOST} commands and viewers are in container {id} already")

    def _count(self, id: str, session: Session) -> Session:
        def leave() -> None:
            self._viewers[id] -= 1
            if not self._viewers[id]:
                del self._viewers[id]

        self._viewers[id] += 1
        session.on_close = leave
        return session

    async def stats(self, id: str) -> Stats:
        """What it uses. Raises NoSuchContainer when it doesn't run."""
        folder = self._folder(id)
        record, raw = folder.read_record(), folder.read_raw()
        if record is None or raw.get("phase") != "running":
            raise NoSuchContainer(f"container {id} doesn't run")
        try:
            return cgroups.stats(record.placement) or tree_stats(raw["pid"])
        except OSError as error:
            raise NoSuchContainer(f"container {id} doesn't run any more") from error

    async def remove(self, id: str) -> None:
        """Forget a container: killed if it runs, then its folder and cgroup go. Its log stays. Twice is fine."""
        folder = Folder(self.directory / id)
        if not folder.path.exists():
            return
        if id in self._ends or (folder.state().exit is None and folder.read_record() is not None):
            await self.kill(id)
        if (record := folder.read_record()) is not None:
            await self._release(id, record)
        await asyncio.to_thread(folder.delete)
        self._ends.pop(id, None)

    async def close(self) -> None:
        """Let go of watchers; the containers go on. Who still waits is cancelled."""
        for pidfd in self._watched.values():
            asyncio.get_running_loop().remove_reader(pidfd)
            os.close(pidfd)
        self._watched.clear()
        for task in list(self._tasks):
            task.cancel()
        for end in self._ends.values():
            end.cancel()
        self._ends.clear()

    def _prepare(self, folder: Folder, spec: ContainerSpec) -> tuple[int, Record]:
        try:
            folder.path.mkdir(mode=0o700)
        except FileExistsError as error:
            message = f"a container {spec.id} is there already"
            raise StartError("CreateContainerError", message) from error
        placement = cgroups.Placement()
        try:
            (folder.path / "root").mkdir()
            spec.log_path.parent.mkdir(parents=True, exist_ok=True)
            placement = cgroups.create(spec.cgroup, spec.limits)
            record = Record.of(spec, environment(spec), self._rootless, placement)
            folder.write_record(record)
            return folder.lock(), record
        except OSError as error:
            busy = error.errno == errno.EBUSY
            if not busy:
                cgroups.remove(placement)
            folder.delete()
            why = f"cgroup {spec.cgroup} is in use by another container" if busy else str(error)
            raise StartError("CreateContainerError", why) from error

    async def _spawn(self, folder: Folder, plan: dict[str, Any], lock: int) -> str:
        """Start the shim, which takes the lock over; its first word, `ok` or what is wrong."""
        try:
            with (folder.path / "shim.log").open("wb") as shim_log:
                process = await asyncio.create_subprocess_exec(
                    *_SHIM_COMMAND,
                    "run",
                    str(lock),
                    folder.id,
                    stdin=-1,
                    stdout=-1,
                    stderr=shim_log,
                    env={},
                    cwd="/",
                    pass_fds=(lock,),
                    start_new_session=True,
                )
        finally:
            os.close(lock)
        try:
            async with asyncio.timeout(START_TIMEOUT_S):
                answer, _ = await process.communicate(marshal.dumps(plan))
        except BaseException as error:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            self._keep(process.wait())
            if isinstance(error, TimeoutError):
                message = f"not started after {START_TIMEOUT_S:.0f} s"
                raise StartError("RunContainerError", message) from None
            raise
        return answer.decode(errors="replace").rstrip("\n")

    async def _undo(self, folder: Folder, record: Record) -> None:
        """Leave nothing of a start that failed, however far it came."""
        for _ in range(500):
            for pidfd in (folder.open_program(), folder.open_shim()):
                if pidfd is not None:
                    with contextlib.suppress(ProcessLookupError):
                        signal.pidfd_send_signal(pidfd, signal.SIGKILL)
                    os.close(pidfd)
            cgroups.kill(record.placement)
            # A shim that hasn't said who it is holds the lock already: it has to say so and be killed first.
            if not folder.shim_lives() and not record.placement.processes():
                break
            await asyncio.sleep(0.02)
        await self._release(folder.id, record)
        await asyncio.to_thread(folder.delete)

    def _say_unenforced(self, spec: ContainerSpec, record: Record, warning: str) -> None:
        missing = ", ".join([*record.placement.unenforced, *([warning] if warning else [])])
        if missing and not self._unenforced_said:
            self._unenforced_said = True
            log.warning("limits of container %s are not enforced here (said once): %s", spec.id, missing)

    def _folders(self) -> list[Folder]:
        return [Folder(path) for path in sorted(self.directory.iterdir()) if path.is_dir()]

    def _folder(self, id: str) -> Folder:
        folder = Folder(self.directory / id)
        if not (folder.path / "spec.json").exists():
            raise NoSuchContainer(f"no container {id}")
        return folder

    async def _adopt_one(self, folder: Folder) -> ContainerState:
        # A shim that was started at the moment when its agent was killed has not said a word yet.
        for _ in range(500):
            if folder.read_raw().get("phase") in ("running", "exited") or not folder.shim_lives():
                break
            await asyncio.sleep(0.02)
        record, state = folder.read_record(), folder.state()
        if state.exit is None:
            if not folder.shim_lives():
                return await self._settle(folder)
            if record is not None:
                self._live_cgroups[record.cgroup] = folder.id
            if folder.id not in self._ends:
                self._watch(folder)
        return state

    def _watch(self, folder: Folder) -> None:
        """Have `_settle` called when the shim ends."""
        loop = asyncio.get_running_loop()
        self._ends[folder.id] = loop.create_future()
        pidfd = folder.open_shim()
        if pidfd is None:
            self._settle_soon(folder)
            return
        self._watched[folder.id] = pidfd
        loop.add_reader(pidfd, self._shim_ended, folder)

    def _shim_ended(self, folder: Folder) -> None:
        pidfd = self._watched.pop(folder.id, None)
        if pidfd is not None:
            asyncio.get_running_loop().remove_reader(pidfd)
            os.close(pidfd)
            self._settle_soon(folder)

    def _settle_soon(self, folder: Folder) -> None:
        self._keep(self._settle_watched(folder))

    def _keep(self, work: Coroutine[Any, Any, Any]) -> None:
        """Have it done in the background (a loop holds its tasks weakly)."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _settle_watched(self, folder: Folder) -> None:
        end = self._ends[folder.id]
        try:
            state = await self._settle(folder)
        except Exception as error:  # whoever waits has to hear of it
            log.exception("container %s: its end can't be settled", folder.id)
            if not end.done():
                end.set_exception(error)
            return
        if state.exit is not None and not end.done():
            end.set_result(state.exit)

    async def _settle(self, folder: Folder) -> ContainerState:
        """The shim is gone: make sure that the container is, and that its end is recorded."""
        record, state = folder.read_record(), folder.state()
        if state.exit is None:
            await self._end_orphan(folder, record)
            state = folder.mark_lost("the container's shim was killed, or the machine went down")
            log.warning("container %s: its shim was lost", folder.id)
        if record is not None:
            await self._release(folder.id, record)
        return state

    async def _end_orphan(self, folder: Folder, record: Record | None) -> None:
        """The kernel kills a container with its shim; wait for that, and help it along."""
        for _ in range(500):
            pidfd = folder.open_program()
            if pidfd is not None:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    signal.pidfd_send_signal(pidfd, signal.SIGKILL)
                os.close(pidfd)
            if pidfd is None and not (record and record.placement.processes()):
                return
            await asyncio.sleep(0.02)
        log.error("container %s: its processes don't end", folder.id)

    async def _release(self, id: str, record: Record) -> None:
        """Remove the cgroup, unless a later run of the container has taken it over."""
        if self._live_cgroups.get(record.cgroup, id) != id:
            return
        self._live_cgroups.pop(record.cgroup, None)
        left = await asyncio.to_thread(cgroups.remove, record.placement)
        for place in left:
            log.warning("container %s: cgroup %s can't be removed", id, place)


def _tail(path: Path) -> str:
    try:
        lines = path.read_text(errors="replace").strip().splitlines()
    except OSError:
        return ""
    return lines[-1] if lines else ""
