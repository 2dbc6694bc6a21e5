"""The embedded cloud of a stack: all its embedded sites, brought up, looked at and taken down at once.

    with exclusive("local", "switchboard up"):
        up("local", progress)

`up`, `down` and `clean` change the stack and rely on their caller to hold `exclusive`; `status` needs no lock. Each
can be called at any time, whatever the one before was cut off in.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import shutil
import sys
from collections.abc import Collection, Coroutine, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from infra import config, locks
from infra.local import controlplane, health, leftovers, site, teardown, toolchain
from infra.local.health import Component, NodeHealth, SiteHealth
from infra.local.layout import SiteLayout
from switchboard import paths
from switchboard.errors import SwitchboardError
from switchboard.progress import Progress

__all__ = ["Component", "NodeHealth", "SiteHealth", "clean", "down", "exclusive", "status", "tools", "up"]


@contextmanager
def exclusive(stack_name: str, what: str) -> Iterator[None]:
    """Hold the stack's lock while changing it; `what` is told to whoever comes meanwhile.

    Raises:
        SwitchboardError: at once where another process holds it; names that process.
    """
    path = paths.state_root() / f"{stack_name}.lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    directory = paths.state_dir(stack_name)
    with path.open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            holder = file.read().strip() or "another `switchboard` command"
            raise SwitchboardError(
                f"{holder} is at work on stack {stack_name}", "wait until it is done, or stop it first"
            ) from None
        file.truncate(0)
        file.write(locks.me(what))
        file.flush()
        _make_private(stack_name)
        try:
            yield
        finally:
            with contextlib.suppress(OSError):
                directory.rmdir()  # nothing came into it
            file.truncate(0)


def _make_private(stack_name: str) -> None:
    """The stack's state folder, for its owner alone: it holds keys, passwords and customers' words."""
    directory = paths.state_dir(stack_name)
    with _as_owner(stack_name):
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        directory.chmod(0o700)  # also one that is there already


def tools() -> dict[str, Path]:
    """The control planes' executables.

    Raises:
        SwitchboardError: one is missing (`infra.local.toolchain.ensure` makes them).
    """
    found = toolchain.locate(controlplane.NAMES)
    return {name: found.path(name) for name in controlplane.NAMES}


@contextmanager
def _as_owner(stack_name: str) -> Iterator[None]:
    try:
        yield
    except PermissionError as error:
        what = f"not allowed: {error.filename}" if error.filename else str(error)
        raise SwitchboardError(
            f"stack {stack_name}: {what}", "run this as the user who brought the stack up"
        ) from None


def layouts(stack_name: str) -> list[SiteLayout]:
    """The stack's embedded sites."""
    state = paths.state_dir(stack_name)
    return [SiteLayout(found, state) for found in config.load(stack_name).sites if found.embedded]


def up(
    stack_name: str,
    progress: Progress,
    *,
    nodes: bool = True,
    proxy: bool = True,
    sites: Collection[str] | None = None,
) -> None:
    """Bring all embedded sites up (or those named), or what of them isn't up; without node agents or Service proxies
    if so asked.

    Raises:
        SwitchboardError: what didn't come up and why. Addresses in use are found before anything is started.
    """
    _linux_only()
    found = tools()
    wanted = [site.EmbeddedSite(stack_name, layout) for layout in layouts(stack_name)]
    _make_private(stack_name)
    _drop_removed_sites(stack_name, {each.name for each in wanted}, progress)

    async def all_sites() -> None:
        named = [each for each in wanted if sites is None or each.name in sites]
        prepared = [site.prepare(each, found, nodes=nodes, proxy=proxy) for each in named]
        await _together(
            [
                site.run(each, programs, progress, nodes=nodes, proxy=proxy)
                for each, programs in zip(named, prepared, strict=True)
            ]
        )

    with _as_owner(stack_name):
        asyncio.run(all_sites())


def down(stack_name: str, progress: Progress) -> None:
    """Stop all that `up` started; data, volumes and logs stay.

    It works without a readable stack file as well, by the records alone; pods have no graceful end then.

    Raises:
        SwitchboardError: a process, a mount or a control group would not go; names it.
    """
    try:
        known = {layout.name: [node.name for node in layout.nodes] for layout in layouts(stack_name)}
    except SwitchboardError as error:
        known = {}
        if _site_directories(stack_name):
            progress.note(f"  {error.what}: going by the records, pods are killed")
    _down(stack_name, _site_directories(stack_name), known, progress)


def clean(stack_name: str, progress: Progress) -> None:
    """`down`, and remove the stack's state: its sites' data and volumes too. Built tools stay.

    Raises:
        SwitchboardError: as `down`, or a file would not go.
    """
    down(stack_name, progress)
    directory = paths.state_dir(stack_name)
    if mounts := leftovers.mounts_below(directory):  # what is mounted there is not ours to delete
        raise SwitchboardError(f"{mounts[0]} is still mounted", f"unmount it, then remove {directory}")
    if directory.exists():
        with progress.step(f"remove {directory}"):
            try:
                shutil.rmtree(directory)
            except OSError as error:
                raise SwitchboardError(
                    f"can't remove {error.filename}: {error.strerror}", "remove it as the user it belongs to"
                ) from None


def status(stack_name: str) -> list[SiteHealth]:
    """The health of each embedded site, in the stack file's order.

    Raises:
        SwitchboardError: the stack file is wrong.
    """

    async def look() -> list[SiteHealth]:
        return list(await asyncio.gather(*(health.look(layout) for layout in layouts(stack_name))))

    return asyncio.run(look())


def _site_directories(stack_name: str) -> list[Path]:
    sites = paths.state_dir(stack_name) / "sites"
    return sorted(path for path in sites.iterdir() if path.is_dir()) if sites.is_dir() else []


def _drop_removed_sites(stack_name: str, wanted: set[str], progress: Progress) -> None:
    gone = [path for path in _site_directories(stack_name) if path.name not in wanted]
    _down(stack_name, [path for path in gone if any((path / "run").glob("*.json"))], {}, progress)


def _down(
    stack_name: str, directories: Sequence[Path], known: dict[str, list[str]], progress: Progress
) -> None:
    def one(directory: Path) -> SwitchboardError | None:
        try:
            with progress.step(f"{directory.name}: stop") as step:
                teardown.down(directory, stack_name, step, known.get(directory.name, ()))
        except SwitchboardError as error:
            return error
        return None

    with _as_owner(stack_name), ThreadPoolExecutor() as pool:
        errors = [error for error in pool.map(one, directories) if error is not None]
    _raise_all(errors)


async def _together(work: list[Coroutine[Any, Any, None]]) -> None:
    """All of them to their ends, though one fails: what can come up does, and every failure is told."""
    results = await asyncio.gather(*work, return_exceptions=True)
    for result in results:
        if isinstance(result, BaseException) and not isinstance(result, SwitchboardError):
            raise result
    _raise_all([result for result in results if isinstance(result, SwitchboardError)])


def _raise_all(errors: list[SwitchboardError]) -> None:
    if len(errors) == 1:
        raise errors[0]
    if errors:
        steps = dict.fromkeys(error.next_step for error in errors if error.next_step)
        raise SwitchboardError("\n".join(error.what for error in errors), "; ".join(steps) or None)


def _linux_only() -> None:
    if not sys.platform.startswith("linux"):
        raise SwitchboardError(
            f"the embedded cloud runs on Linux only (this is {sys.platform})",
            "use a stack of existing clusters: their sites name a kubeconfig context",
        )
