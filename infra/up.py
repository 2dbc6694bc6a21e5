"""`switchboard up`: from the tools to the answered question, each step shown with its time.

Every step finds out what is missing and does just that, so a run that was cut off, or a cloud with a part that
died, is repaired by running it again.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

from infra import config, pulumi_cli
from infra.ask import Answered, ask
from infra.local import cloud, toolchain
from infra.status import MISSING, Status, read
from switchboard.errors import SwitchboardError
from switchboard.progress import Progress

T = TypeVar("T")

QUESTION = "I lost my card yesterday, what should I do?"


def up(stack_name: str, progress: Progress, *, question: str = QUESTION) -> Answered:
    """Bring the embedded stack up and ask `question` at its first edge gateway (its gateway where it has no edge).

    Raises:
        SwitchboardError: what failed, why and what to do; what came up stays up.
    """
    started = time.monotonic()
    stack = config.load(stack_name)
    if any(site.embedded is None for site in stack.sites):
        raise SwitchboardError(
            f"stack {stack_name} has sites that are existing clusters, which `up` doesn't make",
            f"use `pulumi up --stack {stack_name}` for it",
        )
    with cloud.exclusive(stack_name, "switchboard up"):
        tools = toolchain.ensure(progress)
        # Neither needs the sites: the plugin is looked for, and the policies are asked, while these come up.
        plugin = _in_background(lambda: pulumi_cli.ensure_plugin(stack_name, tools))
        allowed = _in_background(lambda: _check_policies(stack, stack_name))
        cloud.up(stack_name, progress)
        allowed.result()
        which = plugin.result()
        if which == "stand-in":
            progress.note(
                "  the official Kubernetes plugin can't be fetched here: using Switchboard's stand-in"
            )
        pulumi_cli.ensure_stack(stack_name, tools)
        # Pulumi goes by its state: what somebody deleted behind its back comes back only where it looks first.
        lost = any(part.note == MISSING for part in read(stack_name).parts)
        summary = pulumi_cli.up(stack_name, tools, progress, refresh=lost)
        progress.note(f"  {summary}")
        status = read(stack_name)
        url = _entrance(status)
        with progress.step(f"a customer's question to {url}"):
            answered = ask(url, question)
    progress.note(f"up in {time.monotonic() - started:.1f} s")
    return answered


def _check_policies(stack: config.Stack, stack_name: str) -> None:
    from infra.policy.stack import (
        check,
    )  # with Pulumi's SDK: half a second that the other steps needn't wait for

    check(stack, stack_name)


def _in_background(work: Callable[[], T]) -> Future[T]:
    """`work` in a thread that nobody waits for, not at this process's end either, but who asks for its result: what
    fails meanwhile is told at once."""
    future: Future[T] = Future()

    def run() -> None:
        try:
            future.set_result(work())
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return future


def _entrance(status: Status) -> str:
    edges = status.endpoints.edges
    if edges:
        return edges[sorted(edges)[0]]
    if status.endpoints.gateway is None:
        raise SwitchboardError("there is no gateway", "`switchboard status` shows what is missing")
    return status.endpoints.gateway
